"""The floors of the house: imports run only downwards, and the lower rooms are usable alone."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import inna_tune

ROOT = Path(inna_tune.__file__).parent
FLOORS = {
    "files": -1,
    "clock": -1,
    "optim": 0,
    "nets": 0,
    "store": 0,
    "engine": 1,
    "space": 1,
    "estimators": 2,
}
FLOORS |= {"tables": 3, "records": 3, "study": 4, "jobs": 5, "plots": 6, "report": 7, "cli": 8}
KNOWS = {  # of what lies below
    "space": {"optim"},
    "engine": {"nets", "optim"},
    "store": set(),
    "records": {"optim", "space", "store"},
    "tables": {"estimators"},
}
FILES = sorted(p for p in ROOT.rglob("*.py") if p.parent != ROOT)


def imported_rooms(tree):
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "inna_tune" and len(parts) > 1:
                yield parts[1]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_down_the_floors(path):
    here = path.relative_to(ROOT).parts[0].removesuffix(".py")
    for room in imported_rooms(ast.parse(path.read_text())):
        allowed = room == here or FLOORS[room] < FLOORS[here]
        assert allowed, f"{here} imports {room}"
        assert here not in KNOWS or room in KNOWS[here] | {here, "files", "clock"}, f"{here} imports {room}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_is_one_idea(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 520, f"{len(lines)} lines"
    if path.parent.name != "cli":
        assert not any(re.match(r"\s*print\(", line) for line in lines)


UNKNOWN = {
    "optim": ["pandas", "sklearn", "optuna", "inna_tune.space", "inna_tune.engine"],
    "space": ["pandas", "sklearn", "inna_tune.engine", "inna_tune.estimators"],
    "nets": ["pandas", "sklearn", "optuna"],
    "engine": ["pandas", "sklearn", "optuna"],
}
# In a child for each room of one process that has loaded what every room may, since that takes longest.
LOADED = """
import importlib, json, os, sys, torch
assert not [m for m in sys.modules if m.startswith("inna_tune")]
for room, unknown in json.loads(sys.argv[1]).items():
    assert not set(unknown) & set(sys.modules)
    if os.fork() == 0:
        importlib.import_module(f"inna_tune.{room}")
        os.write(1, f"{room}: {[m for m in unknown if m in sys.modules]}\\n".encode())
        os._exit(0)
    os.wait()
"""


def test_a_room_does_not_load_what_it_does_not_know():
    words = [sys.executable, "-c", LOADED, json.dumps(UNKNOWN)]
    found = subprocess.run(words, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines() == [f"{room}: []" for room in UNKNOWN]


def test_public_names_are_there():
    for name in inna_tune.__all__:
        assert getattr(inna_tune, name).__doc__
    assert set(inna_tune.__all__) <= set(dir(inna_tune))
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        inna_tune.Nonsense  # noqa: B018

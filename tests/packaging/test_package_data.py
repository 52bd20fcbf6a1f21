"""What is no module comes along only where pyproject.toml says so."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "inna_tune"


def test_every_data_file_is_declared():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    declared = {
        path
        for pattern in settings["package-data"]["inna_tune"]
        for path in PACKAGE.glob(pattern)
        if path.is_file()
    }
    there = {
        path
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"} and "__pycache__" not in path.parts
    }
    assert there == declared
    assert PACKAGE / "py.typed" in there

"""The command line starts without what only training needs."""

import json
import os
import subprocess
import sys

import optuna
import pytest

from inna_tune import SearchSpace
from inna_tune.records.attributes import CURVATURE, FINGERPRINT
from inna_tune.records.certainty import Gain
from inna_tune.records.heldout import HeldOut, record_held_out
from inna_tune.store.opening import create_study, open_storage

TRAINING = ("torch", "sklearn", "pandas", "skrub", "matplotlib", "joblib")
PRINTING = (*TRAINING, "optuna", "numpy", "scipy", "sqlalchemy")
# The libraries decide, within bounds: 340 and 1,060 modules were measured, and 2,190 with torch and pandas.
FEW, SOME = 500, 1300

SCRIPT = """
import json, sys
from inna_tune.cli import main
sys.argv[1:] = json.loads(sys.argv[1])
try:
    main()
except SystemExit as end:
    print(json.dumps([end.code, sorted(sys.modules)]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With a study that has all that is told of one."""
    folder = tmp_path_factory.mktemp("studies")
    study = create_study(open_storage(f"sqlite:///{folder}/inna_tune.db"), "s", "maximize", resume=False)
    space = SearchSpace.inna(curvature=30.0)
    for seed in range(2):
        trial = study.ask()
        space.suggest(trial)
        study.tell(trial, -0.5 - seed)
    study.set_user_attr(CURVATURE, 30.0)
    study.set_user_attr(FINGERPRINT, {"metric": "neg_log_loss", "rows": 9, "space": space.to_json()})
    record_held_out(
        study, HeldOut("binary", 9, 0, {"tuned": {"log-loss": 0.5}}, Gain(-0.1, -0.2, -0.05), luck=True)
    )
    optuna.create_study(storage=f"sqlite:///{folder}/other.db", study_name="other")
    return folder


def start(folder, *words):
    """What a command prints, and all modules that it has loaded at its end."""
    command = [sys.executable, "-c", SCRIPT, json.dumps(words)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    said, _, last = done.stdout.rstrip().rpartition("\n")
    code, modules = json.loads(last)
    assert code == 0, done.stderr
    return said, set(modules)


@pytest.mark.parametrize("words", [["--help"], ["fit", "--help"], ["--version"]])
def test_what_only_prints_a_few_lines_imports_nothing_heavy(tmp_path, words):
    _, modules = start(tmp_path, *words)
    assert not modules.intersection(PRINTING)
    assert len(modules) < FEW


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["studies"], ["log-loss"]),
        (["show", "s"], ["Tuning lowered the held-out log-loss", "The best: effective step"]),
        (["studies", "export", "s", "-o", "s.db"], ["Wrote study s"]),
        (["studies", "import", "other.db"], ["Took in study other"]),
    ],
)
def test_what_only_reads_studies_imports_nothing_that_trains(folder, words, expected):
    said, modules = start(folder, *words)
    assert all(each in said for each in expected)
    assert not modules.intersection(TRAINING)
    assert len(modules) < SOME


@pytest.mark.skipif(sys.platform == "win32", reason="words are text there")
def test_a_locale_without_the_letters_of_a_word_does_not_hide_them(tmp_path):
    program = [sys.executable, "-c", "from inna_tune.cli import main; main()"]
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment = {name: value for name, value in os.environ.items() if name != "LANG"} | plain
    url = f"sqlite:///{tmp_path}/größen.db"
    optuna.create_study(storage=url, study_name="größe")
    words = ["show", "größer", "--storage", url]
    done = subprocess.run([*program, *words], capture_output=True, cwd=tmp_path, env=environment)
    said = done.stderr.decode()
    assert done.returncode == 2, said
    assert "größer" in said
    assert "did you mean 'größe'" in said

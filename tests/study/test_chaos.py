"""Workers are killed at random moments, by studies/chaos.py, which has the long version."""

import json
from pathlib import Path

import optuna
import pytest
from optuna.storages import InMemoryStorage
from sklearn.datasets import load_iris

from inna_tune.records.attributes import ENSEMBLE
from inna_tune.study import ensemble
from tests.warm import Program

FAULTS = "lost", "running", "inexact", "duplicates"
STUDIES = Path(__file__).parents[2] / "studies"

# In a process of its own: its workers are forks, and this one has threads.
CODE = """
import dataclasses, json, sys, warnings
sys.path.insert(0, sys.argv[1])
warnings.simplefilter("ignore")
import chaos
arguments = json.loads(sys.argv[2])
print(json.dumps(dataclasses.asdict(chaos.chaos(arguments.pop("url"), **arguments))))
"""


def chaos(**arguments):
    with Program(CODE, STUDIES, json.dumps(arguments)) as program:
        out, err = program.communicate()
    assert program.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def comparable(study):
    """Column by column, but for times and who ran it."""
    told = ("scores", "seed", "epochs", "best_epoch", "reason")
    return [
        (t.number, t.state, t.value, t.params, t.intermediate_values, [t.user_attrs.get(n) for n in told])
        for t in study.get_trials()
    ]


def test_one_worker_killed_at_six_random_moments_leaves_the_study_that_would_have_been(tmp_path, monkeypatch):
    url, n_trials = f"sqlite:///{tmp_path}/s.db", 12
    count = chaos(url=url, n_workers=1, n_kills=6, n_trials=n_trials, longest=0.5)
    assert count["kills"] == 6
    assert {name: count[name] for name in FAULTS} == dict.fromkeys(FAULTS, 0)
    assert not (tmp_path / "s.db.checkpoints").exists()
    monkeypatch.syspath_prepend(str(STUDIES))
    import chaos as study

    monkeypatch.setattr(ensemble, "ENOUGH_FOLDS", 2)
    X, y = load_iris(return_X_y=True, as_frame=True)
    straight = study.search(InMemoryStorage(), "straight", n_trials).set_params(refit="ensemble").fit(X, y)
    found = optuna.load_study(study_name="chaos 0", storage=url)
    assert comparable(found) == comparable(straight.study_)
    # What trials have left, too: the ensemble is the one that would have been.
    again = study.search(url, "chaos 0", n_trials).set_params(refit="ensemble").fit(X, y)
    assert again.study_.user_attrs[ENSEMBLE] == straight.study_.user_attrs[ENSEMBLE]
    assert again.predict_proba(X).tobytes() == straight.predict_proba(X).tobytes()


@pytest.mark.parametrize("seed", [1])
def test_several_workers_killed_at_random_lose_nothing_and_end_exact(tmp_path, seed):
    count = chaos(url=f"sqlite:///{tmp_path}/s.db", n_workers=3, n_kills=4, n_trials=12, seed=seed)
    assert count["kills"] == 4
    assert {name: count[name] for name in FAULTS} == dict.fromkeys(FAULTS, 0)

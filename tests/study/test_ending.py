"""A search with several workers that is told to end, or killed, while they train: real processes, real signals."""

import contextlib
import json
import os
import signal
import sqlite3
import sys
import time
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.samplers import RandomSampler
from optuna.trial import TrialState
from sklearn.datasets import load_iris

from inna_tune import InnaClassifier, InnaSearchCV, PriorSampler, SearchSpace
from inna_tune.store.opening import open_storage
from inna_tune.store.store import OWNER
from inna_tune.store.workers import Worker
from tests.warm import Program

IRIS = load_iris(return_X_y=True, as_frame=True)
SPACE = SearchSpace.inna(curvature=20.0)
EPOCHS = 1600  # nobody finishes a trial before the signal comes

CODE = """
import sys
from tests.study.test_ending import IRIS, search
search(sys.argv[1], n_jobs=2).fit(*IRIS)
"""


def search(storage, *, n_jobs):
    """With a sampler that learns nothing, so that a trial is the same whoever ran before it."""
    return InnaSearchCV(
        InnaClassifier(hidden_layer_sizes=(8,), max_epochs=EPOCHS, early_stopping=False),
        SPACE,
        sampler=PriorSampler(RandomSampler(), SPACE, k=np.inf, seed=0),
        pruner=optuna.pruners.NopPruner(),
        n_trials=4,
        cv=2,
        population=1,
        storage=storage,
        study_name="s",
        resume=True,
        n_jobs=n_jobs,
        random_state=0,
        refit=False,
    )


def is_running(pid):
    """Whether a process that is no child of ours is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(condition, process=None):
    while not (found := condition()):
        assert process is None or process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    return found


def owners(database, *, reported=False):
    """Number and process of each running trial, or of each that has got to a rung."""
    query = """
        SELECT number, value_json FROM trials JOIN trial_system_attributes USING (trial_id)
        WHERE state = 'RUNNING' AND key = 'inna_tune:worker'
    """
    if reported:
        query += " AND EXISTS (SELECT 1 FROM trial_intermediate_values i WHERE i.trial_id = trials.trial_id)"
    # NOTE: by sqlite3, since Optuna's storage takes longer to open than the workers to end.
    with contextlib.closing(sqlite3.connect(database, timeout=30)) as connection:
        try:
            return {number: json.loads(owner)["pid"] for number, owner in connection.execute(query)}
        except sqlite3.OperationalError:  # no tables yet
            return {}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(
    "blow",
    [
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
        signal.SIGKILL,
    ],
)
def test_workers_end_with_who_gave_the_work_and_keep_what_they_had(tmp_path, blow):
    database, folder = tmp_path / "s.db", tmp_path / "s.db.checkpoints"
    url = f"sqlite:///{database}"
    root = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    process = Program(CODE, url, env=os.environ | {"PYTHONPATH": root})
    pids = []
    try:
        # Both are at work: each has got to the first rung of a trial.
        wait_for(database.exists, process)
        wait_for(lambda: len(set(owners(database, reported=True).values())) == 2, process)
        owned = owners(database)
        pids = list(set(owned.values()))
        assert process.pid not in pids
        process.send_signal(blow)
        _, said = process.communicate()
        wait_for(lambda: not any(map(is_running, pids)))
    finally:
        process.kill()
        for pid in pids:
            if is_running(pid):
                os.kill(pid, signal.SIGKILL)
    codes = {signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGKILL: -signal.SIGKILL}
    assert process.returncode == codes[blow], said
    saved = {int(path.stem.split("-")[1]) for path in folder.glob("*.safetensors")}
    assert saved >= set(owned), "trials in hand have a checkpoint, whoever told their workers to end"
    storage = open_storage(url)
    with Worker(storage) as watcher:
        study = optuna.load_study(study_name="s", storage=storage)
        left = [t for t in study.trials if not t.state.is_finished() and OWNER in t.system_attrs]
        assert {t.number for t in left} >= set(owned)
        # Whoever ends in good order puts back what is in hand.
        assert {t.state for t in left} == {TrialState.WAITING}
        assert not any(watcher.is_alive(t.system_attrs[OWNER]) for t in left)
    assert not list(tmp_path.glob("s.db.locks/*"))

"""Several workers on one search: as many trials as asked for, each trained as by one, whoever dies."""

import os
import signal
import threading
from pathlib import Path

import joblib
import numpy as np
import optuna
import pytest
from optuna.samplers import RandomSampler
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState
from sklearn.datasets import load_iris

from inna_tune import InnaClassifier, InnaSearchCV, PriorSampler, SearchSpace
from inna_tune.store.opening import open_storage
from inna_tune.store.store import OWNER
from inna_tune.store.workers import Worker
from inna_tune.study.signals import Abandonment

NET = InnaClassifier(hidden_layer_sizes=(4,), max_epochs=4, n_members=1)
IRIS = load_iris(return_X_y=True, as_frame=True)
SPACE = SearchSpace.inna(curvature=20.0)


def search(**changes):
    """With a sampler that learns nothing, so that a trial is the same whoever ran before it."""
    settings = {
        "space": SPACE,
        "sampler": PriorSampler(RandomSampler(), SPACE, k=np.inf, seed=0),
        "pruner": optuna.pruners.NopPruner(),
    }
    return InnaSearchCV(
        NET, **(settings | {"n_trials": 8, "cv": 2, "random_state": 0, "population": 2} | changes)
    )


def comparable(study):
    return [
        (t.number, t.params, t.value, t.state, t.intermediate_values, t.user_attrs["scores"])
        for t in study.trials
    ]


@pytest.fixture(scope="module")
def straight():
    return comparable(search().fit(*IRIS).study_)


class DeadlyScorer:
    """Kills the process that first asks it."""

    def __init__(self, flag):
        self.flag = str(flag)

    def __call__(self, model, X, y):
        try:
            os.close(os.open(self.flag, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return float(np.mean(model.predict(X) == y))
        os.kill(os.getpid(), signal.SIGKILL)
        return 0.0


def test_processes_share_a_study_exactly_and_train_as_one_does_though_one_is_killed(tmp_path):
    seen, scorer = [], DeadlyScorer(tmp_path / "flag")
    found = search(
        n_jobs=2,
        scoring=scorer,
        callbacks=[lambda study, trial: seen.append((trial.number, os.getpid()))],
    ).fit(*IRIS)
    assert (tmp_path / "flag").exists(), "nobody was killed"
    assert all(t.state == TrialState.COMPLETE for t in found.study_.trials)
    assert max(t.system_attrs[OWNER]["attempt"] for t in found.study_.trials) == 2
    assert comparable(found.study_) == comparable(search(scoring=scorer).fit(*IRIS).study_)
    assert sorted(seen) == [(number, os.getpid()) for number in range(8)]
    assert os.getpid() not in {t.system_attrs[OWNER]["pid"] for t in found.study_.trials}
    assert isinstance(found.study_._storage, InMemoryStorage)
    assert found.predict(IRIS[0]).shape == (150,)


@pytest.fixture
def threads():
    """Workers as threads, which need not load anything."""
    with joblib.parallel_config(backend="threading"):
        yield


class FailingScorer:
    """Raises what is no Exception of a trial's own, in the thread that first asks."""

    def __init__(self, error):
        self.error, self.lock = error, threading.Lock()

    def __call__(self, model, X, y):
        with self.lock:
            error, self.error = self.error, None
        if error is not None:
            raise error
        return 0.5


@pytest.mark.usefixtures("threads")
def test_a_failing_worker_stops_nobody(monkeypatch, caplog):
    from inna_tune.study import running

    tell, failures = running.tell, [OSError("the disk is gone")]

    def failing(*args, **kwargs):
        if failures:
            raise failures.pop()
        return tell(*args, **kwargs)

    monkeypatch.setattr(running.TrialRunner, "fail", lambda self, trial, error: (_ for _ in ()).throw(error))
    monkeypatch.setattr(running, "tell", failing)
    found = search(n_jobs=2, population=1).fit(*IRIS)
    assert "the disk is gone" in caplog.text
    assert [t.state for t in found.study_.trials] == [TrialState.COMPLETE] * 8


@pytest.mark.usefixtures("threads")
def test_workers_that_all_fail_again_and_again_end_the_search(monkeypatch):
    from inna_tune.study.running import TrialRunner

    def failing(self, *args):
        raise OSError("the disk is gone")

    monkeypatch.setattr(TrialRunner, "run_cohort", failing)
    with pytest.raises(OSError, match="the disk is gone"):
        search(n_jobs=2).fit(*IRIS)


@pytest.mark.usefixtures("threads")
def test_an_error_of_a_trial_comes_through_and_ends_the_others():
    scorer = FailingScorer(RuntimeError("no score today"))
    with pytest.raises(RuntimeError, match="no score today"):
        search(n_jobs=2, n_trials=10_000, scoring=scorer, error_score="raise").fit(*IRIS)


@pytest.mark.usefixtures("threads")
def test_a_callback_that_interrupts_ends_all_workers_and_keeps_the_trials():
    def interrupt(study, trial):
        raise KeyboardInterrupt

    stopped = search(n_jobs=2, n_trials=10_000, callbacks=[interrupt])
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(*IRIS)
    assert any(t.state == TrialState.COMPLETE for t in stopped.study_.trials)
    assert not [t for t in threading.enumerate() if t.name == "inna-tune workers"]


@pytest.mark.usefixtures("threads")
def test_a_timeout_ends_all_workers():
    found = search(n_jobs=2, n_trials=10_000, timeout=4.0).fit(*IRIS)
    assert len(found.study_.trials) < 10_000
    assert not any(t.state == TrialState.RUNNING for t in found.study_.trials)
    assert np.isfinite(found.predict_proba(IRIS[0])).all()


@pytest.mark.usefixtures("threads")
def test_a_resumed_study_goes_on_with_several_workers(tmp_path, straight):
    url = f"sqlite:///{tmp_path}/s.db"
    search(n_trials=3, storage=url, study_name="s").fit(*IRIS)
    resumed = search(n_jobs=-1, storage=url, study_name="s", resume=True).fit(*IRIS)
    assert resumed.resumed_.finished == 3
    assert comparable(resumed.study_) == straight
    assert {p.name for p in Path(tmp_path).iterdir()} <= {"s.db", "s.db-wal", "s.db-shm", "s.db.trained"}


def test_workers_end_when_who_gave_the_work_is_gone(tmp_path):
    storage = open_storage(f"sqlite:///{tmp_path}/s.db")
    with Worker(storage) as worker:
        with Worker(storage) as giver:
            assert not Abandonment(worker, giver.record)()
            gone = Abandonment(worker, giver.record)
        assert gone()


def test_a_storage_that_only_this_process_sees_is_refused():
    with pytest.raises(ValueError, match=r"storage=InMemoryStorage.*n_jobs must be 1"):
        search(n_jobs=2, storage=InMemoryStorage()).fit(*IRIS)


@pytest.mark.parametrize("value", [0, 1.5, True, "all"])
def test_n_jobs_that_makes_no_sense(value):
    with pytest.raises(ValueError, match=r"n_jobs=.*-1 for one a core"):
        search(n_jobs=value).fit(*IRIS)


def test_workers_may_be_placed_by_dask(tmp_path, straight):
    """`joblib.parallel_config` says where; here on a cluster of two threads (examples/dask_workers.py has processes)."""
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=False,
        dashboard_address=None,
        local_directory=str(tmp_path),
    )
    with cluster, distributed.Client(cluster), joblib.parallel_config(backend="dask"):
        found = search(n_jobs=None).fit(*IRIS)
    assert comparable(found.study_) == straight

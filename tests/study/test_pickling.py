"""A search in another place: it predicts, tells of its study, and leaves everything there as it is."""

import copy
import json
import os
import pickle
from pathlib import Path

import joblib
import numpy as np
import optuna
import pytest
from optuna.storages import InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sklearn.base import clone
from sklearn.datasets import load_iris

from inna_tune import InnaClassifier, InnaSearchCV
from inna_tune.records.attributes import SEED
from inna_tune.report import render_report
from inna_tune.study import ProgressBar, StorageError, open_storage
from tests.warm import Program

X, Y = load_iris(return_X_y=True, as_frame=True)
NET = InnaClassifier(hidden_layer_sizes=(4,), n_members=1, max_epochs=2)

STORAGES = {
    "memory": lambda folder: None,
    "memory object": lambda folder: InMemoryStorage(),
    "URL": lambda folder: f"sqlite:///{folder}/s.db",
    "relative URL": lambda folder: "sqlite:///s.db",
    "opened": lambda folder: open_storage(f"sqlite:///{folder}/s.db"),
    "Optuna's": lambda folder: RDBStorage(f"sqlite:///{folder}/s.db"),
    "journal": lambda folder: JournalStorage(JournalFileBackend(f"{folder}/s.log")),
}
# One of each kind that a copy's storage is: none, a URL, an object that stayed behind. A report takes long to render.
REPORTED = ("memory", "relative URL", "journal")

ELSEWHERE = """
import json, pickle, sys
events = []
def hook(event, args):
    if event in ("sqlite3.connect", "socket.connect", "os.mkdir", "os.rename") or (
        event == "open" and isinstance(args[2], int) and args[2] & 0o3
    ):
        events.append([event, repr(args)])
import joblib, numpy, pandas, torch, sklearn.datasets
import inna_tune.study.search, inna_tune.report
X = sklearn.datasets.load_iris(as_frame=True).data
sys.addaudithook(hook)
reported, *names = sys.argv[1:]
for name in names:
    load = joblib.load if name.endswith("joblib") else lambda path: pickle.loads(open(path, "rb").read())
    search = load(name)
    search.predict(X)
    found = {
        "probabilities": search.predict_proba(X).tolist(),
        "best": search.study_.best_params,
        "trials": len(search.trials_dataframe()),
    }
    if name in reported.split():
        found["report"] = len(inna_tune.report.render_report(search)) > 1000
    events.append(["done", name])
    print(json.dumps(found))
print(json.dumps([event for event in events if event[0] != "done"]))
"""


def search(storage, **more):
    settings = {"n_trials": 2, "cv": 2, "random_state": 0, "study_name": "s"} | more
    return InnaSearchCV(NET, storage=storage, **settings)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    found = {}
    here = Path.cwd()
    for name, make in STORAGES.items():
        folder = tmp_path_factory.mktemp("there")
        os.chdir(folder)
        try:
            found[name] = folder, search(make(folder)).fit(X, Y)
        finally:
            os.chdir(here)
    return found


def test_in_another_process_and_folder_it_predicts_and_makes_nothing(fitted, tmp_path):
    names, reported = [], []
    for number, (storage, (folder, found)) in enumerate(fitted.items()):
        here = Path.cwd()
        os.chdir(folder)
        try:
            names += [tmp_path / f"{number}.pickle", tmp_path / f"{number}.joblib"]
            names[-2].write_bytes(pickle.dumps(found))
            joblib.dump(found, names[-1])
        finally:
            os.chdir(here)
        if storage in REPORTED:
            reported.append(str(names[-2]))
        # The database can't be there either, nor be made anew.
        folder.rename(folder.with_name(f"{folder.name}, moved"))
    before = sorted(tmp_path.iterdir())
    tmp_path.chmod(0o555)
    try:
        with Program(ELSEWHERE, " ".join(reported), *names, cwd=tmp_path) as elsewhere:
            output, said = elsewhere.communicate()
    finally:
        tmp_path.chmod(0o755)
        for folder, _ in fitted.values():
            folder.with_name(f"{folder.name}, moved").rename(folder)
    assert elsewhere.returncode == 0, said
    assert sorted(tmp_path.iterdir()) == before
    *told, events = map(json.loads, output.splitlines())
    assert events == []
    for found, (_, original) in zip(told, [each for each in fitted.values() for _ in range(2)], strict=True):
        assert np.array_equal(found["probabilities"], original.predict_proba(X))
        assert found["best"] == original.best_params_
        assert found["trials"] == 2
    assert [found["report"] for found in told if "report" in found] == [True] * len(REPORTED)


@pytest.mark.parametrize("name", STORAGES)
@pytest.mark.parametrize("copier", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_a_copy_tells_all_of_the_study(fitted, name, copier):
    _, original = fitted[name]
    twin = copier(original)
    assert isinstance(twin.study_._storage, InMemoryStorage)
    assert twin.study_.study_name == original.study_.study_name
    assert twin.study_.user_attrs == original.study_.user_attrs
    assert twin.study_.best_trial.number == original.study_.best_trial.number
    for one, other in zip(original.study_.trials, twin.study_.trials, strict=True):
        assert (one.params, one.value, one.state, one.user_attrs) == (
            other.params,
            other.value,
            other.state,
            other.user_attrs,
        )
    assert str(twin.study_.sampler) == str(original.study_.sampler)
    # The original still works on its own storage.
    assert original.study_._storage is not twin.study_._storage
    assert original.study_.user_attrs[SEED] == twin.study_.user_attrs[SEED]


def test_a_copy_in_the_same_process_has_a_report(fitted):
    assert render_report(copy.deepcopy(fitted["URL"][1]))


@pytest.mark.parametrize("name", ["memory", "opened", "journal"])
def test_a_clone_is_fitted_anew(fitted, name):
    again = clone(fitted[name][1]).set_params(storage=None)
    assert not hasattr(again, "study_")
    assert again.fit(X, Y).best_params_ == fitted[name][1].best_params_


@pytest.mark.parametrize("name", ["URL", "opened", "Optuna's"])
def test_a_copy_goes_on_with_the_study_where_its_database_is(name, tmp_path):
    original = search(STORAGES[name](tmp_path)).fit(X, Y)
    twin = pickle.loads(pickle.dumps(original))
    assert isinstance(twin.storage, str)
    twin.set_params(n_trials=3, resume=True).fit(X, Y)
    assert len(twin.study_.trials) == len(original.study_.trials) == 3


def test_a_storage_that_can_only_stay_behind_is_named(fitted):
    twin = copy.deepcopy(fitted["journal"][1])
    with pytest.raises(
        StorageError, match=r"storage=<a JournalStorage that stayed behind .* such as 'sqlite:"
    ):
        twin.fit(X, Y)
    assert clone(twin).set_params(storage=None).fit(X, Y).best_params_ == twin.best_params_


@pytest.mark.parametrize("name", ["URL", "opened", "Optuna's"])
def test_reading_an_unfitted_search_makes_no_file(name, tmp_path):
    (tmp_path / "there").mkdir()
    written = pickle.dumps(search(STORAGES[name](tmp_path / "there")))
    (tmp_path / "there").rename(tmp_path / "moved")
    (tmp_path / "there").mkdir()
    pickle.loads(written)
    assert list((tmp_path / "there").iterdir()) == []


@pytest.mark.parametrize("name", ["URL", "memory object", "opened", "Optuna's"])
@pytest.mark.parametrize("copier", [clone, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_a_copy_of_an_unfitted_search_does_what_it_would_have_done(name, copier, tmp_path):
    first = search(STORAGES[name](tmp_path))
    twin = copier(first)
    if copier is clone or name == "memory object":
        assert type(twin.storage) is type(first.storage)
    else:
        assert isinstance(twin.storage, str), "so that reading a pickle makes no file"
    twin.fit(X, Y)
    if name != "memory object":
        storage = open_storage(f"sqlite:///{tmp_path}/s.db")
        assert len(optuna.load_study(study_name="s", storage=storage).trials) == 2


class Counting:
    def __init__(self):
        self.n = 0

    def __call__(self, study, trial):
        self.n += 1


def test_callbacks_come_along():
    callbacks = [Counting(), ProgressBar(9, disable=True)]
    first = search(None, callbacks=callbacks).fit(X, Y)
    assert first.callbacks[1]._bar is not None, "nine trials are never reached, so that the bar is open"
    twin = pickle.loads(pickle.dumps(first))
    assert [twin.callbacks[0].n, twin.callbacks[1]._bar] == [2, None]
    clone(first).fit(X, Y)
    assert callbacks[0].n == 2


def test_after_several_workers():
    with joblib.parallel_config("threading"):
        found = search(None, n_jobs=2).fit(X, Y)
    twin = pickle.loads(pickle.dumps(found))
    assert np.array_equal(twin.predict_proba(X), found.predict_proba(X))
    assert isinstance(twin.study_._storage, InMemoryStorage)


def test_a_database_that_has_gone_is_missed_and_not_made(tmp_path, caplog):
    (tmp_path / "db").mkdir()
    found = search(f"sqlite:///{tmp_path}/db/s.db").fit(X, Y)
    (tmp_path / "db").rename(tmp_path / "moved")
    twin = pickle.loads(pickle.dumps(found))
    assert "lacks study_, which can't be read" in caplog.text
    assert np.array_equal(twin.predict_proba(X), found.predict_proba(X))
    assert not hasattr(twin, "study_")
    (tmp_path / "db").mkdir()
    pickle.dumps(found)
    assert list((tmp_path / "db").iterdir()) == []

"""A trial that is broken off goes on from its checkpoint, and ends as if it had not been."""

import json
import logging
import signal
import time
from dataclasses import replace

import numpy as np
import optuna
import pytest
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_iris

from inna_tune import InnaClassifier, InnaSearchCV
from inna_tune.estimators.base import RETRIES
from inna_tune.store.opening import open_storage, store_of
from inna_tune.study import group
from inna_tune.study.checkpoints import FORMAT, Checkpoint, Checkpoints
from inna_tune.study.evaluation import Cohort, FoldedTable
from tests.warm import Program

CODE = """
import sys
from inna_tune.study import group
group._WORTH_KEEPING = 0.0
from tests.study.test_checkpoints import search
search(sys.argv[1], resume=True).fit(*__import__("sklearn.datasets").datasets.load_iris(return_X_y=True, as_frame=True))
"""


def search(storage, **changes):
    # Trained to the end, so that there are rungs at 1, 4 and 16 of 32 epochs.
    net = InnaClassifier(
        hidden_layer_sizes=(4,), n_members=1, max_epochs=32, early_stopping=False, dropout=0.2
    )
    settings = {
        "n_trials": 2,
        "cv": 2,
        "random_state": 0,
        "population": 2,
        "pruner": optuna.pruners.NopPruner(),
    }
    return InnaSearchCV(net, storage=storage, study_name="s", **(settings | changes))


def comparable(study):
    return [
        (
            t.number,
            t.state,
            t.params,
            t.value,
            t.intermediate_values,
            t.user_attrs["scores"],
            t.user_attrs["best_epoch"],
        )
        for t in study.trials
    ]


@pytest.fixture(scope="module")
def straight():
    return comparable(search(None).fit(*load_iris(return_X_y=True, as_frame=True)).study_)


@pytest.fixture
def progress():
    """Members of one trial after three epochs."""
    X, y = load_iris(return_X_y=True, as_frame=True)
    estimator = InnaClassifier(
        hidden_layer_sizes=(6,), max_epochs=9, random_state=0, averaging=0.9, n_members=1
    )
    rows = np.arange(len(X))
    folded = FoldedTable(estimator, X, y, None, [(rows[::2], rows[1::2]), (rows[1::2], rows[::2])], None)
    cohort = Cohort(folded, [estimator])
    cohort.run(3)
    return cohort.progress(0), folded.tensor_sizes(estimator)


def checkpoints(tmp_path, name="s"):
    storage = open_storage(f"sqlite:///{tmp_path}/s.db")
    return Checkpoints(optuna.create_study(storage=storage, study_name=name, load_if_exists=True))


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a.nan_to_num(-7.0), b.nan_to_num(-7.0))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    if hasattr(a, "__dataclass_fields__"):
        return all(equal(getattr(a, n), getattr(b, n)) for n in a.__dataclass_fields__)
    return a == b or (a != a and b != b)


def test_it_comes_back_to_the_last_bit(tmp_path, progress):
    members, sizes = progress
    odd = replace(members[0].result, best_loss=float("inf"), lr=float("nan"), weights=None, best_epoch=0)
    members = [replace(members[0], result=odd), replace(members[1], state=None)]
    reports = {1: 0.1, 2: float("-inf")}
    saved = Checkpoint("me", 3, 1.25, reports, {"completed_rung_0": 0.5}, members, retries=[0, 2])
    kept = checkpoints(tmp_path)
    assert kept.save(7, saved)
    found = kept.load(7, "me", sizes)
    assert equal(found, saved)
    assert kept.load(8, "me", sizes) is None


def test_a_step_that_always_diverges_is_shortened_as_often_as_without_a_break():
    X, y = load_iris(return_X_y=True, as_frame=True)
    rows = np.arange(len(X))
    estimator = InnaClassifier(hidden_layer_sizes=(4,), n_members=1, max_epochs=3, random_state=0)
    folded = FoldedTable(estimator, X, y, None, [(rows[::2], rows[1::2]), (rows[1::2], rows[::2])], None)
    estimator._retried = lambda members, results: list(members)  # whatever they reached
    cohort = Cohort(folded, [estimator])
    cohort.run(3)
    assert cohort.retries(0) == [RETRIES, RETRIES]
    asked = []
    estimator._retried = lambda members, results: asked.append(members) or []
    again = Cohort(folded, [estimator], [cohort.progress(0)], [cohort.retries(0)])
    again.run()
    assert not asked


@pytest.mark.parametrize(
    "harm",
    ["cut", "text", "flipped", "other identity", "other net", "other members", "pickle", "hostile notes"],
)
def test_one_that_is_of_no_use_is_said_and_removed(tmp_path, progress, caplog, harm):
    members, sizes = progress
    notes = {"inna_tune:owner": {"id": "0" * 32}} if harm == "hostile notes" else {}
    kept = checkpoints(tmp_path)
    assert kept.save(0, Checkpoint("me", 3, 1.0, {}, notes, members))
    [path] = store_of(open_storage(f"sqlite:///{tmp_path}/s.db")).checkpoints.iterdir()
    content = path.read_bytes()
    if harm == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif harm == "text":
        path.write_text("not a checkpoint")
    elif harm == "flipped":
        path.write_bytes(content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])
    elif harm == "pickle":
        torch.save({"a": torch.zeros(2)}, path)
    identity = "you" if harm == "other identity" else "me"
    sizes = [[*own, 3] for own in sizes] if harm == "other net" else sizes
    sizes = [*sizes, sizes[0]] if harm == "other members" else sizes
    with caplog.at_level(logging.WARNING):
        assert kept.load(0, identity, sizes) is None
    assert "begins anew" in caplog.text
    assert not path.exists()


def test_a_file_with_a_place_of_its_own_writing_stays_in_its_folder(tmp_path):
    """Names are made of a digest and a number; what a study is called does not matter."""
    kept = checkpoints(tmp_path, "../../etc/passwd\n")
    assert kept._files.place(3).parent == tmp_path / "s.db.checkpoints"
    for wrong in (-1, 10**30):
        with pytest.raises(ValueError, match="number="):
            kept._files.place(wrong)


def test_a_header_that_lies_runs_nothing(tmp_path, progress):
    _, sizes = progress
    kept = checkpoints(tmp_path)
    path = kept._files.place(0)
    path.parent.mkdir()
    for content in ("[]", "{}", json.dumps({"identity": "me", "members": 3}), "__import__('os').system('x')"):
        save_file({"a": torch.zeros(1)}, path, metadata={"format": FORMAT, "content": content, "digest": "0"})
        assert kept.load(0, "me", sizes) is None


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT])
def test_a_process_that_ends_leaves_trials_that_go_on_bit_for_bit(tmp_path, straight, caplog, blow):
    storage = f"sqlite:///{tmp_path}/s.db"
    folder = tmp_path / "s.db.checkpoints"
    with Program(CODE, storage) as process:
        while not list(folder.glob("*.safetensors")):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.01)
        process.send_signal(blow)
        _, said = process.communicate()
    expected = {signal.SIGKILL: -signal.SIGKILL, signal.SIGINT: 1}
    assert process.returncode == expected[blow], said
    before = optuna.load_study(study_name="s", storage=storage)
    broken = [t.number for t in before.trials if not t.state.is_finished()]
    assert broken, "it ended before it was broken off"
    with caplog.at_level(logging.INFO, logger="inna_tune"):
        found = search(storage, resume=True, verbose=1).fit(*load_iris(return_X_y=True, as_frame=True))
    assert "goes on from epoch" in caplog.text
    assert comparable(found.study_) == straight
    assert not folder.exists()


def test_without_a_break_nothing_is_left(tmp_path, monkeypatch, straight):
    monkeypatch.setattr(group, "_WORTH_KEEPING", 0.0)
    written = []
    save = Checkpoints.save

    def counted(self, number, checkpoint):
        written.append((number, checkpoint.epoch))
        return save(self, number, checkpoint)

    monkeypatch.setattr(Checkpoints, "save", counted)
    found = search(f"sqlite:///{tmp_path}/s.db").fit(*load_iris(return_X_y=True, as_frame=True))
    assert comparable(found.study_) == straight
    assert {epoch for _, epoch in written} == {1, 4, 16}
    assert not (tmp_path / "s.db.checkpoints").exists()


def test_a_disk_that_takes_no_checkpoint_ends_no_study(tmp_path, monkeypatch, straight, caplog):
    monkeypatch.setattr(group, "_WORTH_KEEPING", 0.0)

    def full(*names, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("inna_tune.study.beside.serialize", full)
    found = search(f"sqlite:///{tmp_path}/s.db").fit(*load_iris(return_X_y=True, as_frame=True))
    assert comparable(found.study_) == straight
    assert "has no checkpoint" in caplog.text

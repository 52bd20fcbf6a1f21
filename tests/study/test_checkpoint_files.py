"""Checkpoints as files: training goes on from one as if there had been no break, and what is in it does no harm."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from sklearn.datasets import load_iris

from inna_tune import InnaClassifier, InnaSearchCV, SearchSpace
from inna_tune.engine import CrossEntropy, Method, Training
from inna_tune.nets import TabularNet
from inna_tune.store.opening import open_storage
from inna_tune.study import group
from inna_tune.study.checkpoints import FORMAT, Checkpoint, Checkpoints
from inna_tune.study.kept import Kept, Left
from inna_tune.study.rungs import rungs
from inna_tune.study.running import TrialRunner
from inna_tune.study.signals import Stopped
from tests.engine.test_training import N_CLASSES, N_COLUMNS, VARIED, make_member, make_table

NET = InnaClassifier(hidden_layer_sizes=(16,), max_epochs=16, n_members=1)
IRIS = load_iris(return_X_y=True, as_frame=True)
SPACE = SearchSpace.inna(curvature=20.0)
SIZES = [N_COLUMNS * 6, 6, 6 * N_CLASSES, N_CLASSES]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("studies")
    return optuna.create_study(storage=open_storage(f"sqlite:///{folder}/s.db"), study_name="s")


def checkpoint(members, *, epoch=0, identity="mine"):
    return Checkpoint(
        identity, epoch, 1.5, {1: 0.25, 2: 1 / 3}, {"completed_rung_0": 0.25}, members=list(members)
    )


def the_training(members, table, method, **options):
    net = TabularNet(N_COLUMNS, (6,), N_CLASSES)
    return Training(
        net,
        table,
        [replace(m, patience=2) for m in members],
        CrossEntropy(),
        batch_size=16,
        max_epochs=7,
        method=method,
        stacked=True,
        **options,
    )


def equal(one, other):
    """Whether two results of a member agree to the last bit, seconds aside."""
    for result in (one, other):
        result.history.pop("seconds")
    weights = [r.weights for r in (one, other)]
    same_weights = weights[0] is weights[1] is None or torch.equal(*weights)
    plain = [repr(replace(r, weights=None)) for r in (one, other)]
    return same_weights and plain[0] == plain[1]


METHODS = [
    Method(),
    Method(averaging=0.9),
    Method(optimizer="innaprop"),
    Method(optimizer="sgd"),
    Method(optimizer="adamw", gradient_clip=0.5),
    Method(optimizer="muon"),
    Method(optimizer=torch.optim.NAdam),
]


@settings(max_examples=12, deadline=None)
@given(
    breaks=st.lists(st.integers(0, 7), max_size=3).map(sorted),
    order=st.permutations(range(len(VARIED))),
    widths=st.lists(st.integers(1, 5), min_size=4, max_size=4),
    method=st.sampled_from(METHODS),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    number=st.integers(0, 10**18 - 1),
)
def test_broken_off_at_any_epoch_and_read_from_a_file_it_is_the_training_that_would_have_been(
    study, breaks, order, widths, method, dtype, number
):
    table = make_table(dtype, weighted=True)
    diverging = make_member(9, lr=1e8, alpha=0.1, beta=1e8)
    members = [VARIED[i] for i in order] + [diverging]
    straight = the_training(members, table, method, width=widths[-1])
    straight.run()
    files = Checkpoints(study)
    training = the_training(members, table, method, width=widths[0])
    for place, epoch in enumerate(breaks):
        training.run(epoch)
        saved = checkpoint((training.progress(i) for i in range(len(members))), epoch=epoch)
        if not training.active:
            break
        saved = replace(saved, epoch=training.epoch)
        assert files.save(number, saved)
        found = files.load(number, "mine", [SIZES] * len(members))
        assert (found.epoch, found.seconds, found.reports, found.notes) == (
            saved.epoch,
            1.5,
            saved.reports,
            saved.notes,
        )
        training = the_training(members, table, method, width=widths[place], progress=found.members)
        assert training.epoch == epoch
    training.run()
    files.remove(number)
    assert all(map(equal, training.results, straight.results))
    assert training.results[-1].stop_reason == "diverged"


# ---------------------------------------------------------------------- files


@pytest.fixture
def files(study):
    training = the_training(VARIED[:2], make_table(), Method())
    training.run(2)
    found = Checkpoints(study)
    found.save(3, checkpoint([training.progress(0), training.progress(1)], epoch=2))
    [path] = found._files.folder.iterdir()
    yield found, path
    found.clean([3])
    assert not found._files.folder.exists(), "something is left behind"


def test_what_is_not_a_trials_checkpoint_is_not_used_and_removed(files, caplog):
    found, path = files
    content = path.read_bytes()
    loads = {
        "other data": lambda: found.load(3, "yours", [SIZES] * 2),
        "not 4": lambda: found.load(3, "mine", [SIZES] * 4),
        "do not fit": lambda: found.load(3, "mine", [[7]] * 2),
    }
    for message, load in loads.items():
        path.write_bytes(content)
        assert load() is None
        assert message in caplog.text
        assert not path.exists()
    assert found.load(3, "mine", [SIZES] * 2) is None


@given(place=st.integers(0, 10**6), change=st.integers(1, 255), cut=st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_damaged_file_costs_what_it_would_have_saved_and_no_more(study, place, change, cut):
    files = Checkpoints(study)
    training = the_training(VARIED[:1], make_table(), Method())
    training.run(1)
    files.save(5, checkpoint([training.progress(0)], epoch=1))
    [path] = files._files.folder.glob("*-5.safetensors")
    content = bytearray(path.read_bytes())
    place %= len(content)
    content[place] ^= change
    path.write_bytes(content[:place] if cut else content)
    assert files.load(5, "mine", [SIZES] * 1) is None
    assert not path.exists()


def rewritten(path, **changes):
    """The file anew, with a right digest, as who means harm would write it."""
    from inna_tune.estimators.saving import digest

    with safe_open(str(path), framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        content = json.loads(file.metadata()["content"])
    plain = json.dumps(content | changes)
    save_file(tensors, path, {"format": FORMAT, "content": plain, "digest": digest(plain, tensors)})


@pytest.mark.parametrize(
    "changes",
    [
        {"notes": {"inna_tune:worker": {"id": "0" * 32}}},
        {"notes": []},
        {"members": [{}]},
        {"members": {"0": None}},
        {"epoch": "__import__('os').abort()"},
        {"epoch": 5},
        {"reports": [[1]]},
        {"reports": 1},
        {"seconds": None},
    ],
)
def test_a_file_made_by_a_stranger_is_refused(files, changes):
    found, path = files
    rewritten(path, **changes)
    assert found.load(3, "mine", [SIZES] * 2) is None


@pytest.mark.parametrize("number", ["../../x", "1/../../x", -1, 10**18, None, "0x1", float("nan")])
def test_no_file_is_named_outside_the_folder(study, number, tmp_path):
    files = Checkpoints(study)
    before = sorted(Path(files._files.folder).parent.rglob("*"))
    for act in (files.remove, lambda n: files.save(n, checkpoint([]))):
        with pytest.raises((ValueError, TypeError)):
            act(number)
    assert sorted(Path(files._files.folder).parent.rglob("*")) == before


def test_a_folder_that_cannot_be_written_ends_no_study(tmp_path, caplog):
    (tmp_path / "s.db.checkpoints").write_text("a file is in the way")
    storage = open_storage(f"sqlite:///{tmp_path}/s.db")
    files = Checkpoints(optuna.create_study(storage=storage, study_name="s"))
    assert not files.save(0, checkpoint([]))
    assert "trial 0 has no checkpoint" in caplog.text
    files.remove(0)
    files.clean([0])


def test_what_killed_workers_left_goes_with_the_trial(study):
    files = Checkpoints(study)
    files.save(1, checkpoint([]))
    files.save(2, checkpoint([]))
    [path] = files._files.folder.glob("*-1.safetensors")
    (files._files.folder / f"{path.stem}.abc_1.tmp").touch()
    other = files._files.folder / "somebody-elses"
    other.touch()
    files.clean([1])
    assert [p.name.split("-")[-1] for p in sorted(files._files.folder.glob("*-*"))] == [
        "2.safetensors",
        "elses",
    ]
    other.unlink()
    files.remove(2)
    files.clean([])


def half_written(folder, age):
    """What a killed worker left of each file there, so many seconds ago."""
    for path in list(folder.iterdir()):
        left = folder / f"{path.stem}.abc{age}.tmp"
        left.touch()
        os.utime(left, (time.time() - age,) * 2)


def test_what_was_left_half_written_of_a_trial_that_stays_goes_once_it_is_old(study):
    checkpoints, left = Checkpoints(study), Kept(study)
    study.add_trial(optuna.trial.create_trial(value=1.0))
    checkpoints.save(0, checkpoint([]))
    left.save(0, Left("mine", -1.0, [np.zeros((2, 2))]), checkpoint([]))
    folders = [files._files.folder for files in (checkpoints, left)]
    for folder in folders:
        half_written(folder, 30)
        half_written(folder, 10**6)
    checkpoints.clean([])
    left.trim()
    whole = [[".safetensors"], [".safetensors"] * 2]
    for folder, expected in zip(folders, whole, strict=True):
        assert sorted(p.suffix for p in folder.glob("*.safetensors")) == expected
        ages = {p.name.split(".")[1] for p in folder.glob("*.tmp")}
        assert ages == {"abc30"}, "somebody may be writing what is new"
    checkpoints.remove(0)
    checkpoints.clean([])
    assert not folders[0].exists()


def test_what_nobody_came_back_for_goes_from_the_folder_of_all_servers(tmp_path, monkeypatch):
    """Studies on servers share a folder of the user's, and a study that is gone there is not missed here."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal"))
    study = optuna.create_study(storage=optuna.storages.JournalStorage(file), study_name="s")
    checkpoints, left = Checkpoints(study), Kept(study)
    checkpoints.save(0, checkpoint([]))
    left.save(0, Left("mine", -1.0, [np.zeros((2, 2))]), checkpoint([]))
    folder = checkpoints._files.folder
    assert folder.is_relative_to(tmp_path)
    forgotten, recent = (folder / f"{digit * 32}-7.safetensors" for digit in "ab")
    others = [folder / f"{'c' * 32}-7.1a.tmp", folder / ".tmpAbC123"]
    for path in (forgotten, recent, *others, folder / "mine.txt"):
        path.write_text("x")
    nets = list(left._files.folder.iterdir())
    for path, days in ((forgotten, 31), (recent, 29), *((p, 2) for p in others), *((p, 365) for p in nets)):
        os.utime(path, (time.time() - days * 86400,) * 2)
    checkpoints.clean([])
    left.trim()
    assert {p.name for p in folder.iterdir()} == {
        checkpoints._files.place(0).name,
        recent.name,
        "mine.txt",
    }
    assert list(left._files.folder.iterdir()) == nets, "what an ensemble is made of is no leftover"


# ---------------------------------------------------------------------- studies


def search(**changes):
    settings = {"space": SPACE, "n_trials": 6, "cv": 2, "random_state": 0, "population": 3}
    return InnaSearchCV(NET, **(settings | changes))


def comparable(study):
    told = ("scores", "epochs", "best_epoch", "reason", "seed")
    return [
        (t.number, t.params, t.value, t.state, t.intermediate_values, [t.user_attrs.get(n) for n in told])
        for t in study.trials
    ]


@pytest.fixture(scope="module")
def straight():
    return comparable(search().fit(*IRIS).study_)


class Interruption(BaseException):
    """Stands for a kill."""


@pytest.mark.parametrize("rung", [0, 1])
def test_a_trial_goes_on_from_its_last_rung(rung, straight, tmp_path, monkeypatch):
    monkeypatch.setattr(group, "_WORTH_KEEPING", 0.0)
    url = f"sqlite:///{tmp_path}/s.db"
    advance, epochs = Training._advance, []

    def breaking(self, *args):
        if len(rungs(16)) > rung and self.epoch == rungs(16)[rung] + 1:
            raise Interruption
        advance(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "_advance", breaking)
        with pytest.raises(Interruption):
            search(storage=url, study_name="s").fit(*IRIS)
    assert list(tmp_path.glob("s.db.checkpoints/*.safetensors"))

    def watching(self, *args):
        epochs.append(self.epoch)
        advance(self, *args)

    monkeypatch.setattr(Training, "_advance", watching)
    resumed = search(storage=url, study_name="s", resume=True).fit(*IRIS)
    assert epochs[0] == rungs(16)[rung] + 1, "it began anew"
    assert comparable(resumed.study_) == straight
    assert not (tmp_path / "s.db.checkpoints").exists()


@pytest.mark.parametrize("damage", ["updates", "identity"])
def test_a_checkpoint_that_is_of_no_use_only_costs_time(damage, straight, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(group, "_WORTH_KEEPING", 0.0)
    url = f"sqlite:///{tmp_path}/s.db"
    outcome = group.Group._outcome

    def interrupted(self, candidate, reason):
        # The weaker ones end at the first rung, and the others are kept after it.
        if reason is None:
            raise Interruption
        return outcome(self, candidate, reason)

    with monkeypatch.context() as patch:
        patch.setattr(group.Group, "_outcome", interrupted)
        with pytest.raises(Interruption):
            search(storage=url, study_name="s").fit(*IRIS)
    paths = list(tmp_path.glob("s.db.checkpoints/*.safetensors"))
    assert paths
    for path in paths:
        if damage == "identity":
            rewritten(path, identity="another")
            continue
        with safe_open(str(path), framework="pt") as file:
            members = json.loads(file.metadata()["content"])["members"]
        for member in members:
            member["state"]["updates"] = [{"nonsense": 1}]
        rewritten(path, members=members)
    resumed = search(storage=url, study_name="s", resume=True).fit(*IRIS)
    assert "begins anew" in caplog.text
    assert comparable(resumed.study_) == straight


def test_asked_to_stop_at_any_epoch_the_trials_in_hand_are_kept_and_told_later(straight, tmp_path):
    """Every call ends after a few more epochs; all of them together make the study."""
    url = f"sqlite:///{tmp_path}/s.db"
    rng, calls = np.random.default_rng(0), 0
    while True:
        left = int(rng.integers(1, 12))

        def stop():
            nonlocal left
            left -= 1
            return left < 0

        ended = False
        original = TrialRunner.__init__

        def init(self, *args, original=original, asked=stop, **kwargs):
            original(self, *args, **(kwargs | {"stop": asked}))

        TrialRunner.__init__ = init
        try:
            search(storage=url, study_name="s", resume=True).fit(*IRIS)
        except Stopped:
            ended = True
        finally:
            TrialRunner.__init__ = original
        calls += 1
        assert calls < 200
        if not ended:
            break
    assert calls > 4
    study = optuna.load_study(study_name="s", storage=url)
    assert comparable(study) == straight
    assert not (tmp_path / "s.db.checkpoints").exists()

"""Whatever is asked of a storage is asked where its errors are told: a database that breaks is named, and no trace is shown."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, InMemoryStorage
from typer.testing import CliRunner

import inna_tune
from inna_tune import plots
from inna_tune.cli import app
from inna_tune.jobs.tuning import tune
from inna_tune.jobs.validation import choose_validation
from inna_tune.records.attributes import JOB
from inna_tune.records.frames import leaderboard_frame, trials_frame
from inna_tune.records.record import StudyRecord
from inna_tune.store import opening
from inna_tune.store.errors import StorageError
from inna_tune.store.memory import Memory
from inna_tune.tables.problem import make_problem

URL = "shaky://studies"
SMALL = ("hidden_layer_sizes=4", "max_epochs=2")
OURS = str(Path(inna_tune.__file__).parent)
CALLS = [n for n in dir(BaseStorage) if not n.startswith("_") and callable(getattr(BaseStorage, n))]


class Shaky(InMemoryStorage):
    """Optuna's own, which knows of each call whether somebody tells its errors, and breaks at one of them.

    Attributes
    ----------
    bare : set of str
        Calls outside of all that tells errors, and where they are.
    breaks_at : int or None
        Number of the call that is not answered.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bare: set[str] = set()
        self.n_calls, self.breaks_at = 0, None
        self.within = threading.local()

    def called(self, name: str) -> None:
        if not getattr(self.within, "depth", 0):
            frame: Any = sys._getframe()
            while frame is not None and not frame.f_code.co_filename.startswith(OURS):
                frame = frame.f_back
            if frame is not None:
                self.bare.add(f"{name} in {frame.f_code.co_qualname}")
        self.n_calls += 1
        if self.n_calls == self.breaks_at:
            raise StorageInternalError("it broke")

    @contextmanager
    def inside(self) -> Iterator[None]:
        self.within.depth = getattr(self.within, "depth", 0) + 1
        try:
            yield
        finally:
            self.within.depth -= 1


def _noted(name: str) -> Any:
    plain = getattr(InMemoryStorage, name)

    def noted(self: Shaky, *args: Any, **kwargs: Any) -> Any:
        self.called(name)
        with self.inside():  # what it asks itself is its own
            return plain(self, *args, **kwargs)

    return noted


for _name in CALLS:
    setattr(Shaky, _name, _noted(_name))


class ShakyStore(Memory):
    """The kind of that storage."""

    schemes: ClassVar[frozenset[str]] = frozenset({"shaky"})
    words = URL
    storage: Shaky
    only: ClassVar[Shaky]

    @classmethod
    def open(cls, url: str, *, create: bool = True) -> "ShakyStore":
        return cls(cls.only)

    @classmethod
    def holds(cls, storage: BaseStorage) -> bool:
        return isinstance(storage, Shaky)

    @contextmanager
    def errors(self) -> Iterator[None]:
        with super().errors(), self.storage.inside():
            yield


@pytest.fixture(scope="module")
def people() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame({"age": rng.normal(40, 10, 80), "label": rng.choice(["no", "yes"], 80)})


@pytest.fixture(scope="module")
def shaky(people: pd.DataFrame) -> Iterator[Shaky]:
    """With a study in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opening, "KINDS", [ShakyStore, *opening.KINDS])
        ShakyStore.only = storage = Shaky()
        tune(
            make_problem(people, "label"),
            n_trials=2,
            storage=storage,
            study_name="people",
            settings=SMALL,
            cv="members",
            refit="ensemble",
            importances=False,
        )
        bare, storage.bare = storage.bare, set()
        assert not bare, "while a study was tuned"
        yield storage


FIT = "fit people.csv --target label --no-importances --trials"
SETTINGS = "--set hidden_layer_sizes=4 --set max_epochs=2"


@pytest.mark.parametrize(
    "words",
    [
        f"{FIT} 3 --study people --resume {SETTINGS}",
        f"{FIT} 1 --study new --cv 2 --no-ensemble {SETTINGS}",
        f"{FIT} 2 --study timed --timeout 30 {SETTINGS}",
        "worker people people.csv",
        f"compare people.csv --target label --optimizers adamw --baselines linear --trials 1 --fits 1 {SETTINGS}",
        "studies",
        "show people",
        "report people",
        "prior learn people -o prior.json",
        "studies export people -o copy.db",
        "studies retry people --all",
    ],
)
def test_no_command_asks_a_storage_where_nobody_tells_its_errors(words, shaky, people, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    people.to_csv("people.csv", index=False)
    if words.startswith("worker"):
        study = optuna.load_study(study_name="people", storage=shaky)
        study.set_user_attr(JOB, study.user_attrs[JOB] | {"n_trials": len(study.trials) + 1})
    shaky.bare = set()
    done = CliRunner().invoke(app, [*words.split(), "--storage", URL])
    assert done.exit_code == 0 or "No trial" in done.output, done.output
    assert not shaky.bare


def test_no_look_at_a_study_asks_where_nobody_tells_the_errors(shaky, people):
    study = optuna.load_study(study_name="people", storage=shaky)
    looks = [StudyRecord, trials_frame, leaderboard_frame, plots.best_so_far, plots.slices]
    looks.append(lambda study: choose_validation(make_problem(people, "label"), study=study))
    for look in looks:
        shaky.bare = set()
        look(study)
        assert not shaky.bare, look


@pytest.mark.parametrize(
    "words",
    [
        "show people",
        "prior learn people -o prior.json",
        "worker people people.csv",
        f"{FIT} 1 --study people --resume",
    ],
)
def test_a_storage_that_breaks_at_any_call_is_named(words, shaky, people, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    people.to_csv("people.csv", index=False)
    n_broken = 0
    for number in range(1, 12):
        shaky.n_calls, shaky.breaks_at = 0, number
        try:
            done = CliRunner().invoke(app, [*words.split(), "--storage", URL])
        finally:
            reached, shaky.breaks_at = shaky.n_calls, None
        if reached < number:
            break
        n_broken += 1
        assert done.exit_code == 2
        assert f"{URL}: it broke" in done.output
        assert "Traceback" not in done.output
    assert n_broken > 3


def test_what_trials_are_scored_on_is_read_of_a_study_that_may_be_out_of_reach(shaky, people):
    study = optuna.load_study(study_name="people", storage=shaky)
    shaky.breaks_at = shaky.n_calls + 1
    try:
        with pytest.raises(StorageError, match=f"{URL}: it broke"):
            choose_validation(make_problem(people, "label"), study=study)
    finally:
        shaky.breaks_at = None

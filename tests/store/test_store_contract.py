"""What every kind of storage keeps, and a kind made up here, which nothing else knows of."""

import pickle
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from inna_tune.records.overview import describe_study, find_progress
from inna_tune.store import opening, workers
from inna_tune.store.asking import ask, tell
from inna_tune.store.errors import MissingError, StorageError
from inna_tune.store.memory import Memory
from inna_tune.store.opening import create_study, gathered, load_study, open_store, store_of
from inna_tune.store.postgres import PostgreSQL
from inna_tune.store.server import Server
from inna_tune.store.sqlite import SQLiteFile
from inna_tune.store.store import OWNER, LeftBehind, Store
from inna_tune.store.workers import Worker, resume_summary
from tests.store import test_postgres

# The server of the other module's tests.
server, url = test_postgres.server, test_postgres.url


class ToyStorage(JournalStorage):
    """What somebody else might have written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(JournalFileBackend(str(path)))


class Toy(Store):
    """All that it takes to add a kind of storage, but for its place in the list."""

    schemes: ClassVar[frozenset[str]] = frozenset({"toy"})
    storage: ToyStorage

    @classmethod
    def open(cls, url: str, *, create: bool = True) -> "Toy":
        path = Path(url.removeprefix("toy:")).absolute()
        if not path.exists() and not create:
            raise MissingError(f"there is no file {path}; check the path")
        return cls(ToyStorage(path))

    @classmethod
    def holds(cls, storage: BaseStorage) -> bool:
        return isinstance(storage, ToyStorage)

    @property
    def path(self) -> Path:
        return self.storage.path


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "KINDS", [Toy, *opening.KINDS])


@dataclass
class Case:
    """A kind of storage: what to give for it, and what is open by it."""

    kind: type[Store]
    given: Any
    forgets: bool = True  # what a trial reported in its first life
    opened: list[Store] = field(default_factory=list)

    def open(self, **options: Any) -> Store:
        self.opened.append(open_store(self.given, **options))
        return self.opened[-1]


CASES = {"memory": Memory, "SQLite": SQLiteFile, "PostgreSQL": PostgreSQL, "any server": Server}
CASES |= {"Optuna's journal": Store, "toy": Toy}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Case]:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    kind, given, forgets = CASES[request.param], None, True
    if kind is SQLiteFile:
        given = f"sqlite:///{tmp_path}/studies.db"
    elif issubclass(kind, Server):
        given = request.getfixturevalue("url")
    elif kind is Store:
        given, forgets = JournalStorage(JournalFileBackend(str(tmp_path / "journal"))), False
    elif kind is Toy:
        request.getfixturevalue("toy")
        given, forgets = f"toy:{tmp_path}/studies.toy", False
    if kind is Server:  # as for a server that has no file of its own
        monkeypatch.setattr(opening, "KINDS", [each for each in opening.KINDS if each is not PostgreSQL])
    found = Case(kind, given, forgets)
    yield found
    for store in found.opened:
        store.close()


def new_study(store: Store) -> optuna.Study:
    return create_study(store.storage, "shared", "minimize", resume=False)


def numbers(trials: Sequence[Any]) -> list[int]:
    return sorted(trial.number for trial in trials)


def test_every_registered_kind_is_under_contract() -> None:
    assert set(opening.KINDS) | {Toy} == set(CASES.values())


def test_a_storage_is_known_again_wherever_it_turns_up(case: Case) -> None:
    store = case.open()
    study = new_study(store)
    for again in (store, store_of(store.storage), store_of(study), open_store(store.storage)):
        assert type(again) is case.kind
        assert again.storage is store.storage
        assert (again.words, again.path, again.checkpoints) == (store.words, store.path, store.checkpoints)
    assert "\n" not in store.words
    assert "S3cr3t" not in store.words
    assert load_study(store.storage, "shared")._study_id == study._study_id


def test_a_missing_file_is_not_made_unless_asked(case: Case) -> None:
    if case.kind not in (SQLiteFile, Toy):
        case.open(create=False)
        return
    with pytest.raises(MissingError, match="there is no file .*studies"):
        case.open(create=False)
    store = case.open()
    new_study(store)
    assert store.path is not None
    assert store.path.exists()
    case.open(create=False)


def test_threads_share_a_total_exactly_and_waiting_trials_are_claimed_once(case: Case) -> None:
    study = new_study(case.open())
    study.enqueue_trial({"x": 0.5})
    told: list[int] = []

    def work() -> None:
        with Worker(study._storage) as worker:
            while (trial := ask(study, worker, 9)) is not None:
                with gathered(study):
                    x = trial.suggest_float("x", 0.0, 1.0)
                assert tell(study, worker, trial, x, notes={"mine": worker.id})
                told.append(trial.number)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(told) == numbers(study.trials) == list(range(9))
    assert [t.state for t in study.trials] == [TrialState.COMPLETE] * 9
    assert all(t.value == t.params["x"] and "mine" in t.user_attrs for t in study.trials)
    assert study.trials[0].params == {"x": 0.5}


def test_what_is_done_lasts_and_what_a_dead_worker_left_is_taken_up(case: Case) -> None:
    store = case.open()
    study = new_study(store)
    with Worker(store.storage) as worker:
        first = ask(study, worker, 3)
        assert first is not None
        assert tell(study, worker, first, 1.0)
        second = ask(study, worker, 3)
        assert second is not None
        x = second.suggest_float("x", 0.0, 1.0)
        second.report(0.5, 1)
        with Worker(store.storage) as other:  # a living worker's trial isn't taken
            third = ask(study, other, 3)
            assert third is not None
            assert third.number == 2
            assert ask(study, other, 3) is None
    if store.lasts:
        store.close()
        store = case.open(create=False)
        study = load_study(store.storage, "shared")
    found = resume_summary(study, 3)
    assert (found.complete, found.left_behind, found.left_to_do, found.best_value) == (1, 2, 2, 1.0)
    with Worker(store.storage) as worker:
        again = ask(study, worker, 3)
        assert again is not None
        stored = store.storage.get_trial(again._trial_id)
        assert (again.number, again.suggest_float("x", 0.0, 1.0)) == (1, x)
        assert stored.system_attrs[OWNER]["attempt"] == 2
        assert stored.intermediate_values == ({} if case.forgets else {1: 0.5})


def test_another_process_sees_by_the_lock_file_whether_a_worker_lives(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = case.open()
    study = new_study(store)
    with Worker(store.storage) as worker:
        assert ask(study, worker, 1) is not None
        if store.locks is None:
            assert not store.lasts, "only memory needs no locks"
            return
        if store.path is not None:
            assert store.locks.name == f"{store.path.name}.locks"
        assert (store.locks / worker.id).exists()
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr(workers, "_living", set())
            assert Worker(store.storage).is_alive(worker.record) is True
    assert Worker(store.storage).is_alive(worker.record) is False
    assert not (store.locks / worker.id).exists()


def test_the_first_to_settle_something_has_settled_it(case: Case) -> None:
    store = case.open()
    study = new_study(store)
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda n=n: found.append(store.settle(study._study_id, "seed", [n])))
        for n in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [load_study(store.storage, "shared").user_attrs["seed"]] * 3


def test_its_errors_are_one_line_that_names_it(case: Case) -> None:
    store = case.open()
    with pytest.raises(StorageError) as raised, store.errors():
        raise StorageInternalError("first\nsecond")
    assert str(raised.value) == f"{store.words}: first second"
    with pytest.raises(ZeroDivisionError), store.errors():
        raise ZeroDivisionError


def test_where_processes_share_it_a_pickle_is_the_same_storage(case: Case) -> None:
    store = case.open()
    study = new_study(store)
    if store.is_shared:
        twin = store_of(pickle.loads(pickle.dumps(store.storage)))
        case.opened.append(twin)
        with Worker(twin.storage) as worker:
            assert ask(load_study(twin.storage, "shared"), worker, 1) is not None
        with Worker(store.storage) as worker:
            again = ask(study, worker, 1)
            assert again is not None
            assert again.number == 0


def test_what_stands_for_it_opens_the_same_or_says_what_is_missing(case: Case) -> None:
    store = case.open()
    new_study(store)
    left = pickle.loads(pickle.dumps(store.stand_in()))
    if isinstance(left, LeftBehind):
        with pytest.raises(StorageError, match=re.escape(f"<a {type(store.storage).__name__} that stayed")):
            open_store(left)  # type: ignore[arg-type]
        return
    again = open_store(left)
    case.opened.append(again)
    assert optuna.get_all_study_names(again.storage) == ["shared"]


def test_a_lease_is_renewed_while_the_trial_runs(case: Case) -> None:
    store = case.open()
    study = new_study(store)
    with Worker(store.storage) as worker:
        trial = ask(study, worker, 1)
        assert trial is not None
        if not store.has_leases:
            with pytest.raises(NotImplementedError, match=f"{case.kind.__name__} has no leases"):
                store.beat({trial._trial_id})
            return
        assert store.beat({trial._trial_id, 999}) == {trial._trial_id}
        assert tell(study, worker, trial, 1.0)
        assert store.beat({trial._trial_id}) == set()


def test_studies_are_renamed_all_at_once_or_not_at_all(case: Case) -> None:
    store = case.open()
    for name in ("a", "b", "taken"):
        create_study(store.storage, name, "minimize", resume=False)
    if not store.is_shared:
        with pytest.raises(StorageError, match=re.escape(f"{store.words} can't rename")):
            store.rename({"a": "c"})
        return
    with pytest.raises(Exception, match="(?i)unique"):
        store.rename({"a": "c", "b": "taken"})
    assert sorted(optuna.get_all_study_names(store.storage)) == ["a", "b", "taken"]
    store.rename({"a": "c", "b": "d"})
    assert sorted(optuna.get_all_study_names(store.storage)) == ["c", "d", "taken"]


@pytest.mark.parametrize("what", ["checkpoints", "trained"])
def test_only_memory_has_no_place_for_files_of_trials(case: Case, tmp_path: Path, what: str) -> None:
    store = case.open()
    expected = None
    if store.lasts:
        expected = tmp_path / "cache" / "inna-tune" / what
    if store.path is not None:
        expected = store.path.with_name(f"{store.path.name}.{what}")
    assert getattr(store, what) == expected


@pytest.mark.filterwarnings(
    "ignore:The reported value is ignored"
)  # a journal can't forget those of the first life
def test_a_search_in_a_toy_storage_is_broken_off_and_ends_as_if_it_had_not_been(
    toy: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sklearn.datasets import load_iris

    from inna_tune import InnaClassifier, InnaSearchCV
    from inna_tune.study import group
    from inna_tune.study.checkpoints import Checkpoints

    X, y = load_iris(return_X_y=True, as_frame=True)
    net = InnaClassifier(hidden_layer_sizes=(4,), n_members=1, max_epochs=16, early_stopping=False)
    monkeypatch.setattr(group, "_WORTH_KEEPING", 0.0)
    save = Checkpoints.save

    def save_and_end(self: Checkpoints, number: int, checkpoint: Any) -> bool:
        save(self, number, checkpoint)
        raise KeyboardInterrupt

    def search(storage: Any, n_trials: int) -> InnaSearchCV:
        return InnaSearchCV(
            net,
            n_trials=n_trials,
            cv=2,
            random_state=0,
            storage=storage,
            study_name="s",
            resume=True,
            refit=False,
            population=1,
            pruner=optuna.pruners.NopPruner(),
        )

    storage = f"toy:{tmp_path}/s.toy"
    monkeypatch.setattr(Checkpoints, "save", save_and_end)
    with pytest.raises(KeyboardInterrupt):
        search(storage, 2).fit(X, y)
    monkeypatch.setattr(Checkpoints, "save", save)
    assert [path.suffix for path in (tmp_path / "s.toy.checkpoints").iterdir()] == [".safetensors"]
    progress = find_progress(storage, "s", 2)
    assert progress is not None
    assert (progress.finished, progress.left_to_do) == (0, 2)
    found = search(storage, 2).fit(X, y).study_
    straight = search(InMemoryStorage(), 2).fit(X, y).study_
    assert [t.value for t in found.trials] == [t.value for t in straight.trials]
    assert "epochs" in found.trials[0].user_attrs
    assert found.trials[0].system_attrs[OWNER]["attempt"] == 2
    assert describe_study(storage, "s").row.complete == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.toy", "s.toy.trained"]
    with pytest.raises(StorageError, match=rf"'s' is already in {tmp_path}/s.toy; resume it"):
        create_study(open_store(storage).storage, "s", "maximize", resume=False)

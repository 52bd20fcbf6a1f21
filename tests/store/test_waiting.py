"""A database that is locked, full or away is waited for, and a fault of it is told as what it is."""

import logging
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.storages import BaseStorage
from optuna.trial import TrialState
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

from inna_tune.store import sqlite, waiting
from inna_tune.store.asking import ask, put_back, tell
from inna_tune.store.errors import StorageError, UnreachableError, may_pass
from inna_tune.store.opening import create_study, gathered, open_storage, store_of
from inna_tune.store.workers import Worker


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a database whose lock is waited for in short steps."""
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT", 0.01)
    monkeypatch.setattr(waiting, "_SILENT", 0.05)
    return tmp_path / "s.db"


@pytest.fixture
def storage(path: Path) -> Iterator[BaseStorage]:
    storage = open_storage(f"sqlite:///{path}")
    yield storage
    storage._backend.engine.dispose()  # type: ignore[attr-defined]


@pytest.fixture
def study(storage: BaseStorage) -> optuna.Study:
    return create_study(storage, "s", "minimize", resume=True)


class Held:
    """Somebody else has the write lock of a file until told otherwise."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.execute("BEGIN IMMEDIATE")

    def release(self) -> None:
        self._connection.execute("ROLLBACK")
        self._connection.close()


class Waited(logging.Handler):
    """Releases a lock once somebody says that he waits for it."""

    def __init__(self, held: Held) -> None:
        super().__init__()
        self.held, self.said = held, list[str]()

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())
        if len(self.said) == 1:
            self.held.release()


@pytest.fixture
def waited(path: Path, study: optuna.Study) -> Iterator[Waited]:
    handler = Waited(Held(path))
    logger = logging.getLogger("inna_tune.store")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def test_a_lock_that_is_held_is_waited_for_with_one_line(study: optuna.Study, waited: Waited) -> None:
    with Worker(study._storage) as worker:
        trial = ask(study, worker, 1)
        assert trial is not None
        assert tell(study, worker, trial, 1.0)
    first, last = waited.said
    assert first.startswith("waiting for the database, 0 s of at most 10 min: ")
    assert "s.db: another process holds the file (database is locked)" in first
    assert last.startswith("the database is back after")
    assert [t.value for t in study.trials] == [1.0]


def test_what_is_gathered_is_written_once_the_lock_is_free(
    study: optuna.Study, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "PATIENCE", 0.05)
    trial = study.ask()
    held = Held(path)
    with gathered(study):
        trial.report(0.5, 1)
        trial.set_user_attr("a", 1)
        with pytest.raises(UnreachableError):
            study._storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [1.0])
        held.release()
        study._storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [1.0])
    [found] = study.trials
    assert (found.value, found.intermediate_values, found.user_attrs) == (1.0, {1: 0.5}, {"a": 1})


def test_a_database_that_stays_away_is_an_error_of_its_own_and_nobodys_trial(
    study: optuna.Study, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "PATIENCE", 0.05)
    with Worker(study._storage) as worker:
        trial = ask(study, worker, 1)
        assert trial is not None
        held = Held(path)
        with pytest.raises(UnreachableError, match=r"s.db: waited 0 s for the database: another process"):
            tell(study, worker, trial, 1.0)
    held.release()
    assert [t.state for t in study.trials] == [TrialState.RUNNING]
    with Worker(study._storage) as worker:
        again = ask(study, worker, 1)
        assert again is not None
        assert again.number == trial.number
        assert tell(study, worker, again, 2.0)


def test_whoever_is_told_to_end_waits_no_longer(study: optuna.Study, path: Path) -> None:
    held, asked = Held(path), list[bool]()

    def stop() -> bool:
        asked.append(len(asked) > 2)
        return asked[-1]

    with waiting.waiting_until(stop), pytest.raises(UnreachableError, match="locked"):
        study.set_user_attr("a", 1)
    assert asked == [False, False, False, True]
    # Of this thread alone, and of the block alone.
    held.release()
    study.set_user_attr("a", 2)


def test_threads_wait_each_for_itself() -> None:
    found = list[bool]()
    with waiting.waiting_until(lambda: True):
        thread = threading.Thread(target=lambda: found.append(waiting._of_thread.stop()))
        thread.start()
        thread.join()
        assert waiting._of_thread.stop()
    assert found == [False]


def failing(kind: Any, text: str, code: int | None = None) -> Any:
    error = kind(text)
    if code is not None:
        error.sqlite_errorcode = code
    return error


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (failing(sqlite3.OperationalError, "database is locked", sqlite3.SQLITE_BUSY_SNAPSHOT), True),
        (failing(sqlite3.OperationalError, "disk I/O error", sqlite3.SQLITE_IOERR_WRITE), True),
        (failing(sqlite3.OperationalError, "database or disk is full", sqlite3.SQLITE_FULL), True),
        (failing(sqlite3.OperationalError, "unable to open database file", sqlite3.SQLITE_CANTOPEN), True),
        (failing(sqlite3.OperationalError, "no such table: trials", sqlite3.SQLITE_ERROR), False),
        (failing(sqlite3.OperationalError, "attempt to write a readonly database", sqlite3.SQLITE_READONLY), False),
        (failing(sqlite3.DatabaseError, "database disk image is malformed", sqlite3.SQLITE_CORRUPT), False),
        (OperationalError("SELECT 1", {}, Exception("server closed the connection unexpectedly")), True),
        (
            OperationalError(
                "SELECT 1", {}, failing(sqlite3.OperationalError, "no such table", sqlite3.SQLITE_ERROR)
            ),
            False,
        ),
        (ProgrammingError("SELECT 1", {}, Exception("relation does not exist")), False),
        (ProgrammingError("SELECT 1", {}, Exception("gone"), connection_invalidated=True), True),
        (
            caused(
                optuna.exceptions.StorageInternalError("while it was committed"),
                OperationalError("COMMIT", {}, Exception("terminating connection")),
            ),
            True,
        ),
        (optuna.exceptions.StorageInternalError("of something else"), False),
    ],
    ids=str,
)  # fmt: skip
def test_which_errors_may_pass(error: Exception, passes: bool) -> None:
    assert may_pass(error) is passes


def test_what_cannot_pass_is_told_at_once() -> None:
    def broken() -> None:
        raise failing(sqlite3.DatabaseError, "file is not a database", sqlite3.SQLITE_NOTADB)

    with pytest.raises(StorageError, match="^here: the file is damaged") as raised:
        waiting.waited_for(broken, lambda: "here")
    assert not isinstance(raised.value, UnreachableError)

    def contradicting() -> None:
        raise IntegrityError("INSERT", {}, Exception("UNIQUE"))

    with pytest.raises(IntegrityError):
        waiting.waited_for(contradicting, lambda: "here")


def test_a_told_trial_is_on_the_disk_and_nothing_else_waits_for_it(study: optuna.Study) -> None:
    engine = study._storage._backend.engine  # type: ignore[attr-defined]
    levels = list[tuple[str, int]]()
    doing = ""

    def note(
        connection: Any, cursor: sqlite3.Cursor, statement: str, parameters: Any, context: Any, many: Any
    ) -> None:
        if statement.startswith(("INSERT", "UPDATE")):
            [level] = cursor.connection.execute("PRAGMA synchronous").fetchone()
            levels.append((f"{doing} {statement.split()[0]}", level))

    with Worker(study._storage) as worker:
        sqlalchemy.event.listen(engine, "before_cursor_execute", note)
        doing = "ask"
        trial = ask(study, worker, 2)
        assert trial is not None
        doing = "report"
        trial.report(0.5, 1)
        doing = "tell"
        tell(study, worker, trial, 1.0, notes={"a": 1})
        doing = "put back"
        trial = ask(study, worker, 2)
        assert trial is not None
        put_back(study, worker, trial, notes={})
        sqlalchemy.event.remove(engine, "before_cursor_execute", note)
    usual, full = 1, 2
    # The result and what is noted of it are one transaction.
    assert {level for work, level in levels if work.startswith("tell")} == {full}
    assert {work for work, _ in levels} >= {"ask INSERT", "report INSERT", "tell UPDATE", "put back UPDATE"}
    assert {level for work, level in levels if not work.startswith("tell")} == {usual}


def test_a_file_without_a_log_keeps_its_own_level(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    plain = optuna.create_study(storage=f"sqlite:///{path}", study_name="s")
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    storage = store_of(plain._storage).storage
    trial = plain.ask()
    storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [1.0])
    with storage._backend.engine.connect() as one:  # type: ignore[attr-defined]
        assert one.exec_driver_sql("PRAGMA synchronous").scalar() == 2

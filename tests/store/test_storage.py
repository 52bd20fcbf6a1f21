"""A storage opens for many at once, or says in one line why it can't, with nothing made or changed."""

import os
import pickle
import shutil
import sqlite3
import sys
import warnings
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from inna_tune.store import sqlite, waiting
from inna_tune.store.errors import StorageError, redact_url
from inna_tune.store.locks import temporary_lock
from inna_tune.store.opening import create_study, open_storage, storage_errors, store_of
from tests.warm import Program


def close(storage: Any) -> None:
    storage._backend.engine.dispose()


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder, with content."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with one finished trial, to be copied."""
    path = tmp_path_factory.mktemp("template") / "studies.db"
    storage = open_storage(f"sqlite:///{path}")
    study = create_study(storage, "first", "minimize", resume=False)
    study.add_trial(optuna.create_trial(value=0.5))
    close(storage)
    return path


@pytest.fixture
def database(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(template, tmp_path / "studies.db"))


def refused(url: str, *words: str, create: bool = True) -> str:
    """Open what can't be opened; return the message, which has the words and is one line."""
    with pytest.raises(StorageError) as raised:
        open_storage(url, create=create)
    message = str(raised.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message
    return message


def test_settings_hold_for_each_connection_and_after_pickling(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/studies.db")
    expected = {"journal_mode": "wal", "synchronous": 1, "foreign_keys": 1, "busy_timeout": 5_000}
    for each in (storage, pickle.loads(pickle.dumps(storage))):
        engine = each._backend.engine
        with engine.connect() as one, engine.connect() as two:
            for connection in (one, two):
                found = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in expected}
                assert found == expected
        close(each)


def test_other_engines_keep_their_settings(database: Path) -> None:
    storage = open_storage(f"sqlite:///{database}")
    plain = optuna.storages.RDBStorage(f"sqlite:///{database}")
    with plain.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 0
    plain.engine.dispose()
    close(storage)


@pytest.mark.parametrize("url", [None, "sqlite://", "sqlite:///:memory:"])
def test_memory(url: str | None) -> None:
    assert isinstance(open_storage(url), InMemoryStorage)


def test_an_optuna_storage_is_used_as_it_is() -> None:
    storage = InMemoryStorage()
    assert open_storage(storage) is storage


@pytest.mark.parametrize("name", ["a b.db", "{braces}.db", "per%20cent.db", "naïve-α.db", "q?x=1.db", "#.db"])
def test_odd_file_names(name: str, tmp_path: Path) -> None:
    from sqlalchemy.engine import URL

    url = URL.create("sqlite", database=str(tmp_path / name)).render_as_string()
    storage = open_storage(url)
    create_study(storage, "one", "minimize", resume=False)
    close(storage)
    assert os.listdir(tmp_path) == [name]


def test_a_relative_path_stays_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    storage = open_storage("sqlite:///studies.db")
    create_study(storage, "one", "minimize", resume=False)
    monkeypatch.chdir("/")
    assert optuna.get_all_study_names(pickle.loads(pickle.dumps(storage))) == ["one"]
    close(storage)


def test_a_finished_trial_survives_reopening(database: Path) -> None:
    storage = open_storage(f"sqlite:///{database}", create=False)
    study = create_study(storage, "first", "minimize", resume=True)
    assert study.best_value == 0.5
    close(storage)


def test_a_plain_optuna_database_is_taken_over(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/studies.db"
    plain = optuna.create_study(storage=url, study_name="plain")
    plain.add_trial(optuna.create_trial(value=1.0))

    def reopened() -> Any:
        storage = open_storage(url)
        assert create_study(storage, "plain", "minimize", resume=True).best_value == 1.0
        with storage._backend.engine.connect() as connection:  # type: ignore[attr-defined]
            mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar()
        close(storage)
        return mode

    engine = plain._storage._backend.engine  # type: ignore[attr-defined]
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN")
        connection.exec_driver_sql("SELECT * FROM trials").all()
        assert reopened() == "delete", "somebody reads it without the log"
    engine.dispose()
    assert reopened() == "wal"


def test_a_database_half_made_by_a_killed_process_is_completed(template: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(template)) as connection:
        rows = connection.execute("SELECT sql FROM sqlite_master WHERE type='table' ORDER BY rowid")
        statements = [statement for (statement,) in rows]
    assert len(statements) == len(sqlite._TABLES) + 1
    for made in range(0, len(statements) + 1, 3):
        path = tmp_path / f"{made}.db"
        with closing(sqlite3.connect(path)) as connection:
            for statement in statements[:made]:
                connection.execute(statement)
        storage = open_storage(f"sqlite:///{path}")
        create_study(storage, "one", "minimize", resume=False)
        close(storage)


class TestRefused:
    """Each with nothing made or changed."""

    @pytest.fixture(autouse=True)
    def untouched(self, tmp_path: Path) -> Any:
        self.folder = tmp_path
        self.before: dict[str, bytes | None] = {}
        yield
        assert snapshot(tmp_path) == self.before

    def prepared(self, name: str, content: bytes) -> str:
        (self.folder / name).write_bytes(content)
        self.before = snapshot(self.folder)
        return f"sqlite:///{self.folder / name}"

    def changed(self, template: Path, *statements: str) -> str:
        path = Path(shutil.copy(template, self.folder / "studies.db"))
        with closing(sqlite3.connect(path)) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()
        self.before = snapshot(self.folder)
        return f"sqlite:///{path}"

    @pytest.mark.parametrize(
        "content", [b"age,fare\n1,2\n" * 100, b"xy", b"\0" * 4096, b"PK\3\4" + b"\0" * 2000]
    )
    def test_not_a_database(self, content: bytes) -> None:
        refused(self.prepared("table.csv", content), "table.csv", "not a database", "choose another file")

    def test_a_cut_off_database(self, template: Path) -> None:
        url = self.prepared("studies.db", template.read_bytes()[: template.stat().st_size // 2])
        refused(url, "studies.db", "damaged", "restore a copy")

    def test_a_database_with_a_broken_page(self, template: Path) -> None:
        content = bytearray(template.read_bytes())
        content[4096:8192] = b"\xff" * 4096
        refused(self.prepared("studies.db", bytes(content)), "studies.db", "damaged")

    def test_a_folder(self) -> None:
        refused(f"sqlite:///{self.folder}", "is a folder", "name a file in it")

    def test_a_missing_folder(self) -> None:
        refused(f"sqlite:///{self.folder}/missing/studies.db", "there is no folder", "missing")

    def test_a_missing_file(self) -> None:
        refused(f"sqlite:///{self.folder}/studies.db", "there is no file", "studies.db", create=False)

    def test_a_database_of_something_else(self) -> None:
        with closing(sqlite3.connect(self.folder / "cookies.db")) as connection:
            connection.execute("CREATE TABLE cookies (name TEXT)")
        self.before = snapshot(self.folder)
        refused(f"sqlite:///{self.folder}/cookies.db", "something else", "'cookies'", "choose another file")

    def test_tables_of_an_older_optuna(self, template: Path) -> None:
        url = self.changed(
            template,
            "UPDATE alembic_version SET version_num = 'v2.6.0.a'",
            "UPDATE version_info SET library_version = '2.6.0'",
            "DROP TABLE trial_heartbeats",
        )
        refused(url, "Optuna 2.6.0", f"optuna storage upgrade --storage {url}")

    def test_tables_of_optuna_before_its_migrations(self, template: Path) -> None:
        url = self.changed(
            template, "DROP TABLE alembic_version", "UPDATE version_info SET schema_version = 11"
        )
        refused(url, "optuna storage upgrade")

    def test_tables_of_a_newer_optuna(self, template: Path) -> None:
        url = self.changed(template, "UPDATE alembic_version SET version_num = 'v9.0.0.a'")
        refused(url, "pip install -U optuna")

    @pytest.mark.parametrize("what", ["file", "folder"])
    def test_read_only(self, template: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
        path = Path(shutil.copy(template, self.folder / "studies.db"))
        self.before = snapshot(self.folder)
        # A superuser may write anywhere, hence no chmod here.
        locked = path if what == "file" else self.folder
        monkeypatch.setattr(os, "access", lambda path, mode: path != locked or not mode & os.W_OK)
        refused(f"sqlite:///{path}", str(locked), "read-only", "make it writable")

    def test_a_full_disk(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Full(sqlite._Connection):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs)
                self.execute("PRAGMA max_page_count=8")

        monkeypatch.setattr(sqlite, "_Connection", Full)
        refused(f"sqlite:///{self.folder}/studies.db", "studies.db", "disk is full", "free some space")

    @pytest.mark.parametrize(
        "url", ["studies.db", "", "sqlite:studies.db", "://", "postgresql//me:secret@host"]
    )
    def test_no_url(self, url: str) -> None:
        message = refused(url, "is not a database URL", "sqlite:///studies.db")
        assert "secret" not in message

    def test_an_unknown_kind_of_database(self) -> None:
        message = refused("nosuch://me:secret@host/db", "names no known kind", "nosuch://me:***@host/db")
        assert "secret" not in message

    def test_a_missing_driver(self) -> None:
        message = refused("oracle+oracledb://me:secret@host/db", "driver", "oracledb")
        assert "secret" not in message


def test_an_error_while_tuning_is_one_line_that_says_what_to_do(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "PATIENCE", 0.0)
    storage = open_storage(f"sqlite:///{database}")
    study = create_study(storage, "first", "minimize", resume=True)
    with storage._backend.engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    trial = study.ask()
    with (
        pytest.raises(
            StorageError,
            match=r"studies.db: waited 0 s for the database: the disk is full .* finished trials are safe",
        ) as raised,
        storage_errors(storage),
    ):
        trial.set_user_attr("large", "x" * 100_000)
    assert "\n" not in str(raised.value)
    assert study.best_value == 0.5
    close(storage)


def test_network_file_system_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_file_system", lambda path: "nfs4")
    with pytest.warns(
        sqlite.NetworkFileSystemWarning, match=r"network file system \(nfs4\).*postgresql\+psycopg"
    ):
        close(open_storage(f"sqlite:///{tmp_path}/studies.db"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux lists its mounts")
def test_the_file_system_of_a_path_is_known() -> None:
    assert sqlite._file_system(Path("/proc/self/studies.db")) == "proc"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sqlite._file_system(Path("/no/such/folder/studies.db")) != "proc"


def test_a_name_taken_is_an_error_that_says_how_to_resume(database: Path) -> None:
    storage = open_storage(f"sqlite:///{database}")
    with pytest.raises(StorageError, match=r"'first' is already in .*studies\.db.*--resume"):
        create_study(storage, "first", "minimize", resume=False)
    with pytest.raises(StorageError, match="has direction minimize, not maximize"):
        create_study(storage, "first", "maximize", resume=True)
    assert create_study(storage, "second", "maximize", resume=True).study_name == "second"
    assert create_study(storage, None, "minimize", resume=True).study_name not in ("first", "second")
    for name in ("", "x" * 513):
        with pytest.raises(StorageError, match="use 1 to 512"):
            create_study(storage, name, "minimize", resume=False)
    assert len(optuna.get_all_study_names(storage)) == 3
    close(storage)


def test_only_one_connection_takes_a_waiting_trial(database: Path) -> None:
    storage, other = open_storage(f"sqlite:///{database}"), open_storage(f"sqlite:///{database}")
    study = create_study(storage, "first", "minimize", resume=True)
    study.enqueue_trial({})
    [waiting] = study.get_trials(states=(TrialState.WAITING,))
    taken = [each.set_trial_state_values(waiting._trial_id, TrialState.RUNNING) for each in (storage, other)]
    assert taken == [True, False]
    close(storage)
    close(other)


SECRET = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=8).map("S3cr3t".__add__)


@given(SECRET, st.sampled_from(["", "/", "@", ":", "?", "#", "p@ss:w/rd?x#"]))
def test_no_password_is_ever_shown(secret: str, odd: str) -> None:
    for url in (
        f"postgresql+psycopg://me:{secret}{odd}{secret}@host:5432/name",
        f"postgresql+psycopg://host/name?user=me&password={secret}",
        f"postgresql+psycopg://host/name?sslpassword={secret}&x=1",
        f"mysql://:{secret}@host/name",
        f"junk://me:{secret}@",
    ):
        shown = redact_url(url)
        assert secret not in shown
        assert "***" in shown
    assert redact_url("sqlite:///a/b.db") == "sqlite:///a/b.db"
    assert redact_url("postgresql://me@host:5432/name") == "postgresql://me@host:5432/name"


def test_its_words(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/studies.db")
    assert store_of(storage).words == f"{tmp_path}/studies.db"
    assert store_of(InMemoryStorage()).words == "memory"
    storage._backend.url = "postgresql://me:secret@host/name"  # type: ignore[attr-defined]
    assert store_of(storage).words == "postgresql://me:***@host/name"
    close(storage)


def test_temporary_lock_excludes_and_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from inna_tune.store.locks import temporary_lock\n"
        "with temporary_lock(Path(sys.argv[1])):\n"
        "    counter = Path(sys.argv[2]); counter.write_text(str(int(counter.read_text()) + 1))"
    )
    counter, path = tmp_path / "counter", tmp_path / "locks" / "opening"
    counter.write_text("0")
    with temporary_lock(path):
        processes = [Program(code, path, counter) for _ in range(3)]
        assert counter.read_text() == "0"
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert counter.read_text() == "3"
    assert sorted(os.listdir(tmp_path)) == ["counter"]


def test_a_name_that_leaves_no_room_for_those_beside_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="the name has 244 bytes.* at most 243"):
        open_storage(f"sqlite:///{tmp_path}/{'n' * 244}")
    assert os.listdir(tmp_path) == []
    storage = open_storage(f"sqlite:///{tmp_path}/{'n' * 243}")
    assert store_of(storage).checkpoints is not None
    store_of(storage).checkpoints.mkdir()  # type: ignore[union-attr]
    close(storage)

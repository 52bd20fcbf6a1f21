"""Studies in an SQLite file."""

import os
import sqlite3
import sys
import warnings
from contextlib import closing, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage
from optuna.storages._rdb import models
from sqlalchemy import create_engine
from sqlalchemy.engine import URL, make_url

from inna_tune.store.database import StudyDatabase
from inna_tune.store.errors import BUSY_TIMEOUT, DATABASE_ERRORS, MissingError, StorageError, cause_of
from inna_tune.store.locks import temporary_lock
from inna_tune.store.memory import Memory
from inna_tune.store.sql import Database, as_template, parse_url, url_of
from inna_tune.store.store import Store, beside
from inna_tune.store.versions import check_version, make_tables

_TABLES = frozenset(models.BaseModel.metadata.tables)
# So that every folder and file beside it can have its name with an ending.
_LONGEST_NAME = 255 - len(".checkpoints")
_NETWORK = ("nfs", "cifs", "smb", "9p", "afs", "ceph", "gluster", "lustre", "fuse.sshfs", "webdav")


class NetworkFileSystemWarning(UserWarning):
    """The SQLite file lies on a network file system, where its write-ahead log isn't safe."""


class SQLiteFile(Database):
    """A file with a write-ahead log, foreign keys and a busy timeout; ``synchronous=NORMAL``, and FULL to tell a trial.

    Its tables are made under a lock, so that any number of processes may open a new one at once.
    """

    schemes: ClassVar[frozenset[str]] = frozenset({"sqlite"})

    @classmethod
    def open(cls, url: str, *, create: bool = True) -> Store:
        """See `Store`; what has no file is memory."""
        path = _path_in(parse_url(url))
        if path is None:
            return Memory(InMemoryStorage())
        if not create and not _may_write(path) and path.is_file():
            return cls.reading(path)
        _check_place(path, create)
        if path.exists() and _check_content(path):
            _use_log(path)
            return cls(_connect(path, _Connection))
        try:
            with temporary_lock(beside(path, "locks") / "opening"):
                fresh = not path.exists()
                try:
                    path.touch()  # with the mode that the umask says; SQLite's own is never for a group to write
                    _use_log(path)
                    _make(path)
                    return cls(_connect(path, _Connection))
                except BaseException:
                    if fresh:
                        for suffix in ("", "-wal", "-shm", "-journal"):
                            Path(f"{path}{suffix}").unlink(missing_ok=True)
                    raise
        except (OSError, RuntimeError, *DATABASE_ERRORS) as error:
            raise StorageError(f"{path}: {cause_of(error)}") from error

    @classmethod
    def reading(cls, path: Path) -> "SQLiteFile":
        """Open a file without changing it; it and its folder may be read-only."""
        _check_file(path, create=False)
        kind = _reader_of(path)
        if not _check_content(path, kind):
            raise StorageError(
                f"{path} lacks tables of Optuna's, so that it holds no study; choose another file"
            )
        return cls(_connect(path, kind))

    @classmethod
    def holds(cls, storage: BaseStorage) -> bool:
        """See `Store`; not where the database is in memory."""
        url = url_of(storage)
        return url is not None and _path_in(url) is not None

    @cached_property
    def path(self) -> Path | None:
        """The absolute path of the file."""
        return _path_in(make_url(self.backend.url))


class _Connection(sqlite3.Connection):
    """A connection with our settings; a class rather than an event, so that pickled storages keep it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.execute("PRAGMA foreign_keys=ON")
        if self.execute("PRAGMA journal_mode").fetchone() == ("wal",):
            self.execute("PRAGMA synchronous=NORMAL")  # less is unsafe without the log


class _Reader(sqlite3.Connection):
    """A connection that changes nothing, even in a file that could be written."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.execute("PRAGMA query_only=ON")


def file_of(url: str) -> Path | None:
    """The file that an SQLite URL names, absolute, there or not; None for every other URL.

    Raises
    ------
    StorageError
        If it is no URL.
    """
    return _path_in(parse_url(url))


class _ReadOnly(sqlite3.Connection):
    """A connection to a file that can't be written, or lies in a folder where no file can be made."""

    mode = "mode=ro"

    def __init__(self, database: Any, **kwargs: Any) -> None:
        super().__init__(f"file:{quote(str(database))}?{self.mode}", **kwargs | {"uri": True})


class _Immutable(_ReadOnly):
    """The same where the files that SQLite shares among its readers can't be made: nobody writes there either."""

    mode = "mode=ro&immutable=1"


def _may_write(path: Path) -> bool:
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK | os.X_OK)


def _reader_of(path: Path) -> type[sqlite3.Connection]:
    """How to read a file without changing it."""
    if not os.access(path, os.R_OK):
        raise StorageError(f"{path} can't be read; see to its permissions")
    if _may_write(path):
        return _Reader
    try:
        with closing(sqlite3.connect(path, factory=_ReadOnly)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        log = Path(f"{path}-wal")
        if log.exists() and log.stat().st_size:
            raise StorageError(
                f"{path} has a log beside it ({log.name}) that can't be read in a read-only folder ({error}); "
                "copy both into a folder of your own"
            ) from None
        return _Immutable
    return _ReadOnly


def _path_in(url: URL) -> Path | None:
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        return None
    return Path(url.database).absolute()


def _use_log(path: Path) -> None:
    """Switch a file to the write-ahead log, for good; a file that others have open without it stays so."""
    with closing(sqlite3.connect(path, timeout=1.0)) as connection, suppress(sqlite3.OperationalError):
        connection.execute("PRAGMA journal_mode=WAL")


def _url_of(path: Path) -> str:
    return URL.create("sqlite", database=str(path)).render_as_string()


def _arguments(connection: type[sqlite3.Connection]) -> dict[str, Any]:
    return {"connect_args": {"timeout": BUSY_TIMEOUT, "factory": connection}}


def _make(path: Path) -> None:
    """Make the tables that a file lacks."""
    engine = create_engine(_url_of(path), **_arguments(_Connection))
    try:
        make_tables(engine)
    finally:
        engine.dispose()


def _connect(path: Path, connection: type[sqlite3.Connection]) -> RDBStorage:
    """The storage in a file whose tables are there, and of this Optuna."""
    return StudyDatabase(
        as_template(_url_of(path)),
        engine_kwargs=_arguments(connection),
        skip_table_creation=True,
        skip_compatibility_check=True,
    )


def _check_file(path: Path, *, create: bool) -> None:
    if path.is_dir():
        raise StorageError(f"{path} is a folder, not a database file; name a file in it")
    if not path.exists() and not create:
        raise MissingError(f"there is no file {path}; check the path")


def _check_place(path: Path, create: bool) -> None:
    """Refuse a path where no database can be, before anything touches it."""
    if len(os.fsencode(path.name)) > _LONGEST_NAME:
        raise StorageError(
            f"{path.name[:40]}…: the name has {len(os.fsencode(path.name))} bytes, and what lies beside a database has longer "
            f"ones; give it one of at most {_LONGEST_NAME}"
        )
    if not path.parent.is_dir():
        raise StorageError(f"there is no folder {path.parent} for the database {path.name}; make it first")
    _check_file(path, create=create)
    if path.exists() and not os.access(path, os.R_OK | os.W_OK):
        raise StorageError(f"{path} is read-only; make it writable, or choose another file")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise StorageError(f"the folder {path.parent} is read-only; make it writable, or choose another one")
    kind = _file_system(path)
    if kind.startswith(_NETWORK):
        warnings.warn(
            f"{path} lies on a network file system ({kind}), where SQLite can lose data; "
            "use a local disk, or postgresql+psycopg:// for many machines",
            NetworkFileSystemWarning,
            stacklevel=5,
        )


def _file_system(path: Path) -> str:
    """Return the type of the file system that holds `path`, empty where the OS doesn't list mounts."""
    if not sys.platform.startswith("linux"):
        return ""
    folder, best, kind = path.parent.resolve(), Path(), ""
    with suppress(OSError), open("/proc/self/mounts", encoding="utf-8", errors="replace") as mounts:
        for line in mounts:
            _, where, what = line.split(" ")[:3]
            point = Path(where.replace("\\040", " "))
            if folder.is_relative_to(point) and len(point.parts) >= len(best.parts):
                best, kind = point, what
    return kind


def _check_content(path: Path, kind: type[sqlite3.Connection] = sqlite3.Connection) -> bool:
    """Say whether the file has all of Optuna's tables (True) or lacks some; refuse anything else."""
    # NOTE: never open the file but through SQLite: closing any descriptor of it drops the POSIX locks of
    # this process's connections (https://www.sqlite.org/howtocorrupt.html, section 2.2).
    version: tuple[str] | None = None
    maker: tuple[str, int] | None = None
    try:
        with closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT, factory=kind)) as connection:
            names = connection.execute("SELECT name FROM sqlite_master WHERE type='table'")
            tables = {name for (name,) in names}
            faults = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if "alembic_version" in tables:
                version = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            if "version_info" in tables:
                maker = connection.execute(
                    "SELECT library_version, schema_version FROM version_info"
                ).fetchone()
    except sqlite3.Error as error:
        raise StorageError(f"{path}: {cause_of(error)}") from None
    if faults != "ok":
        raise StorageError(f"{path}: the file is damaged ({faults.splitlines()[0]}); restore a copy")
    strange = tables - _TABLES - {"alembic_version"}
    if strange and not tables >= {"studies", "trials", "version_info"}:
        raise StorageError(
            f"{path} is a database of something else (it has a table {min(strange)!r}); choose another file"
        )
    if maker is not None:
        check_version(path, *maker, None if version is None else version[0])
    # Where something is missing, another process is at making it, or was killed at that.
    return tables >= _TABLES and maker is not None and version is not None

"""Open the place where studies live: memory, an SQLite file, or a database server."""

import os
import re
import shlex
import sqlite3
import sys
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Literal

import optuna
import sqlalchemy
from alembic.script import ScriptDirectory
from filelock import FileLock
from optuna.exceptions import DuplicatedStudyError, StorageInternalError
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage, _CachedStorage
from optuna.storages._rdb import models
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from inna_tune.store.database import SUPPORTED, CachedDatabase, StudyDatabase
from inna_tune.store.quiet import without_messages

BUSY_TIMEOUT = 60.0  # seconds a connection waits for another's write lock
_OPENING = 0x696E6E61  # the key of the advisory lock held while a server's tables are made
_MAX_STUDY_NAME = models.MAX_INDEXED_STRING_LENGTH
_TABLES = frozenset(models.BaseModel.metadata.tables)
_NETWORK_FILE_SYSTEMS = (
    "nfs",
    "cifs",
    "smb",
    "9p",
    "afs",
    "ceph",
    "gluster",
    "lustre",
    "fuse.sshfs",
    "webdav",
)


class StorageError(ValueError):
    """A storage or study can't be used; the one-line message says which, why, and what to do."""


class MissingError(StorageError):
    """There is no such file."""


class NetworkFileSystemWarning(UserWarning):
    """The SQLite file lies on a network file system, where its write-ahead log isn't safe."""


def redact_url(url: str) -> str:
    """Return `url` with every password replaced by ``***``, whether or not it can be parsed."""
    url = re.sub(r"(//[^:/?#@]*):.*@", r"\1:***@", url)
    return re.sub(r"([?&][^=&]*(?:password|passwd|secret)[^=&]*=)[^&]*", r"\1***", url, flags=re.IGNORECASE)


def sqlite_path(storage: BaseStorage) -> Path | None:
    """Return the absolute path of the SQLite file behind `storage`, None for every other kind."""
    backend = storage._backend if isinstance(storage, _CachedStorage) else storage
    return _path_in(make_url(backend.url)) if isinstance(backend, RDBStorage) else None


def locks_folder(database: Path) -> Path:
    """Return the folder beside `database` that holds the lock files of its workers."""
    return database.with_name(database.name + ".locks")


@contextmanager
def temporary_lock(path: Path) -> Iterator[None]:
    """Hold the OS lock on the file `path`, made with its folder and removed afterwards."""
    lock = FileLock(path, thread_local=False)
    while True:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        try:
            lock.acquire()
            break
        except FileNotFoundError:  # its last user removed the folder between the two lines
            continue
    try:
        yield
    finally:
        remove_lock(lock)


def remove_lock(lock: FileLock) -> None:
    """Remove the file of a held `lock`, then release it; its folder goes with its last file."""
    # NOTE: unlinking before releasing keeps mutual exclusion: filelock retries on an unlinked file.
    with suppress(OSError):
        os.unlink(lock.lock_file)
    lock.release()
    with suppress(OSError):
        os.rmdir(os.path.dirname(lock.lock_file))


def open_storage(storage: str | BaseStorage | None, *, create: bool = True) -> BaseStorage:
    """Open a storage of studies, ready for many workers.

    An SQLite file gets a write-ahead log, ``synchronous=NORMAL``, foreign keys and a busy timeout; its
    tables, like those of a server, are made under a lock, so that any number of processes may open a new
    storage at once. Nothing is created or changed if it fails.

    Parameters
    ----------
    storage : str, optuna.storages.BaseStorage or None
        A database URL such as ``sqlite:///inna_tune.db`` or ``postgresql+psycopg://user@host/name``; an
        Optuna storage, used as it is; None keeps the studies in memory.
    create : bool
        Whether a missing SQLite file may be made.

    Returns
    -------
    optuna.storages.BaseStorage
        Databases come behind Optuna's cache of finished trials.

    Raises
    ------
    StorageError
        The URL, the file or the server can't be used. The message never shows a password.
    """
    if isinstance(storage, RDBStorage):
        return CachedDatabase(storage)
    if isinstance(storage, BaseStorage):
        return storage
    if storage is None:
        return InMemoryStorage()
    if not isinstance(storage, str | URL):
        raise StorageError(
            f"storage={storage!r} is neither an Optuna storage nor a database URL; "
            "give one of these, such as 'sqlite:///studies.db', or None for memory"
        )
    try:
        url = make_url(storage)
    except (ArgumentError, ValueError):
        raise StorageError(
            f"storage {redact_url(storage)!r} is not a database URL; for a file write 'sqlite:///studies.db'"
        ) from None
    if url.get_backend_name() != "sqlite":
        return CachedDatabase(_open_server(url))
    path = _path_in(url)
    if path is None:
        return InMemoryStorage()
    return CachedDatabase(_open_sqlite(path, create))


def create_study(
    storage: BaseStorage,
    name: str | None,
    direction: Literal["minimize", "maximize"],
    sampler: BaseSampler | None = None,
    pruner: BasePruner | None = None,
    *,
    resume: bool,
) -> optuna.Study:
    """Create a study, or go on with the one of this name.

    Parameters
    ----------
    storage : optuna.storages.BaseStorage
        From `open_storage`.
    name : str or None
        None: a new study with a name of Optuna's making.
    direction : {"minimize", "maximize"}
    sampler, pruner
        As in Optuna; they aren't stored.
    resume : bool
        True goes on with an existing study and creates a missing one, however many processes do so at
        once. False refuses a name already taken.

    Raises
    ------
    StorageError
        The name is taken and `resume` is False; the name can't be one; the stored study has another
        direction.
    """
    if name is not None:
        check_study_name(name)
    with storage_errors(storage), without_messages():
        try:
            study = optuna.create_study(
                storage=storage,
                study_name=name,
                direction=direction,
                sampler=sampler,
                pruner=pruner,
                load_if_exists=resume and name is not None,
            )
        except DuplicatedStudyError:
            raise StorageError(
                f"a study named {name!r} is already in {describe(storage)}; "
                "resume it (resume=True, or --resume), or choose another name (study_name=, or --study)"
            ) from None
    stored = [each.name.lower() for each in study.directions]
    if stored != [direction]:
        raise StorageError(
            f"study {name!r} in {describe(storage)} has direction {', '.join(stored)}, not {direction}; "
            "choose another name"
        )
    return study


def load_study(storage: str | BaseStorage, name: str) -> optuna.Study:
    """A study of a database.

    Raises
    ------
    StorageError
        If there is no such database or study.
    """
    opened = open_storage(storage, create=False)
    with storage_errors(opened):
        try:
            return optuna.load_study(study_name=name, storage=opened)
        except KeyError:
            known = ", ".join(sorted(optuna.get_all_study_names(opened))[:10]) or "none"
            raise StorageError(f"There is no study {name!r} in this storage; its studies: {known}") from None


def check_study_name(name: str) -> None:
    """Raise StorageError if a study can't have this name."""
    if not 0 < len(name) <= _MAX_STUDY_NAME:
        raise StorageError(f"study name {name[:40]!r} has {len(name)} characters; use 1 to {_MAX_STUDY_NAME}")


@contextmanager
def gathered(study: optuna.Study) -> Iterator[None]:
    """Write parameters, attributes and reports that this thread sets within the block in one transaction.

    They are written at the block's end, or sooner where the thread reads all trials or tells a result: then with
    it. What a killed process had gathered is lost, so a block must not span a training.
    """
    storage = study._storage
    backend = storage._backend if isinstance(storage, _CachedStorage) else None
    with storage_errors(storage), backend.gathered() if isinstance(backend, StudyDatabase) else nullcontext():
        yield


def describe(storage: BaseStorage) -> str:
    """Return what a person calls this storage: its path, its URL without password, or its class."""
    path = sqlite_path(storage)
    if path is not None:
        return str(path)
    backend = storage._backend if isinstance(storage, _CachedStorage) else storage
    if isinstance(backend, RDBStorage):
        return redact_url(backend.url)
    return "memory" if isinstance(storage, InMemoryStorage) else type(storage).__name__


@contextmanager
def storage_errors(storage: BaseStorage) -> Iterator[None]:
    """Turn what a database raises inside the block into a one-line `StorageError`."""
    try:
        yield
    except (StorageInternalError, SQLAlchemyError, sqlite3.Error) as error:
        raise StorageError(f"{describe(storage)}: {_cause(error)}") from error


def _path_in(url: URL) -> Path | None:
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        return None
    return Path(url.database).absolute()


def _cause(error: BaseException) -> str:
    """Say in one line what the database driver said, and what to do where we know it."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split()) or type(error).__name__
    if "malformed" in text or "not a database" in text:
        return f"the file is damaged or not a database ({text}); restore a copy or choose another file"
    if "is full" in text or "disk I/O" in text:
        return f"the disk is full or failing ({text}); free some space and resume, finished trials are safe"
    if "readonly" in text:
        return f"the file is read-only ({text}); make it and its folder writable, or choose another file"
    if "is locked" in text:
        return f"another process held the file for over {BUSY_TIMEOUT:.0f} s ({text}); end it and resume"
    return text


class _Connection(sqlite3.Connection):
    """A connection with our settings; a class rather than an event, so that pickled storages keep it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.execute("PRAGMA foreign_keys=ON")
        if self.execute("PRAGMA journal_mode").fetchone() == ("wal",):
            self.execute("PRAGMA synchronous=NORMAL")  # less is unsafe without the log


def _open_sqlite(path: Path, create: bool) -> RDBStorage:
    _check_place(path, create)
    if path.exists() and check_database(path):
        _use_log(path)
        return connect(path, ready=True)
    try:
        with temporary_lock(locks_folder(path) / "opening"):
            fresh = not path.exists()
            try:
                path.touch()  # with the mode that the umask says; SQLite's own is never for a group to write
                _use_log(path)
                return connect(path, ready=False)
            except BaseException:
                if fresh:
                    for suffix in ("", "-wal", "-shm", "-journal"):
                        Path(f"{path}{suffix}").unlink(missing_ok=True)
                raise
    except (OSError, RuntimeError, StorageInternalError, SQLAlchemyError, sqlite3.Error) as error:
        raise StorageError(f"{path}: {_cause(error)}") from error


def _use_log(path: Path) -> None:
    """Switch a file to the write-ahead log, for good; a file that others have open without it stays so."""
    with closing(sqlite3.connect(path, timeout=1.0)) as connection, suppress(sqlite3.OperationalError):
        connection.execute("PRAGMA journal_mode=WAL")


def connect(path: Path, *, ready: bool, factory: type[sqlite3.Connection] | None = None) -> RDBStorage:
    """Return the storage in an SQLite file; ``ready``: its tables have been checked.

    `factory` makes the connections; None gives them the settings that work on a study needs.
    """
    # NOTE: Optuna fills URLs by str.format, so that braces in a path have to be doubled.
    url = URL.create("sqlite", database=str(path)).render_as_string().replace("{", "{{").replace("}", "}}")
    return StudyDatabase(
        url,
        engine_kwargs={"connect_args": {"timeout": BUSY_TIMEOUT, "factory": factory or _Connection}},
        skip_table_creation=ready,
        skip_compatibility_check=ready,
    )


def _check_place(path: Path, create: bool) -> None:
    """Refuse a path where no database can be, before anything touches it."""
    if path.is_dir():
        raise StorageError(f"{path} is a folder, not a database file; name a file in it")
    if not path.parent.is_dir():
        raise StorageError(f"there is no folder {path.parent} for the database {path.name}; make it first")
    if not path.exists() and not create:
        raise MissingError(f"there is no file {path}; check the path")
    if path.exists() and not os.access(path, os.R_OK | os.W_OK):
        raise StorageError(f"{path} is read-only; make it writable, or choose another file")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise StorageError(f"the folder {path.parent} is read-only; make it writable, or choose another one")
    kind = _file_system(path)
    if kind.startswith(_NETWORK_FILE_SYSTEMS):
        warnings.warn(
            f"{path} lies on a network file system ({kind}), where SQLite can lose data; "
            "use a local disk, or postgresql+psycopg:// for many machines",
            NetworkFileSystemWarning,
            stacklevel=4,
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


def check_database(path: Path) -> bool:
    """Say whether the file has all of Optuna's tables (True) or lacks some; refuse anything else."""
    # NOTE: never open the file but through SQLite: closing any descriptor of it drops the POSIX locks of
    # this process's connections (https://www.sqlite.org/howtocorrupt.html, section 2.2).
    version: tuple[str] | None = None
    maker: tuple[str, int] | None = None
    try:
        with closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT)) as connection:
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
        raise StorageError(f"{path}: {_cause(error)}") from None
    if faults != "ok":
        raise StorageError(f"{path}: the file is damaged ({faults.splitlines()[0]}); restore a copy")
    strange = tables - _TABLES - {"alembic_version"}
    if strange and not tables >= {"studies", "trials", "version_info"}:
        raise StorageError(
            f"{path} is a database of something else (it has a table {min(strange)!r}); choose another file"
        )
    if maker is not None:
        _check_version(path, *maker, None if version is None else version[0])
    # Where something is missing, another process is at making it, or was killed at that.
    return tables >= _TABLES and maker is not None and version is not None


def _check_version(path: Path, maker: str, schema: int, version: str | None) -> None:
    """Refuse tables of an older or newer Optuna."""
    script = ScriptDirectory(str(Path(models.__file__).parent / "alembic"))
    if version == script.get_current_head() or (version is None and schema == models.SCHEMA_VERSION):
        return
    known = version is None or version in {revision.revision for revision in script.walk_revisions()}
    upgrade = f"optuna storage upgrade --storage {shlex.quote(f'sqlite:///{path}')}"
    remedy = f"upgrade it by: {upgrade}" if known else "update Optuna by: pip install -U optuna"
    raise StorageError(
        f"{path} was written by Optuna {maker}, whose tables Optuna {optuna.__version__} can't use; {remedy}"
    )


def _open_server(url: URL) -> RDBStorage:
    shown = redact_url(url.render_as_string(hide_password=False))
    try:
        engine = sqlalchemy.create_engine(url)
        try:
            with engine.connect() as connection:
                if engine.name == "postgresql":  # released when the connection closes
                    connection.execute(sqlalchemy.select(sqlalchemy.func.pg_advisory_lock(_OPENING)))
                text = url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
                kind = StudyDatabase if engine.name in SUPPORTED else RDBStorage
                return kind(text, engine_kwargs={"pool_pre_ping": True})
        finally:
            engine.dispose()
    except NoSuchModuleError:
        raise StorageError(
            f"storage {shown!r} names no known kind of database; use sqlite:/// or postgresql+psycopg://"
        ) from None
    except ImportError as error:
        raise StorageError(
            f"storage {shown!r} needs a database driver that isn't installed ({error}); "
            "for PostgreSQL: pip install 'psycopg[binary]'"
        ) from None
    except RuntimeError as error:  # Optuna's schema check, which names no URL
        remedy = str(error).split("Please ")[-1].replace("$STORAGE_URL", shown)
        raise StorageError(f"{shown} has tables of another Optuna; {remedy}") from None
    except (SQLAlchemyError, StorageInternalError) as error:
        cause = _cause(error)
        if url.password is not None:
            cause = cause.replace(str(url.password), "***")
        raise StorageError(f"{shown}: {cause}") from None

"""Open the place where studies live, and the studies in it."""

import difflib
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal

import optuna
from optuna.exceptions import DuplicatedStudyError
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.storages._rdb import models
from sqlalchemy.engine import URL

from inna_tune.store.errors import StorageError
from inna_tune.store.memory import Memory
from inna_tune.store.postgres import PostgreSQL
from inna_tune.store.quiet import without_messages
from inna_tune.store.server import Server
from inna_tune.store.sqlite import SQLiteFile
from inna_tune.store.store import Store

# What is a storage's is told by the first of these that knows it.
KINDS: list[type[Store]] = [Memory, SQLiteFile, PostgreSQL, Server, Store]
MAX_STUDY_NAME = models.MAX_INDEXED_STRING_LENGTH


def open_store(storage: str | URL | BaseStorage | None, *, create: bool = True) -> Store:
    """Open a place for studies, once for all that is to be done there.

    See Also
    --------
    open_storage : The same with Optuna's storage alone for result, and what it takes and raises.
    """
    if storage is None:
        return Memory(InMemoryStorage())
    if isinstance(storage, BaseStorage):
        return store_of(storage)
    if not isinstance(storage, str | URL):
        raise StorageError(
            f"storage={storage!r} is neither an Optuna storage nor a database URL; "
            "give one of these, such as 'sqlite:///studies.db', or None for memory"
        )
    url = storage if isinstance(storage, str) else storage.render_as_string(hide_password=False)
    scheme = re.split(r"[+:]", url, maxsplit=1)[0]
    return next((kind for kind in KINDS if scheme in kind.schemes), Server).open(url, create=create)


def store_of(kept: BaseStorage | optuna.Study) -> Store:
    """The store around a storage, or that of a study, which is open already."""
    storage = kept._storage if isinstance(kept, optuna.Study) else kept
    return next(kind for kind in KINDS if kind.holds(storage))(storage)


def open_storage(storage: str | BaseStorage | None, *, create: bool = True) -> BaseStorage:
    """Open a storage of studies, ready for many workers.

    An SQLite file gets a write-ahead log, ``synchronous=NORMAL`` (FULL where a trial is told), foreign keys and
    a busy timeout; its tables, like those of a server, are made under a lock, so that any number of processes may open a new
    storage at once. Nothing is created or changed if it fails.

    Parameters
    ----------
    storage : str, optuna.storages.BaseStorage or None
        A database URL such as ``sqlite:///inna_tune.db`` or ``postgresql+psycopg://user@host/name``; an
        Optuna storage, used as it is; None keeps the studies in memory.
    create : bool
        Whether a missing SQLite file may be made. If not, one that is read-only, or in a folder that is, is opened to be read.

    Returns
    -------
    optuna.storages.BaseStorage
        Databases come behind Optuna's cache of finished trials.

    Raises
    ------
    StorageError
        The URL, the file or the server can't be used. The message never shows a password.
    """
    return open_store(storage, create=create).storage


def storage_errors(kept: BaseStorage | optuna.Study) -> AbstractContextManager[None]:
    """Turn what a database raises inside the block into a one-line `StorageError`."""
    return store_of(kept).errors()


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
                f"a study named {name!r} is already in {store_of(storage).words}; "
                "resume it (resume=True, or --resume), or choose another name (study_name=, or --study)"
            ) from None
    stored = [each.name.lower() for each in study.directions]
    if stored != [direction]:
        raise StorageError(
            f"study {name!r} in {store_of(storage).words} has direction {', '.join(stored)}, not {direction}; "
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
            names = sorted(optuna.get_all_study_names(opened))
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"its studies: {', '.join(names[:10]) or 'none'}"
            raise StorageError(f"There is no study {name!r} in this storage; {hint}") from None


def check_study_name(name: str) -> None:
    """Raise StorageError if a study can't have this name."""
    if not 0 < len(name) <= MAX_STUDY_NAME:
        raise StorageError(f"study name {name[:40]!r} has {len(name)} characters; use 1 to {MAX_STUDY_NAME}")


@contextmanager
def gathered(study: optuna.Study) -> Iterator[None]:
    """Write parameters, attributes and reports that this thread sets within the block in one transaction.

    They are written at the block's end, or sooner where the thread reads all trials or tells a result: then with
    it. What a killed process had gathered is lost, so a block must not span a training.
    """
    store = store_of(study)
    with store.errors(), store.gathered():
        yield

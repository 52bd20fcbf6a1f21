"""What is left of a search where its storage is not: in a pickle, in a copy, after a temporary database has gone."""

import logging
from typing import Any

import optuna
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage, _CachedStorage

from inna_tune.store.opening import StorageError, sqlite_path, storage_errors
from inna_tune.store.quiet import without_messages

logger = logging.getLogger(__name__)


class LeftBehind:
    """Stands for a storage that only the process that made it can use.

    Parameters
    ----------
    kind : str
        Name of its class.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __repr__(self) -> str:
        return f"<a {self.kind} that stayed behind when the search was copied or pickled>"


def in_memory(study: optuna.Study) -> optuna.Study:
    """A copy of a study in memory.

    Raises
    ------
    StorageError
        If it can't be read.
    """
    storage = InMemoryStorage()
    with storage_errors(study._storage), without_messages():
        optuna.copy_study(from_study_name=study.study_name, from_storage=study._storage, to_storage=storage)
        return optuna.load_study(
            study_name=study.study_name, storage=storage, sampler=study.sampler, pruner=study.pruner
        )


def without_storage(state: dict[str, Any]) -> dict[str, Any]:
    """The attributes of a search, for another place: its study in memory, and nothing that makes a file.

    A URL stays, and stands for a database that was given open: it is opened when the search is fitted. A study that can no
    longer be read is left out. A search that is not fitted keeps a storage that is no file, as it was made.

    Parameters
    ----------
    state : dict
        Attributes of an `InnaSearchCV`.
    """
    study, storage = state.get("study_"), state["storage"]
    if study is None:
        is_file = isinstance(storage, BaseStorage) and sqlite_path(storage) is not None
        return state | {"storage": _closed(storage)} if is_file else state
    kept = state | {"storage": _closed(storage)}
    if not isinstance(study._storage, InMemoryStorage):
        try:
            kept["study_"] = _read(study)
        except (StorageError, OSError, KeyError) as error:
            logger.warning("the copy of the search lacks study_, which can't be read: %s", error)
            del kept["study_"]
    return kept


def _read(study: optuna.Study) -> optuna.Study:
    path = sqlite_path(study._storage)
    if path is not None and not path.exists():  # looking into it would make it anew
        raise StorageError(f"there is no file {path}")
    return in_memory(study)


def _closed(storage: Any) -> Any:
    """What stands for a storage where it is not open."""
    if not isinstance(storage, BaseStorage) or isinstance(storage, InMemoryStorage):
        return storage
    backend = storage._backend if isinstance(storage, _CachedStorage) else storage
    return str(backend.url) if isinstance(backend, RDBStorage) else LeftBehind(type(storage).__name__)

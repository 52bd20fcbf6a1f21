"""What is left of a search where its storage is not: in a pickle, in a copy, after a temporary database has gone."""

from typing import Any

import optuna
from optuna.storages import BaseStorage, InMemoryStorage

from inna_tune.store.errors import StorageError
from inna_tune.store.opening import storage_errors, store_of
from inna_tune.store.quiet import without_messages
from inna_tune.visible import get_logger

logger = get_logger(__name__)


def in_memory(study: optuna.Study) -> optuna.Study:
    """A copy of a study in memory.

    Raises
    ------
    StorageError
        If it can't be read.
    """
    storage = InMemoryStorage()
    with storage_errors(study), without_messages():
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
    given = store_of(storage) if isinstance(storage, BaseStorage) else None
    if given is not None and (study is not None or given.path is not None):
        state = state | {"storage": given.stand_in()}
    if study is None or not store_of(study).lasts:
        return state
    kept = dict(state)
    try:
        path = store_of(study).path
        if path is not None and not path.exists():  # looking into it would make it anew
            raise StorageError(f"there is no file {path}")
        kept["study_"] = in_memory(study)
    except (StorageError, OSError, KeyError) as error:
        logger.warning("the copy of the search lacks study_, which can't be read: %s", error)
        del kept["study_"]
    return kept

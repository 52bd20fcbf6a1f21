"""A study that came to nothing does not keep its name from whoever mends what was wrong, and asks again."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from inna_tune.records.attributes import FINGERPRINT, REASON
from inna_tune.store.opening import storage_errors
from inna_tune.store.store import OWNER
from inna_tune.store.workers import Worker
from inna_tune.visible import get_logger

logger = get_logger(__name__)

# Of a fingerprint, what says that it is of the same table.
_OF_TABLE = ("columns", "rows", "content", "target", "target_content")


def clear_what_failed(storage: BaseStorage, name: str, asked: Callable[..., dict[str, Any]]) -> None:
    """Take a study away of which all trials that were begun failed, if it is of the same table and nobody works on it.

    One with any other trial stays, and so does one that was not begun by inna-tune.

    Parameters
    ----------
    storage : optuna.storages.BaseStorage
    name : str
    asked : callable
        As of `inna_tune.study.run.run_study`.

    Raises
    ------
    StorageError
        If the storage can't be read.
    """
    with storage_errors(storage):
        if name not in optuna.get_all_study_names(storage):
            return
        study = optuna.load_study(study_name=name, storage=storage)
        stored = study.user_attrs.get(FINGERPRINT)
    if not isinstance(stored, dict) or not _failed(study):
        return
    current = asked(space=None)
    if any(stored.get(part) != current[part] for part in _OF_TABLE):
        return
    # Asked once more, since that may have taken a while, and others may have begun it anew by now.
    failed = _failed(study)
    if not failed:
        return
    reason = next((t.user_attrs[REASON] for t in failed if REASON in t.user_attrs), "no reason was recorded")
    logger.warning(
        "study %s is begun anew, since all of its trials failed, %d of them; the first: %s",
        name,
        len(failed),
        reason,
    )
    with storage_errors(storage), suppress(KeyError):
        storage.delete_study(study._study_id)


def _failed(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that were begun, where all of them failed, and those who did it have gone; else nothing."""
    with storage_errors(study), suppress(KeyError):
        trials = study.get_trials(deepcopy=False)
        begun = [t for t in trials if t.state != TrialState.WAITING or OWNER in t.system_attrs]
        watcher = Worker(study._storage)
        have_gone = all(watcher.is_alive(t.system_attrs.get(OWNER)) is False for t in begun)
        return begun if have_gone and all(t.state == TrialState.FAIL for t in begun) else []
    return []

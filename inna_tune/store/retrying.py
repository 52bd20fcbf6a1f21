"""Mend a study: trials that failed are queued again, such as those that an older version blamed for a fault of the database."""

import re

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from inna_tune.store.opening import load_study, store_of

_REASON = "reason"  # the trial's user attribute, as `inna_tune.records.attributes` has it
_OF_STORAGE = re.compile(
    r"(Storage|StorageInternal|Unreachable|Operational|Interface|Database|PendingRollback|Disconnection)Error\b"
    r"|.*(database is locked|database or disk is full|disk I/O error|No space left on device|Disk quota exceeded)",
    re.DOTALL,
)


def retry_failed(storage: str | BaseStorage, name: str, *, every: bool = False) -> list[int]:
    """Queue trials of a study again that failed for a fault of its storage, under their numbers and with their settings.

    The next search that resumes the study takes them up first. Call it while none runs.

    Parameters
    ----------
    storage : str or optuna.storages.BaseStorage
        A database.
    name : str
    every : bool, default=False
        Queue all trials that failed, whatever the reason.

    Returns
    -------
    list of int
        Numbers of the trials.

    Raises
    ------
    StorageError
        If there is no such study, or it is no database's.
    """
    study = load_study(storage, name)
    store = store_of(study)
    with store.errors():
        failed = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
        chosen = [t for t in failed if every or is_of_storage(t)]
        if chosen:
            store.queue_again(study._study_id, [t._trial_id for t in chosen])
    return [t.number for t in chosen]


def is_of_storage(trial: FrozenTrial) -> bool:
    """Whether a trial failed, as far as it says, for a fault of the storage."""
    return _OF_STORAGE.match(str(trial.user_attrs.get(_REASON, ""))) is not None

"""Ask for the next trial of a study that workers share, and tell what came of it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState

from inna_tune.store.opening import gathered, storage_errors, store_of
from inna_tune.store.store import OWNER
from inna_tune.store.workers import Worker
from inna_tune.visible import get_logger

_logger = get_logger("inna_tune.study")


def ask(study: optuna.Study, worker: Worker, n_trials: int) -> Trial | None:
    """Return the next trial for `worker`, such that the study ends with exactly `n_trials`.

    First a trial left RUNNING by a dead worker is taken up again, under its own number and with the values
    it has, its reports forgotten; then a waiting one is claimed; then a new one is made. Each is decided in
    one transaction of the database, so that any number of workers share a study without a trial too many,
    too few or done twice. Sampler and pruner see what `optuna.Study.ask` would show them.

    Parameters
    ----------
    study : optuna.Study
    worker : Worker
        Entered (``with``). It may hold several trials at once.
    n_trials : int
        The study's total over all workers and restarts. Complete, pruned, failed and running trials count;
        waiting ones don't, and remain waiting if there is no room for them.

    Returns
    -------
    optuna.trial.Trial or None
        None where nothing is left to start; other workers may still be running theirs. A RUNNING trial
        without an owner counts as left behind.

    Raises
    ------
    StorageError
        The database can't be read or written.
    """
    if not worker.at_work():
        raise ValueError("worker isn't at work: enter it first, `with Worker(storage) as worker:`")
    store = store_of(study)
    with store.errors():
        trial_id = store.claim(study._study_id, worker, n_trials)
        if trial_id is None:
            return None
        worker.trials.add(trial_id)
        # NOTE: what Study.ask does, with its own way to find the trial replaced by ours.
        study._thread_local.cached_all_trials = None
        return Trial(study, trial_id)


def tell(
    study: optuna.Study,
    worker: Worker,
    trial: Trial,
    values: float | Sequence[float] | None = None,
    state: TrialState | None = None,
    *,
    notes: Mapping[str, Any] | None = None,
) -> bool:
    """Tell a result, unless another worker took the trial over in the meantime.

    That happens only where this worker's lease ran out, on a database server it couldn't reach.

    Parameters
    ----------
    study : optuna.Study
    worker : Worker
    trial : optuna.trial.Trial
    values, state
        As for `optuna.Study.tell`.
    notes : mapping, optional
        User attributes of the trial, JSON-able, written with the result in one transaction.

    Returns
    -------
    bool
        Whether the result was stored.
    """
    stored = _end_own(study, worker, trial, notes or {}, lambda: study.tell(trial, values, state))
    if not stored:
        _logger.warning("trial %d was taken over by another worker, its result isn't stored", trial.number)
    return stored


def put_back(
    study: optuna.Study, worker: Worker, trial: Trial | FrozenTrial, *, notes: Mapping[str, Any]
) -> bool:
    """Leave a trial unfinished for whoever has time: it waits, under its number and with the settings it has.

    Parameters
    ----------
    study : optuna.Study
    worker : Worker
    trial : optuna.trial.Trial or FrozenTrial
    notes : mapping
        User attributes of the trial, JSON-able.

    Returns
    -------
    bool
        Whether it was still this worker's.
    """
    storage = study._storage
    return _end_own(
        study,
        worker,
        trial,
        notes,
        lambda: storage.set_trial_state_values(trial._trial_id, TrialState.WAITING),
    )


def _end_own(
    study: optuna.Study,
    worker: Worker,
    trial: Trial | FrozenTrial,
    notes: Mapping[str, Any],
    end: Callable[[], object],
) -> bool:
    """Let a trial go by ``end``, with its notes in one transaction, if it is still this worker's; whether it was."""
    with storage_errors(study):
        owner = study._storage.get_trial_system_attrs(trial._trial_id).get(OWNER)
        own = isinstance(owner, dict) and owner.get("id") == worker.id
        if own:
            try:
                with gathered(study):
                    for name, note in notes.items():
                        study._storage.set_trial_user_attr(trial._trial_id, name, note)
                    end()
            except UpdateFinishedTrialError:
                own = False
    worker.trials.discard(trial._trial_id)
    return own

"""Tell those who watch a study of its trials, as `optuna.Study.optimize` does."""

from collections.abc import Callable, Sequence

import optuna
from optuna.trial import FrozenTrial

from inna_tune.store.opening import storage_errors

Callback = Callable[[optuna.Study, FrozenTrial], None]


def call_back(callbacks: Sequence[Callback], study: optuna.Study, trial_id: int) -> None:
    """Call each with the study and a finished trial; ``study.stop()`` works inside, and what they raise comes out."""
    if not callbacks:
        return
    with storage_errors(study):
        told = study._storage.get_trial(trial_id)
    # NOTE: Study.stop refuses to work outside of Study.optimize, by this mark.
    before, study._thread_local.in_optimize_loop = study._thread_local.in_optimize_loop, True
    try:
        for callback in callbacks:
            callback(study, told)
    finally:
        study._thread_local.in_optimize_loop = before


def is_stopped(study: optuna.Study) -> bool:
    """Whether a callback called ``study.stop()``."""
    return study._stop_flag

"""When trials report, how many are drawn together, and what a pruner is shown."""

from typing import Any

import optuna
from optuna.pruners import BasePruner, SuccessiveHalvingPruner
from optuna.trial import FrozenTrial

# Rungs grow by this factor, and at each one the better half goes on.
REDUCTION_FACTOR = 2
_FIRST_RUNG_SHARE = 16


def rungs(max_epochs: int) -> list[int]:
    """Epochs at which members report: about max_epochs / 16 and its doublings, the last one before the end."""
    first = max(1, max_epochs // _FIRST_RUNG_SHARE)
    found = []
    while first <= max_epochs // REDUCTION_FACTOR:
        found.append(first)
        first *= REDUCTION_FACTOR
    return found


def default_pruner(max_epochs: int) -> BasePruner:
    """Successive halving over the rungs."""
    first = rungs(max_epochs)[:1] or [1]
    return SuccessiveHalvingPruner(min_resource=first[0], reduction_factor=REDUCTION_FACTOR)


def cohort_size(n_trials: int) -> int:
    """Trials to draw together, of a study of ``n_trials``: an eighth of it, at most 16.

    A sampler learns between cohorts only. Of studies of 64 trials on five tables, cohorts of 8 took 0.72 of the time of one
    trial at a time and found settings as good (0.99 of the cross-validated loss); cohorts of 32 took 0.61 and lost 1.7% on
    rows apart, though that is within the noise (studies/cohort_size.py).
    """
    return max(1, min(16, n_trials // 8))


class EarlierTrials:
    """A study as it looked, or will look, to a trial that knows of those with smaller numbers only."""

    def __init__(self, study: optuna.Study, number: int) -> None:
        self._study, self._number = study, number

    def get_trials(self, deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:
        trials = self._study.get_trials(deepcopy=deepcopy, states=states)
        return [t for t in trials if t.number <= self._number]

    @property
    def trials(self) -> list[FrozenTrial]:
        return self.get_trials()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

"""When trials report, how many are drawn together, and which end early.

By the default pruner a trial begins on its first fold. The epochs at which it reports there are its first rungs, the last of
them the end; what is left then trains on the other folds, and reports the mean over all of them at further rungs.
"""

import math
from collections.abc import Callable
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial, TrialState

from inna_tune.records.attributes import RACE, RULES
from inna_tune.store.opening import storage_errors

# Rungs lie at these shares of a training. On the first fold alone, scores at the first of them rank trials nearly as those at
# the last do (rank correlation with the end .7 to .9), and every further rung is another chance to lose the best. Where a fold
# is all there is, it is large, and a trial costs nearly a fit. Where there are several, what ends a trial after one epoch of
# thirty is its step size; with the first rung at an eighth twice as many trials reached the end, and the ensembles of 30 trials
# had a lower test loss by 1.1% on titanic, 2.6% on abalone and .2% on credit (one seed each, three finalists in place of two).
_SHARES, _SHARES_OF_RACES = (1 / 32, 1 / 8, 1 / 2), (1 / 8, 1 / 2)
# Where folds race, or a trial is one fit, early stopping ends many trainings by the 30th epoch; rungs at shares of a hundred
# would come too late.
_USUAL_EPOCHS = 30
# At each rung, of the trials that have reached it, the best one in so many goes on: fewer where that fold is all there is,
# since then it is large and a trial costs nearly a fit; on one fold of several, more are left to the verdict of the others.
_REDUCTION_FACTOR, _REDUCTION_FACTOR_OF_RACES = 3, 2
# Where a trial is one fit of many nets on all rows. Replayed on 6 to 24 trials of four tables that were trained to the end, in
# 40 orders, rungs like these cost a third of those at the 2nd and 8th epoch, with the test loss of the best lower by .4%, that
# of the ensemble higher by .2%. Fewer nets of a trial at its first rung rank trials worse than all of them after one epoch do.
# Searches of 50 trials cost 7.4 fits of the estimator as it is in place of 11.9 (five tables, one seed).
_SHARES_OF_MEMBERS, _REDUCTION_FACTOR_OF_MEMBERS = (1 / 32, 1 / 4, 1 / 2, 1.0), 4
# Studies that were begun by older versions go on by these.
_EARLIER_SHARES_OF_MEMBERS = 1 / 16, 1 / 4
# A law that falls to a horizon of so many usual trainings has fallen by 4% at most where these end, and at no rung is it
# behind another by what is still to come.
_FAR = 8

# By which a study ends trials early that begins now.
RULES_NOW = 1

# From the end of a fold on so many go on at least: the best of one fold is in part the luckiest there. So do trials that are
# one fit from the middle of a usual training on.
FINALISTS = 3


def rungs(
    max_epochs: int, *, races: bool = False, by_members: bool = False, rules: int = RULES_NOW
) -> list[int]:
    """Epochs at which members report: about a 32nd, an eighth and a half of a training.

    Where folds race, or a trial is one fit, at shares of 30 epochs where a training is longer. ``rules`` as of `rules_of`.
    """
    shares: tuple[float, ...] = _SHARES
    epochs = max_epochs
    if races or by_members:
        shares, epochs = _SHARES_OF_RACES, min(max_epochs, _USUAL_EPOCHS)
    if by_members and not races:
        shares = _SHARES_OF_MEMBERS if rules else _EARLIER_SHARES_OF_MEMBERS
    return sorted({epoch for share in shares if 0 < (epoch := round(share * epochs)) < max_epochs})


def finals_of(at: list[int], rules: int = RULES_NOW) -> int:
    """From which of the rungs on of trials that are one fit several go on at least."""
    middle = round(_SHARES_OF_MEMBERS[-2] * _USUAL_EPOCHS)
    return next((epoch for epoch in at if rules and epoch >= middle), at[-1])


def default_pruner(n_folds: int, *, by_members: bool = False) -> BasePruner:
    """That of a search which is given none."""
    if by_members:
        return RungPruner(_REDUCTION_FACTOR_OF_MEMBERS, races_folds=False)
    is_race = n_folds > 1
    return RungPruner(_REDUCTION_FACTOR_OF_RACES if is_race else _REDUCTION_FACTOR, races_folds=is_race)


class RungPruner(BasePruner):
    """Lets the best one in so many of the trials go on that have reached a rung, and at least the best; the first trial always.

    Asynchronous successive halving (Li et al. 2020) with a decision for every report, so that it depends on nothing but the
    trials that it is shown: an `EarlierTrials` shows those of smaller numbers, whose laws of decay can be compared.

    Parameters
    ----------
    reduction_factor : int
        Of the trials at a rung, one in so many goes on.
    races_folds : bool
        Whether a trial is to begin on its first fold, and on the others where it is still there at the end of that.
    """

    def __init__(
        self, reduction_factor: int = _REDUCTION_FACTOR_OF_RACES, *, races_folds: bool = True
    ) -> None:
        self.reduction_factor, self.races_folds = reduction_factor, races_folds

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether a trial ends at the step it has reported last."""
        step = trial.last_step
        if step is None or trial.number == 0:
            return False
        own = trial.intermediate_values[step]
        if math.isnan(own):
            return True
        trials = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
        others = [t.intermediate_values[step] for t in trials if step in t.intermediate_values]
        if isinstance(study, EarlierTrials) and study.counts_ended:
            # What is pruned has its last report for a value.
            ended = [t for t in trials if t.state == TrialState.COMPLETE and (t.last_step or 0) < step]
            others += [t.value for t in ended if t.value is not None]
        better = max if study.direction == optuna.study.StudyDirection.MAXIMIZE else min
        ahead = sum(other != own and better(other, own) == other for other in others)
        least = study.least if isinstance(study, EarlierTrials) else 1
        return ahead >= max(least, (len(others) + 1) // self.reduction_factor)


def rules_of(study: optuna.Study) -> int:
    """By which rules the trials of a study end early: `RULES_NOW`, or 0 where an older version began it."""
    with storage_errors(study):
        found = study.user_attrs.get(RULES)
    return found if isinstance(found, int) else 0


def compares_all_laws(horizon: int, rules: int = RULES_NOW) -> bool:
    """Whether trials that are one fit are compared at a rung whatever their laws of decay, whose horizon is far."""
    return rules > 0 and horizon >= _FAR * _USUAL_EPOCHS


def races_folds(study: optuna.Study) -> bool:
    """Whether the trials of a study begin on their first folds: where its pruner is for it, and it was begun so."""
    with storage_errors(study):
        return bool(getattr(study.pruner, "races_folds", False) and study.user_attrs.get(RACE))


def cohort_size(n_trials: int) -> int:
    """Trials to draw together, of a study of ``n_trials``: an eighth of it, at most 16.

    A sampler learns between cohorts only. Of studies of 64 trials on five tables, cohorts of 8 took 0.72 of the time of one
    trial at a time and found settings as good (0.99 of the cross-validated loss); cohorts of 32 took 0.61 and lost 1.7% on
    rows apart, though that is within the noise (studies/cohort_size.py).
    """
    return max(1, min(16, n_trials // 8))


class EarlierTrials:
    """A study as it looked, or will look, to a trial that knows of itself, and of those with smaller numbers that are alike.

    ``least`` of them, the best, are to go on from where the trial is. ``counts_ended``: whether those that had come to their
    ends before are compared with it, too, by their values.
    """

    def __init__(
        self,
        study: optuna.Study,
        number: int,
        alike: Callable[[FrozenTrial], bool] = lambda trial: True,
        *,
        least: int = 1,
        counts_ended: bool = False,
    ) -> None:
        self._study, self._number, self._alike = study, number, alike
        self.least, self.counts_ended = least, counts_ended

    def get_trials(self, deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:
        trials = self._study.get_trials(deepcopy=deepcopy, states=states)
        return [t for t in trials if t.number == self._number or (t.number < self._number and self._alike(t))]

    @property
    def trials(self) -> list[FrozenTrial]:
        return self.get_trials()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

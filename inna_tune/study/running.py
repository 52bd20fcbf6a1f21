"""Trials are drawn in cohorts, train as one population, report at rungs, and are told."""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, Trial, TrialState
from sklearn.base import clone

from inna_tune.estimators.base import InnaEstimator
from inna_tune.space import SearchSpace
from inna_tune.study.attributes import REASON
from inna_tune.study.evaluation import Cohort, FoldedTable
from inna_tune.study.scoring import Scorer
from inna_tune.study.workers import Worker, ask, tell

logger = logging.getLogger(__name__)

Callback = Callable[[optuna.Study, FrozenTrial], None]


@dataclass(frozen=True)
class Training:
    """What trains together now.

    Attributes
    ----------
    trials : tuple of int
        Their numbers.
    members : int
        Nets in the population, of all folds of these trials.
    epoch, until, epochs : int
        Epochs that are done, the epoch of the next rung, and those of a training that nothing ends early.
    """

    trials: tuple[int, ...]
    members: int
    epoch: int
    until: int
    epochs: int

    def __str__(self) -> str:
        trials = f"{len(self.trials)} trials" if len(self.trials) > 1 else f"trial {self.trials[0]}"
        until = (
            f"the rung at {self.until}, of {self.epochs}"
            if self.until < self.epochs
            else f"{self.until}, the last"
        )
        return f"{self.members} members of {trials} train: epoch {self.epoch} to {until}"


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


def cohort_size(n_trials: int) -> int:
    """Trials to draw together, of a study of ``n_trials``: an eighth of it, at most 16.

    A sampler learns between cohorts only. Of studies of 64 trials on five tables, cohorts of 8 took 0.72 of the time of one
    trial at a time and found settings as good (0.99 of the cross-validated loss); cohorts of 32 took 0.61 and lost 1.7% on
    rows apart, though that is within the noise (studies/cohort_size.py).
    """
    return max(1, min(16, n_trials // 8))


@dataclass
class _Candidate:
    """A trial and the estimator with its settings."""

    trial: Trial
    estimator: InnaEstimator
    notes: dict[str, Any] = field(default_factory=dict)


class TrialRunner:
    """Runs the trials of a study for one worker.

    Parameters
    ----------
    study : optuna.Study
    worker : Worker
        At work.
    folded : FoldedTable
    estimator : InnaEstimator
        Settings that the space does not name are its.
    space : SearchSpace
    scorer : callable
        (model, X, y) -> float, higher is better.
    seed : int
        Root of the trials' own seeds.
    deadline : float or None
        Value of ``time.monotonic()`` past which no further batch is begun.
    error_score : "raise" or number
    callbacks : sequence of callables (study, trial)
        One with a method ``on_training(study, training)`` also hears, before every stretch of training, of a `Training`.
    log_level : int
        At which a finished trial is logged.
    """

    def __init__(
        self,
        study: optuna.Study,
        worker: Worker,
        folded: FoldedTable,
        estimator: InnaEstimator,
        space: SearchSpace,
        *,
        scorer: Scorer,
        seed: int,
        deadline: float | None,
        error_score: float | str,
        callbacks: Sequence[Callback],
        log_level: int,
    ) -> None:
        self.study, self.worker, self.folded = study, worker, folded
        self.estimator, self.space, self.scorer, self.seed = estimator, space, scorer, seed
        self.deadline, self.error_score = deadline, error_score
        self.callbacks, self.log_level = callbacks, log_level

    def run_cohort(self, n_trials: int, size: int) -> int:
        """Draw up to ``size`` trials, train them together, and tell them.

        Trial numbers are cut into cohorts at the multiples of ``size``, so that a study that is resumed in the middle of
        one asks the sampler for just those that were missing, before it learns of any of the others.

        Returns
        -------
        int
            How many there were; 0 where the study has its ``n_trials``.
        """
        candidates: list[_Candidate] = []
        drawn, limit = 0, n_trials
        while drawn < size and (trial := ask(self.study, self.worker, limit)) is not None:
            drawn += 1
            limit = min(n_trials, (trial.number // size + 1) * size)
            # Its values stand in the study before the next one is drawn: the sampler keeps away from them.
            candidate = self._prepare(trial)
            if candidate is not None:
                candidates.append(candidate)
        alike: dict[Hashable, list[_Candidate]] = defaultdict(list)
        for candidate in candidates:
            alike[candidate.estimator._population_key()].append(candidate)
        for group in alike.values():
            self._run(group)
        return drawn

    # ------------------------------------------------------------------ before and after training

    def _prepare(self, trial: Trial) -> _Candidate | None:
        """The estimator of a trial; None, and the trial told, where its settings make no sense."""
        try:
            estimator = clone(self.estimator).set_params(**self.space.suggest(trial))
            if estimator.random_state is None:
                words = np.random.SeedSequence([self.seed, trial.number]).generate_state(1)
                estimator.random_state = int(words[0])
            estimator._check_parameters()
        except Exception as error:
            self._fail(trial, error)
            return None
        candidate = _Candidate(trial, estimator)
        if isinstance(estimator.random_state, (int, np.integer)):
            candidate.notes["seed"] = int(estimator.random_state)
        return candidate

    def _fail(self, trial: Trial, error: Exception) -> None:
        if self.error_score == "raise":
            tell(self.study, self.worker, trial, state=TrialState.FAIL)
            raise error
        logger.warning("trial %d failed: %s: %s", trial.number, type(error).__name__, error)
        self._tell(trial, TrialState.FAIL, None, {REASON: f"{type(error).__name__}: {error}"})

    def _tell(self, trial: Trial, state: TrialState, value: float | None, notes: dict[str, Any]) -> None:
        for name, content in notes.items():
            trial.set_user_attr(name, content)
        stored = tell(self.study, self.worker, trial, value, state)
        logger.log(
            self.log_level, "trial %d: %s, score %s, %s", trial.number, state.name.lower(), value, notes
        )
        if stored and self.callbacks:
            told = self.study._storage.get_trial(trial._trial_id)
            for callback in self.callbacks:
                callback(self.study, told)

    def _announce(self, training: Training) -> None:
        for callback in self.callbacks:
            tell_of = getattr(callback, "on_training", None)
            if tell_of is not None:
                tell_of(self.study, training)

    # ------------------------------------------------------------------ training

    def _run(self, group: Sequence[_Candidate]) -> None:
        """Train and tell trials that stack."""
        told: set[int] = set()
        try:
            self._train(group, told)
        except Exception as error:
            left = [c for c in group if c.trial.number not in told]
            if len(group) == 1:
                self._fail(group[0].trial, error)
                return
            # One of them is to blame: alone, each gets its due.
            logger.info("%d trials go on one by one: %s: %s", len(left), type(error).__name__, error)
            for candidate in left:
                self._run([candidate])

    def _train(self, group: Sequence[_Candidate], told: set[int]) -> None:
        """Train the trials of a group from rung to rung; ``told`` receives their numbers as they are told."""
        began = time.monotonic()
        cohort = Cohort(self.folded, [c.estimator for c in group])
        open_ = dict(enumerate(group))

        def finish(place: int, reason: str | None = None) -> None:
            candidate = open_.pop(place)
            candidate.notes["seconds"] = round((time.monotonic() - began) / len(group), 4)
            state, value = self._outcome(cohort, place, candidate.notes, reason)
            self._tell(candidate.trial, state, value, candidate.notes)
            told.add(candidate.trial.number)

        reached, epochs = 0, group[0].estimator.max_epochs

        def announce(until: int) -> None:
            running = tuple(c.trial.number for place, c in open_.items() if cohort.is_active(place))
            if running:
                self._announce(Training(running, len(cohort.training.active), reached, until, epochs))

        for rung in rungs(epochs):
            announce(rung)
            cohort.run(rung, deadline=self.deadline)
            reached = rung
            # NOTE: by number, and each looking at earlier numbers only, so that what is pruned does not depend on which
            # of the others were told before an interruption.
            for place, candidate in list(open_.items()):
                if cohort.diverged(place) or not cohort.is_active(place):
                    finish(place)
                    continue
                score = float(np.mean(cohort.scores(place, self.scorer, final=False)))
                candidate.trial.report(score, rung)
                # Far from its end the cosine law looks worse than others; where all trials follow it, that is fair.
                comparable = candidate.estimator.decay != "cosine" or "decay" not in candidate.trial.params
                if comparable and self._should_prune(candidate.trial):
                    cohort.drop([place])
                    finish(place, f"pruned at epoch {rung}")
        announce(epochs)
        cohort.run(deadline=self.deadline)
        for place in list(open_):
            finish(place)

    def _should_prune(self, trial: Trial) -> bool:
        view: Any = _EarlierTrials(self.study, trial.number)
        return bool(self.study.pruner.prune(view, self.study._storage.get_trial(trial._trial_id)))

    def _outcome(
        self, cohort: Cohort, place: int, notes: dict[str, Any], reason: str | None
    ) -> tuple[TrialState, float | None]:
        """State and value of a trial that has ended; what is worth knowing goes into ``notes``."""
        state = TrialState.COMPLETE if reason is None else TrialState.PRUNED
        results = cohort.results(place)
        notes["epochs"] = max(r.epochs for r in results)
        notes["best_epoch"] = [r.best_epoch for r in results]
        if any(r.stop_reason == "time" for r in results):
            state, reason = TrialState.PRUNED, "timeout"
        scores = cohort.scores(place, self.scorer)
        if np.isfinite(scores).all():
            notes["scores"] = scores
        else:
            # Told as pruned, not failed: samplers learn from pruned trials to keep away, and ignore failed ones.
            state, reason = TrialState.PRUNED, "diverged: the loss was not finite within the first epoch"
        if reason is not None:
            notes[REASON] = reason
        return state, float(np.mean(scores)) if state == TrialState.COMPLETE else None


class _EarlierTrials:
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

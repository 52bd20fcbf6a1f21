"""Trials are drawn in cohorts, train as one population, report at rungs, and are told."""

import hashlib
import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
import torch
from optuna.trial import Trial, TrialState
from sklearn.base import clone

from inna_tune import __version__
from inna_tune.estimators.base import InnaEstimator
from inna_tune.space import SearchSpace
from inna_tune.study.attributes import REASON
from inna_tune.study.callbacks import Callback, call_back, is_stopped
from inna_tune.study.checkpoints import Checkpoint, Checkpoints
from inna_tune.study.claims import OWNER
from inna_tune.study.describing import describe_settings
from inna_tune.study.evaluation import Cohort, FoldedTable
from inna_tune.study.rungs import EarlierTrials, rungs
from inna_tune.study.scoring import Scorer
from inna_tune.study.stopping import Stopped
from inna_tune.study.storage import StorageError, gathered, storage_errors
from inna_tune.study.workers import Worker, ask, tell

logger = logging.getLogger(__name__)


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


# Seconds of a trial's group worth a checkpoint at a rung: files are written in a few hundredths of that, and training once
# more what took less costs a person nothing.
_WORTH_KEEPING = 1.0

_WAIT = 0.2  # seconds between looks at what other workers still run


@dataclass
class _Candidate:
    """A trial, the estimator with its settings, and how far it is.

    ``saved`` is the checkpoint it goes on from; ``place`` its cohort, and its place in it, while it trains.
    """

    trial: Trial
    estimator: InnaEstimator
    notes: dict[str, Any] = field(default_factory=dict)
    identity: str = ""
    saved: Checkpoint | None = None
    saved_epoch: int = 0
    reports: dict[int, float] = field(default_factory=dict)
    place: tuple[Cohort, int] | None = None

    @property
    def seconds(self) -> float:
        """Spent in earlier lives."""
        return 0.0 if self.saved is None else self.saved.seconds

    @property
    def where(self) -> tuple[Cohort, int]:
        assert self.place is not None
        return self.place


@dataclass(frozen=True)
class Job:
    """What the trials of a study are, the same for all its workers.

    Attributes
    ----------
    folded : FoldedTable
    estimator : InnaEstimator
        Settings that the space does not name are its.
    space : SearchSpace
    scorer : callable
        (model, X, y) -> float, higher is better.
    seed : int
        Root of the trials' own seeds.
    n_trials : int
        Of the study, over all its workers.
    population : int
        Trials to draw together.
    error_score : "raise" or number
    log_level : int
        At which a finished trial is logged.
    """

    folded: FoldedTable
    estimator: InnaEstimator
    space: SearchSpace
    scorer: Scorer
    seed: int
    n_trials: int
    population: int
    error_score: float | str
    log_level: int


class _CallbackError(Exception):
    """A callback raised."""

    def __init__(self, of_callback: Exception) -> None:
        super().__init__(of_callback)
        self.of_callback = of_callback


class TrialRunner:
    """Runs the trials of a study for one worker.

    Parameters
    ----------
    job : Job
    study : optuna.Study
    worker : Worker
        At work.
    deadline : float or None
        Value of ``time.monotonic()`` past which no further batch is begun.
    stop : callable
        Asked between epochs and between trials whether to end early.
    callbacks : sequence of callables (study, trial)
    """

    def __init__(
        self,
        job: Job,
        study: optuna.Study,
        worker: Worker,
        *,
        deadline: float | None,
        stop: Callable[[], bool],
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.job, self.study, self.worker = job, study, worker
        self.deadline, self.stop, self.callbacks = deadline, stop, callbacks
        self.checkpoints = Checkpoints(study)

    def run(self) -> None:
        """Run cohorts until the study has its trials, all of them finished, time is up, or a callback stops the study.

        Where nothing is left to begin but other workers still have trials in hand, this waits for them, and takes up what a
        worker that dies leaves.

        Raises
        ------
        Stopped
            If asked to end early; trials in hand are left for the next worker to take up.
        Exception
            Of a callback; trials in hand are left likewise.
        """
        self._clean()
        try:
            while not self._is_late() and not is_stopped(self.study):
                self._check_stop()
                if not self.run_cohort(self.job.n_trials, self.job.population):
                    if not self._others_run():
                        break
                    time.sleep(_WAIT)
        except _CallbackError as error:
            raise error.of_callback from None
        finally:
            self._clean()

    def _clean(self) -> None:
        if self.checkpoints.are_kept:
            trials = self.study.get_trials(deepcopy=False)
            self.checkpoints.clean(t.number for t in trials if t.state.is_finished())

    def _others_run(self) -> bool:
        """Whether another worker has a trial of the study in hand."""
        with storage_errors(self.study._storage):
            return bool(self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))

    def _is_late(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    def _check_stop(self) -> None:
        if self.stop():
            raise Stopped

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
        while drawn < size:
            self._check_stop()
            trial = ask(self.study, self.worker, limit)
            if trial is None:
                break
            drawn += 1
            limit = min(n_trials, (trial.number // size + 1) * size)
            # Its values stand in the study before the next one is drawn: the sampler keeps away from them.
            candidate = self._prepare(trial)
            if candidate is not None:
                candidates.append(candidate)
        alike: dict[Any, list[_Candidate]] = defaultdict(list)
        for candidate in candidates:
            alike[candidate.estimator._population_key()].append(candidate)
        # Sorted, so that the order does not depend on which trials were told before an interruption.
        for key in sorted(alike):
            self._run(alike[key])
        return drawn

    # ------------------------------------------------------------------ before and after training

    def _prepare(self, trial: Trial) -> _Candidate | None:
        """The estimator of a trial; None, and the trial told, where its settings make no sense."""
        try:
            with gathered(self.study):
                settings = self.job.space.suggest(trial)
            estimator = clone(self.job.estimator).set_params(**settings)
            if estimator.random_state is None:
                words = np.random.SeedSequence([self.job.seed, trial.number]).generate_state(1)
                estimator.random_state = int(words[0])
            estimator._check_parameters()
        except StorageError:
            raise  # no trial is to blame
        except Exception as error:
            self._fail(trial, error)
            return None
        candidate = _Candidate(trial, estimator)
        if isinstance(estimator.random_state, (int, np.integer)):
            candidate.notes["seed"] = int(estimator.random_state)
        if self.checkpoints.are_kept:
            self._take_up(candidate)
        return candidate

    def _take_up(self, candidate: _Candidate) -> None:
        """Let a trial of a worker that died go on from its checkpoint, with the reports it had made by then."""
        folded, estimator, trial = self.job.folded, candidate.estimator, candidate.trial
        candidate.identity = _identity(folded, estimator)
        net = folded.net_for(estimator)
        saved = self.checkpoints.load(
            trial.number,
            candidate.identity,
            [math.prod(shape) for shape in net.parameter_shapes.values()],
            estimator.n_members * len(folded.folds),
        )
        if saved is None:
            return
        candidate.saved, candidate.saved_epoch, candidate.reports = saved, saved.epoch, dict(saved.reports)
        storage = self.study._storage
        with gathered(self.study):
            for rung, score in saved.reports.items():
                trial.report(score, rung)
            for name, note in saved.notes.items():
                storage.set_trial_system_attr(trial._trial_id, name, note)
        logger.log(self.job.log_level, "trial %d goes on from epoch %d", trial.number, saved.epoch)

    def _begin_anew(self, candidate: _Candidate) -> None:
        self.checkpoints.remove(candidate.trial.number)
        candidate.saved, candidate.saved_epoch, candidate.reports = None, 0, {}

    def _save(self, candidate: _Candidate, seconds: float) -> None:
        """Write the checkpoint of a trial that still trains."""
        cohort, place = candidate.where
        if (
            not self.checkpoints.are_kept
            or not cohort.is_active(place)
            or cohort.epoch <= candidate.saved_epoch
        ):
            return
        notes = self.study._storage.get_trial_system_attrs(candidate.trial._trial_id)
        checkpoint = Checkpoint(
            identity=candidate.identity,
            epoch=cohort.epoch,
            seconds=candidate.seconds + seconds,
            reports=candidate.reports,
            notes={name: note for name, note in notes.items() if name != OWNER},
            members=cohort.progress(place),
        )
        if self.checkpoints.save(candidate.trial.number, checkpoint):
            candidate.saved_epoch = cohort.epoch

    def _fail(self, trial: Trial, error: Exception) -> None:
        if self.job.error_score == "raise":
            tell(self.study, self.worker, trial, state=TrialState.FAIL)
            raise error
        logger.warning("trial %d failed: %s: %s", trial.number, type(error).__name__, error)
        self._tell(trial, TrialState.FAIL, None, {REASON: f"{type(error).__name__}: {error}"})

    def _tell(self, trial: Trial, state: TrialState, value: float | None, notes: dict[str, Any]) -> None:
        stored = tell(self.study, self.worker, trial, value, state, notes=notes)
        logger.log(
            self.job.log_level, "trial %d: %s, score %s, %s", trial.number, state.name.lower(), value, notes
        )
        if not stored:
            return
        self.checkpoints.remove(trial.number)
        try:
            call_back(self.callbacks, self.study, trial._trial_id)
        except Exception as error:
            raise _CallbackError(error) from error

    def _announce(self, training: Training) -> None:
        for callback in self.callbacks:
            tell_of = getattr(callback, "on_training", None)
            if tell_of is not None:
                try:
                    tell_of(self.study, training)
                except Exception as error:
                    raise _CallbackError(error) from error

    # ------------------------------------------------------------------ training

    def _run(self, group: Sequence[_Candidate]) -> None:
        """Train and tell trials that stack."""
        told: set[int] = set()
        try:
            with storage_errors(self.study._storage):
                self._train(group, told)
        except (_CallbackError, StorageError):
            raise  # no trial is to blame
        except Exception as error:
            left = [c for c in group if c.trial.number not in told]
            if not left:
                raise
            if len(group) == 1:
                [candidate] = left
                if candidate.saved is None:
                    self._fail(candidate.trial, error)
                else:  # a checkpoint may only save time, and this one is perhaps to blame
                    logger.warning(
                        "trial %d begins anew: %s: %s", candidate.trial.number, type(error).__name__, error
                    )
                    self._begin_anew(candidate)
                    self._run(left)
                return
            # One of them is to blame: alone, each gets its due.
            logger.info("%d trials go on one by one: %s: %s", len(left), type(error).__name__, error)
            for candidate in left:
                self._run([candidate])

    def _cohorts(self, group: Sequence[_Candidate]) -> list[Cohort]:
        """The trials of a group as populations, one for each epoch that trials go on from."""
        by_epoch: dict[int, list[_Candidate]] = defaultdict(list)
        for candidate in group:
            by_epoch[0 if candidate.saved is None else candidate.saved.epoch].append(candidate)
        cohorts = []
        for epoch in sorted(by_epoch):
            alike = by_epoch[epoch]
            progress = [c.saved.members for c in alike if c.saved is not None]
            cohort = Cohort(self.job.folded, [c.estimator for c in alike], progress or None)
            for place, candidate in enumerate(alike):
                candidate.place = cohort, place
            cohorts.append(cohort)
        return cohorts

    def _train(self, group: Sequence[_Candidate], told: set[int]) -> None:
        """Train the trials of a group from rung to rung; ``told`` receives their numbers as they are told."""
        began = kept = time.monotonic()
        deadline = self._deadline(group)
        cohorts = self._cohorts(group)
        open_ = {c.trial.number: c for c in sorted(group, key=lambda c: c.trial.number)}

        def seconds() -> float:
            return (time.monotonic() - began) / len(group)

        def finish(number: int, reason: str | None = None) -> None:
            candidate = open_.pop(number)
            candidate.notes["seconds"] = round(candidate.seconds + seconds(), 4)
            state, value = self._outcome(candidate, reason)
            self._tell(candidate.trial, state, value, candidate.notes)
            told.add(number)

        def advance(epoch: int | None) -> None:
            for cohort in cohorts:
                cohort.run(epoch, deadline=deadline, stop=self.stop)
            if self.stop():
                for number, candidate in list(open_.items()):
                    cohort, place = candidate.where
                    if cohort.is_active(place):
                        self._save(candidate, seconds())
                    else:
                        finish(number)
                raise Stopped

        reached, epochs = 0, group[0].estimator.max_epochs

        def announce(until: int) -> None:
            running = tuple(n for n, c in open_.items() if c.where[0].is_active(c.where[1]))
            if running:
                n_members = sum(len(cohort.training.active) for cohort in cohorts)
                self._announce(Training(running, n_members, reached, until, epochs))

        for rung in rungs(epochs):
            announce(rung)
            advance(rung)
            reached = rung
            # NOTE: by number, and each looking at earlier numbers only, so that what is pruned does not depend on which
            # of the others were told before an interruption.
            for number, candidate in list(open_.items()):
                cohort, place = candidate.where
                if rung in candidate.reports:
                    continue
                if cohort.diverged(place) or not cohort.is_active(place):
                    finish(number)
                    continue
                score = float(np.mean(cohort.scores(place, self.job.scorer, final=False)))
                candidate.trial.report(score, rung)
                candidate.reports[rung] = score
                # Far from its end the cosine law looks worse than others; where all trials follow it, that is fair.
                comparable = candidate.estimator.decay != "cosine" or "decay" not in candidate.trial.params
                if comparable and self._should_prune(candidate.trial):
                    cohort.drop([place])
                    finish(number, f"pruned at epoch {rung}")
            if time.monotonic() - kept > _WORTH_KEEPING:
                for candidate in open_.values():
                    self._save(candidate, seconds())
                kept = time.monotonic()
        announce(epochs)
        advance(None)
        for number in list(open_):
            finish(number)

    def _deadline(self, group: Sequence[_Candidate]) -> float | None:
        """When training has to end: that of the study, or that of the trials, who share their times (``max_time``)."""
        each = group[0].estimator.max_time
        if each is None:
            return self.deadline
        own = time.monotonic() + sum(max(0.0, each - c.seconds) for c in group)
        return own if self.deadline is None else min(own, self.deadline)

    def _should_prune(self, trial: Trial) -> bool:
        view: Any = EarlierTrials(self.study, trial.number)
        return bool(self.study.pruner.prune(view, self.study._storage.get_trial(trial._trial_id)))

    def _outcome(self, candidate: _Candidate, reason: str | None) -> tuple[TrialState, float | None]:
        """State and value of a trial that has ended; what is worth knowing goes into its notes."""
        (cohort, place), notes = candidate.where, candidate.notes
        state = TrialState.COMPLETE if reason is None else TrialState.PRUNED
        results = cohort.results(place)
        notes["epochs"] = max(r.epochs for r in results)
        notes["best_epoch"] = [r.best_epoch for r in results]
        if any(r.stop_reason == "time" for r in results):
            if self._is_late():
                state, reason = TrialState.PRUNED, "timeout"
            else:
                # As `fit` does, a trial whose own time is up keeps the best it has.
                notes["max_time"] = candidate.estimator.max_time
        scores = cohort.scores(place, self.job.scorer)
        if np.isfinite(scores).all():
            notes["scores"] = scores
        else:
            # Told as pruned, not failed: samplers learn from pruned trials to keep away, and ignore failed ones.
            state, reason = TrialState.PRUNED, "diverged: the loss was not finite within the first epoch"
        if reason is not None:
            notes[REASON] = reason
        return state, float(np.mean(scores)) if state == TrialState.COMPLETE else None


def _identity(folded: FoldedTable, estimator: InnaEstimator) -> str:
    """Of all that determines a trial's training, so that no checkpoint goes on with anything else."""
    content = [__version__, torch.__version__, folded.digest, describe_settings(estimator)]
    return hashlib.blake2b(repr(content).encode(), digest_size=16).hexdigest()

"""Trials are drawn in cohorts, train as one population, report at rungs, and are told."""

import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.trial import Trial, TrialState
from sklearn.base import clone

from inna_tune import clock
from inna_tune.optim.decay import DECAY_LAWS
from inna_tune.records.attributes import CUT, REASON
from inna_tune.store.asking import ask, put_back, tell
from inna_tune.store.errors import StorageError
from inna_tune.store.opening import gathered, storage_errors
from inna_tune.store.store import OWNER
from inna_tune.store.workers import Worker
from inna_tune.study.budget import Budget, Pace
from inna_tune.study.callbacks import Callback, call_back, is_stopped
from inna_tune.study.candidates import Candidate, identity_of, shared_time
from inna_tune.study.checkpoints import Checkpoint, Checkpoints
from inna_tune.study.evaluation import Cohort
from inna_tune.study.job import Job, Training
from inna_tune.study.rungs import EarlierTrials, rungs
from inna_tune.study.signals import Stopped

logger = logging.getLogger(__name__)


# Seconds of a trial's group worth a checkpoint at a rung: files are written in a few hundredths of that, and training once
# more what took less costs a person nothing.
_WORTH_KEEPING = 1.0

_WAIT = 0.2  # seconds between looks at what other workers still run


class _EndingError(Exception):
    """What ends the search: a callback raised, or a trial where ``error_score="raise"``."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(reason)
        self.reason = reason


class TrialRunner:
    """Runs the trials of a study for one worker.

    Parameters
    ----------
    job : Job
    study : optuna.Study
    worker : Worker
        At work.
    budget : Budget or None
        Of time; None: trials take as long as they take.
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
        budget: Budget | None,
        stop: Callable[[], bool],
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.job, self.study, self.worker = job, study, worker
        self.budget, self.stop, self.callbacks = budget, stop, callbacks
        self.checkpoints = Checkpoints(study)
        self._is_out_of_time = False

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
            while (size := self._size()) and not is_stopped(self.study):
                self._check_stop()
                if not self.run_cohort(self.job.n_trials, size):
                    if not self._others_run():
                        break
                    time.sleep(_WAIT)
        except _EndingError as error:
            raise error.reason from None
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

    def _size(self) -> int:
        """How many trials to draw together now; 0 where there is no time for any."""
        if self.budget is None:
            return self.job.population
        return 0 if self._is_out_of_time else self.budget.trials_to_draw(self.job.population)

    def _check_stop(self) -> None:
        if self.stop():
            raise Stopped

    def run_cohort(self, n_trials: int, size: int) -> int:
        """Draw up to ``size`` trials, train them together, and tell them.

        Where time runs out, those that are unfinished are put back, to be taken up when there is time again.

        Trial numbers are cut into cohorts at the multiples of ``size``, so that a study that is resumed in the middle of
        one asks the sampler for just those that were missing, before it learns of any of the others.

        Returns
        -------
        int
            How many there were; 0 where the study has its ``n_trials``.
        """
        candidates: list[Candidate] = []
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
        alike: dict[Any, list[Candidate]] = defaultdict(list)
        for candidate in candidates:
            alike[candidate.kind].append(candidate)
        # Sorted, so that the order does not depend on which trials were told before an interruption.
        began = clock.now()
        for key in sorted(alike):
            self._run(alike[key])
        if self.budget is not None and candidates and not self._is_out_of_time:
            self.budget.note_trials(clock.now() - began, len(candidates))
        return drawn

    # ------------------------------------------------------------------ before and after training

    def _prepare(self, trial: Trial) -> Candidate | None:
        """The estimator of a trial; None, and the trial told, where its settings make no sense."""
        try:
            with gathered(self.study):
                settings = self.job.space.suggest(trial)
            estimator = clone(self.job.estimator).set_params(**settings)
            if estimator.random_state is None:
                words = np.random.SeedSequence([self.job.seed, trial.number]).generate_state(1)
                estimator.random_state = int(words[0])
            estimator._check_parameters()
            table = self.job.folded.encoded_for(estimator)
        except StorageError:
            raise  # no trial is to blame
        except Exception as error:
            self._fail(trial, error)
            return None
        candidate = Candidate(trial, estimator, table)
        if isinstance(estimator.random_state, (int, np.integer)):
            candidate.notes["seed"] = int(estimator.random_state)
        if self.checkpoints.are_kept:
            self._take_up(candidate)
        return candidate

    def _take_up(self, candidate: Candidate) -> None:
        """Let a trial of a worker that died go on from its checkpoint, with the reports it had made by then."""
        trial = candidate.trial
        candidate.identity = identity_of(candidate)
        sizes = candidate.table.tensor_sizes(candidate.estimator)
        saved = self.checkpoints.load(trial.number, candidate.identity, sizes)
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

    def _begin_anew(self, candidate: Candidate) -> None:
        self.checkpoints.remove(candidate.trial.number)
        candidate.spent = candidate.seconds
        candidate.saved, candidate.saved_epoch, candidate.reports = None, 0, {}

    def _save(self, candidate: Candidate) -> None:
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
            seconds=candidate.seconds,
            reports=candidate.reports,
            notes={name: note for name, note in notes.items() if name != OWNER},
            members=cohort.progress(place),
            retries=cohort.retries(place),
        )
        if self.checkpoints.save(candidate.trial.number, checkpoint):
            candidate.saved_epoch = cohort.epoch

    def _fail(self, trial: Trial, error: Exception, notes: dict[str, Any] | None = None) -> None:
        if self.job.error_score == "raise":
            tell(self.study, self.worker, trial, state=TrialState.FAIL)
            raise _EndingError(error)
        where = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
        reason = f"{type(error).__name__}: {error}{where}"
        logger.warning("trial %d failed: %s", trial.number, reason)
        self._tell(trial, TrialState.FAIL, None, {**(notes or {}), REASON: reason})

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
            raise _EndingError(error) from error

    def _announce(self, training: Training) -> None:
        for callback in self.callbacks:
            tell_of = getattr(callback, "on_training", None)
            if tell_of is not None:
                try:
                    tell_of(self.study, training)
                except Exception as error:
                    raise _EndingError(error) from error

    # ------------------------------------------------------------------ training

    def _run(self, group: Sequence[Candidate]) -> None:
        """Train and tell trials that stack."""
        told: set[int] = set()
        try:
            with storage_errors(self.study._storage):
                self._train(group, told)
        except (_EndingError, StorageError):
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

    def _cohorts(self, group: Sequence[Candidate]) -> list[Cohort]:
        """The trials of a group as populations, one for each epoch that trials go on from."""
        by_epoch: dict[int, list[Candidate]] = defaultdict(list)
        for candidate in group:
            by_epoch[0 if candidate.saved is None else candidate.saved.epoch].append(candidate)
        cohorts = []
        for epoch in sorted(by_epoch):
            alike = by_epoch[epoch]
            saved = [c.saved for c in alike if c.saved is not None]
            with shared_time(alike):
                cohort = Cohort(
                    alike[0].table,
                    [c.estimator for c in alike],
                    [s.members for s in saved] or None,
                    [s.retries for s in saved],
                )
            for place, candidate in enumerate(alike):
                candidate.place = cohort, place
            cohorts.append(cohort)
        return cohorts

    def _train(self, group: Sequence[Candidate], told: set[int]) -> None:
        """Train the trials of a group from rung to rung; ``told`` receives their numbers as they are told."""
        kept = clock.now()
        own_end = self._own_end(group)
        for candidate in group:
            candidate.place = None
        if self._is_out_of_time:
            for candidate in group:
                self._cut(candidate)
                told.add(candidate.trial.number)
            return
        cohorts = self._cohorts(group)
        open_ = {c.trial.number: c for c in sorted(group, key=lambda c: c.trial.number)}

        def blame(number: int, error: Exception) -> None:
            candidate = open_.pop(number)
            told.add(number)
            cohort, place = candidate.where
            cohort.drop([place])
            candidate.notes["seconds"] = round(candidate.seconds, 4)
            self._fail(candidate.trial, error, candidate.notes)

        def finish(number: int, reason: str | None = None) -> None:
            candidate = open_[number]
            try:
                with candidate.timed():
                    state, value = self._outcome(candidate, reason)
            except Exception as error:
                blame(number, error)
                return
            del open_[number]
            candidate.notes["seconds"] = round(candidate.seconds, 4)
            self._tell(candidate.trial, state, value, candidate.notes)
            told.add(number)

        def advance(epoch: int | None) -> None:
            for cohort in cohorts:
                with shared_time([c for c in open_.values() if c.where[0] is cohort]):
                    self._advance(cohort, epoch, own_end)
            if self._is_out_of_time:
                for number, candidate in list(open_.items()):
                    if self._is_cut(candidate, own_end):
                        self._cut(open_.pop(number))
                        told.add(number)
                    else:
                        finish(number)
            elif self.stop():
                for number, candidate in list(open_.items()):
                    cohort, place = candidate.where
                    if cohort.is_active(place):
                        self._save(candidate)
                    else:
                        finish(number)
                raise Stopped

        reached, epochs = 0, group[0].estimator.max_epochs

        def announce(until: int) -> None:
            running = tuple(n for n, c in open_.items() if c.where[0].is_active(c.where[1]))
            if running:
                n_members = sum(cohort.n_active for cohort in cohorts)
                self._announce(Training(running, n_members, reached, until, epochs))

        for rung in rungs(epochs):
            announce(rung)
            advance(rung)
            if not open_:
                return
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
                try:
                    with candidate.timed():
                        scores = cohort.scores(place, self.job.scorer, final=False)
                        cohort.check(place, self.job.scorer, scores)
                except Exception as error:
                    blame(number, error)
                    continue
                score = float(np.mean(scores))
                candidate.trial.report(score, rung)
                candidate.reports[rung] = score
                # Far from its end such a law looks worse than others; where all trials follow it, that is fair.
                law = DECAY_LAWS[candidate.estimator.decay]
                comparable = not law.needs_horizon or "decay" not in candidate.trial.params
                if comparable and self._should_prune(candidate.trial):
                    cohort.drop([place])
                    finish(number, f"pruned at epoch {rung}")
            if clock.now() - kept > _WORTH_KEEPING:
                for candidate in open_.values():
                    self._save(candidate)
                kept = clock.now()
        announce(epochs)
        advance(None)
        for number in list(open_):
            finish(number)

    def _own_end(self, group: Sequence[Candidate]) -> float:
        """When trials have to end that share their times (``max_time``), whatever the study's budget."""
        each = group[0].estimator.max_time
        return math.inf if each is None else clock.now() + sum(max(0.0, each - c.seconds) for c in group)

    def _advance(self, cohort: Cohort, epoch: int | None, own_end: float) -> None:
        """Train a cohort up to an epoch, its own end, or the end of the study's time."""
        pace = Pace(cohort, self.budget, self.stop)
        end = own_end if self.budget is None else min(own_end, self.budget.cut_at)
        cohort.run(epoch, deadline=None if end == math.inf else end, stop=pace)
        pace.note()
        cut = self.budget is not None and end < own_end and clock.now() >= end
        self._is_out_of_time |= cut or pace.is_out_of_time

    def _is_cut(self, candidate: Candidate, own_end: float) -> bool:
        """Whether a trial would have gone on, had the study had more time."""
        cohort, place = candidate.where
        by_time = any(r.stop_reason == "time" for r in cohort.results(place))
        return cohort.is_active(place) or (by_time and clock.now() < own_end)

    def _cut(self, candidate: Candidate) -> None:
        """Put a trial back for whoever has time for it, with what it has reached."""
        notes: dict[str, Any] = dict(candidate.notes)
        if candidate.place is not None:
            cohort, place = candidate.place
            with candidate.timed():
                scores = cohort.scores(place, self.job.scorer)
            self._save(candidate)
            notes["seconds"] = round(candidate.seconds, 4)
            epochs = max(r.epochs for r in cohort.results(place))
            if np.isfinite(scores).all():
                notes[CUT] = {"value": float(np.mean(scores)), "scores": scores, "epochs": epochs}
        put_back(self.study, self.worker, candidate.trial, notes=notes)
        logger.log(
            self.job.log_level, "trial %d: cut off by time, %s", candidate.trial.number, notes.get(CUT)
        )

    def _should_prune(self, trial: Trial) -> bool:
        view: Any = EarlierTrials(self.study, trial.number)
        return bool(self.study.pruner.prune(view, self.study._storage.get_trial(trial._trial_id)))

    def _outcome(self, candidate: Candidate, reason: str | None) -> tuple[TrialState, float | None]:
        """State and value of a trial that has ended; what is worth knowing goes into its notes."""
        (cohort, place), notes = candidate.where, candidate.notes
        state = TrialState.COMPLETE if reason is None else TrialState.PRUNED
        results = cohort.results(place)
        notes["epochs"] = max(r.epochs for r in results)
        notes["best_epoch"] = [r.best_epoch for r in results]
        if any(r.stop_reason == "time" for r in results):
            # As `fit` does, a trial whose own time is up keeps the best it has.
            notes["max_time"] = candidate.estimator.max_time
        scores = cohort.scores(place, self.job.scorer)
        cohort.check(place, self.job.scorer, scores)
        if np.isfinite(scores).all():
            notes["scores"] = scores
            if self.budget is not None and state == TrialState.COMPLETE:
                self.budget.note_score(float(np.mean(scores)), notes["epochs"])
        else:
            # Told as pruned, not failed: samplers learn from pruned trials to keep away, and ignore failed ones.
            state, reason = TrialState.PRUNED, "diverged: the loss was not finite within the first epoch"
        if reason is not None:
            notes[REASON] = reason
        return state, float(np.mean(scores)) if state == TrialState.COMPLETE else None

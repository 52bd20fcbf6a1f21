"""Trials that stack train as one population from rung to rung, where the weak ones leave it."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from inna_tune import clock
from inna_tune.estimators.base import InnaEstimator
from inna_tune.estimators.member_plan import usual_epochs
from inna_tune.optim.decay import DECAY_LAWS
from inna_tune.records.attributes import CUT, METRICS, PREDICT_SECONDS, REASON
from inna_tune.store.errors import StorageError
from inna_tune.store.opening import storage_errors
from inna_tune.store.store import OWNER
from inna_tune.study.budget import Budget
from inna_tune.study.candidates import Candidate, shared_time
from inna_tune.study.checkpoints import Checkpoint
from inna_tune.study.evaluation import Cohort
from inna_tune.study.job import Training
from inna_tune.study.kept import Left
from inna_tune.study.rungs import (
    FINALISTS,
    EarlierTrials,
    compares_all_laws,
    finals_of,
    races_folds,
    rules_of,
    rungs,
)
from inna_tune.study.running import TrialRunner, logger
from inna_tune.study.scoring import Scorer
from inna_tune.study.signals import Stopped

# Seconds of a trial's group worth a checkpoint at a rung: files are written in a few hundredths of that, and training once
# more what took less costs a person nothing.
_WORTH_KEEPING = 1.0

_T = TypeVar("_T")


class Pace:
    """Asked between the epochs of a cohort whether it halts: because ``stop`` says so, or since the next would end too late."""

    def __init__(self, cohort: Cohort, budget: Budget | None, stop: Callable[[], bool]) -> None:
        self._cohort, self._budget, self._stop = cohort, budget, stop
        self._began: tuple[float, int, int] | None = None
        self._last = 0.0
        self.is_out_of_time = False

    def __call__(self) -> bool:
        self.note()
        if self._budget is not None and clock.now() + self._last > self._budget.trials_end:
            self.is_out_of_time = True
        self._began = clock.now(), self._cohort.epoch, self._cohort.rows_an_epoch()
        return self.is_out_of_time or self._stop()

    def note(self) -> None:
        """Take in the epoch that has ended, if one has."""
        if self._began is None:
            return
        began, epoch, rows = self._began
        if self._cohort.epoch > epoch:
            self._last = clock.now() - began
            if self._budget is not None:
                self._budget.note_training(self._last, rows)
        self._began = None


class Group:
    """Trials of one kind in training.

    Where the study's pruner wants it, a trial begins on its first fold, and on the others once that has trained to its end
    (see `inna_tune.study.rungs`).
    """

    def __init__(
        self,
        runner: TrialRunner,
        scorer: Scorer,
        candidates: Sequence[Candidate],
        *,
        leaves: bool = False,
        others: Mapping[str, tuple[Scorer, dict[str, Any]]] | None = None,
    ) -> None:
        self.runner, self._scorer, self.candidates, self._leaves = runner, scorer, candidates, leaves
        self._others = others or {}
        first = candidates[0]
        self.n_folds = len(first.table.folds)
        self.epochs = max(first.table.plan_for(first.estimator, k).max_epochs for k in range(self.n_folds))
        each = first.estimator.max_time
        # A trial that its own time ends is to have a score on every fold.
        self._races = each is None and self.n_folds > 1 and races_folds(runner.study)
        self._is_by_members = first.table.scores_nets_alone
        rules, most = rules_of(runner.study), self.epochs
        if not self._is_by_members:
            most = usual_epochs(first.estimator.max_epochs, most)
        self._rungs = rungs(most, races=self._races, by_members=self._is_by_members, rules=rules)
        self._compares_all = self._is_by_members and compares_all_laws(self.epochs, rules)
        self._counts_ended = self._is_by_members and rules > 0
        # From there on, several go on at least.
        self._finals = finals_of(self._rungs, rules) if self._is_by_members and self._rungs else self.epochs
        # When trials have to end that share their times (``max_time``), whatever the study's budget.
        self._own_end = math.inf
        if each is not None:
            self._own_end = clock.now() + sum(max(0.0, each - c.seconds) for c in candidates)
        self._cohorts: list[Cohort] = []
        self._open: dict[int, Candidate] = {}  # those that are not told yet, by their numbers

    def train(self) -> None:
        """Train the trials, and tell each as it ends."""
        for candidate in self.candidates:
            candidate.place = None
        self._open = {c.trial.number: c for c in sorted(self.candidates, key=lambda c: c.trial.number)}
        if self.runner.is_out_of_time:
            for candidate in list(self._open.values()):
                self._cut(candidate)
            return
        self._cohorts, ahead = self._stacked()
        self._kept = clock.now()
        if self._races:
            self._lap([*self._rungs, self.epochs], 0)
            for cohort in self._cohorts:
                self._begin_rest(cohort)
            self._cohorts += ahead
        self._lap(self._rungs, self.epochs if self._races else 0)
        if not self._open:
            return
        self._announce(max(self._rungs, default=0), self.epochs)
        self._advance(None)
        for candidate in list(self._open.values()):
            self._finish(candidate)

    def _stacked(self) -> tuple[list[Cohort], list[Cohort]]:
        """The trials as populations, one for each epoch that trials go on from; apart, those past their first fold."""
        alike: dict[tuple[bool, int], list[Candidate]] = defaultdict(list)
        for candidate in self.candidates:
            if candidate.saved is not None and not self._races and candidate.saved.n_begun < self.n_folds:
                candidate.begin_anew()
            saved = candidate.saved
            is_ahead = saved is not None and saved.n_begun > self._begins_on(candidate)
            alike[is_ahead, 0 if saved is None else saved.epoch].append(candidate)
        found: tuple[list[Cohort], list[Cohort]] = [], []
        for (is_ahead, _), own in sorted(alike.items()):
            known = [c.saved for c in own if c.saved is not None]
            with shared_time(own):
                cohort = Cohort(
                    own[0].table,
                    [c.estimator for c in own],
                    [s.members for s in known] or None,
                    [s.retries for s in known],
                    n_begun=[self._begins_on(c) if c.saved is None else c.saved.n_begun for c in own],
                    deadline=None if self._end == math.inf else self._end,
                )
            for place, candidate in enumerate(own):
                candidate.place = cohort, place
            found[is_ahead].append(cohort)
        return found

    def _begins_on(self, candidate: Candidate) -> int:
        """Folds that a trial begins on; the first trial, whom nobody is before, on all at once."""
        return 1 if self._races and candidate.trial.number > 0 else self.n_folds

    def _begin_rest(self, cohort: Cohort) -> None:
        """Let the trials that are left go on to the other folds."""
        own = [c for c in self._present() if c.where[0] is cohort and not cohort.has_begun_all(c.where[1])]
        if own:
            with shared_time(own):
                cohort.begin_rest([c.where[1] for c in own])

    def _lap(self, stops: Sequence[int], before: int) -> None:
        """Train the present cohorts from rung to rung; reports count the epochs that went ``before`` on the first fold."""
        reached = 0
        for rung in stops:
            if not self._present():
                return
            self._announce(reached, rung)
            self._advance(rung)
            reached = rung
            # NOTE: by number, and each looking at earlier numbers only, so that what is pruned does not depend on which
            # of the others were told before an interruption.
            for candidate in self._present():
                self._report(candidate, rung, before)
            if clock.now() - self._kept > _WORTH_KEEPING:
                for candidate in self._present():
                    self._save(candidate)
                self._kept = clock.now()

    def _present(self) -> list[Candidate]:
        """Those that are not told, of the cohorts that train now."""
        return [c for c in self._open.values() if c.where[0] in self._cohorts]

    def _announce(self, reached: int, until: int) -> None:
        running = tuple(c.trial.number for c in self._present() if c.where[0].is_active(c.where[1]))
        if running:
            n_members = sum(cohort.n_active for cohort in self._cohorts)
            self.runner.announce(Training(running, n_members, reached, until, self.epochs))

    # ------------------------------------------------------------------ training

    def _advance(self, epoch: int | None) -> None:
        """Train all up to an epoch, their own ends, or the end of the study's time; those that time ends are told."""
        for cohort in self._cohorts:
            with shared_time([c for c in self._open.values() if c.where[0] is cohort]):
                self._train(cohort, epoch)
        if self.runner.is_out_of_time:
            for candidate in list(self._open.values()):
                if self._is_cut(candidate):
                    self._cut(candidate)
                else:
                    self._finish(candidate)
        elif self.runner.stop():
            for candidate in list(self._open.values()):
                if self._goes_on(candidate):
                    self._save(candidate)
                else:
                    self._finish(candidate)
            raise Stopped

    def _train(self, cohort: Cohort, epoch: int | None) -> None:
        budget = self.runner.budget
        pace = Pace(cohort, budget, self.runner.stop)
        end = self._end
        cohort.run(epoch, deadline=None if end == math.inf else end, stop=pace)
        pace.note()
        cut = budget is not None and end < self._own_end and clock.now() >= end
        self.runner.is_out_of_time |= cut or pace.is_out_of_time

    @property
    def _end(self) -> float:
        """When training is broken off, by the clock."""
        budget = self.runner.budget
        return self._own_end if budget is None else min(self._own_end, budget.cut_at)

    def _goes_on(self, candidate: Candidate) -> bool:
        """Whether a trial has still to train, on some fold."""
        cohort, place = candidate.where
        return cohort.is_active(place) or not cohort.has_begun_all(place)

    def _report(self, candidate: Candidate, rung: int, before: int) -> None:
        """Report a trial's score at a rung, and end it where it is pruned, or has come to its end."""
        cohort, place = candidate.where
        is_first = self._races and before == 0
        has_ended = not self._goes_on(candidate)
        if cohort.diverged(place) or (has_ended and not is_first):
            self._finish(candidate)
            return
        if before + rung in candidate.reports:
            return
        scores = self._tried(candidate, lambda: self._scores(candidate, final=False))
        if scores is None:
            return
        if is_first:
            # Others are compared with the first trial where they are themselves, though it has ended already.
            later = [r for r in [*self._rungs, self.epochs] if has_ended and r > rung]
            for at in [rung, *later]:
                self._tell(candidate, at, scores[0])
            if has_ended:
                self._finish(candidate)
                return
            if cohort.has_begun_all(place):
                self._tell(candidate, self.epochs + rung, float(np.mean(scores)))
        else:
            if before:
                # Its first fold is at its end already.
                scores[0] = candidate.reports.get(rung, scores[0])
            self._tell(candidate, before + rung, float(np.mean(scores)))
        if self._should_prune(
            candidate,
            has_decayed=is_first and rung == self.epochs,
            least=FINALISTS if before + rung >= self._finals else 1,
        ):
            cohort.drop([place])
            fold = "" if cohort.has_begun_all(place) else " of the first fold"
            self._finish(candidate, f"pruned at epoch {rung}{fold}")

    def _tell(self, candidate: Candidate, step: int, score: float) -> None:
        with storage_errors(self.runner.study):
            candidate.trial.report(score, step)
        candidate.reports[step] = score

    def _should_prune(self, candidate: Candidate, *, has_decayed: bool, least: int) -> bool:
        """Ask the pruner, who is shown the earlier trials that can be compared: at the end of a fold, all of them."""
        study, trial = self.runner.study, candidate.trial
        alike, compares_all = self._is_alike(candidate.estimator), has_decayed or self._compares_all
        view: Any = EarlierTrials(
            study,
            trial.number,
            alike=lambda other: compares_all or alike(other),
            least=least,
            counts_ended=self._counts_ended,
        )
        with storage_errors(study):
            return bool(study.pruner.prune(view, study._storage.get_trial(trial._trial_id)))

    def _is_alike(self, estimator: InnaEstimator) -> Callable[[FrozenTrial], bool]:
        """Tells trials that are as far from their end at a rung as those of an estimator: whose law has a horizon, or none."""
        own = DECAY_LAWS[estimator.decay].needs_horizon

        def is_alike(trial: FrozenTrial) -> bool:
            law = DECAY_LAWS.get(trial.params.get("decay", estimator.decay))
            return law is not None and law.needs_horizon == own

        return is_alike

    def _scores(self, candidate: Candidate, *, final: bool = True) -> list[float]:
        cohort, place = candidate.where
        scores = cohort.scores(place, self._scorer, final=final)
        cohort.check(place, self._scorer, scores)
        return scores

    def _save(self, candidate: Candidate) -> None:
        """Write the checkpoint of a trial that still trains."""
        cohort, place = candidate.where
        checkpoints, trial = self.runner.checkpoints, candidate.trial
        at = cohort.n_begun(place), cohort.epoch
        if not checkpoints.are_kept or not self._goes_on(candidate) or not at[1] or at <= candidate.saved_at:
            return
        with storage_errors(self.runner.study):
            notes = self.runner.study._storage.get_trial_system_attrs(trial._trial_id)
        checkpoint = Checkpoint(
            identity=candidate.identity,
            epoch=cohort.epoch,
            seconds=candidate.seconds,
            reports=candidate.reports,
            notes={name: note for name, note in notes.items() if name != OWNER},
            members=cohort.progress(place),
            retries=cohort.retries(place),
        )
        if checkpoints.save(trial.number, checkpoint):
            candidate.saved_at = at

    def _leave(self, candidate: Candidate, value: float) -> None:
        """Keep the predictions and nets of a trial that is about to be told, or put back, with a value."""
        if not self._leaves:
            return
        (cohort, place), began = candidate.where, clock.now()
        predictions = cohort.predictions(place)
        candidate.notes[PREDICT_SECONDS] = round(clock.now() - began, 6)
        nets = Checkpoint(
            candidate.identity,
            cohort.epoch,
            candidate.seconds,
            {},
            members=cohort.ended(place),
            retries=cohort.retries(place),
        )
        left = Left(candidate.identity, value, predictions)
        self.runner.kept.save(candidate.trial.number, left, nets, is_a_fit=self._is_by_members)

    # ------------------------------------------------------------------ the end of a trial

    def _tried(self, candidate: Candidate, work: Callable[[], _T]) -> _T | None:
        """What comes of work on a trial, in its own time; None, and the trial told, where it raises."""
        try:
            with candidate.timed():
                return work()
        except StorageError:
            raise  # no trial is to blame
        except Exception as error:
            cohort, place = candidate.where
            cohort.drop([place])
            self._close(candidate)
            candidate.is_told = True
            self.runner.fail(candidate.trial, error, candidate.notes)
            return None

    def _close(self, candidate: Candidate) -> None:
        del self._open[candidate.trial.number]
        candidate.notes["seconds"] = round(candidate.seconds, 4)

    def _finish(self, candidate: Candidate, reason: str | None = None) -> None:
        """Tell a trial that has ended."""
        outcome = self._tried(candidate, lambda: self._outcome(candidate, reason))
        if outcome is not None:
            self._close(candidate)
            self.runner.tell(candidate.trial, *outcome, candidate.notes)
            candidate.is_told = True

    def _outcome(self, candidate: Candidate, reason: str | None) -> tuple[TrialState, float | None]:
        """State and value of a trial that has ended; what is worth knowing goes into its notes."""
        (cohort, place), notes, budget = candidate.where, candidate.notes, self.runner.budget
        state = TrialState.COMPLETE if reason is None else TrialState.PRUNED
        results = cohort.results(place)
        notes["epochs"] = max(r.epochs for r in results)
        notes["best_epoch"] = [r.best_epoch for r in results]
        if any(r.stop_reason == "time" for r in results):
            # As `fit` does, a trial whose own time is up keeps the best it has.
            notes["max_time"] = candidate.estimator.max_time
        scores = self._scores(candidate)
        value = float(np.mean(scores))
        if np.isfinite(scores).all():
            if cohort.has_begun_all(place):
                notes |= {"scores": scores} | cohort.which_nets(place)
            if state == TrialState.COMPLETE:
                if self._others:
                    notes[METRICS] = self._beside(candidate)
                if budget is not None:
                    budget.note_score(value, notes["epochs"], candidate.seconds)
                self._leave(candidate, value)
        else:
            # Told as pruned, not failed: samplers learn from pruned trials to keep away, and ignore failed ones.
            state, reason = TrialState.PRUNED, "diverged: the loss was not finite within the first epoch"
        if reason is not None:
            notes[REASON] = reason
        return state, value if state == TrialState.COMPLETE else None

    def _beside(self, candidate: Candidate) -> dict[str, list[float | None]]:
        """Scores of the folds by the metrics that are not maximised; None where one is not defined."""
        cohort, place = candidate.where
        found: dict[str, list[float | None]] = {}
        for name, (scorer, params) in self._others.items():
            try:
                scores = cohort.scores(place, scorer, params=params)
            except Exception as error:
                if self.runner.job.error_score == "raise":
                    raise
                number = candidate.trial.number
                logger.warning("trial %d: no %s: %s: %s", number, name, type(error).__name__, error)
                scores = [math.nan] * len(cohort.parts(place))
            found[name] = [score if math.isfinite(score) else None for score in scores]
        return found

    def _is_cut(self, candidate: Candidate) -> bool:
        """Whether a trial would have gone on, had the study had more time."""
        cohort, place = candidate.where
        by_time = any(r.stop_reason == "time" for r in cohort.results(place))
        return self._goes_on(candidate) or (by_time and clock.now() < self._own_end)

    def _cut(self, candidate: Candidate) -> None:
        """Put a trial back for whoever has time for it, with what it has reached."""
        del self._open[candidate.trial.number]
        notes: dict[str, Any] = dict(candidate.notes)
        if candidate.place is not None:
            cohort, place = candidate.place
            with candidate.timed():
                scores = cohort.scores(place, self._scorer)
            self._save(candidate)
            notes["seconds"] = round(candidate.seconds, 4)
            epochs = max(r.epochs for r in cohort.results(place))
            if cohort.has_begun_all(place) and np.isfinite(scores).all():
                value = float(np.mean(scores))
                notes[CUT] = {"value": value, "scores": scores, "epochs": epochs} | cohort.which_nets(place)
                if self._others:
                    notes[CUT][METRICS] = self._beside(candidate)
                self._leave(candidate, value)
        self.runner.put_back(candidate.trial, notes)
        candidate.is_told = True
        self.runner.log("trial %d: cut off by time, %s", candidate.trial.number, notes.get(CUT))

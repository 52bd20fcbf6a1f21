"""The loop of one worker: trials are drawn, evaluated in cohorts, and told, until the study has its number."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import optuna
from optuna.trial import Trial, TrialState

from inna_tune import clock
from inna_tune.records.attributes import REASON
from inna_tune.store.asking import ask, put_back, tell
from inna_tune.store.errors import StorageError, UnreachableError
from inna_tune.store.opening import gathered, storage_errors
from inna_tune.store.store import deaths_of, is_deadly, is_suspect
from inna_tune.store.waiting import waiting_until
from inna_tune.store.workers import Worker
from inna_tune.study.budget import Budget
from inna_tune.study.callbacks import Callback, call_back, is_stopped
from inna_tune.study.checkpoints import Checkpoints
from inna_tune.study.job import StudyJob, Training
from inna_tune.study.kept import Kept
from inna_tune.study.signals import Stopped
from inna_tune.visible import get_logger

logger = get_logger(__name__)

_WAIT = 0.2  # seconds between looks at what other workers still run


class EndingError(Exception):
    """What ends the search: a callback raised, or a trial where ``error_score="raise"``."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(reason)
        self.reason = reason


class SuspectError(Exception):
    """A trial is to be trained where another process sees whether the one that trains it dies of it."""


@contextmanager
def _ending_the_search() -> Iterator[None]:
    """Let an error of a callback be no trial's."""
    try:
        yield
    except Exception as error:
        raise EndingError(error) from error


def _attributes_of(trial: Trial) -> Mapping[str, Any]:
    """A trial's system attributes as they were when it was claimed."""
    return trial._cached_frozen_trial.system_attrs


class TrialRunner:
    """Runs the trials of a study for one worker.

    Parameters
    ----------
    job : StudyJob
    study : optuna.Study
    worker : Worker
        At work.
    budget : Budget or None
        Of time; None: trials take as long as they take.
    stop : callable
        Asked between epochs and between trials whether to end early.
    callbacks : sequence of callables (study, trial)
    hands_over : bool, default=False
        Whether to end with a `SuspectError` where a trial may be deadly, all that is in hand put back.

    Attributes
    ----------
    checkpoints : Checkpoints
        Of the study; those of trials that are told are removed.
    kept : Kept
        What the study's trials leave; nets that are no longer among the best are removed.
    is_out_of_time : bool
        Set by the evaluation where the budget is used up, so that no further trial is begun.
    """

    def __init__(
        self,
        job: StudyJob,
        study: optuna.Study,
        worker: Worker,
        *,
        budget: Budget | None,
        stop: Callable[[], bool],
        callbacks: Sequence[Callback] = (),
        hands_over: bool = False,
    ) -> None:
        self.job, self.study, self.worker = job, study, worker
        self._hands_over = hands_over
        self.budget, self.stop, self.callbacks = budget, stop, callbacks
        self.checkpoints, self.kept = Checkpoints(study), Kept(study)
        self.is_out_of_time = False

    def run(self) -> None:
        """Run cohorts until the study has its trials, all of them finished, time is up, or a callback stops the study.

        Where nothing is left to begin but other workers still have trials in hand, this waits for them, and takes up what a
        worker that dies leaves.

        Raises
        ------
        Stopped
            If asked to end early; trials in hand are put back for the next worker to take up.
        UnreachableError
            If the database went away, and was waited for in vain; trials in hand are left to be taken up likewise.
        SuspectError
            If a trial may be deadly, and this is not the process to try it in.
        Exception
            Of a callback; trials in hand are put back.
        """
        try:
            with waiting_until(self.stop):
                self._clean()
                try:
                    while (size := self._size()) and not is_stopped(self.study):
                        self._check_stop()
                        if not self.run_cohort(self.job.n_trials, size):
                            if not self._others_run():
                                break
                            time.sleep(_WAIT)
                except StorageError:
                    raise  # there is nobody to tell of trials in hand: who goes on sees that this worker has gone
                except BaseException:
                    self._let_go()
                    raise
                self._clean()
        except EndingError as error:
            raise error.reason from None
        except UnreachableError:
            self._check_stop()  # or else it would have been waited for
            raise

    def _let_go(self) -> None:
        """Put back what is in hand, so that it is no death of this process's."""
        with suppress(StorageError):
            for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if trial._trial_id in self.worker.trials:
                    put_back(self.study, self.worker, trial, notes={})
            self._clean()

    def _clean(self) -> None:
        if self.checkpoints.are_kept:
            with storage_errors(self.study):
                trials = self.study.get_trials(deepcopy=False)
            self.checkpoints.clean(t.number for t in trials if t.state.is_finished())
        self.kept.trim()

    @contextmanager
    def at_risk(self, trials: Iterable[Trial]) -> Iterator[None]:
        """Within the block the process may die of these trials, by want of memory or a crash in a kernel."""
        self.worker.note_training(trial._trial_id for trial in trials)
        try:
            yield
        finally:
            self.worker.note_training(())

    def _others_run(self) -> bool:
        """Whether another worker has a trial of the study in hand."""
        with storage_errors(self.study._storage):
            return bool(self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))

    def _size(self) -> int:
        """How many trials to draw together now; 0 where there is no time for any."""
        if self.budget is None:
            return self.job.population
        return 0 if self.is_out_of_time else self.budget.trials_to_draw(self.job.population)

    def _check_stop(self) -> None:
        if self.stop():
            raise Stopped

    def run_cohort(self, n_trials: int, size: int) -> int:
        """Draw up to ``size`` trials, and evaluate them together.

        Trial numbers are cut into cohorts at the multiples of ``size``, so that a study that is resumed in the middle of
        one asks the sampler for just those that were missing, before it learns of any of the others.

        Returns
        -------
        int
            How many there were; 0 where the study has its ``n_trials``.
        """
        prepared: list[Any] = []
        drawn, limit = 0, n_trials
        while drawn < size:
            self._check_stop()
            trial = ask(self.study, self.worker, limit)
            if trial is None:
                break
            if self._hands_over and is_suspect(_attributes_of(trial)):
                raise SuspectError
            drawn += 1
            limit = min(n_trials, (trial.number // size + 1) * size)
            # Its values stand in the study before the next one is drawn: the sampler keeps away from them.
            ready = self._prepare(trial)
            if ready is not None:
                prepared.append(ready)
        if prepared:
            began = clock.now()
            self.job.evaluation.run(self, prepared)
            if self.budget is not None and not self.is_out_of_time:
                self.budget.note_trials(clock.now() - began, len(prepared))
        return drawn

    def _prepare(self, trial: Trial) -> Any:
        """A trial as its evaluation takes it; None, and the trial told, where its settings make no sense, or are deadly."""
        try:
            with gathered(self.study):
                settings = self.job.space.suggest(trial)
            if is_deadly(_attributes_of(trial)):
                n_deaths = self.deaths_of(trial)
                reason = f"its process died {n_deaths} times while it trained, perhaps for want of memory"
                logger.warning("trial %d failed: %s", trial.number, reason)
                self.tell(trial, TrialState.FAIL, None, {REASON: reason})
                return None
            with self.at_risk([trial]):
                return self.job.evaluation.prepare(self, trial, settings)
        except StorageError:
            raise  # no trial is to blame
        except Exception as error:
            self.fail(trial, error)
            return None

    @staticmethod
    def deaths_of(trial: Trial) -> int:
        """How many processes in a row died while they trained a trial; one that may have killed them trains alone."""
        return deaths_of(_attributes_of(trial))

    # ------------------------------------------------------------------ what evaluations tell

    def log(self, message: str, *values: Any) -> None:
        """Log what becomes of a trial, at the level that the job asks for."""
        logger.log(self.job.log_level, message, *values)

    def fail(self, trial: Trial, error: Exception, notes: Mapping[str, Any] | None = None) -> None:
        """Tell a trial that raised; an EndingError where the search is to end with it."""
        if self.job.error_score == "raise":
            tell(self.study, self.worker, trial, state=TrialState.FAIL)
            raise EndingError(error)
        where = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
        reason = f"{type(error).__name__}: {error}{where}"
        logger.warning("trial %d failed: %s", trial.number, reason)
        self.tell(trial, TrialState.FAIL, None, {**(notes or {}), REASON: reason})

    def tell(self, trial: Trial, state: TrialState, value: float | None, notes: Mapping[str, Any]) -> None:
        """Tell a trial, and those who listen to it."""
        stored = tell(self.study, self.worker, trial, value, state, notes=notes)
        self.log("trial %d: %s, score %s, %s", trial.number, state.name.lower(), value, notes)
        if not stored:
            return
        self.checkpoints.remove(trial.number)
        self.kept.trim()
        with _ending_the_search():
            call_back(self.callbacks, self.study, trial._trial_id)

    def put_back(self, trial: Trial, notes: Mapping[str, Any]) -> None:
        """Leave a trial for whoever has time for it."""
        put_back(self.study, self.worker, trial, notes=notes)

    def announce(self, training: Training) -> None:
        """Say what trains now to those who listen."""
        with _ending_the_search():
            for callback in self.callbacks:
                if (hear := getattr(callback, "on_training", None)) is not None:
                    hear(self.study, training)

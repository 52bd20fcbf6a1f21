"""Work on a study that `tune` began, from another process or another machine."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import optuna
from optuna.storages import BaseStorage

from inna_tune.jobs.settings import make_estimator
from inna_tune.records.attributes import FINGERPRINT
from inna_tune.records.wording import as_shown
from inna_tune.space import SearchSpace
from inna_tune.store.errors import StorageError
from inna_tune.store.opening import load_study
from inna_tune.store.workers import ResumeSummary, resume_summary
from inna_tune.study.budget import Budget
from inna_tune.study.callbacks import Callback
from inna_tune.study.parameters import check_timeout
from inna_tune.study.search import InnaSearchCV
from inna_tune.tables import split_rows
from inna_tune.tables.problem import TASKS, Problem

JOB = "inna_tune:job"


@dataclass(frozen=True)
class Job:
    """What a worker has to know of a study besides the table; kept in the study's user attributes.

    Attributes
    ----------
    n_trials : int
        In all.
    target, task : str
    seed : int
        Of the rows held out.
    held_out : float
        Share of the rows that tuning never sees.
    settings : tuple of str
        Of the estimator, as `make_estimator` takes them.
    """

    n_trials: int
    target: str
    task: str
    seed: int
    held_out: float
    settings: tuple[str, ...] = ()

    def note(self) -> dict[str, Any]:
        """The user attribute."""
        return {JOB: asdict(self)}


def read_job(storage: str | BaseStorage, name: str) -> Job:
    """What a study wants done.

    Raises
    ------
    StorageError
        If there is no such study, or it was not begun by `inna-tune fit`, or by another version of it.
    """
    return _job_of(load_study(storage, name))


def _job_of(study: optuna.Study) -> Job:
    name, stored = study.study_name, study.user_attrs.get(JOB)
    if stored is None:
        raise StorageError(
            f"study {name!r} does not say what to do: `inna-tune fit` did not begin it, or with an estimator of its own; "
            "join it from Python, by InnaSearchCV(..., storage=..., study_name=..., resume=True)"
        )
    try:
        job = Job(
            n_trials=int(stored["n_trials"]),
            target=str(stored["target"]),
            task=str(stored["task"]),
            seed=int(stored["seed"]),
            held_out=float(stored["held_out"]),
            settings=tuple(stored.get("settings", ())),
        )
        if not (job.n_trials >= 1 and 0 <= job.seed < 2**32 and 0 < job.held_out < 1 and job.task in TASKS):
            raise ValueError(f"{job} makes no sense")
        make_estimator(job.task, job.settings)  # refuses what it cannot be set to
        return job
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        raise StorageError(
            f"study {name!r}: {JOB} is not what this version writes ({error!r}); go on with `inna-tune fit --resume`"
        ) from None


class _Hand(InnaSearchCV):
    """A search that works on the trials and leaves the end to whoever began the study."""

    def _finish(self, frame: Any, y: Any, weight: Any, budget: Budget | None) -> None:
        pass


def join(
    problem: Problem,
    *,
    storage: str | BaseStorage,
    study_name: str,
    timeout: float | None = None,
    callbacks: Sequence[Callback] = (),
    allow_mismatch: bool = False,
) -> tuple[ResumeSummary, ResumeSummary]:
    """Work on a study until it has its trials, also those that `inna-tune fit` asks for in the meantime.

    Any number of workers share one: the total stays exact, and what a worker that dies had begun is taken up again. The
    best settings are refitted and scored by the process that runs `inna-tune fit`.

    Parameters
    ----------
    problem : Problem
        The same data: their fingerprint is compared with the study's.
    storage : str or optuna.storages.BaseStorage
    study_name : str
    timeout : float, optional
        Seconds after which this worker ends.
    callbacks : sequence of callables (study, trial)
    allow_mismatch : bool
        Work on other data all the same; recorded in the study.

    Returns
    -------
    before, after : ResumeSummary
        With the best value as it is shown elsewhere.

    Raises
    ------
    StorageError
        If there is no such study, or it does not say what to do.
    MismatchError
        If the data are others; each difference is named.
    """
    check_timeout(timeout)
    study = load_study(storage, study_name)
    job = _job_of(study)
    described = study.user_attrs.get(FINGERPRINT)
    if not isinstance(described, dict) or described.get("space") is None:
        raise StorageError(
            f"study {study_name!r} has no search space yet; let `inna-tune fit` begin it first"
        )
    tuning, _ = split_rows(problem, held_out=job.held_out, seed=job.seed)
    X, y = problem.X.iloc[tuning], problem.y.iloc[tuning]
    estimator = make_estimator(problem.task, job.settings)
    ends = None if timeout is None else time.monotonic() + timeout
    before: ResumeSummary | None = None
    n_trials = 0
    while n_trials < job.n_trials and (ends is None or before is None or time.monotonic() < ends):
        n_trials = job.n_trials
        search = _Hand(
            estimator,
            SearchSpace.from_json(described["space"]),
            n_trials=n_trials,
            timeout=None if ends is None else max(ends - time.monotonic(), 1e-3),
            storage=storage,
            study_name=study_name,
            resume=True,
            refit=False,
            callbacks=callbacks,
            allow_mismatch=allow_mismatch,
        ).fit(X, y)
        before = before or as_shown(search.study_, search.resumed_)
        job = _job_of(search.study_)
    assert before is not None
    return before, as_shown(search.study_, resume_summary(search.study_, job.n_trials))

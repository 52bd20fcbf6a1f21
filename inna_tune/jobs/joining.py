"""Work on a study that `tune` began, from another process or another machine."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import optuna
from optuna.storages import BaseStorage
from sklearn.base import clone
from sklearn.metrics import get_scorer_names

from inna_tune import clock
from inna_tune.jobs.begun import as_begun
from inna_tune.jobs.settings import make_estimator
from inna_tune.jobs.validation import is_cv, splitter_of
from inna_tune.records.attributes import FINGERPRINT, JOB
from inna_tune.records.wording import as_shown
from inna_tune.space import SearchSpace
from inna_tune.store.errors import StorageError
from inna_tune.store.opening import load_study, storage_errors
from inna_tune.store.workers import ResumeSummary, resume_summary
from inna_tune.study.budget import Budget
from inna_tune.study.callbacks import Callback
from inna_tune.study.parameters import check_option
from inna_tune.study.question import Question
from inna_tune.study.run import StudyOptions, run_study
from inna_tune.study.rungs import default_pruner
from inna_tune.study.training import NetEvaluation
from inna_tune.tables import split_rows
from inna_tune.tables.problem import TASKS, Problem


@dataclass(frozen=True)
class FitRequest:
    """What `inna-tune fit` asks of the workers of a study, beside the table; kept in the study's user attributes.

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
    drop : tuple of str
        Columns of the table that are no features.
    metric : str or None
        Scikit-learn's name of the scorer that the study maximises; None: the loss that the net is trained on.
    cv : "members", int or None
        What trials are scored on, as :func:`inna_tune.jobs.tuning.tune` takes it.
    """

    n_trials: int
    target: str
    task: str
    seed: int
    held_out: float
    settings: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    metric: str | None = None
    cv: str | int | None = None

    def note(self) -> dict[str, Any]:
        """The user attribute."""
        # As JSON gives it back; what was dropped, and the folds, only where something is said, as before it could be.
        plain = asdict(self) | {"settings": list(self.settings), "drop": list(self.drop)}
        return {JOB: {name: value for name, value in plain.items() if name not in ("drop", "cv") or value}}


def read_job(storage: str | BaseStorage, name: str) -> FitRequest:
    """What a study wants done.

    Raises
    ------
    StorageError
        If there is no such study, or it was not begun by `inna-tune fit`, or by another version of it.
    """
    return _request_of(load_study(storage, name))


def _request_of(study: optuna.Study) -> FitRequest:
    name = study.study_name
    with storage_errors(study):
        stored = study.user_attrs.get(JOB)
    if stored is None:
        raise StorageError(
            f"study {name!r} does not say what to do: `inna-tune fit` did not begin it, or with an estimator of its own; "
            "join it from Python, by InnaSearchCV(..., storage=..., study_name=..., resume=True)"
        )
    try:
        request = FitRequest(
            n_trials=int(stored["n_trials"]),
            target=str(stored["target"]),
            task=str(stored["task"]),
            seed=int(stored["seed"]),
            held_out=float(stored["held_out"]),
            settings=tuple(stored.get("settings", ())),
            drop=tuple(map(str, stored.get("drop", ()))),
            metric=stored.get("metric"),
            cv=stored.get("cv"),
        )
        if not (
            request.n_trials >= 1
            and 0 <= request.seed < 2**32
            and 0 < request.held_out < 1
            and request.task in TASKS
            and request.metric in (None, *get_scorer_names())
            and is_cv(request.cv)
        ):
            raise ValueError(f"{request} makes no sense")
        make_estimator(request.task, request.settings)  # refuses what it cannot be set to
        return request
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        raise StorageError(
            f"study {name!r}: {JOB} is not what this version writes ({error!r}); go on with `inna-tune fit --resume`"
        ) from None


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
    check_option("timeout", timeout)
    study = load_study(storage, study_name)
    request = _request_of(study)
    with storage_errors(study):
        described = study.user_attrs.get(FINGERPRINT)
    if not isinstance(described, dict) or described.get("space") is None:
        raise StorageError(
            f"study {study_name!r} has no search space yet; let `inna-tune fit` begin it first"
        )
    space = SearchSpace.from_json(described["space"])
    tuning, _ = split_rows(problem, held_out=request.held_out, seed=request.seed)
    estimator = as_begun(make_estimator(problem.task, request.settings), study, request.settings)
    y = problem.y.iloc[tuning]
    question = Question.of(
        clone(estimator),
        estimator,
        problem.X.iloc[tuning],
        y,
        cv=splitter_of(request.cv, y, task=problem.task),
        scoring=request.metric,
    )
    began = clock.now()
    budget = None if timeout is None else Budget(began + timeout, begun=began)

    @cache
    def evaluation() -> NetEvaluation:
        return NetEvaluation(question.folded(budget), estimator, question.scorer, space)

    before: ResumeSummary | None = None
    n_trials = 0
    while n_trials < request.n_trials and (budget is None or before is None or not budget.is_late):
        n_trials = request.n_trials
        options = StudyOptions(
            n_trials=n_trials,
            storage=study._storage,
            study_name=study_name,
            resume=True,
            pruner=default_pruner(len(question.splits), by_members=question.is_by_members),
            callbacks=callbacks,
            allow_mismatch=allow_mismatch,
        )
        run = run_study(evaluation, question.fingerprint, options, budget=budget)
        before = before or as_shown(run.study, run.resumed)
        request = _request_of(study)
    assert before is not None
    return before, as_shown(study, resume_summary(study, request.n_trials))

"""What the trials of `inna-tune fit` are scored on: rows that the nets of one fit left out, or folds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
import pandas as pd
from sklearn.base import clone

from inna_tune.estimators.base import InnaEstimator
from inna_tune.jobs.metric import check_metric, is_defined
from inna_tune.jobs.settings import make_estimator
from inna_tune.records.attributes import FINGERPRINT, JOB
from inna_tune.space import Prior
from inna_tune.store.opening import storage_errors
from inna_tune.study.left_out import LeftOutTable
from inna_tune.study.question import Question
from inna_tune.study.splits import MEMBERS, NoRowsLeftOutError, default_splitter
from inna_tune.tables import split_rows
from inna_tune.tables.problem import Problem

AUTO = "auto"
# What decides which rows nets leave out: where a prior draws it, some trials may leave out none.
_DECIDING = ("n_members", "early_stopping")
_TOO_FEW = "since too few rows differ for nets to leave out some"


@dataclass(frozen=True)
class Validation:
    """What the trials of a study are scored on.

    Attributes
    ----------
    cv : "members", int or None
        As :func:`inna_tune.jobs.tuning.tune` takes it.
    words : str
        That, and why.
    table : LeftOutTable or None
        The rows that are tuned on, where they had to be encoded to find that.
    """

    cv: str | int | None
    words: str
    table: LeftOutTable | None = field(default=None, repr=False, compare=False)


def read_cv(text: str) -> str | int:
    """``auto``, ``members``, or a number of folds, as a person types it.

    Raises
    ------
    ValueError
        If it is none of these.
    """
    text = text.strip()
    if text in (AUTO, MEMBERS):
        return text
    if text.isdecimal() and is_cv(int(text)):
        return int(text)
    raise ValueError(f"cv={text!r} must be {AUTO!r}, {MEMBERS!r}, or a number of folds of at least 2")


def is_cv(value: Any) -> bool:
    """Whether trials can be scored on it: "members", a number of folds, or None for as many as the rows decide."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value >= 2
    return value is None or (isinstance(value, str) and value == MEMBERS)


def splitter_of(cv: str | int | None, y: Any, *, task: str) -> Any:
    """What `InnaSearchCV` is to be given: of a number of folds those of the default's kind, shuffled by a fixed seed.

    Raises
    ------
    ValueError
        If trials can't be scored on that.
    """
    if not is_cv(cv):
        raise ValueError(f"cv={cv!r} must be {MEMBERS!r}, a number of folds of at least 2, or None for folds")
    return _folds(y, task, n_splits=cv) if isinstance(cv, int) else cv


def choose_validation(
    problem: Problem,
    *,
    seed: int = 0,
    held_out: float = 0.2,
    settings: Sequence[str] = (),
    metric: str | None = None,
    space: Prior | None = None,
    study: optuna.Study | None = None,
) -> Validation:
    """Choose what the trials of a study are scored on: what a study that has begun is by, else what costs least.

    Where the nets of a fit leave out parts of the rows that is these, else folds.

    Parameters
    ----------
    problem : Problem
    seed, held_out, settings, metric
        As :func:`inna_tune.jobs.tuning.tune` takes them.
    space : Prior, optional
        Learned from other studies.
    study : optuna.Study, optional
        That is to go on.

    Returns
    -------
    Validation

    Raises
    ------
    ValueError
        If a setting or the metric makes no sense, or the table can't be encoded.
    TableError
        If there are too few rows to hold some out and tune on the rest.
    StorageError
        If the study can't be read.
    """
    if study is not None:
        with storage_errors(study):
            attributes = study.user_attrs
        if isinstance(begun := attributes.get(FINGERPRINT), Mapping):
            return _as_begun(begun, attributes.get(JOB))
    estimator = make_estimator(problem.task, settings).set_params(random_state=seed)
    tuning, _ = split_rows(problem, held_out=held_out, seed=seed)
    X, y = problem.X.iloc[tuning], problem.y.iloc[tuning]
    if metric is not None:
        check_metric(metric, problem.task, y)
    drawn = [name for name in _DECIDING if space is not None and name in space.space]
    if drawn:
        return _on_folds(y, problem.task, f"since the prior draws {' and '.join(drawn)}")
    table = _table_of_parts(estimator, X, y)
    if isinstance(table, str):
        return _on_folds(y, problem.task, table)
    parts = table.left_out(estimator)
    if all(np.array_equal(part, parts[0]) for part in parts):
        # All nets have the same rows, since too few of them differ for parts.
        return _on_folds(y, problem.task, _TOO_FEW)
    if metric is not None and not all(is_defined(metric, problem.task, y, part) for part in parts):
        return _on_folds(
            y, problem.task, f"since {metric} is not defined on all of the rows that single nets leave out"
        )
    words = f"each is one fit, its {len(parts)} nets scored on the rows that each leaves out; by folds with --cv 5"
    return Validation(MEMBERS, words, table)


def _as_begun(begun: Mapping[str, Any], job: Any) -> Validation:
    if begun.get("cv") == MEMBERS:
        return Validation(
            MEMBERS, "each is one fit, scored on the rows that its nets leave out, as the study was begun"
        )
    cv = job.get("cv") if isinstance(job, Mapping) else None
    return Validation(
        cv if isinstance(cv, int) and is_cv(cv) else None, "each is scored on folds, as the study was begun"
    )


def _folds(y: Any, task: str, *, n_splits: int | None = None) -> Any:
    classifier = task != "regression"
    labels = pd.factorize(y)[0] if classifier else None
    return default_splitter(labels, len(y), classifier=classifier, n_splits=n_splits)


def _on_folds(y: Any, task: str, why: str) -> Validation:
    n_folds = _folds(y, task).get_n_splits()
    where = "a held-out fifth of the rows" if n_folds == 1 else f"{n_folds} folds"
    return Validation(None, f"each is scored on {where}, {why}")


def _table_of_parts(estimator: InnaEstimator, X: Any, y: Any) -> LeftOutTable | str:
    """The table whose parts the nets of a fit leave out; or why there are no such."""
    if not estimator.early_stopping:
        return "since with early_stopping=False nets leave out no rows"
    if estimator.n_members != "auto":
        return f"since with n_members={estimator.n_members} nets leave out no rows of their own"
    plan = estimator._plan_for(len(y))
    if plan.n_members == 1:
        return f"since a fit on {len(y)} rows is one net"
    if plan.n_folds == 0:
        return _TOO_FEW
    try:
        table = Question.of(clone(estimator), estimator, X, y, cv=MEMBERS).folded()
    except NoRowsLeftOutError:
        return _TOO_FEW
    assert isinstance(table, LeftOutTable)
    return table

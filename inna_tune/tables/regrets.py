"""What people regret not to have seen in a table before they fitted: ids, leaks, copies of rows, odd targets."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api import types
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_score
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from inna_tune import clock
from inna_tune.estimators.frames import TEXT
from inna_tune.estimators.number_forms import find_form
from inna_tune.estimators.schema import TableSchema
from inna_tune.tables.problem import Problem

# With fewer rows every column may differ in all of them, or tell the target, by chance.
_LEAST_ROWS = 20

# Scores from which a column by itself gives the target away: balanced accuracy, and R².
_LEAK = 0.99

# A tree a column takes a millisecond or more.
_MOST_COLUMNS = 2000

_MANY_LABELS = 10
_FEW_VALUES = 50
_COPIES = 0.05
_NAMED = 5
# So many columns are looked at whatever the time is, but for trees.
_SURELY = 200


def find_regrets(problem: Problem, schema: TableSchema, *, deadline: float | None = None) -> Iterator[str]:
    """Say what looks wrong with a table, one sentence each.

    Parameters
    ----------
    problem : Problem
    schema : TableSchema
        Of its columns.
    deadline : float, optional
        Value of `inna_tune.clock` after which no further column is tried alone, nor copies looked for in a wide table.
    """
    own = {column.name: column for column in schema.columns}
    n_rows = len(problem.X)
    ids = []

    def is_late() -> bool:
        return deadline is not None and clock.now() > deadline

    if n_rows >= _LEAST_ROWS:
        for i, name in enumerate(map(str, problem.X.columns)):
            if i >= _SURELY and is_late():
                break
            column = problem.X[name]
            if _counts_rows(column):
                ids.append(name)
                yield f"Column {name!r} counts the rows; drop it, unless their order means something."
            elif (
                name in own
                and own[name].kind != "date"
                and _is_id(column, own[name].kind == "number" and own[name].whole)
            ):
                ids.append(name)
                yield f"Column {name!r} has another value in every row, like an id: nothing is learned from it for new rows."
        leaks = list(find_leaks(problem, deadline=deadline))
        for name, score in leaks[:_NAMED]:
            yield (
                f"Column {name!r} alone gives the target away (a tree scores {score:.3f} of 1): is it known before the "
                "target is?"
            )
        if len(leaks) > _NAMED:
            yield f"{len(leaks) - _NAMED} more columns alone give the target away."
        if is_late():
            yield "Not every column was tried alone, for want of time: `inna-tune columns` does."
    share = 0.0
    width = problem.X.shape[1]
    if len(ids) < width and not (width > _SURELY and is_late()):
        share = share_of_copies(problem.X.drop(columns=ids))
    if share >= _COPIES:
        yield (
            f"{share:.0%} of the rows are the same as an earlier row, or nearly: held-out scores flatter where a copy was "
            "trained on."
        )
    yield from _target(problem)


def find_leaks(problem: Problem, *, deadline: float | None = None) -> Iterator[tuple[str, float]]:
    """Columns from which a decision tree predicts the target almost without error on rows held out, and its score.

    Balanced accuracy of a class, or R² of a number, by three folds of at most 2,000 rows; fewer of wide tables, and of these
    the first 2,000 columns, or as many as can be tried until ``deadline``.
    """
    if isinstance(problem.y, pd.DataFrame):
        return
    width = problem.X.shape[1]
    n_rows = 2000 if width <= 100 else 500 if width <= 1000 else 200
    X, y = problem.X, problem.y
    if len(X) > n_rows:
        rows = np.sort(np.random.default_rng(0).choice(len(X), n_rows, replace=False))
        X, y = X.iloc[rows], y.iloc[rows]
    target: npt.NDArray[Any]
    if problem.task == "regression":
        target, scoring = y.to_numpy(dtype=np.float64), "r2"
        tree: Any = DecisionTreeRegressor(min_samples_leaf=2, random_state=0)
    else:
        target, scoring = pd.factorize(y)[0], "balanced_accuracy"
        # A fold needs a row of every class.
        counts = np.bincount(target)
        kept = np.isin(target, np.flatnonzero(counts >= 3))
        X, target = X.loc[kept], target[kept]
        tree = DecisionTreeClassifier(max_leaf_nodes=max(64, 2 * len(counts)), random_state=0)
    if len(np.unique(target)) < 2:
        return
    kind = KFold if problem.task == "regression" else StratifiedKFold
    folds = kind(3, shuffle=True, random_state=0)
    for name in map(str, X.columns[:_MOST_COLUMNS]):
        if deadline is not None and clock.now() > deadline:
            return
        values = _as_numbers(X[name])
        if len(np.unique(values)) < 2:
            continue
        score = float(np.mean(cross_val_score(tree, values[:, None], target, cv=folds, scoring=scoring)))
        if score >= _LEAK:
            yield name, score


def share_of_copies(X: pd.DataFrame) -> float:
    """Share of the rows that are the same as an earlier one.

    Numbers are compared by their first three digits, but for those of a single column, which agree in these by chance.
    """
    if not X.shape[1]:
        return 0.0
    rounds = sum(map(types.is_float_dtype, X.dtypes)) > 1
    marks = np.zeros(len(X), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for i in range(X.shape[1]):
            column = X.iloc[:, i]
            if rounds and types.is_float_dtype(column.dtype):
                values = column.to_numpy(dtype=np.float64, na_value=np.nan)
                column = pd.Series(_rounded(values))
            elif not types.is_numeric_dtype(column.dtype):
                column = pd.Series(pd.factorize(column.astype(object).map(str, na_action="ignore"))[0])
            marks = marks * np.uint64(1_000_003) + pd.util.hash_array(
                column.to_numpy(dtype=np.float64, na_value=np.nan)
            )
    return float(pd.Series(marks).duplicated().mean())


def _rounded(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    size = np.abs(values)
    with np.errstate(divide="ignore", invalid="ignore"):
        power = 10.0 ** (2 - np.floor(np.log10(np.where(size > 0, size, 1.0))))
        rounded = np.round(values * power) / power
    return np.where(np.isfinite(rounded), rounded, values)


def _as_numbers(column: pd.Series) -> npt.NDArray[np.float64]:
    """A column as a tree takes it: numbers, or the places of the levels by the alphabet; NaN where missing."""
    if types.is_datetime64_any_dtype(column.dtype):
        return np.where(column.isna(), np.nan, column.astype("int64").to_numpy(dtype=np.float64))
    if types.is_numeric_dtype(column.dtype):
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
        return np.where(np.abs(values) < np.finfo(np.float32).max, values, np.nan)
    codes, _ = pd.factorize(column.astype(object).map(str, na_action="ignore"), sort=True)
    return np.where(codes < 0, np.nan, codes.astype(np.float64))


def _counts_rows(column: pd.Series) -> bool:
    if not types.is_numeric_dtype(column.dtype) or column.isna().any():
        return False
    values = column.to_numpy(dtype=np.float64)
    return values[0] in (0.0, 1.0) and np.array_equal(values, values[0] + np.arange(len(values)))


def _is_id(column: pd.Series, whole: bool) -> bool:
    if types.is_numeric_dtype(column.dtype):
        return whole and len(column) >= 50 and not column.isna().any() and column.is_unique
    if types.is_datetime64_any_dtype(column.dtype):
        return False
    texts = column.dropna().map(str)
    # Free text differs in every row too.
    return (
        len(texts) == len(column)
        and texts.is_unique
        and not texts.str.contains(r"\s|\d[-/:.]\d", regex=True).mean() > 0.5
    )


def _target(problem: Problem) -> Iterator[str]:
    y, target = problem.y, problem.target
    if isinstance(y, pd.DataFrame):
        return
    if problem.task == "regression":
        n_values = y.nunique()
        whole = bool((y == np.round(y)).all())
        if n_values <= _FEW_VALUES and whole and n_values <= len(y) / 4:
            yield (
                f"The target {target!r} has {n_values} different whole numbers, and is taken as a number; if they are "
                "labels, say --task multiclass."
            )
        return
    counts = y.value_counts()
    if len(counts) > _MANY_LABELS:
        is_number = types.is_numeric_dtype(y.dtype)
        if is_number or find_form(pd.Series(counts.index.map(str), dtype=TEXT)) is not None:
            remedy = "say --task regression" if is_number else "write them as numbers"
            yield (
                f"The target {target!r} has {len(counts)} labels that look like numbers; if they are quantities, {remedy}."
            )
    single = [str(label) for label, n in counts.items() if n == 1]
    if single:
        shown = ", ".join(map(repr, single[:_NAMED])) + (" …" if len(single) > _NAMED else "")
        classes = "class" if len(single) == 1 else "classes"
        yield (
            f"The target {target!r} has {len(single)} {classes} of one row, which cannot be both learned and tested: {shown}."
        )

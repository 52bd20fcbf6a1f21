"""Tables from files or from scikit-learn, and what is asked of them."""

import difflib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from pandas.api import types

from inna_tune.study.reading import read, warn_of
from inna_tune.study.sources import TableError as TableError

Task = Literal["binary", "multiclass", "regression"]
TASKS: tuple[Task, ...] = ("binary", "multiclass", "regression")

# A whole-number target with at most this many distinct values is taken for labels.
_MAX_INTEGER_CLASSES = 20


@dataclass(frozen=True)
class Problem:
    """A table split into features and a target without missing values.

    Attributes
    ----------
    X : DataFrame of shape [n_samples, n_features]
    y : Series of shape [n_samples]
    task : {"binary", "multiclass", "regression"}
    target : str
    dropped_rows : int
        Rows left out because their target was missing.
    """

    X: pd.DataFrame
    y: pd.Series
    task: Task
    target: str
    dropped_rows: int

    @property
    def description(self) -> str:
        """One line for a person: the task and how the target is distributed."""
        if self.task == "regression":
            return f"regression (mean {self.y.mean():.4g}, standard deviation {self.y.std():.4g})"
        shares = self.y.value_counts(normalize=True)
        listed = ", ".join(f"{label} {share:.0%}" for label, share in shares.head(5).items())
        return (
            f"{self.task} classification ({len(shares)} classes: {listed}{', …' if len(shares) > 5 else ''})"
        )


def read_table(source: str) -> tuple[pd.DataFrame, str | None]:
    """Read a table.

    Parameters
    ----------
    source : str
        As :func:`inna_tune.study.reading.read` has it, which also gives the table's schema.

    Returns
    -------
    frame : DataFrame
    target : str or None
        The target's name, where the source says which it is.

    Raises
    ------
    TableError
        If there is no such table, it cannot be read, is empty, or repeats a column name.
    """
    table = read(source)
    warn_of(table.notes)
    return table.frame, table.target


def find_task(y: pd.Series) -> Task:
    """What a target asks for: text, booleans and few whole numbers are labels, other numbers are values."""
    if types.is_bool_dtype(y.dtype):
        return "binary"
    n_values = y.nunique()
    if types.is_numeric_dtype(y.dtype):
        values = y.to_numpy(dtype=np.float64)
        whole = bool((values == np.round(values)).all()) and bool(np.isfinite(values).all())
        if n_values == 2:
            return "binary"
        return "multiclass" if whole and n_values <= _MAX_INTEGER_CLASSES else "regression"
    return "binary" if n_values == 2 else "multiclass"


def make_problem(frame: pd.DataFrame, target: str | None, *, task: str | None = None) -> Problem:
    """Split a table into features and target, and check the target.

    Parameters
    ----------
    frame : DataFrame
    target : str
        Column to predict.
    task : {"binary", "multiclass", "regression"}, optional
        Overrides what ``find_task`` finds.

    Raises
    ------
    TableError
        If the column is not there or holds nothing to learn.
    """
    if target is None:
        raise TableError(
            f"Say which column to predict (--target). The columns are: {', '.join(map(str, frame.columns[:20]))}"
        )
    if target not in frame.columns:
        near = difflib.get_close_matches(target, list(map(str, frame.columns)), n=1, cutoff=0.4)
        hint = (
            f" Did you mean {near[0]!r}?"
            if near
            else f" The columns are: {', '.join(map(str, frame.columns[:20]))}."
        )
        raise TableError(f"There is no column {target!r}.{hint}")
    if frame.shape[1] < 2:
        raise TableError(
            f"The table has no column but the target {target!r}; there is nothing to predict it from."
        )
    if task is not None and task not in TASKS:
        raise TableError(f"task={task!r} must be one of {', '.join(TASKS)}.")
    missing = frame[target].isna()
    if missing.all():
        raise TableError(f"The target {target!r} is missing in every row.")
    kept = frame.loc[~missing].reset_index(drop=True)
    y = kept[target]
    if (
        types.is_datetime64_any_dtype(y.dtype)
        or types.is_timedelta64_dtype(y.dtype)
        or types.is_complex_dtype(y.dtype)
    ):
        raise TableError(
            f"The target {target!r} is of type {y.dtype}; convert it to numbers or labels first."
        )
    found: Any = task or find_task(y)
    y = (
        _checked_values(y, target)
        if found == "regression"
        else _checked_labels(y, target, found, forced=task is not None)
    )
    return Problem(kept.drop(columns=target), y, found, target, int(missing.sum()))


def _checked_values(y: pd.Series, target: str) -> pd.Series:
    try:
        values = y.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise TableError(
            f"The target {target!r} holds text, so it cannot be a regression target: {error}"
        ) from error
    infinite = int(np.isinf(values).sum())
    if infinite:
        raise TableError(
            f"The target {target!r} holds {infinite} infinite values; drop or replace those rows."
        )
    if values.nunique() < 2:
        raise TableError(f"The target {target!r} has the same value, {values.iloc[0]}, in every row.")
    return values


def _checked_labels(y: pd.Series, target: str, task: str, *, forced: bool) -> pd.Series:
    n_classes = y.nunique()
    if n_classes < 2:
        raise TableError(f"The target {target!r} has one class only, {y.iloc[0]!r}.")
    if task == "binary" and n_classes != 2:
        raise TableError(
            f"The target {target!r} has {n_classes} classes, so the task is not binary; use --task multiclass."
        )
    if not forced and n_classes > max(_MAX_INTEGER_CLASSES, len(y) // 2):
        raise TableError(
            f"The target {target!r} has {n_classes} different labels in {len(y)} rows and looks like an identifier; "
            "choose another column, or say --task multiclass."
        )
    if types.is_numeric_dtype(y.dtype):
        return y.astype(y.to_numpy().dtype)
    return y.map(str).astype(object)

"""What is asked of a table: features, a target to predict, rows to tune on and rows held out."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from pandas.api import types
from sklearn.model_selection import train_test_split

from inna_tune.estimators.columns import as_text
from inna_tune.tables.sources import TableError as TableError

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
    y : Series of shape [n_samples], or DataFrame of shape [n_samples, n_targets]
    task : {"binary", "multiclass", "regression"}
    targets : tuple of str
    dropped_rows : int
        Rows left out because a target of theirs was missing.
    left_out : tuple of str
        Columns that are no features: the index of a DataFrame, which pandas wrote into the file.
    dropped : tuple of str
        Columns that a person wants to be no features.
    """

    X: pd.DataFrame
    y: pd.Series | pd.DataFrame
    task: Task
    targets: tuple[str, ...]
    dropped_rows: int
    left_out: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()

    @property
    def target(self) -> str:
        """The names of the targets, separated by commas."""
        return ",".join(self.targets)

    @property
    def remarks(self) -> list[str]:
        """What was left out, in sentences."""
        found = []
        if self.dropped_rows:
            found.append(f"Dropped {self.dropped_rows} rows whose target is missing.")
        if self.left_out:
            found.append(
                f"Left out {', '.join(map(repr, self.left_out))}: the numbers of the rows, which pandas wrote. "
                "Rename the column to have it as a feature."
            )
        if self.dropped:
            found.append(f"Dropped {', '.join(map(repr, self.dropped))}, as asked.")
        return found

    @property
    def description(self) -> str:
        """One line for a person: the task and how the target is distributed."""
        if isinstance(self.y, pd.DataFrame):
            return f"regression of {self.y.shape[1]} targets: {', '.join(self.targets[:10])}"
        if self.task == "regression":
            return f"regression (mean {self.y.mean():.4g}, standard deviation {self.y.std():.4g})"
        shares = self.y.value_counts(normalize=True)
        listed = ", ".join(f"{label} {share:.0%}" for label, share in shares.head(5).items())
        return (
            f"{self.task} classification ({len(shares)} classes: {listed}{', …' if len(shares) > 5 else ''})"
        )


def find_task(y: pd.Series) -> Task:
    """What a target asks for: text, booleans and few whole numbers are labels, other numbers are values."""
    if types.is_bool_dtype(y.dtype):
        return "binary"
    n_values = y.nunique()
    if types.is_numeric_dtype(y.dtype):
        values = y.to_numpy(dtype=np.float64)
        whole = bool((values == np.round(values)).all()) and bool(np.isfinite(values).all())
        if n_values == 2 and whole:
            return "binary"
        return "multiclass" if whole and n_values <= _MAX_INTEGER_CLASSES else "regression"
    return "binary" if n_values == 2 else "multiclass"


def make_problem(
    frame: pd.DataFrame,
    target: str | Sequence[str] | None,
    *,
    task: str | None = None,
    drop: Sequence[str] = (),
) -> Problem:
    """Split a table into features and target, and check the target.

    Parameters
    ----------
    frame : DataFrame
    target : str or sequence of str
        Column to predict, or several of numbers; names in one text are separated by commas.
    task : {"binary", "multiclass", "regression"}, optional
        Overrides what ``find_task`` finds.
    drop : sequence of str
        Columns that are to be no features.

    Raises
    ------
    TableError
        If the column is not there or holds nothing to learn.
    """
    if frame.columns.has_duplicates:
        repeated = sorted(map(str, frame.columns[frame.columns.duplicated()]))
        raise TableError(f"The table repeats column names: {repeated}. Rename them so that each is unique.")
    if not len(frame):
        raise TableError(f"The table is an empty table: it has 0 rows and {frame.shape[1]} columns.")
    targets = find_targets(frame, target)
    if task is not None and task not in TASKS:
        raise TableError(f"task={task!r} must be one of {', '.join(TASKS)}.")
    dropped = find_dropped(frame, drop)
    for name in dropped:
        if name in targets:
            raise TableError(f"The column {name!r} is the target, which cannot be dropped.")
    left_out = tuple(
        str(n) for n in frame.columns if n not in targets and n not in dropped and is_index(frame[n])
    )
    features = frame.drop(columns=[*targets, *left_out, *dropped])
    if not features.shape[1]:
        but = "" if not left_out else f" and {', '.join(map(repr, left_out))}, which numbers the rows"
        but += "" if not dropped else f" and {', '.join(map(repr, dropped))}, which are dropped"
        raise TableError(
            f"The table has no column but the target {','.join(targets)!r}{but}; there is nothing to predict it from."
        )
    missing = frame[list(targets)].isna().any(axis=1)
    if missing.all():
        empty = next((t for t in targets if frame[t].isna().all()), None)
        raise TableError(
            f"The target {empty!r} is missing in every row."
            if empty is not None
            else f"Every row lacks one of the targets {', '.join(map(repr, targets))}."
        )
    if missing.any():
        features = features.loc[~missing]
    features = features.reset_index(drop=True)
    ys = [_settled(frame[t].loc[~missing].reset_index(drop=True), bool(missing.any())) for t in targets]
    for y in ys:
        if (
            types.is_datetime64_any_dtype(y.dtype)
            or types.is_timedelta64_dtype(y.dtype)
            or types.is_complex_dtype(y.dtype)
        ):
            raise TableError(
                f"The target {y.name!r} is of type {y.dtype}; convert it to numbers or labels first."
            )
    if len(ys) > 1:
        values = pd.DataFrame({t: _several(y, t, task) for t, y in zip(targets, ys, strict=True)})
        return Problem(features, values, "regression", targets, int(missing.sum()), left_out, dropped)
    found: Any = task or find_task(ys[0])
    y = (
        _checked_values(ys[0], targets[0])
        if found == "regression"
        else _checked_labels(ys[0], targets[0], found, forced=task is not None)
    )
    return Problem(features, y, found, targets, int(missing.sum()), left_out, dropped)


def find_targets(frame: pd.DataFrame, target: str | Sequence[str] | None) -> tuple[str, ...]:
    """The columns of a table that a target names.

    Raises
    ------
    TableError
        If there is none of that name, or one is named twice.
    """
    names = list(map(str, frame.columns))
    if target is None or not len(target):
        raise TableError(f"Say which column to predict (--target). The columns are: {', '.join(names[:20])}")
    wanted = [target] if isinstance(target, str) else list(target)
    found: list[str] = []
    for name in wanted:
        # A name may hold commas.
        parts = [name] if name in names else [part.strip() for part in name.split(",")]
        found += [name] if not set(parts) & set(names) else parts
    for name in found:
        if found.count(name) > 1:
            raise TableError(f"The target {name!r} is named twice; name each target once.")
        _check_column(name, names)
    return tuple(found)


def find_dropped(frame: pd.DataFrame, drop: Sequence[str]) -> tuple[str, ...]:
    """The columns of a table that are to be no features, each once.

    Raises
    ------
    TableError
        If there is none of that name.
    """
    names = list(map(str, frame.columns))
    for name in drop:
        _check_column(name, names)
    return tuple(dict.fromkeys(drop))


def _check_column(name: str, names: Sequence[str]) -> None:
    if name not in names:
        near = nearest(name, names)
        hint = f" Did you mean {near!r}?" if near else f" The columns are: {', '.join(names[:20])}."
        raise TableError(f"There is no column {name!r}.{hint}")


def nearest(name: str, names: Sequence[str]) -> str | None:
    """The one of some names that a misspelt one is most like; None where it is like none, however it is written."""
    by_case = {each.casefold(): each for each in reversed(names)}
    near = difflib.get_close_matches(name.casefold(), by_case, n=1, cutoff=0.5)
    return by_case[near[0]] if near else None


def is_index(column: pd.Series) -> bool:
    """Whether a column is the index of a DataFrame that pandas wrote into a file.

    Without a name, whole numbers of which few repeat, as they do where tables were joined; and "index", as ``reset_index``
    calls it, where it numbers the rows in some order.
    """
    name = str(column.name)
    unnamed = re.fullmatch(r"Unnamed: \d+|__index_level_\d+__|", name) is not None
    if not unnamed and name not in ("index", "level_0"):
        return False
    if not types.is_numeric_dtype(column.dtype) or types.is_bool_dtype(column.dtype) or column.isna().any():
        return False
    values = column.to_numpy(dtype=np.float64)
    if not (values == np.round(values)).all() or values.min() < 0:
        return False
    if unnamed:
        return bool(2 * column.nunique() >= len(column))
    return bool(column.is_unique and values.max() < 10 * len(column))


def _settled(y: pd.Series, had_gaps: bool) -> pd.Series:
    """A target without gaps in the plainest type that keeps its labels as they are."""
    dtype = y.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return _settled(y.astype(dtype.categories.dtype), had_gaps)
    if isinstance(dtype, pd.ArrowDtype):
        y = y.convert_dtypes(dtype_backend="numpy_nullable")
        dtype = y.dtype
    if types.is_extension_array_dtype(dtype) and types.is_numeric_dtype(dtype):
        return y.astype(dtype.numpy_dtype) if hasattr(dtype, "numpy_dtype") else y.astype(y.to_numpy().dtype)
    if types.is_object_dtype(dtype):
        return y.infer_objects()
    if had_gaps and types.is_float_dtype(dtype):
        # pandas makes floats of whole numbers with gaps: 0.0 was written 0.
        values = y.to_numpy()
        if (values == np.round(values)).all() and (np.abs(values) < 2**53).all():
            return y.astype(np.int64)
    return y


def _several(y: pd.Series, target: str, task: str | None) -> pd.Series:
    if task not in (None, "regression") or not types.is_numeric_dtype(y.dtype):
        raise TableError(
            f"Several targets must all be numbers (regression), and {target!r} is "
            f"{'wanted as a class' if types.is_numeric_dtype(y.dtype) else 'text'}. Fit one model a class."
        )
    return _checked_values(y, target)


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
        raise TableError(f"The target {target!r} has one class only, {y.head(1).tolist()[0]!r}.")
    if task == "binary" and n_classes != 2:
        raise TableError(
            f"The target {target!r} has {n_classes} classes, so the task is not binary; use --task multiclass."
        )
    if not forced and n_classes > max(_MAX_INTEGER_CLASSES, len(y) // 2):
        raise TableError(
            f"The target {target!r} has {n_classes} different labels in {len(y)} rows and looks like an identifier; "
            "choose another column, or say --task multiclass."
        )
    return y if types.is_numeric_dtype(y.dtype) else y.map(as_text).astype(object)


def split_rows(problem: Problem, *, held_out: float, seed: int) -> tuple[Any, Any]:
    """Split a table's rows into those that tuning sees and those that it never sees.

    Parameters
    ----------
    problem : Problem
    held_out : float
        Share of the rows that are held out.
    seed : int

    Returns
    -------
    tuning, held : ndarray of int64
        Positions of the rows, stratified where every class has two rows.

    Raises
    ------
    TableError
        If too few rows are left to tune on, or only those of one class.
    """
    rows = np.arange(len(problem.y))
    n_held = int(np.ceil(held_out * len(rows)))
    # Five folds, and a row to train on in each.
    if len(rows) - n_held < 10:
        raise TableError(
            f"The table has {len(rows)} rows with a target; holding out {n_held} leaves fewer rows than folds can be made of. "
            "Give at least 13 rows."
        )
    stratify = None
    if problem.task != "regression":
        counts = problem.y.value_counts()
        if counts.min() >= 2 and n_held >= len(counts):
            stratify = problem.y
    tuning, held = train_test_split(rows, test_size=n_held, random_state=seed, stratify=stratify)
    if problem.task != "regression" and problem.y.iloc[tuning].nunique() < 2:
        raise TableError("The rows to tune on hold one class only; give more rows of the rare class.")
    return np.sort(tuning), np.sort(held)

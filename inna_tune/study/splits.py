"""Which rows a fold trains on and which it is scored on."""

import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    ShuffleSplit,
    StratifiedGroupKFold,
    StratifiedKFold,
    StratifiedShuffleSplit,
    TimeSeriesSplit,
    check_cv,
)
from sklearn.utils._param_validation import InvalidParameterError

from inna_tune.estimators.splitting import Rows

# Splitters that cut the rows into parts, of which there can't be more than rows.
_PARTITIONS = (KFold, StratifiedKFold, GroupKFold, StratifiedGroupKFold, TimeSeriesSplit)

_HELD_OUT = 0.2  # share of a large table

# In place of folds: a trial is one fit, whose nets are scored on the rows that each of them left out.
MEMBERS = "members"


class NoRowsLeftOutError(ValueError):
    """Nets are to be scored on the rows that each of them left out, and leave out none."""


def default_splitter(y: Any, n_rows: int, *, classifier: bool, n_splits: int | None = None) -> Any:
    """The folds of ``cv=None``, or as many of their kind.

    The more rows, the less a score depends on which are held out: five folds under 2,000 rows, three under 10,000, one
    held-out fifth above. Each with a share of every class, where there are rows enough of it. Shuffled with a fixed seed,
    so that a resumed study sees the same folds.
    """
    counts = np.unique(y, return_counts=True)[1] if classifier else np.zeros(1)
    if n_splits is None and n_rows >= 10_000:
        stratified = counts.min() >= 2 and len(counts) <= _HELD_OUT * n_rows
        kind = StratifiedShuffleSplit if stratified else ShuffleSplit
        return kind(n_splits=1, test_size=_HELD_OUT, random_state=0)
    n_splits = n_splits or (5 if n_rows < 2_000 else 3)
    if classifier and counts.min() >= n_splits:
        return StratifiedKFold(n_splits, shuffle=True, random_state=0)
    return KFold(n_splits, shuffle=True, random_state=0)


def _pairs(cv: Any) -> list[Any]:
    """Folds that are given one by one, checked to be pairs."""
    pairs = list(cv) if isinstance(cv, Iterable) and not isinstance(cv, str | bytes | Mapping) else [None]
    if not all(isinstance(pair, Sequence | np.ndarray) and len(pair) == 2 for pair in pairs):
        raise InvalidParameterError(
            f"cv={cv!r} must be a number of folds, a splitter such as scikit-learn's, or pairs of row numbers (train, test); "
            f"of nets that leave out rows {MEMBERS!r} will do, too."
        )
    return pairs


def resolve_splits(
    cv: Any, X: pd.DataFrame, y: Any, params: dict[str, Any], *, classifier: bool
) -> tuple[Any, list[tuple[Rows, Rows]]]:
    """The splitter that ``cv`` stands for, and its folds as (train, test) row numbers; ``params`` go to its ``split``.

    Raises
    ------
    InvalidParameterError
        If ``cv`` is none of what it may be.
    ValueError
        If rows are cut into more folds than there are, a fold has no training or no test rows, names rows that there are not,
        or trains on rows it is scored on.
    """
    splitter = cv
    if splitter is None:
        splitter = default_splitter(y, len(X), classifier=classifier)
    elif not isinstance(splitter, numbers.Integral):
        is_splitter = hasattr(splitter, "split") and not isinstance(splitter, str | bytes)
        splitter = splitter if is_splitter else _pairs(cv)
    folds = splitter if isinstance(splitter, numbers.Integral) else None
    if isinstance(splitter, _PARTITIONS):
        folds = splitter.n_splits
    if folds is not None and int(folds) > len(X):
        raise ValueError(
            f"Cannot have number of splits n_splits={folds} greater than the number of samples: n_samples={len(X)}. "
            "Use fewer folds."
        )
    splits = []
    for k, (train, test) in enumerate(check_cv(splitter, y, classifier=classifier).split(X, y, **params)):
        try:
            splits.append((_numbers(train, len(X)), _numbers(test, len(X))))
        except IndexError as error:
            raise ValueError(f"cv: fold {k} does not fit {len(X)} rows: {error}.") from None
    if not splits:
        raise ValueError(f"cv={cv!r} gives no folds.")
    for k, (train, test) in enumerate(splits):
        if not len(train) or not len(test):
            raise ValueError(f"cv: fold {k} has no {'test' if len(train) else 'training'} rows.")
        shared = np.intersect1d(train, test)
        if len(shared):
            raise ValueError(
                f"cv: fold {k} trains on {len(shared)} of the rows it is scored on, row {shared[0]} among them; "
                "give folds whose training and test rows differ."
            )
    return splitter, splits


def _numbers(rows: Any, n_rows: int) -> Rows:
    """Row numbers, whether given as such, from the end or as a mask."""
    given = np.asarray(rows)
    found: Rows = np.arange(n_rows, dtype=np.int64)[given if len(given) else slice(0)]
    return found

"""Which rows a fold trains on and which it is scored on."""

import numbers
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import KFold, ShuffleSplit, StratifiedKFold, StratifiedShuffleSplit, check_cv

from inna_tune.estimators.splitting import Rows


def default_splitter(y: Any, n_rows: int, *, classifier: bool) -> Any:
    """The folds of ``cv=None``.

    The more rows, the less a score depends on which are held out: five folds under 2,000 rows, three under 10,000, one
    held-out fifth above. Shuffled with a fixed seed, so that a resumed study sees the same folds.
    """
    if n_rows >= 10_000:
        kind = StratifiedShuffleSplit if classifier else ShuffleSplit
        return kind(n_splits=1, test_size=0.2, random_state=0)
    n_splits = 5 if n_rows < 2_000 else 3
    if classifier and np.unique(y, return_counts=True)[1].min() >= n_splits:
        return StratifiedKFold(n_splits, shuffle=True, random_state=0)
    return KFold(n_splits, shuffle=True, random_state=0)


def resolve_splits(
    cv: Any, X: pd.DataFrame, y: Any, params: dict[str, Any], *, classifier: bool
) -> tuple[Any, list[tuple[Rows, Rows]]]:
    """The splitter that ``cv`` stands for, and its folds as (train, test) row numbers; ``params`` go to its ``split``.

    Raises
    ------
    ValueError
        If there are more folds than rows, a fold has no training or no test rows, or trains on rows it is scored on.
    """
    splitter = cv
    if splitter is None:
        splitter = default_splitter(y, len(X), classifier=classifier)
    elif not isinstance(splitter, numbers.Integral):
        splitter = splitter if hasattr(splitter, "split") else list(splitter)
    folds = splitter if isinstance(splitter, numbers.Integral) else getattr(splitter, "n_splits", 0)
    if isinstance(folds, numbers.Integral) and int(folds) > len(X):
        raise ValueError(
            f"Cannot have number of splits n_splits={folds} greater than the number of samples: n_samples={len(X)}. "
            "Use fewer folds."
        )
    splits = [
        (np.asarray(train), np.asarray(test))
        for train, test in check_cv(splitter, y, classifier=classifier).split(X, y, **params)
    ]
    for k, (train, test) in enumerate(splits):
        if not len(train) or not len(test):
            raise ValueError(f"cv: fold {k} has no {'test' if len(train) else 'training'} rows.")
        shared = np.intersect1d(_numbers(train), _numbers(test))
        if len(shared):
            raise ValueError(
                f"cv: fold {k} trains on {len(shared)} of the rows it is scored on, row {shared[0]} among them; "
                "give folds whose training and test rows differ."
            )
    return splitter, splits


def _numbers(rows: Rows) -> Rows:
    return np.flatnonzero(rows) if rows.dtype == bool else rows

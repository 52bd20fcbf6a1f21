"""The metric that a person tunes by, checked before anything is trained."""

import difflib
import math
import warnings
from typing import Any

import numpy as np
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.metrics import get_scorer, get_scorer_names

from inna_tune.estimators.splitting import Rows

_EXAMPLES = {
    "binary": "roc_auc or balanced_accuracy",
    "multiclass": "roc_auc_ovr or balanced_accuracy",
    "regression": "r2 or neg_mean_absolute_error",
}
_FAILURES = (ValueError, TypeError, AttributeError)


def check_metric(metric: str, task: str, y: Any) -> None:
    """Refuse a scorer that there is not, or that cannot score the task.

    Raises
    ------
    ValueError
        With the name and what to give instead.
    """
    names = get_scorer_names()
    if metric not in names:
        near = difflib.get_close_matches(metric, names, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(names)}"
        raise ValueError(f"metric={metric!r} is no scorer of scikit-learn; {hint}")
    try:
        _score(metric, task, y, np.arange(len(y)))
    except _FAILURES as error:
        raise ValueError(
            f"metric={metric!r} cannot score this {task}: {str(error).splitlines()[0]} Give another one, such as "
            f"{_EXAMPLES[task]}."
        ) from None


def is_defined(metric: str, task: str, y: Any, rows: Rows) -> bool:
    """Whether a scorer that can score the task gives a number on some of its rows, where a class may be missing."""
    try:
        _score(metric, task, y, rows)
    except _FAILURES:
        return False
    return True


def _score(metric: str, task: str, y: Any, rows: Rows) -> None:
    """Score what predicts the same for every row."""
    X = np.zeros((len(y), 1))
    known = DummyRegressor() if task == "regression" else DummyClassifier(strategy="prior")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = float(get_scorer(metric)(known.fit(X, y), X[rows], y.iloc[rows]))
    if not math.isfinite(value):
        raise ValueError(f"it gives {value}")

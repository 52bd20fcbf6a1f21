"""Scorers applied to predictions that are already there."""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, is_classifier
from sklearn.metrics import check_scoring, log_loss, make_scorer, root_mean_squared_error

Scorer = Callable[..., float]


def resolve_scorer(estimator: Any, scoring: Any, classes: npt.NDArray[Any] | None) -> Scorer:
    """The scorer of a search; higher is better.

    Parameters
    ----------
    estimator : estimator
        What is tuned.
    scoring : str, callable or None
        As in scikit-learn, but None means what the net is trained on: negative log-loss for a classifier, negative root
        mean squared error for a regressor. Accuracy moves in steps of whole rows, too coarse to tell settings apart.
    classes : ndarray, optional
        All labels, so that a fold may lack one.

    Raises
    ------
    ValueError
        If scikit-learn has no scorer of that name, or several metrics are given.
    """
    if scoring is None:
        if classes is None:
            return cast("Scorer", make_scorer(root_mean_squared_error, greater_is_better=False))
        return cast(
            "Scorer",
            make_scorer(log_loss, greater_is_better=False, response_method="predict_proba", labels=classes),
        )
    if not (isinstance(scoring, str) or callable(scoring)):
        raise ValueError(
            f"scoring={scoring!r} must be one scorer, by name or callable: a study has one objective."
        )
    return cast("Scorer", check_scoring(estimator, scoring))


def scorer_name(estimator: Any, scoring: Any) -> str:
    """What a study calls its objective."""
    if scoring is None:
        return "neg_log_loss" if is_classifier(estimator) else "neg_root_mean_squared_error"
    if isinstance(scoring, str):
        return scoring
    return getattr(scoring, "__name__", None) or repr(scoring)


class PredictedClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Stands for a fitted classifier whose probabilities on the rows to score are known."""

    def __init__(self, probabilities: Any = None, classes: Any = None) -> None:
        self.probabilities = probabilities
        self.classes = classes
        self.classes_ = classes

    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:
        """The known probabilities, whatever X."""
        return np.asarray(self.probabilities)

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """The most probable classes, whatever X."""
        return np.asarray(self.classes_[self.probabilities.argmax(1)])


class PredictedRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Stands for a fitted regressor whose values on the rows to score are known."""

    def __init__(self, values: Any = None) -> None:
        self.values = values
        self.fitted_ = True

    def predict(self, X: Any) -> npt.NDArray[np.float64]:
        """The known values, whatever X."""
        return np.asarray(self.values)

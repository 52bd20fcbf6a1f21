"""Scorers applied to predictions that are already there: what stands for the model, and what a scorer may ask of it."""

import numbers
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import get_scorer

_ACCURACY = get_scorer("accuracy")


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
    """Stands for a fitted regressor whose predictions of the rows to score are known."""

    def __init__(self, values: npt.NDArray[np.float64] | None = None) -> None:
        self.values = values

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def predict(self, X: object) -> npt.NDArray[np.float64]:
        """The known values, whatever X."""
        return np.asarray(self.values)


def sees_predictions_only(scorer: Any) -> bool:
    """Whether all that a scorer has to do with a model and X is to ask for the predictions of X.

    So do those of scikit-learn and of its ``make_scorer``; a function of one's own, or a class derived from theirs, may do
    anything with them.
    """
    return type(scorer) is type(_ACCURACY)


def as_number(score: Any) -> float:
    """What a scorer returned as a float.

    Raises
    ------
    ValueError
        If it is no number.
    """
    if hasattr(score, "item"):
        with suppress(ValueError):  # more than one number
            score = score.item()
    if not isinstance(score, numbers.Real):
        raise ValueError(
            f"scoring must return a number, got {str(score)[:80]} ({type(score).__name__}) instead."
        )
    return float(score)

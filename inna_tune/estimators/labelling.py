"""What whoever predicts probabilities of classes makes of them: logarithms, labels, their accuracy."""

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score

from inna_tune.estimators.targets import read_labels


class LabellingMixin(ClassifierMixin):  # type: ignore[misc]
    """A classifier of scikit-learn's by its ``predict_proba`` and ``classes_``."""

    classes_: npt.NDArray[Any]

    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:
        """Probability of every class, shape [n_samples, n_classes]."""
        raise NotImplementedError

    def predict_log_proba(self, X: Any) -> npt.NDArray[np.float64]:
        """Logarithms of ``predict_proba``, shape [n_samples, n_classes]."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """The most probable class of every row, shape [n_samples]."""
        best = self.predict_proba(X).argmax(1)
        return np.asarray(self.classes_[best])

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Share of the rows whose class is predicted right.

        Parameters
        ----------
        X : DataFrame or array of shape [n_samples, n_features]
        y : array of shape [n_samples]
        sample_weight : array of shape [n_samples], optional

        Returns
        -------
        float
        """
        return float(accuracy_score(read_labels(y), self.predict(X), sample_weight=sample_weight))

"""``eval_metric``: a scorer of scikit-learn's that early stopping judges by in place of the loss."""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import get_scorer, get_scorer_names
from torch import Tensor

from inna_tune.estimators.frames import Weights
from inna_tune.estimators.predicted import (
    PredictedClassifier,
    PredictedRegressor,
    as_number,
    sees_predictions_only,
)

Scorer = Callable[..., Any]


def is_metric(value: Any) -> bool:
    """Whether it can be an ``eval_metric``: the name of a scorer, or something to call."""
    return value in get_scorer_names() if isinstance(value, str) else callable(value)


@dataclass(frozen=True)
class Judged:
    """What a scorer has to know of a table: its rows, their true labels or values, and how outputs become predictions.

    Attributes
    ----------
    frames : tuple of DataFrame
        The table, and what it is followed by.
    truth : ndarray of shape [n_samples] or [n_samples, n_targets]
    weight : ndarray of float64 [n_samples] or None
    from_outputs : callable
        Outputs [1, n, out] to probabilities, or values.
    classes : ndarray or None
    """

    frames: tuple[pd.DataFrame, ...]
    truth: npt.NDArray[Any]
    weight: Weights | None
    from_outputs: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]
    classes: npt.NDArray[Any] | None

    def followed_by(self, other: Self) -> Self:
        """The same with another's rows at its end."""
        weight = None
        if self.weight is not None or other.weight is not None:
            weight = np.concatenate(
                [np.ones(len(t.truth)) if t.weight is None else t.weight for t in (self, other)]
            )
        return replace(
            self,
            frames=(*self.frames, *other.frames),
            truth=np.concatenate([self.truth, other.truth]),
            weight=weight,
        )

    def rows(self, index: npt.NDArray[np.int64]) -> pd.DataFrame:
        """Rows of the table, all from one of the frames."""
        start = 0
        for frame in self.frames[:-1]:
            if index[0] < start + len(frame):
                return frame.iloc[index - start]
            start += len(frame)
        return self.frames[-1].iloc[index - start]


def judged_of(estimator: Any, frame: pd.DataFrame, y: Any, weight: Weights | None) -> Judged | None:
    """What the scorer of an estimator has to know of rows; None where it has none."""
    if estimator.eval_metric is None:
        return None
    classes = getattr(estimator, "classes_", None)
    return Judged((frame,), estimator._plain_target(y), weight, estimator._from_outputs, classes)


class ScoreOfRows:
    """A measure as the engine takes it (`inna_tune.engine.members.Measure`): what a scorer says, negated.

    Parameters
    ----------
    metric : str or callable
        As the estimators' ``eval_metric``.
    judged : Judged
    row : int
        Where the table begins in that of the engine.
    """

    def __init__(self, metric: str | Scorer, judged: Judged, row: int) -> None:
        self._metric, self._judged, self._row = metric, judged, row
        self._scorer: Scorer = get_scorer(metric) if isinstance(metric, str) else metric
        takes = getattr(self._scorer, "_accept_sample_weight", None)
        if takes is None:
            parameters = inspect.signature(self._scorer).parameters
            self._is_weighted = judged.weight is not None and "sample_weight" in parameters
        else:
            self._is_weighted = judged.weight is not None and bool(takes())

    def __call__(self, rows: Tensor, output: Tensor) -> float:
        """Minus the score of outputs [n, out] for rows [n] of the engine's table; infinite where they have none."""
        if not bool(output.isfinite().all()):
            return math.inf
        predicted = self._judged.from_outputs(output.double().cpu().numpy()[None])
        try:
            found = -self._score(rows.cpu().numpy() - self._row, predicted)
        except (
            ValueError
        ):  # as of logarithms of predictions below zero, in an epoch that then is no better than others
            return math.inf
        return math.inf if math.isnan(found) else found

    def check(self, index: npt.NDArray[np.int64]) -> None:
        """Check that rows of the table can be scored, by predictions without an error.

        Raises
        ------
        ValueError
            If not; the message names the metric and what it said.
        """
        truth, classes = self._judged.truth[index], self._judged.classes
        predicted = truth if classes is None else (truth[:, None] == classes[None]).astype(np.float64)
        try:
            found = self._score(index, predicted)
            reason = "its score is not a number" if math.isnan(found) else ""
        except Exception as error:  # whatever a person's own function raises
            reason = f"{type(error).__name__}: {error}"
        if reason:
            raise ValueError(
                f"eval_metric={self._metric!r} can't score the {len(index)} validation rows, even by predictions that are "
                f"right ({reason}); give another, or rows that it can score as X_val and y_val."
            )

    def _score(self, index: npt.NDArray[np.int64], predicted: npt.NDArray[np.float64]) -> float:
        judged = self._judged
        model: Any
        if judged.classes is None:
            model = PredictedRegressor(predicted)
        else:
            model = PredictedClassifier(predicted, judged.classes)
        X = None if sees_predictions_only(self._scorer) else judged.rows(index)
        weights: dict[str, Any] = {}
        if self._is_weighted and judged.weight is not None:
            weights["sample_weight"] = judged.weight[index]
        return as_number(self._scorer(model, X, judged.truth[index], **weights))

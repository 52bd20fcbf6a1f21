"""What a model loses without what a column tells: its loss on held-out rows, the column's values shuffled among them."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from inna_tune import clock
from inna_tune.records.losses import log_losses, places_of

if TYPE_CHECKING:
    import pandas as pd

# More rows say little more, and each is predicted once a column and repeat.
_MOST_ROWS = 2000
# Numbers that lie in memory at once: losses of all rows without each column, and the tables that one call predicts.
_MOST_LOSSES, _MOST_CELLS, _MOST_TOLD = 10_000_000, 4_000_000, 16_384
_LEAST_ROWS = 100
# Columns that a study keeps.
_MOST_KEPT, _MOST_LETTERS = 30, 200

_METRICS = "log-loss", "RMSE"

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ColumnImportance:
    """What one column is worth to a model.

    Attributes
    ----------
    column : str
    change : float
        By how much the loss rises without it: log-loss, or the root of the mean squared error.
    error : float
        Standard error of that, over the rows.
    """

    column: str
    change: float
    error: float


@dataclass(frozen=True)
class Importances:
    """What a table's columns are worth to a model, by permutation (Breiman, Random Forests, Machine Learning 45, 2001).

    Attributes
    ----------
    metric : str
        ``"log-loss"`` or ``"RMSE"``.
    rows : int
        That were predicted.
    measured, columns : int
        Columns that time allowed for, and those of the table.
    best : tuple of ColumnImportance
        Those that are worth most, at most 30, the most important first.
    """

    metric: str
    rows: int
    measured: int
    columns: int
    best: tuple[ColumnImportance, ...]

    @classmethod
    def from_json(cls, data: Any) -> Self | None:
        """Read what `dataclasses.asdict` gives; None where it is nothing, or makes no sense.

        Raises
        ------
        KeyError, TypeError, ValueError, AttributeError, OverflowError
            Where it is no such thing.
        """
        if not isinstance(data, Mapping):
            return None
        best = tuple(
            ColumnImportance(str(b["column"])[:_MOST_LETTERS], float(b["change"]), float(b["error"]))
            for b in data["best"][:_MOST_KEPT]
        )
        found = cls(str(data["metric"]), int(data["rows"]), int(data["measured"]), int(data["columns"]), best)
        finite = all(math.isfinite(v) for b in best for v in (b.change, b.error))
        finite &= found.metric in _METRICS
        whole = finite and 0 <= len(best) <= found.measured <= found.columns and found.rows > 0
        return found if whole and all(b.error >= 0 for b in best) else None


def column_importances(
    model: Any, X: "pd.DataFrame", y: Any, *, n_repeats: int = 5, seconds: float = 10.0, seed: int = 0
) -> Importances | None:
    """Measure what each column is worth: the loss of rows that a model never saw, its values shuffled among them.

    Columns that tell the same stand in for each other, so that each of them looks as if it were worth little.

    Parameters
    ----------
    model : fitted classifier with ``predict_proba``, or fitted regressor of one target
    X : DataFrame of shape [n_samples, n_features]
        At most 2,000 of its rows are drawn.
    y : array or Series of shape [n_samples]
        The truth.
    n_repeats : int, default=5
        How often each column is shuffled.
    seconds : float, default=10
        After which no more is measured. The columns take turns, so that a wide table has fewer repeats first, and then, of its
        last columns, none.
    seed : int
        Of the rows drawn and the shuffles.

    Returns
    -------
    Importances or None
        None where nothing can be measured: of several targets, of fewer than two rows whose class the model knows, or
        where no column was done in time.
    """
    truth = np.asarray(y)
    if truth.ndim > 1 or n_repeats < 1:
        return None
    random, began = np.random.default_rng(seed), clock.now()
    classes = np.asarray(model.classes_) if hasattr(model, "predict_proba") else None
    known = np.arange(len(truth)) if classes is None else np.flatnonzero(places_of(classes, truth) >= 0)
    most = min(_MOST_ROWS, max(_LEAST_ROWS, _MOST_LOSSES // max(X.shape[1], 1)))
    known = np.sort(random.permutation(known)[:most])
    if len(known) < 2:
        return None
    frame, truth, n = X.iloc[known], truth[known], len(known)
    before = _losses(model, frame, truth)
    gained = np.zeros((X.shape[1], n))
    repeats = np.zeros(X.shape[1], dtype=np.int64)
    at_once = max(1, min(_MOST_TOLD // n, _MOST_CELLS // max(n * X.shape[1], 1)))
    for places in _turns(X.shape[1], n_repeats, at_once):
        if clock.now() - began > seconds:
            break
        shuffled = [_without(frame, place, random.permutation(n)) for place in places]
        losses = _losses(model, _stacked(shuffled), np.tile(truth, len(places)))
        for place, own in zip(places, losses.reshape(len(places), n), strict=True):
            gained[place] += own - before
            repeats[place] += 1
    measured = np.flatnonzero(repeats).tolist()
    if not measured:
        return None
    found = []
    for place in measured:
        own = gained[place] / repeats[place]
        change, error = float(own.mean()), float(own.std(ddof=1) / math.sqrt(n))
        if classes is None:
            base = float(before.mean())
            roots = math.sqrt(base) + math.sqrt(max(base + change, 0.0))
            change, error = (change / roots, error / roots) if roots else (0.0, 0.0)
        found.append(ColumnImportance(str(X.columns[place])[:_MOST_LETTERS], change, error))
    found.sort(key=lambda each: -each.change)
    metric = _METRICS[classes is None]
    return Importances(metric, n, len(measured), X.shape[1], tuple(found[:_MOST_KEPT]))


def _turns(n_columns: int, n_repeats: int, at_once: int) -> Iterator[range]:
    """Columns that are shuffled together, each in a table of its own; all once before any is twice."""
    for _ in range(n_repeats):
        for first in range(0, n_columns, at_once):
            yield range(first, min(first + at_once, n_columns))


def _without(frame: "pd.DataFrame", place: int, order: npt.NDArray[np.int64]) -> "pd.DataFrame":
    shuffled = frame.copy(deep=False)
    shuffled.isetitem(place, frame.iloc[:, place].take(order).set_axis(frame.index))
    return shuffled


def _stacked(frames: "list[pd.DataFrame]") -> "pd.DataFrame":
    import pandas as pd

    return frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)


def _losses(model: Any, X: "pd.DataFrame", truth: npt.NDArray[Any]) -> Floats:
    """Of every row: minus the logarithm of the probability of its class, or the squared error."""
    if not hasattr(model, "predict_proba"):
        return np.asarray((truth.astype(np.float64) - np.asarray(model.predict(X), dtype=np.float64)) ** 2)
    probabilities = np.asarray(model.predict_proba(X), dtype=np.float64)
    return log_losses(probabilities, places_of(np.asarray(model.classes_), truth))

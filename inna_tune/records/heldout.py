"""What a tuned model predicts on rows that tuning never saw, summed up for the study to keep."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
import optuna

from inna_tune.records.attributes import HELD_OUT
from inna_tune.records.certainty import Gain
from inna_tune.records.importance import Importances

if TYPE_CHECKING:
    import pandas as pd

_FORMAT = 1
_MAX_CLASSES = 20  # a confusion matrix of more can't be read; the rare ones are counted together
_MAX_POINTS = 500  # residuals that are kept one by one
_BINS = 10
_MIN_ROWS_A_BIN = 10
_OTHERS = "all others"

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Bin:
    """Rows with predictions alike.

    Attributes
    ----------
    rows : int
    predicted, observed : float
        Means of the prediction and of what was true: of a probability and of how often it came true, or of the target.
    error : float
        Standard error of `observed`.
    """

    rows: int
    predicted: float
    observed: float
    error: float


@dataclass(frozen=True)
class HeldOut:
    """Predictions on held-out rows, in at most some thousand numbers whatever the number of rows.

    Attributes
    ----------
    task : {"binary", "multiclass", "regression"}
    rows : int
    trial : int or None
        Number of the trial whose settings the model has.
    scores : dict of str to dict of str to float
        Model (such as ``"baseline"``), then metric, then value.
    gain : Gain or None
        Change of the first metric, a loss, from the untuned default to the tuned model; None where there is nothing to tell
        of, such as where both have the same settings.
    luck : bool
        Whether the interval of `gain` counts the luck of the two trainings; studies of older versions know the rows' alone.
    calibration : tuple of Bin
        Ordered by the prediction. Classification: the probability of the second class, or with more than two of the class
        that was predicted.
    classes : tuple of str
        Labels of the confusion matrix.
    confusion : tuple of tuple of int
        Rows: true class; columns: predicted class.
    predicted, residual : tuple of float
        Regression: prediction, and truth minus prediction, of at most 500 rows taken evenly.
    importances : Importances or None
        What the columns are worth; None where that was not measured.
    """

    task: str
    rows: int
    trial: int | None
    scores: dict[str, dict[str, float]]
    gain: Gain | None = None
    calibration: tuple[Bin, ...] = ()
    classes: tuple[str, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()
    predicted: tuple[float, ...] = field(default=(), repr=False)
    residual: tuple[float, ...] = field(default=(), repr=False)
    luck: bool = False
    importances: Importances | None = None

    def beside(self, earlier: "HeldOut | None") -> "HeldOut":
        """The same with what an earlier summary knows of the same settings on as many rows, and this one did not measure.

        Parameters
        ----------
        earlier : HeldOut or None
            Of the same study.
        """
        if earlier is None or (earlier.task, earlier.rows, earlier.trial) != (
            self.task,
            self.rows,
            self.trial,
        ):
            return self
        of_gain = self if self.gain is not None else earlier
        importances = earlier.importances if self.importances is None else self.importances
        return replace(
            self,
            scores=earlier.scores | self.scores,
            gain=of_gain.gain,
            luck=of_gain.luck,
            importances=importances,
        )

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {"format": _FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, data: Any) -> Self | None:
        """Read what `to_json` wrote; None where there is nothing, or it is none, or of another format."""
        if not isinstance(data, Mapping) or data.get("format") != _FORMAT:
            return None
        try:
            found = cls(
                task=str(data["task"]),
                rows=int(data["rows"]),
                trial=None if data["trial"] is None else int(data["trial"]),
                scores={str(k): {str(m): float(s) for m, s in v.items()} for k, v in data["scores"].items()},
                gain=None if data["gain"] is None else Gain(**{k: float(v) for k, v in data["gain"].items()}),
                calibration=tuple(
                    Bin(int(b["rows"]), float(b["predicted"]), float(b["observed"]), float(b["error"]))
                    for b in data["calibration"]
                ),
                classes=tuple(str(c) for c in data["classes"]),
                confusion=tuple(tuple(int(n) for n in row) for row in data["confusion"]),
                predicted=tuple(float(v) for v in data["predicted"]),
                residual=tuple(float(v) for v in data["residual"]),
                luck=data.get("luck") is True,
                importances=Importances.from_json(data.get("importances")),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            return None
        return found if found._is_whole() else None

    def _is_whole(self) -> bool:
        square = all(len(row) == len(self.classes) for row in self.confusion)
        gain = () if self.gain is None else (self.gain.change, self.gain.low, self.gain.high)
        finite = all(math.isfinite(v) for v in (*self.predicted, *self.residual, *gain))
        finite &= all(math.isfinite(v) for b in self.calibration for v in (b.predicted, b.observed, b.error))
        return (
            self.task in {"binary", "multiclass", "regression"}
            and square
            and len(self.confusion) == len(self.classes) <= _MAX_CLASSES
            and all(n >= 0 for row in self.confusion for n in row)
            and len(self.predicted) == len(self.residual) <= _MAX_POINTS
            and len(self.calibration) <= _BINS
            and finite
        )


def summarize_held_out(
    model: Any,
    X: Any,
    y: Any,
    *,
    scores: "pd.DataFrame | None" = None,
    gain: Gain | None = None,
    luck: bool = False,
    trial: int | None = None,
    importances: Importances | None = None,
) -> HeldOut:
    """Sum up what a fitted model predicts on rows that it never saw.

    Parameters
    ----------
    model : fitted classifier with ``predict_proba``, or fitted regressor
    X : DataFrame or array of shape [n_samples, n_features]
    y : Series or array of shape [n_samples] or [n_samples, n_targets]
        The truth. Of several targets the scores alone are kept.
    scores : DataFrame, optional
        One row a model, one column a metric, to be kept beside.
    gain : Gain, optional
        What tuning bought, to be kept beside.
    luck : bool
        Whether that counts the luck of the trainings.
    trial : int, optional
        Number of the trial whose settings the model has.
    importances : Importances, optional
        What `inna_tune.records.importance.column_importances` measured, to be kept beside.

    Returns
    -------
    HeldOut

    Raises
    ------
    ValueError
        If there are no rows.
    """
    truth = np.asarray(y)
    if not len(truth):
        raise ValueError(f"y has shape {truth.shape}; held-out rows must be at least one row")
    kept = (
        {}
        if scores is None
        else {str(k): {str(m): float(v) for m, v in r.items()} for k, r in scores.iterrows()}
    )
    if truth.ndim > 1:
        return HeldOut(task="regression", rows=len(truth), trial=trial, scores=kept, gain=gain, luck=luck)
    if hasattr(model, "predict_proba"):
        probabilities = np.asarray(model.predict_proba(X), dtype=np.float64)
        labels = np.asarray(model.classes_)
        chosen = labels[probabilities.argmax(axis=1)]
        binary = len(labels) == 2
        hit = truth == (labels[1] if binary else chosen)
        stated = probabilities[:, 1] if binary else probabilities.max(axis=1)
        classes, confusion = _confusion(truth, chosen)
        return HeldOut(
            task="binary" if binary else "multiclass",
            rows=len(truth),
            trial=trial,
            scores=kept,
            gain=gain,
            luck=luck,
            importances=importances,
            calibration=_bins(stated, hit.astype(np.float64)),
            classes=classes,
            confusion=confusion,
        )
    predicted, truth = np.asarray(model.predict(X), dtype=np.float64), truth.astype(np.float64)
    order = np.argsort(predicted, kind="stable")
    taken = order[np.unique(np.linspace(0, len(order) - 1, min(_MAX_POINTS, len(order))).astype(int))]
    return HeldOut(
        task="regression",
        rows=len(truth),
        trial=trial,
        scores=kept,
        gain=gain,
        luck=luck,
        importances=importances,
        calibration=_bins(predicted, truth),
        predicted=tuple(predicted[taken].tolist()),
        residual=tuple((truth - predicted)[taken].tolist()),
    )


def record_held_out(study: optuna.Study, found: HeldOut) -> None:
    """Keep a summary in the study, in place of an earlier one; the report of the study shows it."""
    study.set_user_attr(HELD_OUT, found.to_json())


def _confusion(
    truth: npt.NDArray[Any], chosen: npt.NDArray[Any]
) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]:
    """Labels and counts; beyond 20 classes the rarest are counted together."""
    counted = Counter(np.concatenate([truth, chosen]).tolist())
    frequent = counted.most_common(_MAX_CLASSES if len(counted) <= _MAX_CLASSES else _MAX_CLASSES - 1)
    classes = sorted((label for label, _ in frequent), key=lambda label: (str(type(label)), label))
    names = [*map(str, classes), *([_OTHERS] if len(classes) < len(counted) else [])]
    places = {label: i for i, label in enumerate(classes)}
    table = np.zeros((len(names), len(names)), dtype=np.int64)
    for t, c in zip(truth.tolist(), chosen.tolist(), strict=True):
        table[places.get(t, -1), places.get(c, -1)] += 1
    return tuple(names), tuple(map(tuple, table.tolist()))


def _bins(predicted: Floats, observed: Floats) -> tuple[Bin, ...]:
    """Bins of as many rows each, as far as predictions that are equal allow."""
    n_bins = max(1, min(_BINS, len(predicted) // _MIN_ROWS_A_BIN))
    edges = np.unique(np.quantile(predicted, np.linspace(0, 1, n_bins + 1)))
    places = np.clip(np.searchsorted(edges, predicted, side="right") - 1, 0, max(0, len(edges) - 2))
    found = []
    for place in np.unique(places):
        seen = observed[places == place]
        error = float(seen.std(ddof=1) / math.sqrt(len(seen))) if len(seen) > 1 else 0.0
        found.append(Bin(len(seen), float(predicted[places == place].mean()), float(seen.mean()), error))
    return tuple(found)

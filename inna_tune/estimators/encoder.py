"""The table encoder: columns of any kind in, one float matrix out."""

import warnings
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api import types
from sklearn.base import BaseEstimator, TransformerMixin

from inna_tune.estimators.tables import as_frame, check_weights, takes_any_table

Matrix = npt.NDArray[np.float32]

# Level under which a missing value is counted; no text reads like this.
_MISSING = "\0missing"


class DroppedColumnWarning(UserWarning):
    """A column carries no information (constant, or missing throughout) and was left out."""


@dataclass(frozen=True)
class ColumnPlan:
    """What is done with one column.

    Attributes
    ----------
    name : str
        The column's name, as text.
    kind : str
        ``"numeric"``, ``"categorical"`` or ``"dropped"``.
    center, scale : float
        Of a numeric column: weighted median, and interquartile range / 1.349 (the standard deviation of a normal law).
    indicator : float or None
        Of a numeric column with missing values: their share in the training rows.
    levels : list of str
        Of a categorical column: the levels with an output column of their own, most frequent first.
    shares : list of float
        Share of each level in the training rows, and last that of all other levels together.
    """

    name: str
    kind: str
    center: float = 0.0
    scale: float = 1.0
    indicator: float | None = None
    levels: list[str] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)

    @property
    def outputs(self) -> list[str]:
        """Names of the output columns."""
        if self.kind == "numeric":
            return [self.name] + ([f"{self.name}_missing"] if self.indicator is not None else [])
        if self.kind == "categorical":
            names = ["missing" if level == _MISSING else level for level in self.levels]
            return [f"{self.name}_{n}" for n in names] + (
                [f"{self.name}_other"] if self.shares[-1] > 0 else []
            )
        return []


class TableEncoder(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Turn a table with numeric, boolean, date, categorical and missing values into a float32 matrix.

    Numbers (booleans and dates among them) are scaled by median and interquartile range and clipped smoothly to
    (−3, 3) by x / √(1 + (x/3)²), as RealMLP does (Holzmüller, Grinsztajn and Steinwart, 2024); a column with missing
    values gets an indicator beside it. Categories become one column a level, less the level's share: centred inputs
    keep the curvature of the loss, and so the stable steps of INNA, within bounds. A missing category is a level;
    rare and unseen levels share one column.

    Parameters
    ----------
    max_levels : int, default=64
        Levels of a categorical column that get an output column of their own.
    min_count : int, default=10
        In tables of 1,000 rows or more a level that occurs less often counts as rare; in smaller tables the bound falls
        in proportion.

    Attributes
    ----------
    plan_ : list of ColumnPlan
        What is done with each column.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Where the table had string names.
    """

    def __init__(self, *, max_levels: int = 64, min_count: int = 10) -> None:
        self.max_levels = max_levels
        self.min_count = min_count

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Learn scales and levels.

        Parameters
        ----------
        X : DataFrame or array of shape [n_samples, n_features]
        y : ignored
        sample_weight : array of shape [n_samples], optional
            Rows of weight w count like w equal rows.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a numeric column holds infinities or complex numbers, or the parameters make no sense.
        """
        if self.max_levels < 1:
            raise ValueError(f"max_levels must be at least 1, got {self.max_levels}.")
        frame = as_frame(self, X, reset=True)
        weight = check_weights(sample_weight, len(frame))
        if weight is not None and (weight == 0).any():
            frame, weight = frame.loc[weight > 0], weight[weight > 0]
        self.plan_ = [self._plan(str(name), frame.iloc[:, i], weight) for i, name in enumerate(frame.columns)]
        dropped = [c.name for c in self.plan_ if c.kind == "dropped"]
        if dropped:
            warnings.warn(
                f"Left out {len(dropped)} constant or empty column(s): {', '.join(dropped[:10])}"
                + (" …" if len(dropped) > 10 else ""),
                DroppedColumnWarning,
                stacklevel=2,
            )
        return self

    def _plan(self, name: str, column: pd.Series, weight: npt.NDArray[np.float64] | None) -> ColumnPlan:
        w = np.ones(len(column)) if weight is None else weight
        numbers = _numbers(column, name)
        if numbers is not None:
            present = ~np.isnan(numbers)
            if not present.any() or (present.all() and (numbers == numbers[0]).all()):
                return ColumnPlan(name, "dropped")
            values, own = numbers[present], w[present]
            low, center, high = (
                float(q) for q in np.quantile(values, [0.25, 0.5, 0.75], weights=own, method="inverted_cdf")
            )
            # A difference, a mean and a square root of extreme values may overflow; scaling by the largest prevents it.
            largest = float(np.abs(values).max()) or 1.0
            scale = (high / largest - low / largest) / 1.349
            if scale <= 0:
                scaled = values / largest
                scale = float(
                    np.sqrt(np.average((scaled - np.average(scaled, weights=own)) ** 2, weights=own))
                )
            scale = scale * largest or 1.0
            indicator = None if present.all() else float(w[~present].sum() / w.sum())
            return ColumnPlan(name, "numeric", center=center, scale=scale, indicator=indicator)
        counts = pd.Series(w).groupby(_levels(column)).sum()
        if len(counts) < 2:
            return ColumnPlan(name, "dropped")
        # Ties are broken by name, so that the order of the rows does not matter.
        counts = counts.sort_index(kind="stable").sort_values(ascending=False, kind="stable")
        bound = min(self.min_count, w.sum() / 100) if len(counts) > 2 else 0
        kept = counts[counts >= bound].head(self.max_levels)
        shares = [float(c) for c in kept / w.sum()]
        return ColumnPlan(
            name,
            "categorical",
            levels=[str(v) for v in kept.index],
            shares=[*shares, float(counts.drop(kept.index).sum() / w.sum())],
        )

    def transform(self, X: Any) -> Matrix:
        """Encode a table.

        Parameters
        ----------
        X : DataFrame or array of shape [n_samples, n_features]

        Returns
        -------
        ndarray of float32, shape [n_samples, len(get_feature_names_out())]

        Raises
        ------
        ValueError
            If columns are missing, or a numeric column holds text or infinities.
        """
        frame = as_frame(self, X, reset=False)
        names = self.get_feature_names_out()
        matrix = np.zeros((len(frame), len(names)), dtype=np.float32)
        start = 0
        for i, plan in enumerate(self.plan_):
            width = len(plan.outputs)
            if width:
                _encode(plan, frame.iloc[:, i], matrix[:, start : start + width])
            start += width
        return matrix

    def get_feature_names_out(self, input_features: Any = None) -> npt.NDArray[np.object_]:
        """Names of the output columns, e.g. ``age``, ``age_missing``, ``job_clerk``, ``job_other``."""
        return np.array([name for plan in self.plan_ for name in plan.outputs], dtype=object)

    def __sklearn_tags__(self) -> Any:
        return takes_any_table(super().__sklearn_tags__())

    def to_json(self) -> list[dict[str, Any]]:
        """The fitted plan as plain data."""
        return [asdict(plan) for plan in self.plan_]

    @classmethod
    def from_json(cls, plan: list[dict[str, Any]]) -> Self:
        """An encoder fitted to a plan that ``to_json`` gave."""
        encoder = cls()
        encoder.plan_ = [ColumnPlan(**column) for column in plan]
        encoder.n_features_in_ = len(plan)
        return encoder


def _numbers(column: pd.Series, name: str) -> npt.NDArray[np.float64] | None:
    """The column as float64 with NaN where missing; None if it is categorical.

    Dates become days since 1970, durations days.
    """
    dtype = column.dtype
    if types.is_complex_dtype(dtype):
        raise ValueError(
            f"Complex data not supported: column {name!r} holds complex numbers. Split it into two columns."
        )
    if isinstance(dtype, pd.CategoricalDtype):
        return None
    if types.is_datetime64_any_dtype(dtype):
        naive = (
            column.dt.tz_convert("UTC").dt.tz_localize(None)
            if getattr(dtype, "tz", None) is not None
            else column
        )
        return _as_floats((naive - pd.Timestamp(0)) / pd.Timedelta(days=1))
    if types.is_timedelta64_dtype(dtype):
        return _as_floats(column / pd.Timedelta(days=1))
    if not types.is_numeric_dtype(dtype):
        kind = types.infer_dtype(column, skipna=True)
        if kind == "empty":
            return np.full(len(column), np.nan)
        if kind not in {"integer", "floating", "mixed-integer-float", "decimal", "boolean"}:
            return None
    numbers = _as_floats(column)
    if np.isinf(numbers).any():
        raise ValueError(
            f"Input X contains infinity or a value too large for float64 in column {name!r}. Replace it by a number or NaN."
        )
    return numbers


def _as_floats(column: pd.Series) -> npt.NDArray[np.float64]:
    return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan))


def _levels(column: pd.Series) -> npt.NDArray[np.object_]:
    """Every value of a categorical column as text, missing ones as the missing level."""
    missing = column.isna().to_numpy()
    texts: npt.NDArray[np.object_] = column.astype(object).map(str).to_numpy(dtype=object)
    texts[missing] = _MISSING
    return texts


def _encode(plan: ColumnPlan, column: pd.Series, out: Matrix) -> None:
    """Write one column's encoding into ``out`` [n_samples, len(plan.outputs)]."""
    if plan.kind == "categorical":
        codes = pd.Index(plan.levels).get_indexer(_levels(column))
        out[:] = -np.asarray(plan.shares[: out.shape[1]], dtype=np.float32)
        codes[codes < 0] = len(plan.levels)
        known = np.flatnonzero(codes < out.shape[1])
        out[known, codes[known]] += 1.0
        return
    numbers = _numbers(column, plan.name)
    if numbers is None:
        raise ValueError(
            f"Column {plan.name!r} was numeric when the model was fitted and now holds text. Convert it to numbers."
        )
    missing = np.isnan(numbers)
    scaled = numbers / plan.scale - plan.center / plan.scale
    # hypot does not overflow where a square would.
    out[:, 0] = np.where(missing, 0.0, scaled / np.hypot(1.0, scaled / 3.0))
    if plan.indicator is not None:
        out[:, 1] = missing - plan.indicator

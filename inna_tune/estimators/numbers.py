"""Numeric columns: robust scales, normal quantiles or what lies between, learned for many columns at once."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import ndtri

from inna_tune.estimators.columns import Matrix
from inna_tune.estimators.floats import read_numbers
from inna_tune.estimators.frames import Floats, Weights
from inna_tune.estimators.number_forms import NumberForm
from inna_tune.estimators.plans import ColumnPlan, DroppedPlan

# So many quantiles are kept where a column is mapped to a normal law.
_RANKS = np.linspace(0.0, 1.0, 256)

# How numbers may be mapped.
Scaling = Literal["blend", "scale", "quantile"]
# How much of a blend is a value's place among the others, and at which ranks its quantiles lie: few, since there may be
# thousands of columns, and the median among them.
RANKS_SHARE = 0.4
_RANKS_OF_BLENDS = np.linspace(0.0, 1.0, 65)
# Of these so many must differ. A column of fewer values lies in fewer pieces than there are, and its distances tell more.
_MIN_OF_BLEND = 33
# In scales: farther out, and closer together, numbers are not told apart.
_FARTHEST, _APART = 1e30, 1e-30

# A value with the middle half of a column is a spike where so many others occur beside it; fewer are rather levels.
_MIN_BESIDE_SPIKE = 16

# A weighted sum that ought to equal a share of the total may miss it by a rounding error.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class NumericPlan(ColumnPlan):
    """A column of numbers.

    Attributes
    ----------
    center, scale : float
        Weighted median, and interquartile range / 1.349 (the standard deviation of a normal law).
    indicator : float or None
        Where values are missing: their share in the training rows.
    form : list of str or None
        Of numbers in disguise: their decimal sign, what separates thousands, and their unit.
    quantiles : ndarray of float64 [n_quantiles] or None
        Of a column that is mapped to a normal law, from the least value to the largest: 256.
    """

    kind = "numeric"
    center: float = 0.0
    scale: float = 1.0
    indicator: float | None = None
    form: list[str] | None = None
    quantiles: Floats | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"column {self.name!r}: its scale must be positive, not {self.scale}")
        self.number_form  # noqa: B018  # refuses what is no form
        check_quantiles(self.name, self.quantiles)

    @property
    def is_scaled(self) -> bool:
        """Whether numbers are scaled by the center and the scale, if only in part."""
        return self.quantiles is None

    @property
    def number_form(self) -> NumberForm | None:
        """How the numbers are written where they are text; None: as in programs."""
        return None if self.form is None else NumberForm(*self.form)

    @property
    def numbers(self) -> list[str]:
        return [self.name]

    @property
    def floats(self) -> list[str]:
        return indicator_names(self.name, self.indicator)

    def encode(self, column: pd.Series, numbers: Matrix, floats: Matrix, codes: Matrix) -> None:
        values = read_numbers(column, self.name, self.number_form)
        numbers[:, 0] = scaled(values, self.center, self.scale, self.quantiles)
        encode_indicator(np.isnan(values), self.indicator, floats)


@dataclass(frozen=True)
class BlendedPlan(NumericPlan):
    """A column of numbers that are in part scaled and in part mapped to a normal law.

    A net's pieces have fixed ends. Numbers that are scaled lie in few of them where they lie close together, as the places
    where most people live; of normal scores all pieces hold about as many rows, but how far apart these are is lost. In between
    the loss on california falls by 3.8%; diamonds, which normal scores alone make worse by 2%, stays where it was.

    Attributes
    ----------
    quantiles : ndarray of float64 [n_quantiles]
        33 to 65, each once, in scales from the median.
    scores : ndarray of float64 [n_quantiles]
        Their normal scores, less that of the median; between them scores lie on lines.
    """

    kind = "blended"
    scores: Floats | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.quantiles is None or self.scores is None or self.scores.shape != self.quantiles.shape:
            raise ValueError(f"column {self.name!r}: a blend has a score for each of its quantiles")
        check_quantiles(self.name, self.scores)
        # Nothing else keeps the slopes between them finite.
        if (
            not (np.abs(self.quantiles) <= _FARTHEST).all()
            or not (np.diff(self.quantiles) >= _APART / 2).all()
        ):
            raise ValueError(f"column {self.name!r}: its quantiles lie too far out, or too close together")
        if not (np.abs(self.scores) <= 3.0).all():
            raise ValueError(f"column {self.name!r}: its scores are not between −3 and 3")

    @property
    def is_scaled(self) -> bool:
        return True

    def blend(self, units: Floats, squashed: Floats) -> Floats:
        """Weighted means of numbers in scales from the median, squashed, and of their scores; missing values become 0."""
        assert self.quantiles is not None
        assert self.scores is not None
        found = np.interp(units, self.quantiles, self.scores)
        np.nan_to_num(found, copy=False, nan=0.0)
        found *= RANKS_SHARE
        found += (1.0 - RANKS_SHARE) * squashed
        return found

    def encode(self, column: pd.Series, numbers: Matrix, floats: Matrix, codes: Matrix) -> None:
        values = read_numbers(column, self.name, self.number_form)
        units = in_scales(values, self.center, self.scale)
        numbers[:, 0] = self.blend(units, clipped(units))
        encode_indicator(np.isnan(values), self.indicator, floats)


@dataclass(frozen=True)
class SpikedPlan(NumericPlan):
    """A column of numbers most of which are one value, such as an amount that most rows do not have.

    That value has an output of its own, and the others are mapped to a normal law by their own quantiles: a scale for all
    would press them into few of a net's pieces (log-loss on adult, whose capital gains are zero in 92% of the rows and tell
    nearly all in the others: .311 without, .283 with).

    Attributes
    ----------
    spike : float
        The value, which becomes 0, as missing values do.
    share : float
        Of the training rows that have it.
    """

    kind = "spiked"
    spike: float = 0.0
    share: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.quantiles is None:
            raise ValueError(f"column {self.name!r}: the values beside {self.spike:g} have no quantiles")

    @property
    def floats(self) -> list[str]:
        return [*super().floats, f"{self.name}_is_{self.spike:g}"]

    def encode(self, column: pd.Series, numbers: Matrix, floats: Matrix, codes: Matrix) -> None:
        values = read_numbers(column, self.name, self.number_form)
        is_spike = values == self.spike
        encode_indicator(np.isnan(values), self.indicator, floats)
        encode_indicator(is_spike, self.share, floats[:, -1:])
        numbers[:, 0] = scaled(np.where(is_spike, np.nan, values), self.center, self.scale, self.quantiles)


def check_quantiles(name: str, quantiles: Floats | None) -> None:
    """Raise a ValueError unless they are numbers in ascending order."""
    if quantiles is not None and (
        quantiles.ndim != 1 or len(quantiles) < 2 or not (quantiles[1:] >= quantiles[:-1]).all()
    ):
        raise ValueError(f"column {name!r}: its quantiles are not in ascending order")


def indicator_names(name: str, indicator: float | None) -> list[str]:
    """Name of the output that tells missing values, if there is one."""
    return [] if indicator is None else [f"{name}_missing"]


def encode_indicator(holds: npt.NDArray[np.bool_], share: float | None, out: Matrix) -> None:
    """Write a centred indicator, say of missing values, into the first of the columns ``out``, if there is one."""
    if share is not None:
        out[:, 0] = holds - share


def in_scales(values: Floats, center: float | Floats, scale: float | Floats) -> Floats:
    """How many scales values lie from the center, at most 1e30; missing values stay missing."""
    with np.errstate(over="ignore"):
        units = values / scale
    units -= center / scale
    # Far beyond the clip, and its square does not overflow.
    return np.clip(units, -_FARTHEST, _FARTHEST, out=units)


def clipped(units: Floats) -> Floats:
    """Clip smoothly to (−3, 3) by x / √(1 + (x/3)²); missing values become 0, the median."""
    found = units / np.sqrt(1.0 + np.square(units / 3.0))
    np.nan_to_num(found, copy=False, nan=0.0)
    return found


def squash(values: Floats, center: float | Floats, scale: float | Floats) -> Floats:
    """Scale and clip smoothly; missing values become 0."""
    return clipped(in_scales(values, center, scale))


def scaled(values: Floats, center: float, scale: float, quantiles: Floats | None) -> Floats:
    """Values by their quantiles where there are such, and else by their center and scale; missing values become 0."""
    return squash(values, center, scale) if quantiles is None else normal_scores(values, quantiles)


def normal_scores(values: Floats, quantiles: Floats) -> Floats:
    """Map values by their place among the quantiles to a standard normal law, within ±2.9; missing values become 0.

    A value that many rows share lies in the middle of its ranks.
    """
    ranks = np.linspace(0.0, 1.0, len(quantiles))
    last = _on_lines(values, quantiles, ranks)
    first = 1.0 - _on_lines(-values, -quantiles[::-1], ranks)
    edge = 0.5 / len(quantiles)
    scores: Floats = ndtri(np.clip((first + last) / 2, edge, 1.0 - edge))
    np.nan_to_num(scores, copy=False, nan=0.0)
    return scores


def _on_lines(values: Floats, xs: Floats, ys: Floats) -> Floats:
    """As `numpy.interp`, also where xs lie so close together or so far apart that a slope overflows or is 0."""
    with np.errstate(all="ignore"):
        found: Floats = np.interp(values, xs, ys)
        odd = ~np.isfinite(found) & ~np.isnan(values)
        if odd.any():
            place = np.clip(np.searchsorted(xs, values[odd], side="right") - 1, 0, len(xs) - 2)
            share = (values[odd] - xs[place]) / (xs[place + 1] - xs[place])
            share = np.clip(np.nan_to_num(share, nan=0.0), 0.0, 1.0)
            found[odd] = ys[place] + share * (ys[place + 1] - ys[place])
    return found


def fit_numbers(
    names: Sequence[str],
    block: Floats,
    weight: Weights | None,
    *,
    scaling: Scaling = "blend",
    may_spike: bool = True,
) -> list[ColumnPlan]:
    """Plans of several numeric columns.

    Parameters
    ----------
    names : sequence of str
    block : ndarray of float64 [n_columns, n_samples]
        NaN where missing.
    weight : ndarray of float64 [n_samples] or None
    scaling : {"blend", "scale", "quantile"}, default="blend"
        Whether to scale, to map to a normal law, or a weighted mean of both.
    may_spike : bool, default=True
        Whether a value that most rows have gets an output of its own.

    Returns
    -------
    list of NumericPlan, BlendedPlan, SpikedPlan and DroppedPlan
    """
    ranked = Ranked(block, weight)
    centers, scales = fit_scales(block, ranked, weight)
    ranks = {"scale": None, "quantile": _RANKS, "blend": _RANKS_OF_BLENDS}[scaling]
    curves = None if ranks is None else ranked.quantiles(ranks)
    spikes = _fit_spikes(block, ranked, weight) if may_spike else {}
    total = block.shape[1] if weight is None else weight.sum()
    plans: list[ColumnPlan] = []
    for i, name in enumerate(names):
        share = 1.0 - ranked.totals[i] / total
        has_gaps = ranked.counts[i] < block.shape[1]
        if ranked.counts[i] == 0:
            plans.append(DroppedPlan(name, "empty"))
        elif ranked.is_constant[i] and not has_gaps:
            plans.append(DroppedPlan(name, "constant"))
        else:
            plan = NumericPlan(
                name,
                center=float(centers[i]),
                scale=float(scales[i]),
                indicator=float(share) if has_gaps else None,
                quantiles=None if curves is None else curves[i],
            )
            if i in spikes:
                plan = spikes[i].beside(plan)
            elif scaling == "blend":
                plan = _blended(plan)
            plans.append(plan)
    return plans


def _blended(plan: NumericPlan) -> NumericPlan:
    """A plan of quantiles as one of a blend; of a column of few values as one without quantiles."""
    assert plan.quantiles is not None
    curve = in_scales(plan.quantiles, plan.center, plan.scale)
    first = np.flatnonzero(np.r_[True, np.diff(curve) >= _APART])
    if len(first) < _MIN_OF_BLEND:
        return replace(plan, quantiles=None)
    scores = normal_scores(curve[first], curve)
    # The median is one of the quantiles, and 0 by its scale, too.
    scores = np.clip(scores - np.interp(0.0, curve[first], scores), -3.0, 3.0)
    return BlendedPlan(
        plan.name,
        center=plan.center,
        scale=plan.scale,
        indicator=plan.indicator,
        quantiles=curve[first],
        scores=scores,
    )


@dataclass(frozen=True)
class _Spike:
    value: float
    share: float
    quantiles: Floats

    def beside(self, plan: NumericPlan) -> SpikedPlan:
        own = {f.name: getattr(plan, f.name) for f in fields(plan)} | {"quantiles": self.quantiles}
        return SpikedPlan(**own, spike=self.value, share=self.share)


def _fit_spikes(block: Floats, ranked: "Ranked", weight: Weights | None) -> dict[int, _Spike]:
    """By place, the spikes of the columns whose middle half is one value with enough others beside it."""
    low, _, high = ranked.quartiles.T
    total = block.shape[1] if weight is None else weight.sum()
    found = {}
    for i in np.flatnonzero((low == high) & ~ranked.is_constant):
        is_spike = block[i] == low[i]
        rest = np.where(is_spike, np.nan, block[i])
        if len(np.unique(rest[~np.isnan(rest)])) >= _MIN_BESIDE_SPIKE:
            curve = Ranked(rest[None], weight).quantiles(_RANKS)[0]
            held = is_spike.sum() if weight is None else weight[is_spike].sum()
            found[int(i)] = _Spike(float(low[i]) + 0.0, float(held / total), curve)
    return found


class Ranked:
    """Columns sorted by value, missing values last.

    Parameters
    ----------
    block : ndarray of float64 [n_columns, n_samples]
    weight : ndarray of float64 [n_samples] or None

    Attributes
    ----------
    values : ndarray [n_columns, n_samples]
    counts : ndarray of int64 [n_columns]
        Present values.
    totals : ndarray of float64 [n_columns]
        Their weights' sum.
    is_constant : ndarray of bool [n_columns]
        Whether all present values are equal.
    """

    def __init__(self, block: Floats, weight: Weights | None) -> None:
        self.counts = (~np.isnan(block)).sum(axis=1)
        if weight is None:
            self.values = np.sort(block, axis=1)
            self._cumulated = None
            self.totals = self.counts.astype(np.float64)
        else:
            order = np.argsort(block, axis=1, kind="stable")
            self.values = np.take_along_axis(block, order, axis=1)
            self._cumulated = np.cumsum(weight[order], axis=1)
            last = np.maximum(self.counts - 1, 0)[:, None]
            self.totals = np.take_along_axis(self._cumulated, last, axis=1)[:, 0] * (self.counts > 0)
        rows = np.arange(len(block))
        self.is_constant = self.values[rows, 0] == self.values[rows, np.maximum(self.counts - 1, 0)]

    @cached_property
    def quartiles(self) -> Floats:
        """First quartile, median and third quartile of every column, [n_columns, 3]."""
        return self.quantiles(np.array([0.25, 0.5, 0.75]))

    def quantiles(self, shares: Floats) -> Floats:
        """Quantiles [n_columns, len(shares)]: the least value up to which that share of the weight lies.

        It is always a value of the column, and rows of weight w give what w equal rows give. NaN in empty columns.
        """
        places = np.empty((len(self.values), len(shares)), dtype=np.int64)
        for i, (total, count) in enumerate(zip(self.totals, self.counts, strict=True)):
            wanted = shares * total * (1.0 - _ROUNDING)
            if self._cumulated is None:
                places[i] = np.ceil(wanted) - 1
            else:
                places[i] = np.searchsorted(self._cumulated[i, :count], wanted)
            np.clip(places[i], 0, max(count - 1, 0), out=places[i])
        return np.take_along_axis(self.values, places, axis=1)


def fit_scales(block: Floats, ranked: Ranked, weight: Weights | None) -> tuple[Floats, Floats]:
    """Median and positive scale of every column of a block [n_columns, n_samples]."""
    low, centers, high = ranked.quartiles.T
    ends = np.maximum(ranked.counts - 1, 0)[:, None]
    # A difference, a mean and a square root of extreme values may overflow; scaling by the largest prevents it.
    largest = np.maximum(
        np.abs(ranked.values[:, 0]), np.abs(np.take_along_axis(ranked.values, ends, 1)[:, 0])
    )
    largest = np.where(largest > 0, largest, 1.0)
    scales = (high / largest - low / largest) / 1.349
    for i in np.flatnonzero(scales <= 0):
        present = ~np.isnan(block[i])
        own = None if weight is None else weight[present]
        values = block[i, present] / largest[i]
        scales[i] = np.sqrt(np.average((values - np.average(values, weights=own)) ** 2, weights=own))
    with np.errstate(over="ignore"):
        scales = np.minimum(scales * largest, np.finfo(np.float64).max)
    return centers, np.where(scales > 0, scales, 1.0)

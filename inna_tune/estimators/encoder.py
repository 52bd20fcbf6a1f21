"""The table encoder: columns of any kind in, one float matrix of three sections out."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils._param_validation import Interval, Options

from inna_tune.estimators.checks import Number, check_parameters, one_of
from inna_tune.estimators.columns import Matrix, is_plain, look_at, refuse_infinities
from inna_tune.estimators.dates import fit_instants, plan_dates, read_dates
from inna_tune.estimators.floats import find_numbers, read_numbers
from inna_tune.estimators.frames import Floats, Weights, as_frame, check_weights, takes_any_table
from inna_tune.estimators.levels import count_levels, plan_levels
from inna_tune.estimators.numbers import (
    BlendedPlan,
    NumericPlan,
    Scaling,
    clipped,
    encode_indicator,
    fit_numbers,
    in_scales,
)
from inna_tune.estimators.plans import ColumnPlan, DroppedPlan
from inna_tune.estimators.text import is_text, plan_text

# Plain columns are read in blocks of so many numbers: few steps for wide tables, little memory for long ones.
_BLOCK = 2**19

_REASONS = {
    "constant": "constant or empty column(s)",
    "empty": "constant or empty column(s)",
    "rare": "column(s) without a level that occurs often enough to learn from",
}


class DroppedColumnWarning(UserWarning):
    """A column carries no information (constant, or missing throughout) and was left out."""


class DisguisedNumbersWarning(UserWarning):
    """A column of text holds numbers, written with separators, a currency or the like, and was read as numbers."""


_NO_LIMIT = Options(Real, {np.inf})


@dataclass(kw_only=True, eq=False, repr=False)
class TableEncoder(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Turn a table of any kind of column into a float32 matrix of three sections.

    First come the **numbers**: every numeric column (booleans, durations and times of day among them), scaled by median
    and interquartile range and clipped smoothly to (−3, 3) by x / √(1 + (x/3)²), as RealMLP does (Holzmüller,
    Grinsztajn and Steinwart, 2024), and where a column has many values moved towards their normal scores; or, where the
    middle half of the rows has one value and sixteen others occur, by the quantiles of those others; text that holds
    numbers in one form, such as "$1,234.50" (a ``DisguisedNumbersWarning`` says so); and of dates, also those written as
    text, the days since 1970 and the parts of the calendar that ``skrub.DatetimeEncoder`` gives.

    Then come **other floats**: an indicator of the value that most rows have, where it was told apart; one where numbers,
    dates or texts are missing, or dates far from all others, such as 9999-12-31; the levels of categorical columns, one
    output each; the vectors of free text that ``skrub.StringEncoder`` learns. All are centred, which keeps the curvature
    of the loss, and so the stable steps of INNA, within bounds. A missing category is a level; rare and unseen levels
    share one output.

    A level is its text, whatever type holds it: 1, 1.0 and "1" are one level, and True is 1 where only one of them was
    fitted. Each value is read by itself, in the form that was fitted, so that a row's outputs do not depend on the rows
    with it; what does not fit a column of numbers or dates is missing, and a warning counts it.

    Last come **codes**, whole numbers that a net looks up in a table of embeddings: of categorical columns with many
    levels. Code 0 stands for rare and unseen levels, code 1 for missing ones.

    Parameters
    ----------
    numeric : {"blend", "scale", "quantile"}, default="blend"
        How numbers are scaled: ``"scale"`` by median and interquartile range; ``"quantile"`` by their place among 256
        quantiles of the training rows to a standard normal law within ±2.9; ``"blend"`` by the mean of both, weighted .6 and
        .4, where 33 of 65 quantiles differ, and else as ``"scale"``. Dates are scaled in a blend.
    max_levels : int, default=64
        Levels of a categorical column that get an output of their own; a column with more, counting those that occur
        twice or more, gets codes.
    min_count : int, default=10
        In tables of 1,000 rows or more a level that occurs less often counts as rare; in smaller tables the bound falls
        in proportion. In a column of codes only levels that occur once are rare.
    embed : bool, default=True
        Whether there are columns of codes; if not, levels beyond ``max_levels`` count as rare.
    max_codes : int, default=4096
        Most codes of a column; levels beyond it count as rare.
    text : "auto", "never" or list of str, default="auto"
        Which columns of strings are free text: those that look like it (see ``inna_tune.estimators.text.is_text``), none,
        or those named. Pandas categories never look like it.
    n_components : int, default=30
        Most outputs of a column of text.

    Attributes
    ----------
    plan_ : list of ColumnPlan
        What is done with each column: a ``NumericPlan``, ``BlendedPlan``, ``SpikedPlan``, ``DatePlan``, ``OneHotPlan``,
        ``CodedPlan``, ``TextPlan`` or ``DroppedPlan``.
    n_numeric_ : int
        Width of the section of numbers.
    categories_ : tuple of int
        Number of codes of each output in the section of codes.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Where the table had string names.
    """

    numeric: Scaling = "blend"
    max_levels: int = 64
    min_count: int = 10
    embed: bool = True
    max_codes: int = 4096
    text: str | Sequence[str] = "auto"
    n_components: int = 30

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "numeric": [one_of("blend", "scale", "quantile")],
        "max_levels": [Number(Integral, 1, None, closed="left"), _NO_LIMIT],
        "min_count": [Interval(Real, 0, None, closed="both")],
        "embed": ["boolean", Options(Integral, {0, 1})],
        "max_codes": [Number(Integral, 3, None, closed="left"), _NO_LIMIT],
        "text": [one_of("auto", "never"), "array-like"],
        "n_components": [Number(Integral, 1, None, closed="left"), _NO_LIMIT],
    }

    # ------------------------------------------------------------------ fit

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Learn scales, levels and text vectors.

        Parameters
        ----------
        X : DataFrame, array, sparse matrix or anything with ``to_pandas``, of shape [n_samples, n_features]
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
        self._check_parameters()
        frame = as_frame(self, X, reset=True)
        weight = check_weights(sample_weight, len(frame))
        if weight is not None and (weight == 0).any():
            frame, weight = frame.loc[weight > 0], weight[weight > 0]
        names = [str(name) for name in frame.columns]
        texts = [] if isinstance(self.text, str) else list(self.text)
        strangers = [name for name in texts if name not in names]
        if strangers:
            raise ValueError(f"text={texts!r} names {strangers}, but the columns are {names[:20]}.")
        plans: dict[int, ColumnPlan] = {}
        for places, block in _plain_blocks(frame, [i for i, name in enumerate(names) if name not in texts]):
            own = [names[i] for i in places]
            refuse_infinities(block, own)
            fitted = fit_numbers(own, block, weight, scaling=self.numeric)
            plans |= dict(zip(places, fitted, strict=True))
        for i, name in enumerate(names):
            if i not in plans:
                plans[i] = self._plan(name, frame.iloc[:, i], weight)
        self._take([plans[i] for i in range(len(names))])
        self._warn_of_dropped()
        self._warn_of_disguised()
        return self

    def _plan(self, name: str, column: pd.Series, weight: Weights | None) -> ColumnPlan:
        """Plan of a column that is not plain numbers."""
        quantile = self.numeric == "quantile"
        column, kind = look_at(column, name)
        is_named_text = not isinstance(self.text, str) and name in self.text
        if kind in ("number", "boolean", "duration", "time") and not is_named_text:
            return fit_numbers([name], read_numbers(column, name)[None], weight, scaling=self.numeric)[0]
        if kind == "date" and not is_named_text:
            return plan_dates(name, *fit_instants(column, name), weight, quantile=quantile)
        if kind == "text" and not is_named_text:
            dates = read_dates(column, name)
            if dates is not None:
                instants, zone, form = dates
                return plan_dates(name, instants, zone, weight, quantile=quantile, text_format=form)
        # Who makes a category of numbers wants levels.
        if not isinstance(column.dtype, pd.CategoricalDtype) and not is_named_text:
            found = find_numbers(column, name)
            if found is not None:
                (plan,) = fit_numbers([name], found[0][None], weight, scaling=self.numeric)
                written = [found[1].decimal, found[1].thousands, found[1].unit]
                return replace(plan, form=written) if isinstance(plan, NumericPlan) else plan
        counted = count_levels(column, name, weight)
        looks_like_text = (
            self.text == "auto" and kind == "text" and is_text(counted, max_levels=self.max_levels)
        )
        if is_named_text or looks_like_text:
            text = plan_text(name, counted, n_components=self.n_components)
            if text is not None:
                return text
        return plan_levels(
            name,
            counted,
            max_levels=self.max_levels,
            min_count=self.min_count,
            max_codes=self.max_codes,
            embed=self.embed,
        )

    def _take(self, plans: Sequence[ColumnPlan]) -> None:
        """Keep the plans and what follows from them."""
        self.plan_ = list(plans)
        self.n_numeric_ = sum(len(plan.numbers) for plan in plans)
        self.categories_ = tuple(plan.n_codes for plan in plans if plan.n_codes)

    def _warn_of_dropped(self) -> None:
        found: dict[str, list[str]] = {}
        for plan in self.plan_:
            if isinstance(plan, DroppedPlan):
                found.setdefault(_REASONS[plan.reason], []).append(plan.name)
        if found:
            said = [f"Left out {len(names)} {what}: {_listed(names)}." for what, names in found.items()]
            warnings.warn(" ".join(said), DroppedColumnWarning, stacklevel=3)

    def _warn_of_disguised(self) -> None:
        found = [
            f"{plan.name} (written like {plan.number_form.words})"
            for plan in self.plan_
            if isinstance(plan, NumericPlan) and plan.number_form is not None
        ]
        if found:
            warnings.warn(
                f"Read text as numbers in {len(found)} column(s): {_listed(found)}. Convert to a category what is meant as "
                "levels.",
                DisguisedNumbersWarning,
                stacklevel=3,
            )

    def _check_parameters(self) -> None:
        check_parameters(self)

    # ------------------------------------------------------------------ transform

    @property
    def sections(self) -> tuple[int, int, int]:
        """Widths of the three sections: numbers, other floats, codes."""
        n_floats = sum(len(plan.floats) for plan in self.plan_)
        return self.n_numeric_, n_floats, len(self.categories_)

    def transform(self, X: Any) -> Matrix:
        """Encode a table.

        Parameters
        ----------
        X : DataFrame, array, sparse matrix or anything with ``to_pandas``, of shape [n_samples, n_features]

        Returns
        -------
        ndarray of float32, shape [n_samples, sum(sections)]

        Raises
        ------
        ValueError
            If columns are missing, or a numeric column holds text or infinities.
        """
        return self.encode(as_frame(self, X, reset=False), np.float32)

    def encode(self, frame: pd.DataFrame, dtype: type[np.float32] | type[np.float64]) -> Matrix:
        """Encode a DataFrame of the right columns in a type of one's choice."""
        self._check_order(frame)
        matrix: Matrix = np.zeros((len(frame), sum(self.sections)), dtype=dtype)
        numbers, floats, codes = np.split(matrix, np.cumsum(self.sections)[:2], axis=1)
        ends = [
            list(accumulate(widths, initial=0))
            for widths in zip(
                *((len(p.numbers), len(p.floats), p.n_codes > 0) for p in self.plan_), strict=True
            )
        ]

        def own(section: int, i: int) -> slice:
            return slice(ends[section][i], ends[section][i + 1])

        scaled = [i for i, p in enumerate(self.plan_) if isinstance(p, NumericPlan) and p.is_scaled]
        done = set()
        for places, block in _plain_blocks(frame, scaled):
            plans: list[Any] = [self.plan_[i] for i in places]
            refuse_infinities(block, [p.name for p in plans])
            missing = np.isnan(block)
            units = in_scales(
                block, np.array([[p.center] for p in plans]), np.array([[p.scale] for p in plans])
            )
            out = clipped(units)
            for j, plan in enumerate(plans):
                if isinstance(plan, BlendedPlan):
                    out[j] = plan.blend(units[j], out[j])
            numbers[:, [ends[0][i] for i in places]] = out.T
            for i, plan, gaps in zip(places, plans, missing, strict=True):
                encode_indicator(gaps, plan.indicator, floats[:, own(1, i)])
            done |= set(places)
        for i, plan in enumerate(self.plan_):
            if i not in done and not isinstance(plan, DroppedPlan):
                plan.encode(
                    frame.iloc[:, i], numbers[:, own(0, i)], floats[:, own(1, i)], codes[:, own(2, i)]
                )
        return matrix

    def _check_order(self, frame: pd.DataFrame) -> None:
        """Raise a ValueError if the columns are in another order: scikit-learn sees to names that are all strings."""
        fitted, given = [plan.name for plan in self.plan_], [str(name) for name in frame.columns]
        if given != fitted and sorted(given) == sorted(fitted):
            i = next(i for i, (old, new) in enumerate(zip(fitted, given, strict=True)) if old != new)
            raise ValueError(
                f"The columns of X are in another order than when the model was fitted: column {i} was {fitted[i]} and "
                f"now is {given[i]}. Put them in that order."
            )

    def get_feature_names_out(self, input_features: Any = None) -> npt.NDArray[np.object_]:
        """Names of the outputs, section by section, e.g. ``age``, ``age_missing``, ``job_clerk``, ``job_other``, ``town``."""
        names = [name for plan in self.plan_ for name in plan.numbers]
        names += [name for plan in self.plan_ for name in plan.floats]
        names += [plan.name for plan in self.plan_ if plan.n_codes]
        return np.array(_unique(names), dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = takes_any_table(super().__sklearn_tags__())
        tags.transformer_tags.preserves_dtype = []
        return tags

    # ------------------------------------------------------------------ plain data

    def to_plain(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        """What was fitted as JSON-able data, and as arrays by name."""
        parameters = self.get_params(deep=False)
        if not isinstance(self.text, str):
            parameters["text"] = list(self.text)
        columns: list[dict[str, Any]] = []
        arrays: dict[str, npt.NDArray[Any]] = {}
        for i, plan in enumerate(self.plan_):
            column, own = plan.to_plain()
            columns.append(column)
            arrays |= {f"{i}.{name}": array for name, array in own.items()}
        return {"parameters": parameters, "columns": columns}, arrays

    @classmethod
    def from_plain(cls, content: dict[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """The encoder that ``to_plain`` described.

        Raises
        ------
        ValueError, TypeError, KeyError
            If the description makes no sense.
        """
        encoder = cls(**content["parameters"])
        encoder._check_parameters()
        own: list[dict[str, npt.NDArray[Any]]] = [{} for _ in content["columns"]]
        for name, array in arrays.items():
            place, _, field = name.partition(".")
            if not 0 <= int(place) < len(own):
                raise ValueError(f"the encoder has {name}, but {len(own)} columns")
            own[int(place)][field] = array
        plans = [ColumnPlan.from_plain(column, a) for column, a in zip(content["columns"], own, strict=True)]
        encoder._take(plans)
        encoder.n_features_in_ = len(plans)
        return encoder


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more (see plan_)" if len(names) > 10 else "")


def _unique(names: Sequence[str]) -> list[str]:
    """The same names with a number behind those that came before: a level may be called "missing"."""
    found: dict[str, None] = {}
    for name in names:
        unique, n = name, 1
        while unique in found:
            n += 1
            unique = f"{name}_{n}"
        found[unique] = None
    return list(found)


def _plain_blocks(frame: pd.DataFrame, places: Sequence[int]) -> Iterator[tuple[list[int], Floats]]:
    """Those columns among ``places`` that are plain numbers, in float64 blocks [n_columns, n_samples]."""
    dtypes = list(frame.dtypes)
    plain = [i for i in places if is_plain(dtypes[i])]
    width = max(_BLOCK // len(frame), 1)
    # Neighbours are read in one go: pandas gives a slice of columns quicker than a list of them.
    for _, run in groupby(enumerate(plain), key=lambda pair: pair[1] - pair[0]):
        columns = [i for _, i in run]
        for start in range(0, len(columns), width):
            part = columns[start : start + width]
            block = frame.iloc[:, part[0] : part[-1] + 1].to_numpy(dtype=np.float64)
            yield part, np.ascontiguousarray(block.T)

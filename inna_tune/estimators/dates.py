"""Dates: days since 1970 and the parts of the calendar, by skrub's encoders; strings that hold dates are read as such."""

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.tseries.api import guess_datetime_format

from inna_tune.estimators.columns import (
    ColumnPlan,
    Floats,
    Matrix,
    days_since_1970,
    look_at,
    read_levels,
)
from inna_tune.estimators.numbers import (
    NumericPlan,
    Ranked,
    check_quantiles,
    encode_indicator,
    fit_numbers,
    fit_scales,
    indicator_names,
    normal_scores,
    squash,
)
from inna_tune.estimators.tables import Weights

# What a date written out begins with: 2020-01-31, 31/1/2020, 31 Jan 2020, 2020-01. Only such columns are shown to
# skrub, whose import takes a second, so that codes such as 20200131 stay what they are.
_LOOKS_LIKE_A_DATE = re.compile(
    r"\s*(\d{1,4}[-/. ](\d{1,2}|[A-Za-z]{3,9})[-/. ,]+\d{1,4}|\d{4}[-/]\d{2}\s*$)"
)


class UnreadableDateWarning(UserWarning):
    """Strings in a column of dates are no dates of its format and count as missing."""


@dataclass(frozen=True)
class DatePlan(ColumnPlan):
    """A column of dates.

    Attributes
    ----------
    format : str or None
        How strings are read, as ``strptime`` has it; None where the column held dates proper.
    timezone : str or None
        In which the parts are taken.
    parts : list of str
        Parts of the calendar that vary, as ``skrub.DatetimeEncoder`` names them: ``year``, ``month_circular_0``, …
    centers, scales : list of float
        As of a numeric column, of the days since 1970 and of each part.
    indicator : float or None
        Where dates are missing: their share in the training rows.
    quantiles : ndarray of float64 or None
        Of the days, where they are mapped to a normal law.
    """

    kind = "date"
    format: str | None = None
    timezone: str | None = None
    parts: list[str] = field(default_factory=list)
    centers: list[float] = field(default_factory=list)
    scales: list[float] = field(default_factory=list)
    indicator: float | None = None
    quantiles: Floats | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not len(self.parts) + 1 == len(self.centers) == len(self.scales) or not min(self.scales) > 0:
            raise ValueError(f"column {self.name!r}: its scales do not fit its parts")
        if not set(self.parts) <= set(_PARTS):
            raise ValueError(f"column {self.name!r}: unknown parts of dates {set(self.parts) - set(_PARTS)}")
        check_quantiles(self.name, self.quantiles)

    @property
    def numbers(self) -> list[str]:
        return [self.name, *(f"{self.name}_{part}" for part in self.parts)]

    @property
    def floats(self) -> list[str]:
        return indicator_names(self.name, self.indicator)

    def encode(self, column: pd.Series, numbers: Matrix, floats: Matrix, codes: Matrix) -> None:
        places, dates = _distinct(self._dates(column))
        days = days_since_1970(dates)
        if self.quantiles is not None:
            encoded = [normal_scores(days, self.quantiles)]
        else:
            encoded = [squash(days, self.centers[0], self.scales[0])]
        if self.parts:
            found = calendar_parts(dates)
            encoded += [
                squash(found[part], center, scale)
                for part, center, scale in zip(self.parts, self.centers[1:], self.scales[1:], strict=True)
            ]
        # Place −1 is that of missing dates.
        numbers[:] = np.column_stack([np.append(values, 0.0) for values in encoded])[places]
        encode_indicator(places < 0, self.indicator, floats)

    def _dates(self, column: pd.Series) -> pd.Series:
        """The column as datetimes in the plan's time zone."""
        column, kind = look_at(column, self.name)
        if kind in ("strings", "levels"):
            column = self._parsed(column)
        elif kind == "numbers" and not column.isna().all():
            raise ValueError(
                f"Column {self.name!r} held dates when the model was fitted and now holds numbers. "
                "Convert it with pandas.to_datetime."
            )
        elif kind == "numbers":
            column = pd.to_datetime(column.astype(object), utc=self.timezone is not None)
        zone = column.dt.tz
        if (zone is None) != (self.timezone is None):
            had, has = ("a time zone", "none") if zone is None else ("no time zone", "one")
            raise ValueError(
                f"Column {self.name!r} had {had} when the model was fitted and now has {has}. "
                f"Convert it with .dt.tz_localize({self.timezone!r})."
            )
        return column if zone is None else column.dt.tz_convert(self.timezone)

    def _parsed(self, column: pd.Series) -> pd.Series:
        codes, texts = read_levels(column, self.name)
        dates = pd.to_datetime(
            pd.Series([*texts, None], dtype=object),
            format=self.format or "ISO8601",
            errors="coerce",
            utc=self.timezone is not None,
        )
        unread = dates.isna().to_numpy()[:-1]
        if unread.any():
            warnings.warn(
                f"Column {self.name!r} holds dates; {unread.sum()} value(s), such as "
                f"{texts[int(unread.argmax())]!r}, are none of the format {self.format or 'ISO 8601'} "
                "and count as missing. Write them in that format.",
                UnreadableDateWarning,
                stacklevel=2,
            )
        return dates.iloc[codes].set_axis(column.index)


def plan_dates(
    name: str, column: pd.Series, weight: Weights | None, *, quantile: bool, text_format: str | None = None
) -> ColumnPlan:
    """Plan of a column of datetimes.

    Parameters
    ----------
    name : str
    column : Series of datetimes
    weight : ndarray of float64 [n_samples] or None
    quantile : bool
        Whether to map the days to a normal law, or to scale them.
    text_format : str, optional
        How the dates were written, where they were strings.
    """
    places, dates = _distinct(column)
    days = np.append(days_since_1970(dates), np.nan)[places]
    (plan,) = fit_numbers([name], days[None], weight, quantile=quantile)
    if not isinstance(plan, NumericPlan):
        return plan
    found = {part: np.append(values, np.nan)[places] for part, values in calendar_parts(dates).items()}
    # The cosines of Wednesdays and Thursdays differ by a rounding error.
    parts = [part for part, values in found.items() if np.nanmin(values) < np.nanmax(values) - 1e-6]
    block = np.array([found[part] for part in parts]).reshape(len(parts), len(column))
    centers, scales = fit_scales(block, Ranked(block, weight), weight)
    return DatePlan(
        name,
        format=text_format,
        timezone=None if column.dt.tz is None else str(column.dt.tz),
        parts=parts,
        centers=[plan.center, *centers.tolist()],
        scales=[plan.scale, *scales.tolist()],
        indicator=plan.indicator,
        quantiles=plan.quantiles,
    )


def calendar_parts(dates: pd.Series) -> dict[str, Floats]:
    """Year, and month, day, hour and weekday as points on a circle, of datetimes [n]; NaN where missing."""
    from skrub import DatetimeEncoder

    # NOTE: skrub leaves out the hours of a column whose every time is midnight, so that what it gives depends on the
    # rows. It learns nothing else: fitted to a time of day, it gives all parts of any column.
    encoder = DatetimeEncoder(
        resolution="hour", add_weekday=True, add_total_seconds=False, periodic_encoding="circular"
    ).fit(pd.Series([pd.Timestamp("2000-01-01 12:00")], name=""))
    found = encoder.transform(dates.rename(""))
    return {str(name).removeprefix("_"): found[name].to_numpy(dtype=np.float64) for name in found}


_PARTS = (
    "year",
    *(f"{part}_circular_{i}" for part in ("month", "day", "hour", "weekday") for i in range(2)),
)


def read_dates(column: pd.Series, name: str) -> tuple[pd.Series, str] | None:
    """Strings as datetimes and the format they are in; None unless all of them are dates of one format.

    Whether day or month comes first is told by the values; where they leave it open, the month does.
    """
    codes, texts = read_levels(column, name)
    texts, codes = _sorted(texts, codes)
    if not all(_LOOKS_LIKE_A_DATE.match(text) for text in (texts[:1] + texts[-1:])) or not texts:
        return None
    from skrub import ToDatetime

    for guess in _formats(texts):
        reader = ToDatetime(format=guess)
        try:
            dates = reader.fit_transform(pd.Series(texts, name=name, dtype="str"))
        except ValueError:  # skrub's RejectColumn, and what pandas says of dates beyond its calendar
            continue
        dates = pd.concat([dates, pd.Series([pd.NaT], dtype=dates.dtype)])
        return dates.iloc[codes].set_axis(column.index), str(reader.format_)
    return None


def _formats(texts: list[str]) -> Iterator[str | None]:
    """Formats to try, None for skrub's own guess.

    NOTE: skrub gives up if its guesses for 30 values differ, as they do for "5 May" and "5 Apr", or if a day beyond the
    twelfth is not among those values.
    """
    yield None
    sample = texts[:: max(len(texts) // 30, 1)]
    with warnings.catch_warnings():
        # What guessing for both orders of day and month is meant to find out.
        warnings.simplefilter("ignore", UserWarning)
        guesses = [guess_datetime_format(text, dayfirst) for dayfirst in (False, True) for text in sample]
    yield from dict.fromkeys(guess for guess in guesses if guess is not None)


def _sorted(texts: list[str], codes: npt.NDArray[np.int64]) -> tuple[list[str], npt.NDArray[np.int64]]:
    """The same in the order of the texts, so that the order of the rows is irrelevant."""
    order = sorted(range(len(texts)), key=texts.__getitem__)
    places = np.full(len(texts) + 1, -1)
    places[order] = np.arange(len(order))
    return [texts[i] for i in order], places[codes]


def _distinct(dates: pd.Series) -> tuple[npt.NDArray[Any], pd.Series]:
    """Where each row's date is among the distinct ones, −1 where missing, and those."""
    places, distinct = pd.factorize(dates)
    return places, pd.Series(distinct)

"""Dates: days since 1970 and the parts of the calendar."""

import warnings
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api import types

from inna_tune.estimators.columns import (
    Matrix,
    as_text,
    from_arrow,
    read_texts,
    refuse_complex,
)
from inna_tune.estimators.date_formats import find_format
from inna_tune.estimators.frames import Floats, UnreadableValueWarning, Weights
from inna_tune.estimators.instants import (
    Instants,
    days_since_1970,
    from_zone,
    in_zone,
    instants_of_objects,
    parse,
    read_proper,
)
from inna_tune.estimators.numbers import (
    NumericPlan,
    Ranked,
    Scaling,
    check_quantiles,
    encode_indicator,
    fit_numbers,
    fit_scales,
    indicator_names,
    scaled,
    squash,
)
from inna_tune.estimators.plans import ColumnPlan

_PERIODS = {"month": 12, "day": 30, "hour": 24, "weekday": 7}
_PARTS = ("year", *(f"{part}_circular_{i}" for part in _PERIODS for i in range(2)))

# Days, some 68 years: longer than a table's records seldom pause.
_FAR = 25_000


class UnreadableDateWarning(UnreadableValueWarning):
    """Values in a column of dates are no dates of its format and count as missing."""


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
        Parts of the calendar that vary, as skrub's encoder of dates names them: ``year``, ``month_circular_0``, …
    centers, scales : list of float
        As of a numeric column, of the days since 1970 and of each part.
    indicator : float or None
        Where dates are missing: their share in the training rows.
    ends : list of float
        First and last day, in days since 1970, that are no far ones. A day more than 25,000 days, some 68 years, beyond
        them is far, such as 9999-12-31 for "never": it is taken for the end that is next to it, without a calendar.
    far : float or None
        Where days are far: their share in the training rows.
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
    ends: list[float] = field(default_factory=list)
    far: float | None = None
    quantiles: Floats | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not len(self.parts) + 1 == len(self.centers) == len(self.scales) or not min(self.scales) > 0:
            raise ValueError(f"column {self.name!r}: its scales do not fit its parts")
        if len(self.ends) != 2 or not self.ends[0] <= self.ends[1]:
            raise ValueError(f"column {self.name!r}: its first and last day are {self.ends}")
        if not set(self.parts) <= set(_PARTS):
            raise ValueError(f"column {self.name!r}: unknown parts of dates {set(self.parts) - set(_PARTS)}")
        check_quantiles(self.name, self.quantiles)

    @property
    def numbers(self) -> list[str]:
        return [self.name, *(f"{self.name}_{part}" for part in self.parts)]

    @property
    def floats(self) -> list[str]:
        far = [] if self.far is None else [f"{self.name}_far"]
        return indicator_names(self.name, self.indicator) + far

    def encode(self, column: pd.Series, numbers: Matrix, floats: Matrix, codes: Matrix) -> None:
        places, instants = _distinct(self._instants(column))
        days = days_since_1970(instants)
        first, last = self.ends
        far = is_far(days, first, last)
        days = np.where(far, np.clip(days, first, last), days)
        # Place −1 is that of missing dates.
        numbers[:, 0] = np.append(scaled(days, self.centers[0], self.scales[0], self.quantiles), 0.0)[places]
        dates = in_zone(instants, self.timezone)
        for i, part in enumerate(self.parts, 1):
            values = np.where(far, np.nan, calendar_part(dates, part))
            numbers[:, i] = np.append(squash(values, self.centers[i], self.scales[i]), 0.0)[places]
        encode_indicator(places < 0, self.indicator, floats)
        if self.far is not None:
            floats[:, -1] = np.append(far, False)[places] - self.far

    def _instants(self, column: pd.Series) -> Instants:
        """The column as instants; what is none is missing, and a warning counts it."""
        column = from_arrow(column)
        refuse_complex(column, self.name)
        dtype = column.dtype
        if isinstance(dtype, pd.PeriodDtype) or types.is_datetime64_any_dtype(dtype):
            self._check_zone(getattr(dtype, "tz", None) is not None)
            return read_proper(column)
        if types.is_numeric_dtype(dtype) or types.is_timedelta64_dtype(dtype):
            if column.notna().any():
                raise ValueError(
                    f"Column {self.name!r} held dates when the model was fitted and now holds numbers. "
                    "Convert it with pandas.to_datetime."
                )
            return np.full(len(column), np.datetime64("NaT", "us"))
        if isinstance(dtype, pd.CategoricalDtype):
            column = column.astype(object)
        if isinstance(dtype, pd.StringDtype):
            codes, texts = read_texts(column, self.name)
            instants = np.append(self._of_texts(texts), np.datetime64("NaT", "us"))[codes]
        else:
            instants = self._of_objects(column)
        self._warn_of_unread(column, np.isnat(instants) & column.notna().to_numpy())
        return instants

    def _of_objects(self, column: pd.Series) -> Instants:
        instants = self._zoned(*instants_of_objects(column, self.name))
        is_text = np.array([isinstance(value, (str, bytes)) for value in column], dtype=bool)
        if is_text.any():
            codes, texts = read_texts(column[is_text], self.name)
            instants[is_text] = self._of_texts(texts)[codes]
        return instants

    def _of_texts(self, texts: list[str]) -> Instants:
        """Texts as instants, by the column's format, or else as ISO 8601 writes dates."""
        instants = np.full(len(texts), np.datetime64("NaT", "us"))
        for form in dict.fromkeys([self.format or "ISO8601", "ISO8601"]):
            left = np.flatnonzero(np.isnat(instants))
            if len(left):
                instants[left] = self._zoned(*parse([texts[i] for i in left], form))
        return instants

    def _zoned(self, instants: Instants, aware: npt.NDArray[np.bool_]) -> Instants:
        """Those without a time zone are of the column's; where it has none, those with one are missing."""
        if self.timezone is None:
            instants[aware] = np.datetime64("NaT")
        else:
            instants[~aware] = from_zone(instants[~aware], self.timezone)
        return instants

    def _warn_of_unread(self, column: pd.Series, unread: npt.NDArray[np.bool_]) -> None:
        if unread.any():
            example = as_text(column.iloc[int(unread.argmax())])
            zone = "without a time zone" if self.timezone is None else "with a time zone"
            warnings.warn(
                f"Column {self.name!r} holds dates; {unread.sum()} value(s), such as {example[:80]!r}, are none "
                f"of the format {self.format or 'ISO 8601'} {zone} and count as missing. Write them in that format.",
                UnreadableDateWarning,
                stacklevel=2,
            )

    def _check_zone(self, has_zone: bool) -> None:
        if has_zone == (self.timezone is None):
            had, has = ("no time zone", "one") if has_zone else ("a time zone", "none")
            raise ValueError(
                f"Column {self.name!r} had {had} when the model was fitted and now has {has}. "
                f"Convert it with .dt.tz_localize({self.timezone!r})."
            )


def is_far(days: Floats, first: float, last: float) -> npt.NDArray[np.bool_]:
    """Which days lie far beyond the first and last ordinary ones; missing ones do not."""
    return np.asarray((days < first - _FAR) | (days > last + _FAR))


def ordinary_ends(days: Floats) -> tuple[float, float]:
    """First and last of the days that are no far ones, such as 9999-12-31 for "never".

    Days are far if a gap of some 68 years or more parts them from the ordinary ones, and those are the run of days without
    such a gap that has the most different values; the later one of equals. Where no run has three, all days are ordinary.
    """
    distinct = np.unique(days[~np.isnan(days)])
    runs = np.split(distinct, np.flatnonzero(np.diff(distinct) > _FAR) + 1)
    run = max(reversed(runs), key=len)
    if len(run) < 3:
        run = distinct
    return float(run[0]), float(run[-1])


def plan_dates(
    name: str,
    instants: Instants,
    zone: str | None,
    weight: Weights | None,
    *,
    quantile: bool,
    text_format: str | None = None,
) -> ColumnPlan:
    """Plan of a column of dates.

    Parameters
    ----------
    name : str
    instants : ndarray of datetime64[us] [n_samples]
        NaT where missing.
    zone : str or None
        Time zone in which the parts of the calendar are taken.
    weight : ndarray of float64 [n_samples] or None
    quantile : bool
        Whether to map the days to a normal law, or to scale them.
    text_format : str, optional
        How the dates were written, where they were strings.
    """
    places, dates = _distinct(instants)
    days = np.append(days_since_1970(dates), np.nan)[places]
    scaling: Scaling = "quantile" if quantile else "scale"
    (plan,) = fit_numbers([name], days[None], weight, scaling=scaling, may_spike=False)
    if not isinstance(plan, NumericPlan):
        return plan
    first, last = ordinary_ends(days)
    far = is_far(days, first, last)
    indicator = plan.indicator
    if far.any():
        (plan,) = fit_numbers(
            [name], np.where(far, np.nan, days)[None], weight, scaling=scaling, may_spike=False
        )
        # The run of ordinary days has three different values or more.
        assert isinstance(plan, NumericPlan)
    calendar, far_dates = in_zone(dates, zone), np.append(is_far(days_since_1970(dates), first, last), False)
    parts, centers, scales = [], [plan.center], [plan.scale]
    for part in _PARTS:
        values = np.where(far_dates, np.nan, np.append(calendar_part(calendar, part), np.nan))
        # The cosines of Wednesdays and Thursdays differ by a rounding error.
        if np.nanmin(values) < np.nanmax(values) - 1e-6:
            block = values[places][None]
            center, scale = fit_scales(block, Ranked(block, weight), weight)
            parts.append(part)
            centers.append(float(center[0]))
            scales.append(float(scale[0]))
    return DatePlan(
        name,
        format=text_format,
        timezone=zone,
        parts=parts,
        centers=centers,
        scales=scales,
        indicator=indicator,
        ends=[first, last],
        far=float(np.average(far, weights=weight)) if far.any() else None,
        quantiles=plan.quantiles,
    )


def fit_instants(column: pd.Series, name: str) -> tuple[Instants, str | None]:
    """A column of dates proper as instants, and the time zone it is in: UTC where there are several.

    Raises
    ------
    ValueError
        If some have a time zone and some have none.
    """
    if column.dtype != object:
        zone = getattr(column.dtype, "tz", None)
        return read_proper(column), None if zone is None else _zone_name(zone)
    instants, aware = instants_of_objects(column, name)
    present = ~np.isnat(instants)
    if not aware.any():
        return instants, None
    if not aware[present].all():
        raise ValueError(
            f"Column {name!r} holds dates that do not fit one column: some have a time zone and some have none. "
            "Convert it with pandas.to_datetime, with utc=True if the time zones differ."
        )
    zones = {_zone_name(value.tzinfo) for value in column[present]}
    return instants, zones.pop() if len(zones) == 1 else "UTC"


def _zone_name(zone: object) -> str:
    """A name by which the time zone is found again."""
    try:
        pd.Timestamp(0, tz=str(zone))
    except (KeyError, ValueError, TypeError, OSError):
        # NOTE: of dateutil's zones str gives the path of a file.
        return "UTC"
    return str(zone)


def calendar_part(dates: pd.Series, part: str) -> Floats:
    """The year of datetimes [n], or a coordinate of their month, day, hour or weekday on a circle; NaN where missing.

    They are those of ``skrub.DatetimeEncoder``, which takes a hundred times as long for a few dates.
    """
    if part == "year":
        return np.asarray(dates.dt.year.to_numpy(dtype=np.float64))
    name, _, coordinate = part.split("_")
    # Monday is the first day of a week, as the first of January is of a year.
    values = (dates.dt.day_of_week + 1) if name == "weekday" else getattr(dates.dt, name)
    angles = values.to_numpy(dtype=np.float64) / _PERIODS[name] * 2 * np.pi
    return np.asarray(np.cos(angles) if int(coordinate) else np.sin(angles))


def read_dates(column: pd.Series, name: str) -> tuple[Instants, str | None, str] | None:
    """Texts as instants, their time zone, and the format they are in; None unless 95% of them are dates of one format.

    Dates that tell their distance from UTC are in UTC.
    """
    codes, texts = read_texts(column, name)
    form = find_format(texts, np.bincount(codes[codes >= 0], minlength=len(texts)))
    if form is None:
        return None
    instants, _ = parse(texts, form)
    return np.append(instants, np.datetime64("NaT", "us"))[codes], "UTC" if "%z" in form else None, form


def _distinct(instants: Instants) -> tuple[npt.NDArray[np.int64], Instants]:
    """Where each row's date is among the distinct ones, −1 where missing, and those."""
    places, distinct = pd.factorize(instants)
    return np.asarray(places), np.asarray(distinct)

"""Dates of any type as instants: microseconds since 1970 in UTC, each value by itself, whatever else its column holds."""

import datetime as dt
import re
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from inna_tune.estimators.frames import Floats, refuse_containers

Instants = npt.NDArray[np.datetime64]  # [us], in UTC where there is a time zone

_DAY = np.timedelta64(1, "D").astype("timedelta64[us]").astype(np.int64)

# Years 1 to 9999 but a day at each end: what Python's calendar has in every time zone. Dates beyond, which stand for
# "never" or "always", lie at the ends.
_FIRST = np.datetime64("0001-01-02", "us")
_LAST = np.datetime64("9999-12-30T23:59:59.999999", "us")

# Between these years a date has as many nanoseconds as 64 bits hold.
_NEAR = 1677, 2262

# A time, and behind it the distance from UTC.
_OFFSET = re.compile(r"\d:\d\d.*(?:Z|UTC|GMT|[+-]\d\d(?::?\d\d)?)\s*$")

# pandas reads texts of nanoseconds among others as nanoseconds all, and those hold no years beyond 2262.
_NANOSECONDS = re.compile(r"(\.\d{6})\d+")


def read_proper(column: pd.Series) -> Instants:
    """A column of datetimes of any unit, or of periods, as instants [n_samples]; NaT where missing."""
    if isinstance(column.dtype, pd.PeriodDtype):
        column = column.dt.to_timestamp()
    # With a time zone these are the values in UTC.
    return _clipped(column.to_numpy(dtype=f"datetime64[{column.dt.unit}]"))


def _clipped(values: npt.NDArray[np.datetime64]) -> Instants:
    unit = np.datetime_data(values.dtype)[0]
    if unit == "ns":
        return values.astype("datetime64[us]")
    return np.clip(values, _FIRST.astype(values.dtype), _LAST.astype(values.dtype)).astype("datetime64[us]")


def instant(value: Any) -> tuple[np.datetime64, bool] | None:
    """One date, datetime or period as an instant, and whether it has a time zone; None if it is none."""
    if not isinstance(value, (dt.date, np.datetime64, pd.Period)):
        return None
    try:
        stamp = value.to_timestamp() if isinstance(value, pd.Period) else pd.Timestamp(value)
    except (ValueError, OverflowError):
        return None
    return _clipped(np.array([stamp.asm8]))[0], stamp.tzinfo is not None


def instants_of_objects(column: pd.Series, name: str) -> tuple[Instants, npt.NDArray[np.bool_]]:
    """Dates among a column's objects as instants, NaT where there is none, and which of them have a time zone.

    Raises
    ------
    TypeError
        If it holds lists or other containers.
    """
    refuse_containers(column, f"column {name!r}")
    found = np.full(len(column), np.datetime64("NaT", "us"))
    aware = np.zeros(len(column), dtype=bool)
    for i, value in enumerate(column):
        read = None if value is pd.NaT else instant(value)
        if read is not None:
            found[i], aware[i] = read
    return found, aware


def parse(texts: list[str], form: str) -> tuple[Instants, npt.NDArray[np.bool_]]:
    """Texts of one format as instants [n], NaT where they are none, and which of them tell their distance from UTC.

    Parameters
    ----------
    texts : list of str
    form : str
        As ``strptime`` has it, or "ISO8601".
    """
    # Without a digit there is no date; pandas reads "today" as one that changes.
    shortened = [
        _NANOSECONDS.sub(r"\1", text) if len(text) <= 100 and re.search(r"\d", text) else None
        for text in texts
    ]
    dates = pd.to_datetime(pd.Series(shortened, dtype=object), format=form, errors="coerce", utc=True)
    aware = np.array(
        [text is not None and _OFFSET.search(text) is not None for text in shortened], dtype=bool
    )
    found = read_proper(dates)
    if dates.dt.unit == "ns":  # as pandas 2 reads all texts, which has no year before 1677 or after 2262
        for i in np.flatnonzero(np.isnat(found)):
            found[i] = _far(shortened[i], form)
    return found, aware


def _far(text: str | None, form: str) -> np.datetime64:
    """A text of a year that nanoseconds do not hold as an instant; NaT if it is none."""
    nothing = np.datetime64("NaT", "us")
    if text is None:
        return nothing
    try:
        value = dt.datetime.fromisoformat(text) if form == "ISO8601" else dt.datetime.strptime(text, form)
    except ValueError:
        return nothing
    read = None if _NEAR[0] < value.year < _NEAR[1] else instant(value)
    return nothing if read is None else read[0]


def in_zone(instants: Instants, zone: str | None) -> pd.Series:
    """Instants as datetimes of a time zone; without one, as they are."""
    dates = pd.Series(instants)
    return dates if zone is None else dates.dt.tz_localize("UTC").dt.tz_convert(zone)


def from_zone(wall: Instants, zone: str) -> Instants:
    """What the clocks of a time zone show as instants; the hour that comes twice in autumn is the first."""
    return read_proper(
        pd.Series(wall).dt.tz_localize(zone, ambiguous=np.ones(len(wall), bool), nonexistent="shift_forward")
    )


def days_since_1970(instants: Instants) -> Floats:
    """Instants as days, NaN where missing."""
    days = instants.astype(np.int64) / _DAY
    return np.asarray(np.where(np.isnat(instants), np.nan, days))

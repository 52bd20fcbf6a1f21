"""A column of any type as numbers: each value by itself, so that it does not matter what else the column holds."""

import datetime as dt
import re
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api import types

from inna_tune.estimators.columns import (
    as_text,
    from_arrow,
    is_plain,
    read_texts,
    refuse_complex,
    refuse_infinities,
)
from inna_tune.estimators.frames import Floats, UnreadableValueWarning, refuse_containers
from inna_tune.estimators.instants import days_since_1970, instant, read_proper
from inna_tune.estimators.number_forms import (
    LEAST_SHARE,
    NumberForm,
    find_form,
    has_leading_zeros,
    read_form,
)

_MICROSECONDS_A_DAY = 86_400_000_000
_TRUTHS = {"true": 1.0, "false": 0.0}

# So many different texts are shown to the search for a form.
_SAMPLE = 5_000

# Whole numbers as text are levels, unless there are more of them, and words among them.
_FEW = 20
_DIGIT = re.compile(r"\d")
_WHOLE = re.compile(r"-?\d+(?:\.0+)?")


class UnreadableNumberWarning(UnreadableValueWarning):
    """Values in a column of numbers are no numbers of its form and count as missing."""


def read_numbers(column: pd.Series, name: str, form: NumberForm | None = None) -> Floats:
    """A column as numbers; dates become days since 1970, durations days, times of day hours, truth values 0 and 1.

    Parameters
    ----------
    column : Series [n_samples]
    name : str
        What messages call it.
    form : NumberForm, optional
        How numbers are written where they are text; None: as in programs.

    Returns
    -------
    ndarray of float64 [n_samples]
        NaN where a value is missing, or is text that means no number, of which a warning tells.

    Raises
    ------
    ValueError
        If it holds infinities or complex numbers.
    TypeError
        If it holds lists or other containers.
    """
    form = NumberForm() if form is None else form
    unread: list[tuple[int, str]] = []
    numbers = _numbers(column, name, form, unread)
    if unread:
        count, example = sum(n for n, _ in unread), unread[0][1]
        warnings.warn(
            f"Column {name!r} holds numbers, written like {form.words}; {count} value(s), such as {example[:80]!r}, "
            "are none and count as missing. Convert them to numbers.",
            UnreadableNumberWarning,
            stacklevel=2,
        )
    refuse_infinities(numbers, [name])
    return numbers


def find_numbers(column: pd.Series, name: str) -> tuple[Floats, NumberForm] | None:
    """A column of texts, or of texts and numbers, as numbers where at least 95% of it are such, and their form.

    Codes with zeros in front are none, and neither are plain whole numbers: who writes those as text means levels, unless
    words among many different ones show that the text is but what came of a file.

    Parameters
    ----------
    column : Series [n_samples]
    name : str
        What messages call it.

    Returns
    -------
    numbers : ndarray of float64 [n_samples]
        NaN where a value is missing or no number of this form.
    form : NumberForm
    """
    codes, texts = read_texts(column, name)
    counts = np.bincount(codes[codes >= 0], minlength=len(texts))
    has_digit = np.array([_DIGIT.search(text[:60]) is not None for text in texts], dtype=bool)
    least = LEAST_SHARE * counts.sum()
    if not counts.any() or counts[has_digit].sum() < least:
        return None
    # Of very many texts a part shows the form; the order of the texts makes that of the rows irrelevant.
    order = sorted(np.flatnonzero(counts), key=texts.__getitem__)
    sample = order[:: max(len(order) // _SAMPLE, 1)]
    shown = np.array([texts[i] for i in sample], dtype=object)
    words = pd.Series(np.repeat(shown, counts[sample]), dtype=object)
    form = find_form(words)
    if form is None or has_leading_zeros(words):
        return None
    values = read_form(pd.Series(texts, dtype=object), form)
    is_number = ~np.isnan(values)
    if counts[is_number].sum() < least:
        return None
    if form.plain and all(_WHOLE.fullmatch(texts[i]) for i in np.flatnonzero(is_number)):
        n_numbers = np.count_nonzero(is_number & (counts > 0))
        if n_numbers == np.count_nonzero(counts) or n_numbers <= _FEW:
            return None
    return np.asarray(np.append(values, np.nan)[codes]), form


def _numbers(column: pd.Series, name: str, form: NumberForm, unread: list[tuple[int, str]]) -> Floats:
    if is_plain(column.dtype):
        return np.asarray(column.to_numpy(dtype=np.float64))
    column = from_arrow(column)
    dtype = column.dtype
    refuse_complex(column, name)
    if isinstance(dtype, pd.CategoricalDtype):
        codes = column.cat.codes.to_numpy(dtype=np.int64)
        seen = np.unique(codes[codes >= 0])
        values = np.full(len(column.cat.categories) + 1, np.nan)
        own: list[tuple[int, str]] = []
        values[seen] = _numbers(pd.Series(column.cat.categories[seen]), name, form, own)
        if own:
            missing = np.flatnonzero(np.isnan(values[:-1]))
            unread.append((int(np.isin(codes, missing).sum()), own[0][1]))
        return np.asarray(values[codes])
    if isinstance(dtype, pd.PeriodDtype) or types.is_datetime64_any_dtype(dtype):
        return days_since_1970(read_proper(column))
    if types.is_timedelta64_dtype(dtype):
        return _days(column.to_numpy())
    if types.is_numeric_dtype(dtype):
        return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan))
    if isinstance(dtype, pd.StringDtype):
        return _of_texts(column, form, unread)
    return _of_objects(column, name, form, unread)


def _of_texts(column: pd.Series, form: NumberForm, unread: list[tuple[int, str]]) -> Floats:
    codes, texts = pd.factorize(column)
    values = read_form(pd.Series(texts, dtype=object), form)
    for i in np.flatnonzero(np.isnan(values)):
        values[i] = _TRUTHS.get(str(texts[i])[:6].strip().lower(), np.nan)
    bad = np.flatnonzero(np.isnan(values))
    if len(bad):
        unread.append((int(np.isin(codes, bad).sum()), str(texts[bad[0]])))
    return np.asarray(np.append(values, np.nan)[codes])


def _of_objects(column: pd.Series, name: str, form: NumberForm, unread: list[tuple[int, str]]) -> Floats:
    refuse_containers(column, f"column {name!r}")
    values = np.full(len(column), np.nan)
    texts: dict[int, str] = {}
    for i, value in enumerate(column):
        if isinstance(value, (str, bytes)):
            texts[i] = as_text(value)
        elif not pd.isna(value):
            number = _number(value)
            if number is None:
                unread.append((1, str(value)))
            else:
                values[i] = number
    if texts:
        values[list(texts)] = _of_texts(pd.Series(list(texts.values()), dtype=object), form, unread)
    return values


def _number(value: Any) -> float | None:
    """One value as a number, None if it is none."""
    if isinstance(value, dt.timedelta):
        return (value // dt.timedelta(microseconds=1)) / _MICROSECONDS_A_DAY
    if isinstance(value, np.timedelta64):
        # Months and years have no length, and end in the error below.
        return float(_days(np.array([value]))[0])
    if isinstance(value, dt.time):
        return value.hour + (value.minute + (value.second + value.microsecond / 1e6) / 60) / 60
    date = instant(value)
    if date is not None:
        return float(days_since_1970(np.array([date[0]]))[0])
    try:
        return float(value)
    except OverflowError:
        return np.inf if value > 0 else -np.inf
    except (TypeError, ValueError):
        return None


def _days(durations: npt.NDArray[np.timedelta64]) -> Floats:
    """Durations as days."""
    if np.datetime_data(durations.dtype)[0] in ("s", "ms"):
        # Beyond what microseconds hold, some 292,000 years.
        most = np.timedelta64(np.iinfo(np.int64).max // 1_000_000, "s").astype(durations.dtype)
        durations = np.clip(durations, -most, most)
    microseconds = durations.astype("timedelta64[us]")
    days = microseconds.astype(np.int64) / _MICROSECONDS_A_DAY
    return np.asarray(np.where(np.isnat(microseconds), np.nan, days))

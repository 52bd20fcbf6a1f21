"""Columns as they come: one look at a column's type, and its values as numbers, dates or levels."""

from dataclasses import dataclass
from decimal import Decimal
from numbers import Real
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from pandas.api import types

from inna_tune.estimators.tables import refuse_containers

Matrix = npt.NDArray[np.floating[Any]]  # float32, or float64 for small tables
Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]
Kind = Literal["numbers", "dates", "strings", "levels"]

_NUMBER_OBJECTS = frozenset({"integer", "floating", "mixed-integer-float", "decimal", "boolean", "empty"})
_DATE_OBJECTS = frozenset({"datetime", "datetime64", "date"})
_DURATION_OBJECTS = frozenset({"timedelta", "timedelta64"})


@dataclass(frozen=True)
class ColumnPlan:
    """What is done with one column; every kind of column has its own kind of plan.

    Attributes
    ----------
    name : str
        The column's name, as text.
    """

    name: str
    kind: ClassVar[str]

    @property
    def numbers(self) -> list[str]:
        """Names of the outputs in the section of scaled numbers."""
        return []

    @property
    def floats(self) -> list[str]:
        """Names of the outputs in the section of other floats."""
        return []

    @property
    def n_codes(self) -> int:
        """Number of codes of the output in the section of codes; 0 if there is none."""
        return 0

    def encode(self, column: pd.Series, numbers: Matrix, floats: Matrix, codes: Matrix) -> None:
        """Write the column's outputs into its places in the three sections, [n_samples, width] each."""


@dataclass(frozen=True)
class DroppedPlan(ColumnPlan):
    """A column that is left out.

    Attributes
    ----------
    reason : str
        ``"constant"``, ``"empty"``, or ``"rare"`` where no level occurs often enough to learn from.
    """

    kind = "dropped"
    reason: str = "constant"


def is_plain(dtype: Any) -> bool:
    """Whether a column is an array, dense or sparse, of numpy's numbers, so that several can be read as one block."""
    if isinstance(dtype, pd.SparseDtype):
        dtype = dtype.subtype
    return isinstance(dtype, np.dtype) and dtype.kind in "fiub"


def look_at(column: pd.Series, name: str) -> tuple[pd.Series, Kind]:
    """What a column holds.

    Parameters
    ----------
    column : Series
    name : str
        What messages call it.

    Returns
    -------
    column : Series
        The same values with a dtype of pandas' own where it was one of pyarrow's.
    kind : {"numbers", "dates", "strings", "levels"}
        Strings may turn out to be dates, text or levels; levels are pandas categories and mixed objects.

    Raises
    ------
    ValueError
        If it holds complex numbers.
    """
    dtype = column.dtype
    if is_plain(dtype):
        return column, "numbers"
    if types.is_complex_dtype(dtype):
        raise ValueError(
            f"Complex data not supported: column {name!r} holds complex numbers. Split it into two columns."
        )
    if isinstance(dtype, pd.ArrowDtype) and not types.is_numeric_dtype(dtype):
        arrow = pa.Table.from_pandas(column.to_frame("x"), preserve_index=False)["x"]
        column = arrow.to_pandas(date_as_object=False).set_axis(column.index)
        dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return column, "levels"
    if isinstance(dtype, pd.PeriodDtype):
        return column.dt.to_timestamp(), "dates"
    if types.is_datetime64_any_dtype(dtype):
        return column, "dates"
    if types.is_timedelta64_dtype(dtype) or types.is_numeric_dtype(dtype):
        return column, "numbers"
    if isinstance(dtype, pd.StringDtype):
        return column, "strings"
    held = types.infer_dtype(column, skipna=True)
    if held in _NUMBER_OBJECTS or (held.startswith("mixed") and all(map(_is_number, column[column.notna()]))):
        return column, "numbers"
    if held in _DATE_OBJECTS:
        return _dates_of_objects(column, name), "dates"
    if held in _DURATION_OBJECTS:
        return pd.to_timedelta(column), "numbers"
    if held == "time":
        return _hours_of_times(column), "numbers"
    return column, "strings" if held == "string" else "levels"


def _is_number(value: Any) -> bool:
    return isinstance(value, (Real, Decimal, np.bool_))


def _dates_of_objects(column: pd.Series, name: str) -> pd.Series:
    try:
        return pd.to_datetime(column)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"Column {name!r} holds dates that do not fit one column ({error}). "
            "Convert it with pandas.to_datetime, with utc=True if the time zones differ."
        ) from error


def _hours_of_times(column: pd.Series) -> pd.Series:
    hours = [
        np.nan if pd.isna(t) else t.hour + (t.minute + (t.second + t.microsecond / 1e6) / 60) / 60
        for t in column
    ]
    return pd.Series(hours, index=column.index, dtype=np.float64)


def days_since_1970(dates: pd.Series) -> Floats:
    """Datetimes as days since 1970 in UTC, NaN where missing."""
    if getattr(dates.dtype, "tz", None) is not None:
        dates = dates.dt.tz_convert("UTC").dt.tz_localize(None)
    return _floats((dates - pd.Timestamp(0)) / pd.Timedelta(days=1))


def read_numbers(column: pd.Series, name: str) -> Floats:
    """A column as float64 with NaN where missing; dates become days since 1970, durations days, times of day hours.

    Raises
    ------
    ValueError
        If it holds text or infinities.
    """
    column, kind = look_at(column, name)
    if kind == "dates":
        return days_since_1970(column)
    if kind != "numbers":
        raise ValueError(
            f"Column {name!r} was numeric when the model was fitted and now holds text. Convert it to numbers."
        )
    if types.is_timedelta64_dtype(column.dtype):
        return _floats(column / pd.Timedelta(days=1))
    numbers = _floats(column)
    refuse_infinities(numbers, [name])
    return numbers


def refuse_infinities(block: Floats, names: list[str]) -> None:
    """Raise a ValueError that names the first column of a block [n_columns, n_samples] (or [n_samples]) with one."""
    infinite = np.atleast_2d(np.isinf(block)).any(axis=1)
    if infinite.any():
        raise ValueError(
            "Input X contains infinity or a value too large for float64 in column "
            f"{names[int(infinite.argmax())]!r}. Replace it by a number or NaN."
        )


def _floats(column: pd.Series) -> Floats:
    return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan))


def read_levels(column: pd.Series, name: str) -> tuple[Codes, list[str]]:
    """A column as levels.

    Parameters
    ----------
    column : Series
    name : str
        What messages call it.

    Returns
    -------
    codes : ndarray of int64 [n_samples]
        Which level a row has; -1 where it is missing.
    texts : list of str
        The levels as text, each once. Numbers are written as text is that holds them: 3.0 as "3".

    Raises
    ------
    TypeError
        If values are lists or other containers.
    """
    if isinstance(column.dtype, pd.CategoricalDtype):
        codes, values = column.cat.codes.to_numpy(dtype=np.int64), column.cat.categories
    else:
        if column.dtype == object and types.infer_dtype(column, skipna=True) != "string":
            refuse_containers(column, f"column {name!r}")
            # 1 and True are equal, so that as they stand one would become the other.
            column = column.map(str, na_action="ignore")
        codes, values = pd.factorize(column)
    texts = [_text(v) for v in values] if types.is_numeric_dtype(column.dtype) else [str(v) for v in values]
    if len(set(texts)) < len(texts):
        merged, distinct = pd.factorize(np.array(texts, dtype=object))
        codes = np.where(codes < 0, -1, merged[codes])
        texts = list(distinct)
    return np.asarray(codes, dtype=np.int64), texts


def _text(number: Any) -> str:
    whole = not isinstance(number, (bool, np.bool_)) and float(number).is_integer()
    return str(int(number)) if whole else str(number)

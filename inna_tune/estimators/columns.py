"""Columns as they come: one look at the type of one, and its values as levels."""

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from numbers import Real
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from pandas.api import types

from inna_tune.estimators.frames import Floats, refuse_containers
from inna_tune.estimators.spelling import write_level

Matrix = npt.NDArray[np.floating[Any]]  # float32, or float64 for small tables
Codes = npt.NDArray[np.int64]
Kind = Literal["number", "boolean", "text", "date", "duration", "time", "mixed"]

# Of what kind is what `infer_dtype` calls so; all else is mixed.
HELD: dict[str, Kind] = {
    **dict.fromkeys(("integer", "floating", "mixed-integer-float", "decimal", "empty"), "number"),
    **dict.fromkeys(("datetime", "datetime64", "date", "period"), "date"),
    **dict.fromkeys(("timedelta", "timedelta64"), "duration"),
    "boolean": "boolean",
    "string": "text",
    "time": "time",
}
_DATES = (dt.date, np.datetime64, pd.Period)


def is_plain(dtype: Any) -> bool:
    """Whether a column is an array, dense or sparse, of numpy's numbers, so that several can be read as one block."""
    if isinstance(dtype, pd.SparseDtype):
        dtype = dtype.subtype
    return isinstance(dtype, np.dtype) and dtype.kind in "fiub"


def from_arrow(column: pd.Series) -> pd.Series:
    """The same values with a dtype of pandas' own where it was one of pyarrow's, and dense where it was sparse."""
    dtype = column.dtype
    if isinstance(dtype, pd.SparseDtype):
        return column.sparse.to_dense()
    if isinstance(dtype, pd.ArrowDtype) and not types.is_numeric_dtype(dtype):
        arrow = pa.Table.from_pandas(column.to_frame("x"), preserve_index=False)["x"]
        return arrow.to_pandas(date_as_object=False).set_axis(column.index)
    return column


def look_at(column: pd.Series, name: str) -> tuple[pd.Series, Kind]:
    """What a column that is fitted holds.

    Parameters
    ----------
    column : Series
    name : str
        What messages call it.

    Returns
    -------
    column : Series
        The same values with a dtype of pandas' own where it was one of pyarrow's.
    kind : {"number", "boolean", "duration", "time", "date", "text", "mixed"}
        Text may turn out to be numbers or dates, free text or levels; mixed are levels, pandas' categories among them.

    Raises
    ------
    ValueError
        If it holds complex numbers.
    """
    if is_plain(column.dtype):
        return column, "number"
    column = from_arrow(column)
    refuse_complex(column, name)
    held = types.infer_dtype(column, skipna=True)
    if not held.startswith("mixed"):
        return column, "text" if held == "bytes" else HELD.get(held, "mixed")
    present = column[column.notna()]
    if all(map(_is_number, present)):
        return column, "number"
    return column, "date" if all(isinstance(value, _DATES) for value in present) else "mixed"


def refuse_complex(column: pd.Series, name: str) -> None:
    """Raise a ValueError that names a column of complex numbers."""
    is_complex = types.is_complex_dtype(column.dtype) or (
        column.dtype == object and types.infer_dtype(column, skipna=True) == "complex"
    )
    if is_complex:
        raise ValueError(
            f"Complex data not supported: column {name!r} holds complex numbers. Split it into two columns."
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, (Real, Decimal, np.bool_))


def refuse_infinities(block: Floats, names: list[str]) -> None:
    """Raise a ValueError that names the first column of a block [n_columns, n_samples] (or [n_samples]) with one."""
    infinite = np.atleast_2d(np.isinf(block)).any(axis=1)
    if infinite.any():
        raise ValueError(
            "Input X contains infinity or a value too large for float64 in column "
            f"{names[int(infinite.argmax())]!r}. Replace it by a number or NaN."
        )


def read_texts(column: pd.Series, name: str) -> tuple[Codes, list[str]]:
    """Strings and bytes as they stand, all else as levels; codes [n_samples] and texts as ``read_levels`` has them."""
    column = from_arrow(column)
    if not isinstance(column.dtype, pd.StringDtype):
        return read_levels(column, name, write=as_text)
    codes, values = pd.factorize(column)
    return np.asarray(codes, dtype=np.int64), [str(value) for value in values]


def as_text(value: Any) -> str:
    """A string as it stands, all else as a level."""
    return str(value) if isinstance(value, str) else write_level(value)


def read_levels(
    column: pd.Series, name: str, *, write: Callable[[Any], str] = write_level
) -> tuple[Codes, list[str]]:
    """A column of any type as levels.

    Parameters
    ----------
    column : Series
    name : str
        What messages call it.
    write : callable, default=write_level
        How a value becomes a text.

    Returns
    -------
    codes : ndarray of int64 [n_samples]
        Which level a row has; -1 where it is missing.
    texts : list of str
        The levels as text, each once.

    Raises
    ------
    TypeError
        If values are lists or other containers.
    ValueError
        If they are complex numbers.
    """
    column = from_arrow(column)
    refuse_complex(column, name)
    if isinstance(column.dtype, pd.CategoricalDtype):
        codes, values = column.cat.codes.to_numpy(dtype=np.int64), column.cat.categories
        refuse_containers(values, f"column {name!r}")
    else:
        if column.dtype == object and types.infer_dtype(column, skipna=True) != "string":
            refuse_containers(column, f"column {name!r}")
            # 1 and True are equal, so that as they stand one would become the other.
            column = column.map(write, na_action="ignore")
        codes, values = pd.factorize(column)
    texts = [write(value) for value in values]
    if len(set(texts)) < len(texts):
        merged, distinct = pd.factorize(np.array(texts, dtype=object))
        codes = np.where(codes < 0, -1, merged[codes])
        texts = list(distinct)
    return np.asarray(codes, dtype=np.int64), texts

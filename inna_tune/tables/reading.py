"""The one place that reads tables; what it found is the table's schema, by which later tables are read."""

import os
import warnings
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
from pandas.api import types

from inna_tune.estimators.frames import TEXT, UnreadableValueWarning
from inna_tune.estimators.schema import ColumnSchema, Misfits, TableSchema
from inna_tune.tables.delimited import read_delimited
from inna_tune.tables.json_lines import read_json_lines
from inna_tune.tables.kinds import decide
from inna_tune.tables.sheets import read_sheet
from inna_tune.tables.sources import Source, TableError, find_source

_SKLEARN_TABLES = ("breast_cancer", "diabetes", "digits", "iris", "wine")


class MissingReaderError(ImportError):
    """A package that reads this format is not installed; the message says which."""


@dataclass(frozen=True)
class Table:
    """A table as it was read.

    Attributes
    ----------
    frame : DataFrame of shape [n_samples, n_features]
    schema : TableSchema
        What its columns are; of a table that was read by a model's schema, of those columns alone.
    target : str or None
        The target's name, where the source says which it is.
    notes : tuple of str
        What a person should know of how it was read: one sentence each.
    """

    frame: pd.DataFrame
    schema: TableSchema
    target: str | None = None
    notes: tuple[str, ...] = ()


def read(place: str | os.PathLike[str], *, schema: TableSchema | None = None) -> Table:
    """Read a table.

    Parameters
    ----------
    place : str or path
        Path of a file, ``-`` for standard input, or ``sklearn:NAME`` for a table that scikit-learn ships. Files are
        delimited text (.csv, .tsv, .txt), Parquet, Feather, JSON lines (.jsonl, .ndjson) or Excel (.xlsx); text also packed
        (.gz, .bz2, .zst).
    schema : TableSchema, optional
        Of the table that a model was fitted on. Columns are read as what they were then, and no value of a row depends on
        the other rows; what cannot be read is missing, and said in the notes. By default what the columns of a file of text
        are is decided from all its rows.

    Returns
    -------
    Table

    Raises
    ------
    TableError
        If there is no such table, it cannot be read, is empty, or repeats a column name.
    """
    place = os.fspath(place)
    if place.startswith("sklearn:"):
        frame = _sklearn_table(place.removeprefix("sklearn:"))
        return _finish(place, frame, Misfits(), [], schema, target="target")
    source, kind = find_source(place)
    notes: list[str] = []
    misfits = Misfits()
    own: TableSchema | None = None
    try:
        if kind in ("csv", "tsv"):
            read_text = read_delimited(source, tabs=kind == "tsv", schema=schema)
            frame = pd.DataFrame(read_text.columns, copy=False)
            misfits, notes, own = read_text.misfits, read_text.notes, read_text.schema
        elif kind == "jsonl":
            frame = read_json_lines(source)
        elif kind == "excel":
            frame, notes = _excel(source)
        elif kind == "feather":
            held = pyarrow.feather.read_table(source.whole())
            # What does not fit together ends the process where it is first looked at.
            held.validate(full=True)
            frame = held.to_pandas()
        else:
            frame = pd.read_parquet(source.whole())
            _refuse_no_text(frame)
    except (TableError, MissingReaderError, MemoryError):
        raise
    # NOTE: pyarrow's errors derive from ValueError, OSError or only from its own ArrowException, openpyxl's from anything.
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        raise TableError(f"{source.name} cannot be read as a {kind} table: {text}") from error
    if own is None and kind in ("jsonl", "excel") and schema is None:
        frame, own, misfits = _decide_texts(frame)
    # Text has been read by a schema already.
    by = None if kind in ("csv", "tsv") else schema
    return _finish(source.name, frame, misfits, notes, by, own=own, is_known=schema is not None)


def _finish(
    name: str,
    frame: pd.DataFrame,
    misfits: Misfits,
    notes: list[str],
    schema: TableSchema | None,
    *,
    own: TableSchema | None = None,
    target: str | None = None,
    is_known: bool = False,
) -> Table:
    """Check a table, and read typed columns by a schema; ``is_known`` says that there is one at all."""
    # Names may come in several levels, each a tuple.
    frame = frame.set_axis([str(name) for name in frame.columns], axis=1)
    if any(level is not None for level in frame.index.names):
        named = ", ".join(repr(str(level)) for level in frame.index.names if level is not None)
        notes.append(f"{name} has {named} as the index of a DataFrame, which is no column.")
    frame = frame.reset_index(drop=True)
    if frame.columns.has_duplicates:
        raise TableError(f"{name} repeats column names: {sorted(frame.columns[frame.columns.duplicated()])}.")
    if not len(frame) or not frame.shape[1]:
        raise TableError(
            f"{name} is an empty table: it has {len(frame)} rows and {frame.shape[1]} columns."
            if not is_known or frame.shape[1]
            else f"{name} has none of the columns that the model was fitted on."
        )
    if schema is not None:
        frame, misfits = schema.conform(frame)
        own = schema.of(frame.columns)
    return Table(frame, own or TableSchema.of_frame(frame), target, (*notes, *misfits.sentences()))


def read_table(source: str) -> tuple[pd.DataFrame, str | None]:
    """Read a table.

    Parameters
    ----------
    source : str
        As `read` has it, which also gives the table's schema.

    Returns
    -------
    frame : DataFrame
    target : str or None
        The target's name, where the source says which it is.

    Raises
    ------
    TableError
        If there is no such table, it cannot be read, is empty, or repeats a column name.
    """
    table = read(source)
    for note in table.notes:
        warnings.warn(note, UnreadableValueWarning, stacklevel=2)
    return table.frame, table.target


def _refuse_no_text(frame: pd.DataFrame) -> None:
    """Raise an ArrowInvalid where a column of strings holds bytes that are no UTF-8."""
    for i, dtype in enumerate(frame.dtypes):
        if isinstance(dtype, pd.StringDtype):
            pa.array(frame.iloc[:, i].array).validate(full=True)


def _excel(source: Source) -> tuple[pd.DataFrame, list[str]]:
    if find_spec("openpyxl") is None:
        raise MissingReaderError(
            f"{source.name} is an Excel file; to read it: pip install 'inna-tune[excel]'. Or save it as .csv."
        )
    return read_sheet(source)


def _decide_texts(frame: pd.DataFrame) -> tuple[pd.DataFrame, TableSchema, Misfits]:
    """Columns of text as what they are; typed ones stay."""
    columns: dict[str, pd.Series] = {}
    found: list[ColumnSchema] = []
    misfits = Misfits()
    for name in map(str, frame.columns):
        column = frame[name]
        if column.dtype == object:
            column = _settled(column)
        if isinstance(column.dtype, pd.StringDtype):
            column, schema, bad = decide(column, name)
            misfits.merge(bad)
        else:
            schema = TableSchema.of_frame(column.to_frame(name))[name]
        columns[name] = column
        found.append(schema)
    return pd.DataFrame(columns, copy=False), TableSchema(tuple(found)), misfits


def _settled(column: pd.Series) -> pd.Series:
    """The cells of a sheet as one type: numbers, dates, booleans, or else text."""
    held = types.infer_dtype(column, skipna=True)
    if held == "integer":
        return column.astype("Int64") if column.isna().any() else column.astype(np.int64)
    if held in ("floating", "mixed-integer-float"):
        return column.astype(np.float64)
    if held == "boolean":
        return column.astype("boolean") if column.isna().any() else column.astype(bool)
    if held == "empty":
        return pd.Series(np.full(len(column), np.nan), index=column.index)
    if held in ("datetime", "datetime64", "date", "time", "timedelta"):
        return column
    return column.map(str, na_action="ignore").astype(TEXT)


def _sklearn_table(name: str) -> pd.DataFrame:
    import sklearn.datasets

    if name not in _SKLEARN_TABLES:
        raise TableError(f"scikit-learn ships no table {name!r}; there are {', '.join(_SKLEARN_TABLES)}.")
    bunch = getattr(sklearn.datasets, f"load_{name}")(as_frame=True)
    frame: pd.DataFrame = bunch.frame
    names = getattr(bunch, "target_names", None)
    if names is not None and name != "digits":
        frame["target"] = np.asarray(names, dtype=object)[frame["target"]]
    return frame

"""JSON lines as a table of pandas' own types."""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.json

from inna_tune.estimators.frames import TEXT
from inna_tune.tables.sources import Source, TableError

# What is nested at all is refused as a column; much deeper, the parser takes minutes, or the process with it.
_DEEPEST = 100
_BLOCK = 1 << 24
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def read_json_lines(source: Source) -> pd.DataFrame:
    """An object a line as a row.

    Raises
    ------
    TableError
        If a value is a list or an object.
    Exception
        Of pyarrow's, where it is no JSON.
    """
    _refuse_depth(source)
    options = pyarrow.json.ReadOptions(use_threads=False, block_size=1 << 26)
    table = pyarrow.json.read_json(source.whole(), read_options=options)
    # What looks like a time in these rows need not in others: it is text until the encoder reads it.
    texts = [field.name for field in table.schema if pa.types.is_timestamp(field.type)]
    if texts:
        own = pa.schema([(name, pa.string()) for name in texts])
        parse = pyarrow.json.ParseOptions(explicit_schema=own)
        again = pyarrow.json.read_json(source.whole(), read_options=options, parse_options=parse)
        table = again.select(table.column_names)
    table.validate(full=True)
    return _from_arrow(table, source.name)


def _refuse_depth(source: Source) -> None:
    """Raise a TableError where what the parser would follow down has no end that its stack holds."""
    depth, rest = 0, b""
    with source.open() as file:
        while block := file.read(_BLOCK):
            # Of whole lines, since no text goes on in the next one.
            whole, line_end, rest = (rest + block).rpartition(b"\n")
            depth = _depth_after(whole + line_end, depth, source.name)
    _depth_after(rest, depth, source.name)


def _depth_after(lines: bytes, depth: int, place: str) -> int:
    """How many lists and objects are open behind some lines."""
    lines = lines.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside = b"".join(lines.split(b'"')[::2]).translate(None, _NO_BRACKETS)
    opens = np.isin(np.frombuffer(outside, dtype=np.uint8), np.frombuffer(b"[{", dtype=np.uint8))
    depths = depth + np.cumsum(np.where(opens, 1, -1))
    if depths.max(initial=0) > _DEEPEST:
        raise TableError(
            f"{place} holds lists or objects that are nested over {_DEEPEST} deep; make columns of numbers or of text of "
            "them."
        )
    return int(depths[-1]) if len(depths) else depth


def _from_arrow(table: Any, place: str) -> pd.DataFrame:
    """A table of pyarrow in pandas' own types; whole numbers and booleans with gaps in those that know gaps."""
    own = {pa.string(): TEXT, pa.large_string(): TEXT}
    nullable = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
    columns = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_nested(column.type):
            raise TableError(
                f"{place}: column {name!r} holds lists or objects; make columns of numbers or of text of it, or drop it."
            )
        known = own | nullable if column.null_count else own
        columns[name] = column.to_pandas(types_mapper=known.get)
    return pd.DataFrame(columns)

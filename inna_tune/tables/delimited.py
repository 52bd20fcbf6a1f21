"""Delimited text, by pyarrow's reader: every column as text first, its type decided once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from inna_tune.estimators.frames import TEXT
from inna_tune.estimators.schema import MISSING, ColumnSchema, Misfits, TableSchema
from inna_tune.tables.headers import shown
from inna_tune.tables.kinds import decide, with_gaps
from inna_tune.tables.layout import Layout, find_layout
from inna_tune.tables.sources import Source, TableError

# pyarrow reads up to 32 blocks ahead; but every array takes a kilobyte, so that blocks of few rows and many columns cost more.
_BLOCK = 1 << 21
_WIDE = 1000
# Of each column of a wide file a block has so many bytes; every array costs time, too.
_CELL_BYTES, _LARGEST_WIDE = 1 << 11, 1 << 26
_LARGEST_BLOCK = 2**31 - 1
# A wide table comes in many batches of few rows, and an array of a dozen numbers takes a hundred times their memory.
_FEW_CHUNKS, _SMALL_CHUNK = 4, 4096
# "0x1F" is a whole number to pyarrow, and "01" too.
_PADDED = r"^[-+]?0[0-9xX]"
# Whole numbers beyond int64: float64 would make one of several.
_LONG = r"^[-+]?[0-9]{19,}$"


@dataclass
class Read:
    """A table that was read: its columns, what they are, what to say about it."""

    columns: dict[str, pd.Series]
    schema: TableSchema
    misfits: Misfits
    notes: list[str] = field(default_factory=list)


def read_delimited(source: Source, *, tabs: bool = False, schema: TableSchema | None = None) -> Read:
    """Read a file of delimited text.

    Parameters
    ----------
    source : Source
    tabs : bool
        Whether the file says that tabs delimit.
    schema : TableSchema, optional
        Of the table that a model was fitted on: its columns alone are read, as what they were then. By default all
        columns are read, and what they are is decided from all rows.

    Raises
    ------
    TableError
        If it cannot be read, rows are longer or shorter than the header, or names are repeated.
    """
    layout = find_layout(source, tabs=tabs, known=() if schema is None else schema.names)
    file = _File(source, layout)
    read = _read_new(file, schema) if schema is not None else _read_fitted(file)
    read.notes += layout.notes
    if layout.encoding == "cp1252":
        read.notes.append(
            f"{source.name} is not in UTF-8; it is read as Windows-1252. Save it as UTF-8 to be sure."
        )
    return read


class _File:
    """Batches of a file's columns as texts."""

    def __init__(self, source: Source, layout: Layout) -> None:
        self.source = source
        self.layout = layout
        self.extra = range(len(layout.names), layout.width)

    def batches(self, places: Sequence[int]) -> Iterator[dict[int, Any]]:
        """The columns at ``places``, batch by batch; a row of another length is an error that tells which."""
        width = self.layout.width
        wide = min(max(4 * _BLOCK, _CELL_BYTES * width), _LARGEST_WIDE)
        block, given = _BLOCK if width < _WIDE else wide, 0
        while True:
            n_rows = 0
            try:
                for batch in self._batches(places, block):
                    again = max(given - n_rows, 0)
                    n_rows += batch.num_rows
                    if again and again >= batch.num_rows:
                        continue
                    given = n_rows
                    columns = (batch.slice(again) if again else batch).columns
                    if self.layout.spaced:
                        columns = [_unspaced(column) for column in columns]
                    wanted = [*places, *self.extra]
                    # pyarrow takes no names for all of them.
                    yield dict(zip(wanted, columns if wanted else [], strict=True))
                return
            except pa.ArrowInvalid as error:
                # A row longer than the block.
                if "straddling" not in str(error) or block == _LARGEST_BLOCK:
                    raise TableError(self._explain(str(error))) from error
                block = min(block * 16, _LARGEST_BLOCK)

    def _batches(self, places: Sequence[int], block: int) -> Iterator[Any]:
        layout = self.layout
        names = [f"c{i}" for i in range(layout.width)]
        with self.source.open() as raw:
            reader = arrow_csv.open_csv(
                raw,
                read_options=arrow_csv.ReadOptions(
                    use_threads=False,
                    column_names=names,
                    skip_rows=layout.first_line,
                    skip_rows_after_names=layout.n_below,
                    block_size=block,
                    encoding=layout.encoding,
                ),
                parse_options=arrow_csv.ParseOptions(
                    delimiter=layout.delimiter,
                    escape_char="\\" if layout.is_escaped else False,
                    newlines_in_values=True,
                    # An empty line of a table of one column is a row where it is missing.
                    ignore_empty_lines=layout.width > 1,
                ),
                convert_options=arrow_csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()),
                    include_columns=[names[i] for i in [*places, *self.extra]],
                    strings_can_be_null=False,
                ),
            )
            last = None
            n_rows = 0
            for batch in reader:
                self._check_extra(batch, n_rows)
                n_rows += batch.num_rows
                last = batch if batch.num_rows else last
                yield batch
            if layout.is_open and last is not None and _ends_in_a_quote(last):
                raise TableError(
                    f"{self.source.name} cannot be read as a csv table: a quote is opened and never closed."
                )

    def _check_extra(self, batch: Any, n_rows: int) -> None:
        for column in batch.columns[len(batch.columns) - len(self.extra) :]:
            filled = pc.index(pc.not_equal(column, ""), True).as_py()
            if filled >= 0:
                raise TableError(
                    f"{self.source.name} cannot be read as a csv table: row {n_rows + filled + 2} has more than the "
                    f"{len(self.layout.names)} fields that the header names (the header is row 1)."
                )

    def _explain(self, message: str) -> str:
        text = " ".join(message.split())
        told = f"{self.source.name} cannot be read as a csv table: {text[:200]} (the header is row 1)."
        if "Expected" in text:
            header = f"line {self.layout.first_line + 1} ({shown(self.layout.names)})"
            told += f" Where {header} is a title or a comment and not the header, or lines below are no rows, delete them."
        return told


def _unspaced(column: Any) -> Any:
    """Cells without the blank before them; behind it pyarrow takes quotes for part of the cell."""
    trimmed = pc.utf8_ltrim(column, characters=" ")
    return pc.replace_substring_regex(trimmed, pattern=r'(?s)^"(.*)"$', replacement=r"\1")


def _ends_in_a_quote(batch: Any) -> bool:
    return any("\n" in (column[batch.num_rows - 1].as_py() or "") for column in batch.columns)


# ---------------------------------------------------------------------- a table to fit on


class _Column:
    """A column while it is read: numbers as long as all its texts are plain ones, else texts."""

    def __init__(self) -> None:
        self.chunks: list[Any] = []
        self.is_text = False
        self.lost = False  # whether texts went by before one was no number

    def add(self, chunk: Any) -> None:
        if not self.is_text:
            numbers = _plain_numbers(chunk)
            if numbers is not None:
                self.chunks.append(numbers)
                if len(self.chunks) >= _FEW_CHUNKS and len(numbers) < _SMALL_CHUNK:
                    self.chunks = [_joined(self.chunks)]
                return
            self.is_text = True
            self.lost = any(len(part) > part.null_count for part in self.chunks)
            if self.lost:
                self.chunks = []
            else:
                self.chunks = [pa.array([""] * len(part), pa.string()) for part in self.chunks]
        if not self.lost:
            self.chunks.append(chunk)

    def numbers(self) -> pd.Series:
        """The numbers as int64, Int64 where some are missing, or float64."""
        n_missing = sum(part.null_count for part in self.chunks)
        n_rows = sum(map(len, self.chunks))
        if _are_whole(self.chunks) and n_missing < n_rows:
            joined = _joined(self.chunks)
            if not n_missing:
                return pd.Series(joined.to_numpy(zero_copy_only=False, writable=True), copy=False)
            return joined.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
        values = np.empty(n_rows)
        start = 0
        for part in self.chunks:
            values[start : start + len(part)] = _as_floats(part).to_numpy(zero_copy_only=False)
            start += len(part)
        return with_gaps(pd.Series(values, copy=False))

    def texts(self) -> pd.Series:
        return _texts(self.chunks)


def _are_whole(parts: list[Any]) -> bool:
    """Whether there are whole numbers only, but for arrays of nothing but missing values, which are either."""
    return all(pa.types.is_integer(part.type) or part.null_count == len(part) for part in parts)


def _as_floats(part: Any) -> Any:
    # NOTE: a whole number beyond 2**53 is rounded, as it is where a text is read as a float.
    return part.cast(pa.float64(), safe=False)


def _joined(parts: list[Any]) -> Any:
    """Arrays of int64 and float64 as one."""
    whole = _are_whole(parts)
    return pa.concat_arrays([part.cast(pa.int64()) if whole else _as_floats(part) for part in parts])


def _plain_numbers(chunk: Any) -> Any:
    """Texts as int64 or float64, null where missing; None if one is no plain number, or a code such as "01"."""
    texts = pc.if_else(pc.is_in(chunk, value_set=_ABSENT), pa.scalar(None, pa.string()), chunk)
    for kind in (pa.int64(), pa.float64()):
        try:
            numbers = texts.cast(kind)
        except pa.ArrowInvalid:
            continue
        if pa.types.is_floating(kind) and pc.all(pc.is_finite(numbers)).as_py() is False:
            return None
        suspicious = _PADDED if pa.types.is_integer(kind) else _LONG
        return None if pc.any(pc.match_substring_regex(texts, suspicious)).as_py() else numbers
    return None


_TOTALS = frozenset(("total", "totals", "grand total", "sum", "sums", "average", "mean", "summe", "gesamt"))
_ABSENT = pa.array(sorted(MISSING), pa.string())


def _texts(chunks: list[Any]) -> pd.Series:
    joined = pa.chunked_array([part.cast(pa.large_string()) for part in chunks], pa.large_string())
    return pd.Series(joined.to_pandas(), dtype=TEXT)


def _read_fitted(file: _File) -> Read:
    layout = file.layout
    places = range(len(layout.names))
    columns = [_Column() for _ in places]
    for batch in file.batches(places):
        for place in places:
            columns[place].add(batch[place])
    lost = [place for place in places if columns[place].lost]
    _read_again(file, columns, lost)
    series: dict[int, pd.Series] = {}
    found: dict[int, tuple[ColumnSchema, Misfits]] = {}
    hint = "," if layout.delimiter == ";" else None
    texts = {place: columns[place].texts() for place in places if columns[place].is_text}
    for place, own in texts.items():
        name = layout.names[place]
        series[place], schema, misfits = decide(own, name, decimal=hint)
        found[place] = schema, misfits
    if _has_decimal_comma(texts, found):
        again = [p for p in places if not columns[p].is_text and _has_fractions(columns[p])]
        _read_again(file, columns, again)
        texts |= {place: columns[place].texts() for place in again}
        for place, own in texts.items():
            if place in again or found[place][0].form.thousands == ",":
                series[place], schema, misfits = decide(own, layout.names[place], decimal=",")
                found[place] = schema, misfits
    notes = _of_totals(file.source.name, texts)
    texts.clear()
    for place in places:
        if place not in series:
            series[place] = columns[place].numbers()
            whole = pd.api.types.is_integer_dtype(series[place].dtype)
            found[place] = ColumnSchema(layout.names[place], "number", whole=whole), Misfits()
        columns[place].chunks = []
    kept = [p for p in places if p not in layout.blank or series[p].notna().any()]
    nameless = layout.blank.intersection(kept)
    if len(nameless) >= 2 and 2 * len(nameless) > len(kept):
        notes.append(
            f"{file.source.name}: {len(nameless)} of {len(kept)} columns have no name in line {layout.first_line + 1}; if that "
            "line is a title and not the header, delete it."
        )
    misfits = Misfits()
    for place in kept:
        misfits.merge(found[place][1])
    return Read(
        {layout.names[p]: series[p] for p in kept},
        TableSchema(tuple(found[p][0] for p in kept)),
        misfits,
        notes,
    )


def _of_totals(name: str, texts: dict[int, pd.Series]) -> list[str]:
    """What to say where the last row calls itself the sum of the others."""
    for own in texts.values():
        last = own.iloc[-1] if len(own) > 1 else None
        word = last.strip().rstrip(":") if isinstance(last, str) else ""
        if word.casefold() in _TOTALS and (own == last).sum() == 1:
            return [
                f"{name}: the last row says {word!r}; if it sums up the others, delete it: here it is a row as they are."
            ]
    return []


def _read_again(file: _File, columns: list[_Column], places: Sequence[int]) -> None:
    """Columns of which some chunks were taken for numbers, as texts."""
    if not places:
        return
    for place in places:
        columns[place].is_text, columns[place].lost, columns[place].chunks = True, False, []
    for batch in file.batches(places):
        for place in places:
            columns[place].add(batch[place])


def _has_decimal_comma(texts: dict[int, pd.Series], found: dict[int, tuple[ColumnSchema, Misfits]]) -> bool:
    """Whether a column's numbers can only be read with a decimal comma, and none with a decimal point."""
    commas = points = False
    for place, (schema, _) in found.items():
        if schema.kind == "number":
            commas |= schema.form.decimal == "," and bool(texts[place].str.contains(",").any())
            points |= schema.form.thousands == "," and bool(texts[place].str.contains(r"\.").any())
    return commas and not points


def _has_fractions(column: _Column) -> bool:
    return any(pa.types.is_floating(part.type) for part in column.chunks)


# ---------------------------------------------------------------------- new rows for a model


def _read_new(file: _File, schema: TableSchema) -> Read:
    """The columns of a schema as what they were, a batch at a time, since no value depends on another row."""
    layout = file.layout
    own = schema.of(layout.names)
    places = [layout.names.index(name) for name in own.names]
    parts: dict[str, list[pd.Series]] = {name: [] for name in own.names}
    misfits, n_rows = Misfits(), 0
    for batch in file.batches(places):
        frame = pd.DataFrame({layout.names[p]: _texts([batch[p]]) for p in places})
        length = len(next(iter(batch.values()))) if batch else 0
        # The header is row 1.
        read, bad = own.conform(frame, first_row=n_rows + 1)
        misfits.merge(bad)
        n_rows += length
        for name in own.names:
            parts[name].append(read[name])
    columns = {
        name: pd.concat(chunks, ignore_index=True) if len(chunks) != 1 else chunks[0]
        for name, chunks in parts.items()
        if chunks
    }
    if not columns:
        columns = {name: pd.Series([], dtype=object) for name in own.names}
    return Read(columns, own, misfits)

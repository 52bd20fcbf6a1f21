"""How a delimited file is written: its encoding, delimiter and quotes, where its header is, and where its rows begin."""

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from inna_tune.tables.headers import header_place, is_units, shown
from inna_tune.tables.sources import Source, TableError

_DELIMITERS = (",", ";", "\t", "|")
_TOLD = re.compile(r"\"?sep=(?P<delimiter>[^\w\s]|\t)\"?\r?\n", re.IGNORECASE)
_BLOCK = 1 << 21
# What is looked at: a megabyte, or more, where not so many lines end in it.
_HEAD, _MOST_HEAD, _FEW_LINES = 1 << 20, 1 << 26, 5
# Of so large a share of rows as long as the header a text is a table.
_LIKE_A_TABLE = 0.5


@dataclass(frozen=True)
class Layout:
    """How a delimited file is written.

    Attributes
    ----------
    delimiter, encoding : str
    names : list of str
        Of the header; blank ones are called "Unnamed: 3", as pandas does.
    width : int
        Fields of a row: more than names where the rows end in delimiters.
    blank : frozenset of int
        Places of the names that were blank.
    is_open : bool
        Whether the number of quotes is odd.
    first_line : int
        Where the header is: behind a line "sep=;", by which spreadsheets are told the delimiter, empty lines, and what
        stands above the table.
    spaced : bool
        Whether a blank follows every delimiter.
    n_below : int
        Rows from the header on before the first of values: the header itself, and one of units.
    is_escaped : bool
        Whether a quote in a cell is written ``\\"``, where it is doubled elsewhere.
    notes : tuple of str
        What a person should know of it: one sentence each.
    """

    delimiter: str
    encoding: str
    names: list[str]
    width: int
    blank: frozenset[int]
    is_open: bool
    first_line: int = 0
    spaced: bool = False
    n_below: int = 1
    is_escaped: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Scan:
    """What all bytes of a file tell: its encoding, the quotes in it, and those behind a backslash."""

    encoding: str
    n_quotes: int
    n_escaped: int


@dataclass(frozen=True)
class _Rows:
    """The first rows of a text by a delimiter, without empty ones; of each its line, and its place among all rows."""

    cells: list[list[str]]
    lines: list[int]
    places: list[int]


def find_layout(source: Source, *, tabs: bool, known: Sequence[str]) -> Layout:
    """Delimiter, encoding and header of a file, from its first lines; ``known`` are names that the header may hold."""
    head, cut = _head(source)
    scan = _scan(source, head)
    text = head.decode(scan.encoding, errors="replace" if cut else "strict").removeprefix("\ufeff")
    told = _TOLD.match(text)
    text = text[told.end() :] if told else text
    delimiters = (told["delimiter"],) if told else ("\t",) if tabs else _DELIMITERS
    is_escaped = False
    found = _choose(text, delimiters, known, cut=cut)
    if found is not None and scan.n_escaped:
        is_escaped = _has_escapes(source, scan.encoding, found[0])
        if is_escaped:
            found = _choose(text, delimiters, known, cut=cut, is_escaped=True)
    if found is None:
        if text.strip():
            raise TableError(
                f"{source.name} cannot be read as a csv table: a cell of its first line has more than "
                f"{csv.field_size_limit():,} characters, which is no name of a column."
            )
        raise TableError(f"{source.name} is an empty table: it has 0 rows and 0 columns.")
    delimiter, read, place = found
    rows = read.cells[place:]
    header = [name if name in known else name.strip() for name in rows[0]]
    # Some header lines end in a delimiter as the rows do.
    blank = frozenset(i for i, name in enumerate(header) if not name)
    names = [name or f"Unnamed: {i}" for i, name in enumerate(header)]
    repeated = sorted(name for name, times in Counter(names).items() if times > 1)
    if repeated:
        raise TableError(
            f"{source.name} repeats column names: {repeated}. Rename them so that each is unique."
        )
    if len(rows) == 1 and not cut and not text.endswith(("\n", "\r")):
        # pyarrow takes the header for a row that has no end.
        raise TableError(
            f"{source.name} cannot be read as a csv table: it has a header of {len(names)} columns and no rows."
        )
    width = len(names)
    if len(rows) > 1 and len(rows[1]) > width and not any(rows[1][width:]):
        width = len(rows[1])
    spaced = len(rows) > 1 and all(cell.startswith(" ") for row in rows for cell in row[1:] if cell)
    n_before = int(told is not None)
    notes, n_below = _left_out(source, read, place, n_before)
    if is_escaped:
        notes.append(f'{source.name}: quotes within cells are written \\" there, and are read so.')
    return Layout(
        delimiter,
        scan.encoding,
        names,
        width,
        blank,
        (scan.n_quotes - scan.n_escaped * is_escaped) % 2 == 1,
        n_before + read.lines[place],
        spaced and len(names) > 1,
        n_below,
        is_escaped,
        tuple(notes),
    )


def _head(source: Source) -> tuple[bytes, bool]:
    """The first lines of a file, a table of tens of thousands of columns has long ones, and whether there is more."""
    size = _HEAD
    while True:
        head = source.head(size)
        n_lines = head.count(b"\n") or head.count(b"\r")
        if len(head) < size or n_lines >= _FEW_LINES or size >= _MOST_HEAD:
            return head, len(head) == size
        size *= 4


def _left_out(source: Source, read: _Rows, place: int, n_before: int) -> tuple[list[str], int]:
    """What to say of lines that are no part of the table, and how many rows it is from the header to the values."""
    notes, n_below = [], 1
    if place:
        first = shown(read.cells[0])
        lines = (
            f"line {read.lines[0] + n_before + 1} ({first}) stands"
            if place == 1
            else (
                f"lines {read.lines[0] + n_before + 1} to {read.lines[place - 1] + n_before + 1} (the first is {first}) stand"
            )
        )
        notes.append(f"{source.name}: {lines} above the header, and no part of the table.")
    if is_units(read.cells[place], read.cells[place + 1 :]):
        line = read.lines[place + 1] + n_before + 1
        notes.append(
            f"{source.name}: line {line} ({shown(read.cells[place + 1])}) stands above columns of numbers and holds none: it "
            "is left out, and rows are counted without it."
        )
        n_below = read.places[place + 1] - read.places[place] + 1
    return notes, n_below


def _choose(
    text: str, delimiters: Sequence[str], known: Sequence[str], *, cut: bool, is_escaped: bool = False
) -> tuple[str, _Rows, int] | None:
    """The delimiter by which a text is most like a table, its rows by it, and which of them is the header."""
    found = [
        (delimiter, rows)
        for delimiter in delimiters
        if (rows := _first_rows(text, delimiter, cut=cut, is_escaped=is_escaped)).cells
    ]
    if not found:
        return None
    delimiter, rows = max(found, key=lambda pair: _likeness(pair[1].cells, known))
    if _likeness(rows.cells, known)[1] >= _LIKE_A_TABLE:
        return delimiter, rows, header_place(rows.cells, known)
    # By no delimiter is the first line a header: perhaps it is a title.
    behind = [(d, r, place) for d, r in found if (place := header_place(r.cells, known))]
    if not behind:
        return delimiter, rows, header_place(rows.cells, known)
    return max(behind, key=lambda each: _likeness(each[1].cells[each[2] :], known))


def _scan(source: Source, head: bytes) -> _Scan:
    """What all bytes tell; NUL bytes are refused."""
    wide = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    encoding = "utf-16" if wide else "utf-8"
    decoder = codecs.getincrementaldecoder(encoding)()
    n_quotes, n_escaped = 0, 0
    # Of a character of two bytes one is zero, which of them the order of bytes tells.
    escaped = b'\\\0"\0' if head.startswith(codecs.BOM_UTF16_LE) else b'\\\0"' if wide else b'\\"'
    last = b""
    problem: UnicodeDecodeError | None = None
    with source.open() as file:
        while True:
            part = bytes(file.read(_BLOCK))
            if not wide and b"\0" in part:
                raise TableError(
                    f"{source.name} cannot be read as a csv table: it holds NUL bytes, so it is no text."
                )
            n_quotes += part.count(b'"')
            n_escaped += (last + part).count(escaped)
            last = part[-(len(escaped) - 1) :]
            try:
                if problem is None:
                    decoder.decode(part, final=not part)
            except UnicodeDecodeError as error:
                problem = error
            if not part:
                break
    if problem is not None:
        # What programs on Windows write where they do not write UTF-8; five bytes mean nothing in it.
        if wide or any(byte in head for byte in b"\x81\x8d\x8f\x90\x9d"):
            raise TableError(
                f"{source.name} cannot be read as a csv table: it is neither UTF-8 nor UTF-16 ({problem}). "
                "Save it as UTF-8."
            ) from problem
        encoding = "cp1252"
    return _Scan(encoding, n_quotes, n_escaped)


def _has_escapes(source: Source, encoding: str, delimiter: str) -> bool:
    """Whether a file's quotes make sense only where a backslash stands before those within cells."""

    def makes_sense(**more: str) -> bool:
        with source.open() as raw:
            text = io.TextIOWrapper(raw, encoding=encoding, newline="")
            try:
                for _ in csv.reader(text, delimiter=delimiter, strict=True, **more):  # type: ignore[arg-type]
                    pass
            except csv.Error as error:
                return "field larger" in str(error)  # who has such cells writes them as is usual
            return True

    return not makes_sense() and makes_sense(escapechar="\\")


def _first_rows(text: str, delimiter: str, *, cut: bool, is_escaped: bool = False) -> _Rows:
    rows = _Rows([], [], [])
    more: dict[str, str] = {"escapechar": "\\"} if is_escaped else {}
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, **more)  # type: ignore[arg-type]
    place, line = 0, 0
    try:
        for row in reader:
            if row:
                rows.cells.append(row)
                rows.lines.append(line)
                rows.places.append(place)
            if len(rows.cells) == 200:
                return rows
            place, line = place + 1, reader.line_num
    except csv.Error:
        return rows  # a cell of more than 128 KB; what is before it does
    if cut and len(rows.cells) > 1:
        return _Rows(rows.cells[:-1], rows.lines[:-1], rows.places[:-1])
    return rows


def _likeness(rows: list[list[str]], known: Sequence[str]) -> tuple[int, float, int]:
    """How well rows fit a header: names that are known, the share of rows as long as the header, its length."""
    header = [name.strip() for name in rows[0]]
    n_known = len(set(known) & set(header))
    if len(header) < 2:
        return n_known, 0.0, 1
    fitting = sum(
        len(row) == len(header) or not any(row[len(header) :]) for row in rows[1:] if len(row) >= len(header)
    )
    return n_known, (fitting + 1) / len(rows), len(header)

"""Which row of a table names its columns, where titles or comments stand above it, and whether units stand below."""

import re
from collections.abc import Sequence

from inna_tune.estimators.schema import MISSING

# So many lines may stand above a header.
_MOST_ABOVE = 20
# A table of fewer rows does not tell a line of units from one of values.
_FEWEST_ROWS = 3
_NUMBER = re.compile(r"[-+(]?\s*[$€£]?\s*\.?\d[\d.,'\u00a0 ]*(e[-+]?\d+)?\s*[%)]?", re.IGNORECASE)
_BEGINS_WITH_A_DIGIT = re.compile(r"[-+($€£]*\s*\.?\d")

Row = Sequence[str]


def header_place(rows: Sequence[Row], known: Sequence[str] = ()) -> int:
    """Place of the row that names the columns: 0, or where it certainly is, behind titles and comments.

    Parameters
    ----------
    rows : sequence of sequences of str
        The first rows of a table, those without any cell left out.
    known : sequence of str
        Names that the header may hold.

    Returns
    -------
    int
        Not 0 only where all rows above have next to no cells, or begin with "#", and where below the row a column of
        what begins with digits stands under a name that is none, or its names are all of ``known``.
    """
    for place in range(min(len(rows) - 1, _MOST_ABOVE) + 1):
        header = [cell.strip() for cell in rows[place]]
        if place and set(known) and set(known) <= set(header):
            return place if all(_is_above(row, header, is_known=True) for row in rows[:place]) else 0
        if place == 0 or not _names_columns(header):
            continue
        if not all(_is_above(row, header) for row in rows[:place]):
            return 0
        below = rows[place + 1 :]
        fitting = [row for row in below if len(row) == len(header) or not any(row[len(header) :])]
        if below and 2 * len(fitting) > len(below) and _has_values_below(header, fitting):
            return place
    return 0


def is_units(header: Row, rows: Sequence[Row]) -> bool:
    """Whether the first row below a header certainly holds no values: words over columns of nothing but numbers.

    At least two such columns, of at least three numbers each.
    """
    if len(rows) <= _FEWEST_ROWS:
        return False
    first, below = rows[0], rows[1:]
    n_columns = 0
    for place in range(min(len(header), len(first))):
        values = [row[place].strip() for row in below if place < len(row)]
        values = [value for value in values if not _is_missing(value)]
        if len(values) < _FEWEST_ROWS or not all(_NUMBER.fullmatch(value) for value in values):
            continue
        cell = first[place].strip()
        if _is_missing(cell) or _BEGINS_WITH_A_DIGIT.match(cell):
            return False
        n_columns += 1
    return n_columns >= 2


def shown(row: Row, most: int = 60) -> str:
    """The cells of a row that hold anything, for a message."""
    text = ", ".join(cell.strip() for cell in row if cell.strip())
    return repr(text if len(text) <= most else text[: most - 1] + "…")


def _names_columns(header: Row) -> bool:
    """Whether a row may name columns: all cells but the first hold a word, each another, and no number."""
    filled = header if header[:1] != [""] else header[1:]
    return (
        len(header) >= 2
        and all(filled)
        and len(set(filled)) == len(filled)
        and not any(_NUMBER.fullmatch(name) for name in filled)
    )


def _is_above(row: Row, header: Row, *, is_known: bool = False) -> bool:
    """Whether a row may be a title, a comment or one of a few words about the table."""
    n_filled = sum(bool(cell.strip()) for cell in row)
    if row and row[0].lstrip().startswith("#") and (is_known or n_filled != len(header)):
        return True
    return n_filled <= max(1, len(header) // 2) and n_filled < len(header)


def _has_values_below(header: Row, rows: Sequence[Row]) -> bool:
    for place, name in enumerate(header):
        values = [row[place].strip() for row in rows if place < len(row) and row[place].strip()]
        if (
            name
            and values
            and not _BEGINS_WITH_A_DIGIT.match(name)
            and all(_BEGINS_WITH_A_DIGIT.match(v) for v in values[1:] or values)
        ):
            return True
    return False


def _is_missing(cell: str) -> bool:
    return cell in MISSING

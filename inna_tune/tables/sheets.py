"""The first sheet of an Excel file as a table: cells that hold something, and a header that may stand below titles."""

import warnings
from typing import Any

import numpy as np
import pandas as pd
from pandas.io.parsers import TextParser

from inna_tune.tables.headers import header_place, shown
from inna_tune.tables.sources import Source, TableError

# As Excel has it.
_MOST_ROWS = 1 << 20
# A sheet of so many cells is read whatever they hold; a larger one, if one in so many of them holds something.
_MANY_CELLS, _SPARSE = 20_000_000, 200


def read_sheet(source: Source) -> tuple[pd.DataFrame, list[str]]:
    """The first sheet that is no chart, every cell as what it is, and what a person should know of how it was read.

    Raises
    ------
    TableError
        If the sheet is empty, or a cell far off makes a table of it that is next to nothing but gaps.
    Exception
        Of openpyxl's, whatever is in the file.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", module="openpyxl"
        )  # of what is no part of the table, such as styles
        rows, notes = _filled_rows(source)
    if not rows:
        raise TableError(f"{source.name}: its first sheet is empty{''.join(notes)}.")
    # As pandas reads a sheet: it gives names to columns without one, and to those that have the same.
    frame = TextParser(
        rows, header=0, dtype=object, keep_default_na=False, na_values=[""], skip_blank_lines=False
    ).read()
    # A formatted cell below or beside the table is part of the sheet, and holds nothing.
    frame = frame.dropna(how="all").reset_index(drop=True)
    frame, above = _below_titles(source, frame)
    blank = [name for name in frame.columns if str(name).startswith("Unnamed:") and frame[name].isna().all()]
    return frame.drop(columns=blank).rename(columns=lambda name: str(name).strip()), above


def _filled_rows(source: Source) -> tuple[list[list[Any]], list[str]]:
    """Rows of equal length, up to the last cell that holds something; and what else is in the file, in words."""
    rows: list[list[Any]] = []
    width = n_filled = n_rows = 0
    with pd.ExcelFile(source.whole(), engine="openpyxl") as book:
        sheets = book.book.worksheets
        others = [sheet.title for sheet in sheets[1:]]
        sheet = sheets[0]
        sheet.reset_dimensions()  # what the file says of them need not be so
        for number, cells in enumerate(sheet.rows, start=1):
            if number > _MOST_ROWS:
                raise TableError(
                    f"{source.name}: its sheet has more than {_MOST_ROWS:,} rows, as none of Excel's has."
                )
            row = [_value(cell) for cell in cells]
            while row and row[-1] == "":
                row.pop()
            rows.append(row)
            if not row:
                continue
            n_rows, width = number, max(width, len(row))
            n_filled += sum(value != "" for value in row)
            if n_rows * width > max(_MANY_CELLS, _SPARSE * n_filled):
                raise TableError(
                    f"{source.name}: the cells of its sheet reach as far as row {n_rows:,} and column {width:,}, and "
                    f"{n_filled:,} of them hold something. Delete what lies far off the table, or save it as .csv."
                )
    words = [f"; others are {', '.join(map(repr, others[:3]))}"] if others else []
    return [row + [""] * (width - len(row)) for row in rows[:n_rows]], words


def _value(cell: Any) -> Any:
    if cell.value is None:
        return ""
    if cell.data_type == "e":  # an error, such as #DIV/0!
        return np.nan
    if cell.data_type == "n":
        return int(cell.value) if cell.value == int(cell.value) else float(cell.value)
    return cell.value


def _below_titles(source: Source, frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """A sheet whose first rows are titles, from the row on that names its columns."""
    header = ["" if str(name).startswith("Unnamed:") else str(name) for name in frame.columns]
    first = frame.head(200)
    rows = [header, *first.where(first.notna(), "").astype(str).to_numpy().tolist()]
    place = header_place(rows)
    if not place:
        return frame, []
    names = [name or f"Unnamed: {i}" for i, name in enumerate(rows[place])]
    found = frame.iloc[place:].set_axis(names, axis=1).reset_index(drop=True)
    words = (
        f"the first {place} rows ({shown(rows[0])}, …) stand"
        if place > 1
        else f"the first row ({shown(rows[0])}) stands"
    )
    return found, [f"{source.name}: {words} above the header, and no part of the table."]

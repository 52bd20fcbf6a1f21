"""Sheets of Excel files: as pandas reads them, and no larger than what they hold."""

import datetime

import numpy as np
import pandas as pd
import pytest

from inna_tune.tables import TableError, read, sheets
from inna_tune.tables.sheets import read_sheet
from inna_tune.tables.sources import find_source

openpyxl = pytest.importorskip("openpyxl", reason="the extra inna-tune[excel] is not installed")


@pytest.fixture
def book():
    made = openpyxl.Workbook()
    for row in [["size", "kind"], [1.5, "a"], [2, "b"], [3, "c"]]:
        made.active.append(row)
    return made


def path_of(book, tmp_path):
    book.save(tmp_path / "t.xlsx")
    return str(tmp_path / "t.xlsx")


def test_a_sheet_is_what_pandas_reads(book, tmp_path):
    sheet = book.active
    odd = [
        [True, "#DIV/0!", datetime.datetime(2024, 1, 2), None, "=1+1"],
        [None, "#N/A", datetime.time(3, 4), "x", 1e300],
        [0, "y", datetime.timedelta(hours=30), 7, -0.0],
    ]
    for column in ("kind", None, "kind", 2024, "late"):
        sheet.cell(1, sheet.max_column + 1, column)
    for place, row in enumerate([*odd, [None] * 5, *odd], start=2):
        for k, value in enumerate(row, start=3):
            sheet.cell(place, k, value)
    sheet.merge_cells("A3:A4")
    sheet.cell(12, 3).font = openpyxl.styles.Font(bold=True)
    path = path_of(book, tmp_path)
    found, _ = read_sheet(find_source(path)[0])
    expected = pd.read_excel(path, dtype=object, keep_default_na=False, na_values=[""])
    expected = expected.dropna(how="all").reset_index(drop=True).rename(columns=str)
    pd.testing.assert_frame_equal(found, expected)
    for ours, theirs in zip(found.to_numpy().ravel(), expected.to_numpy().ravel(), strict=True):
        assert type(ours) is type(theirs)


@pytest.mark.parametrize(
    ("cell", "said"), [("ZZ50", "row 50 and column 702"), ("B200000", "more than 100,000 rows")]
)
def test_a_cell_far_off_is_told_and_no_memory_taken(cell, said, book, tmp_path, monkeypatch):
    monkeypatch.setattr(sheets, "_MANY_CELLS", 10_000)
    monkeypatch.setattr(sheets, "_MOST_ROWS", 100_000)
    book.active[cell] = "far"
    with pytest.raises(TableError, match=f"t.xlsx: .*{said}"):
        read(path_of(book, tmp_path))


def test_a_sheet_with_gaps_is_read(book, tmp_path, monkeypatch):
    monkeypatch.setattr(sheets, "_MANY_CELLS", 100)
    for row in range(5, 60):
        book.active.cell(row, 3 + row % 20, row)
    frame = read(path_of(book, tmp_path)).frame
    assert len(frame) == 58
    assert np.nansum(frame.select_dtypes("number").to_numpy(dtype=float)) == sum(range(5, 60)) + 1.5 + 2 + 3


def test_an_empty_first_sheet_is_told_with_the_others(book, tmp_path):
    book.create_sheet("cover", 0)
    with pytest.raises(TableError, match=r"t\.xlsx: its first sheet is empty; others are 'Sheet'\."):
        read(path_of(book, tmp_path))

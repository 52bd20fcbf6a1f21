"""What stands above a header, between it and the values, and below them; and how quotes within cells are written."""

import csv
import io

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inna_tune.tables.headers import header_place, is_units
from inna_tune.tables.reading import read
from inna_tune.tables.sources import TableError

TABLE = "name,size,weight\nann,1.5,3\nbob,2.5,4\ncid,3.5,5\ndot,4.5,6\n"


def of_text(tmp_path, text, **more):
    path = tmp_path / "t.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read(str(path), **more)


def plain(tmp_path):
    return of_text(tmp_path, TABLE).frame


ABOVE = {
    "a comment": "# made by hand\n",
    "comments": "# made by hand\n#\n# on a Monday, late\n",
    "a title": "Report of 2024\n",
    "a title as a spreadsheet writes it": "Report of 2024,,\n",
    "a title and an empty line": "Report of 2024\n\n",
    "a title and a row of nothing": "Report of 2024,,\n,,\n",
    "a title of two lines": '"Report\nof 2024",,\n',
    "empty lines, a title, a comment": "\n\nReport\n# 2024\n\n",
}


@pytest.mark.parametrize("above", ABOVE.values(), ids=ABOVE)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_stands_above_a_header_is_no_part_of_the_table_and_that_is_said(above, end, tmp_path):
    table = of_text(tmp_path, (above + TABLE).replace("\n", end))
    pd.testing.assert_frame_equal(table.frame, plain(tmp_path))
    (note,) = table.notes
    assert "above the header, and no part of the table" in note
    assert "t.csv: line" in note


def test_lines_are_told_as_an_editor_counts_them(tmp_path):
    assert "line 3 ('Report') stands" in of_text(tmp_path, "\n\nReport\n\n" + TABLE).notes[0]
    found = of_text(tmp_path, "sep=,\nReport\n# x\n" + TABLE).notes[0]
    assert "lines 2 to 3 (the first is 'Report') stand" in found


def test_titles_above_other_delimiters(tmp_path):
    found = of_text(tmp_path, "Umsatz, nach Monat\n" + TABLE.replace(",", ";"))
    pd.testing.assert_frame_equal(found.frame, plain(tmp_path))


def test_new_rows_are_found_below_a_title_by_their_names(tmp_path):
    fitted = of_text(tmp_path, TABLE).schema.of(["name", "size"])
    found = of_text(tmp_path, "New ones\n# of May\nsize,name\n7.5,eve\n", schema=fitted)
    assert found.frame.to_dict("list") == {"size": [7.5], "name": ["eve"]}
    assert len(found.notes) == 1


@pytest.mark.parametrize(
    "text",
    [
        "#id,name,size\nx,ann,1\ny,bob,2\n",  # a header that begins with the sign of comments
        "first,,\nann,smith,x\nbob,jones,y\n",  # names may be missing
        "text\nfine\nbad\n",
        "a,b\nx,y\nz,w\n",
        "2019,2020\n1,2\n3,4\n",
    ],
)
def test_a_first_line_that_may_be_a_header_is_one(text, tmp_path):
    header = text.split("\n", 1)[0].split(",")
    table = of_text(tmp_path, text)
    assert next(iter(table.frame)) == header[0]
    assert len(table.frame) == 2


def test_what_may_be_a_title_is_named_with_the_remedy(tmp_path):
    with pytest.raises(TableError, match=r"line 1 \('My words'\) is a title or a comment .* delete them"):
        of_text(tmp_path, "My words\nfirst,last\nann,smith\nbob,jones\n")
    (note,) = of_text(tmp_path, "My words,,\nfirst,last,town\nann,smith,x\nbob,jones,y\n").notes
    assert note.endswith(
        "t.csv: 2 of 3 columns have no name in line 1; if that line is a title and not the header, delete it."
    )
    with pytest.raises(TableError, match="lines below are no rows, delete them"):
        of_text(tmp_path, TABLE + "4 rows\n")


@pytest.mark.parametrize("gap", ["", "\n"])
def test_units_below_a_header_are_no_row_and_that_is_said(gap, tmp_path):
    header, rows = TABLE.split("\n", 1)
    table = of_text(tmp_path, f"{header}\n{gap},(cm),(kg)\n{rows}")
    pd.testing.assert_frame_equal(table.frame, plain(tmp_path))
    (note,) = table.notes
    assert f"line {2 + len(gap)} ('(cm), (kg)')" in note
    again = of_text(tmp_path, f"{header}\n{gap},(cm),(kg)\n{rows}", schema=table.schema)
    pd.testing.assert_frame_equal(again.frame, table.frame, check_dtype=False)
    assert again.notes == table.notes


@pytest.mark.parametrize(
    "text",
    [
        "a,b\nNA,NA\n1,2\n3,4\n5,6\n",  # missing, not units
        "a,b\n1 kg,x\n2,y\n3,z\n4,w\n",  # one column of numbers
        "a,b\nx,y\n1,2\n3,4\n",  # too few rows to tell
        "a,b\nx,2\n1,4\n3,6\n5,8\n",
    ],
)
def test_a_first_row_that_may_hold_values_is_a_row(text, tmp_path):
    assert len(of_text(tmp_path, text).frame) == text.count("\n") - 1


def test_a_last_row_that_sums_up_the_others_is_told_of(tmp_path):
    (note,) = of_text(tmp_path, TABLE + "Total:,12,18\n").notes
    assert "t.csv: the last row says 'Total'; if it sums up the others, delete it" in note
    assert of_text(tmp_path, TABLE + "Total,12,18\n" * 2).notes == ()


# ---------------------------------------------------------------------- long lines


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_a_header_of_more_than_a_megabyte_is_read_whole(delimiter, tmp_path):
    names = [f"{k}-{'x' * 60_000}" for k in range(25)]
    rows = [[str(k * r + 0.5) for k in range(25)] for r in range(3)]
    table = of_text(tmp_path, "\n".join(delimiter.join(row) for row in [names, *rows]) + "\n")
    assert list(table.frame.columns) == names
    assert table.frame.to_numpy().tolist() == [[float(cell) for cell in row] for row in rows]


def test_a_name_that_is_none_is_told(tmp_path):
    with pytest.raises(TableError, match="a cell of its first line has more than 131,072 characters"):
        of_text(tmp_path, "a," + "x" * 140_000 + "\n1,2\n3,4\n")


# ---------------------------------------------------------------------- sheets


@pytest.mark.parametrize("above", [["Report of 2024"], ["Report of 2024", None], ["# x", "made by hand"]])
def test_a_sheet_may_have_a_title_too(above, tmp_path):
    openpyxl = pytest.importorskip("openpyxl", reason="the extra inna-tune[excel] is not installed")
    book = openpyxl.Workbook()
    sheet = book.active
    for line in above:
        sheet.append([line])
    for row in [["name", "size", "weight"], ["ann", 1.5, 3], ["bob", 2.5, 4]]:
        sheet.append(row)
    book.save(tmp_path / "t.xlsx")
    table = read(str(tmp_path / "t.xlsx"))
    assert table.frame.to_dict("list") == {"name": ["ann", "bob"], "size": [1.5, 2.5], "weight": [3, 4]}
    assert "above the header" in table.notes[0]


# ---------------------------------------------------------------------- quotes within cells


def written(rows, **dialect):
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC, **dialect).writerows(rows)
    return text.getvalue()


def test_quotes_behind_a_backslash_are_read_and_told_of(tmp_path):
    text = 'id,note\n1,"a \\"b\\" c"\n2,"x, \\"y\\""\n3,"two\nlines \\" here"\n4,plain\n'
    table = of_text(tmp_path, text)
    assert table.frame["note"].tolist() == ['a "b" c', 'x, "y"', 'two\nlines " here', "plain"]
    assert len(table.notes) == 1
    assert 'written \\"' in table.notes[0]
    again = of_text(tmp_path, text, schema=table.schema)
    pd.testing.assert_frame_equal(again.frame, table.frame, check_dtype=False)


def test_backslashes_of_windows_escape_nothing(tmp_path):
    table = of_text(tmp_path, 'path,n\n"C:\\data\\",1\n"D:\\",2\n')
    assert table.frame["path"].tolist() == ["C:\\data\\", "D:\\"]
    assert table.notes == ()


CELLS = st.text(st.sampled_from('ab \\",;\n'), min_size=1, max_size=8).filter(
    lambda s: s.strip() == s and s.strip('"\\ \n') != ""
)


@settings(max_examples=60, deadline=None)
@given(st.lists(CELLS, min_size=2, max_size=6), st.sampled_from(["utf-8", "utf-16"]), st.booleans())
def test_cells_are_read_as_any_writer_wrote_them(tmp_path_factory, cells, encoding, is_doubled):
    """The standard's doubled quotes, or a backslash before quotes and backslashes where some cell cannot be the other."""
    cells = [*cells, 'a "b" c']
    dialect = {"doublequote": True} if is_doubled else {"doublequote": False, "escapechar": "\\"}
    text = written([["note", "n"], *((cell, float(i)) for i, cell in enumerate(cells))], **dialect)
    path = tmp_path_factory.mktemp("t") / "t.csv"
    path.write_bytes(text.encode(encoding))
    assert read(str(path)).frame["note"].tolist() == cells


# ---------------------------------------------------------------------- the two questions alone


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(["", "a", "b", "1", "2.5", "#"]), min_size=1, max_size=4), min_size=1),
)
def test_the_questions_have_answers_for_any_rows(rows):
    place = header_place(rows)
    assert 0 <= place < len(rows)
    assert is_units(rows[place], rows[place + 1 :]) in (True, False)

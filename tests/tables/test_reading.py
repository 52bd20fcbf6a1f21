"""Tables from files: what is read is what a person sees there, at fit and, months later, at predict."""

import bz2
import gzip
import io
import os
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inna_tune import InnaRegressor
from inna_tune.estimators.number_forms import NumberForm
from inna_tune.estimators.schema import TableSchema
from inna_tune.tables import delimited
from inna_tune.tables.predicting import predict_table
from inna_tune.tables.problem import TableError, make_problem
from inna_tune.tables.reading import MissingReaderError, read

FRAME = pd.DataFrame(
    {
        "size": [0.1, -2.5, None, 1e-7, 12345678.9],
        "count": [1, 2, 3, 4, 5],
        "gaps": pd.array([1, None, 0, 1, None], dtype="Int64"),
        "flag": [True, False, True, True, False],
        "code": ["01", "02", "A1", None, "10"],
        "note": ["a,b", 'he said "no"', "two\nlines", "é ü", "x;y"],
    }
)


def write_text(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


WRITERS = {
    "t.csv": lambda f, p: f.to_csv(p, index=False),
    "semicolons.csv": lambda f, p: f.to_csv(p, index=False, sep=";"),
    "bars.txt": lambda f, p: f.to_csv(p, index=False, sep="|"),
    "t.tsv": lambda f, p: f.to_csv(p, index=False, sep="\t"),
    "bom.csv": lambda f, p: f.to_csv(p, index=False, encoding="utf-8-sig"),
    "utf16.csv": lambda f, p: f.to_csv(p, index=False, encoding="utf-16"),
    "crlf.csv": lambda f, p: f.to_csv(p, index=False, lineterminator="\r\n"),
    "quoted.csv": lambda f, p: f.to_csv(p, index=False, quoting=1),
    "t.csv.gz": lambda f, p: p.write_bytes(gzip.compress(f.to_csv(index=False).encode())),
    "t.csv.bz2": lambda f, p: p.write_bytes(bz2.compress(f.to_csv(index=False).encode())),
    "t.csv.zst": lambda f, p: p.write_bytes(
        pa.Codec("zstd").compress(f.to_csv(index=False).encode()).to_pybytes()
    ),
    "t.parquet": lambda f, p: f.to_parquet(p),
    "t.feather": lambda f, p: f.to_feather(p),
    "t.jsonl": lambda f, p: f.to_json(p, orient="records", lines=True, double_precision=15),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_table_that_was_written(name, tmp_path):
    path = tmp_path / name
    WRITERS[name](FRAME, path)
    table = read(path)
    pd.testing.assert_frame_equal(table.frame, FRAME, check_dtype=False)
    assert table.frame["code"].tolist()[:2] == ["01", "02"]
    assert [c.kind for c in table.schema.columns] == ["number", "number", "number", "boolean", "text", "text"]
    assert table.schema["count"].whole
    assert table.notes == ()


def test_an_excel_sheet_is_a_table(tmp_path):
    pytest.importorskip("openpyxl", reason="the extra inna-tune[excel] is not installed")
    frame = FRAME.assign(day=pd.date_range("2020-01-01", periods=5))
    frame.to_excel(tmp_path / "t.xlsx", index=False)
    table = read(str(tmp_path / "t.xlsx"))
    pd.testing.assert_frame_equal(table.frame[list(FRAME)], FRAME, check_dtype=False)
    assert pd.to_datetime(table.frame["day"]).equals(frame["day"])


def test_excel_without_its_reader_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("inna_tune.tables.reading.find_spec", lambda name: None)
    path = write_text(tmp_path / "t.xlsx", b"PK\x03\x04 and more")
    with pytest.raises(MissingReaderError, match=r"pip install 'inna-tune\[excel\]'"):
        read(path)


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.parquet", "t.feather", "t.jsonl"])
def test_a_pipe_is_read_by_what_it_holds(name, tmp_path, monkeypatch):
    path = tmp_path / name
    WRITERS[name](FRAME, path)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(path.read_bytes())))
    pd.testing.assert_frame_equal(read("-").frame, FRAME, check_dtype=False)


@pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="there are no names of open files")
@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "t.jsonl"])
def test_a_file_that_the_shell_has_opened_is_read_by_what_it_holds(name, tmp_path):
    path = tmp_path / name
    WRITERS[name](FRAME, path)
    with path.open("rb") as file:
        pd.testing.assert_frame_equal(read(f"/dev/fd/{file.fileno()}").frame, FRAME, check_dtype=False)


def test_a_named_pipe_is_a_pipe(tmp_path):
    path = tmp_path / "t.csv"
    FRAME.to_csv(path, index=False)
    reading, writing = os.pipe()
    try:
        os.write(writing, path.read_bytes())
        os.close(writing)
        assert len(read(f"/dev/fd/{reading}").frame) == 5  # as a shell's <(cat t.csv) names it
    finally:
        os.close(reading)


# ---------------------------------------------------------------------- what a person meant


def of_text(tmp_path, text, name="t.csv", **more):
    return read(write_text(tmp_path / name, text), **more)


@pytest.mark.parametrize("ends", [",", ",,", ",,,"])
@pytest.mark.parametrize("header", ["y,a,b", "y,a,b,"])
def test_rows_that_end_in_delimiters_shift_nothing(ends, header, tmp_path):
    if header.endswith(",") and ends != ",":
        header += ends[1:]
    table = of_text(tmp_path, f"{header}\n1,2,3{ends}\n0,5,6{ends}\n")
    assert table.frame.to_dict("list") == {"y": [1, 0], "a": [2, 5], "b": [3, 6]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2,\n3,4,5\n", "row 3 has more than the 2 fields"),
        ("a,b\n1,2\n1,2,3\n", "Row #3: Expected 2 columns, got 3"),
        ("a,b\n1,2\n1\n", "Row #3: Expected 2 columns, got 1"),
        ('a,b\n1,2\n3,"4\n5,6\n', "a quote is opened and never closed"),
        ("a,b\n1,\0\n", "NUL"),
        ("a, a\n1,2\n", r"repeats column names: \['a'\]"),
        ("\n\n", "empty table"),
        ("a,b\n", "0 rows"),
        (b"PAR1 and so on", "it is a parquet file"),
        (b"a,b\n\x81,2\n", "neither UTF-8 nor UTF-16"),
    ],
)
def test_what_is_no_table_is_refused_in_one_line(text, message, tmp_path):
    with pytest.raises(TableError, match=message) as caught:
        of_text(tmp_path, text)
    assert "t.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["t.csv.gz", "t.parquet", "t.feather", "t.jsonl", "t.csv.zst"])
def test_a_file_cut_off_is_refused(name, tmp_path):
    path = tmp_path / name
    WRITERS[name](pd.concat([FRAME] * 50), path) if name != "t.feather" else FRAME.to_feather(path)
    path.write_bytes(path.read_bytes()[:-15])
    with pytest.raises(TableError, match="cannot be read"):
        read(str(path))


def test_text_in_windows_1252_is_read_and_said(tmp_path):
    table = of_text(tmp_path, "straße,y\né,1\n".encode("cp1252"))
    assert table.frame.to_dict("list") == {"straße": ["é"], "y": [1]}
    assert any("Windows-1252" in note for note in table.notes)


def test_a_line_that_tells_the_delimiter_is_none_of_the_table(tmp_path):
    table = of_text(tmp_path, "sep=;\na;b,c\n1;2\n")
    assert table.frame.to_dict("list") == {"a": [1], "b,c": [2]}


@pytest.mark.parametrize(
    "text",
    [
        "\n\na,b\n1,x\n2,y\n",
        "\r\n\r\na,b\r\n1,x\r\n2,y\r\n",
        "sep=;\n\na;b\n1;x\n\n2;y\n",
        "a, b\n1, x\n2, y\n",
        'a, b\n1, "x"\n2, "y"\n',
    ],
)
def test_empty_lines_and_blanks_behind_delimiters_are_none_of_the_table(text, tmp_path):
    assert of_text(tmp_path, text).frame.to_dict("list") == {"a": [1, 2], "b": ["x", "y"]}


def test_blanks_of_cells_stay_where_not_all_have_them(tmp_path):
    assert of_text(tmp_path, "a,b\n1, x\n2,y\n").frame["b"].tolist() == [" x", "y"]


def test_an_empty_line_of_one_column_is_a_row(tmp_path):
    """Predictions would otherwise slide up by one."""
    assert of_text(tmp_path, "a\n1\n\n3\n").frame["a"].tolist() == [1, pd.NA, 3]


def test_names_with_blanks_of_a_frame_are_found_in_a_file(tmp_path):
    schema = TableSchema.of_frame(pd.DataFrame({" a ": [1.5], "b": ["x"]}))
    assert list(of_text(tmp_path, " a , b \n1,2\n", schema=schema).frame) == [" a ", "b"]


def test_the_index_of_a_parquet_file_is_no_column_and_that_is_said(tmp_path):
    FRAME.set_index("code").to_parquet(tmp_path / "t.parquet")
    table = read(str(tmp_path / "t.parquet"))
    assert "code" not in table.frame
    assert any("'code'" in note for note in table.notes)
    FRAME.tail(2).to_parquet(tmp_path / "t.parquet")
    assert read(str(tmp_path / "t.parquet")).notes == ()


def test_header_blanks_go_and_nameless_columns_are_called_as_by_pandas(tmp_path):
    assert list(of_text(tmp_path, ",  a , b\n1,2,3\n").frame) == ["Unnamed: 0", "a", "b"]


@pytest.mark.parametrize(
    ("cells", "values", "form"),
    [
        (["1,234.50", "2.5"], [1234.5, 2.5], NumberForm(".", ",")),
        (["1234,50", "2,5"], [1234.5, 2.5], NumberForm(",")),
        (["$1234.50", "$2.5"], [1234.5, 2.5], NumberForm(unit="$")),
        (["12 %", "2.5 %"], [12, 2.5], NumberForm(unit="%")),
        (["1 234", "2"], [1234, 2], NumberForm(".", " ")),
        (["(1.50)", "2"], [-1.5, 2], NumberForm()),
    ],
)
def test_numbers_in_disguise_are_numbers(cells, values, form, tmp_path):
    text = "x,z\n" + "".join(f'"{cell}",a\n' for cell in cells)
    table = of_text(tmp_path, text)
    assert table.frame["x"].tolist() == values
    assert table.schema["x"].form == form


def test_the_decimal_sign_is_that_of_the_table(tmp_path):
    """ "1.234" beside "2,5" is a thousand."""
    table = of_text(tmp_path, "a;b;c\n2,5;1.234;1,234\n3,5;5.678;5,678\n")
    assert table.frame.to_dict("list") == {"a": [2.5, 3.5], "b": [1234, 5678], "c": [1.234, 5.678]}
    table = of_text(tmp_path, 'a,c\n2.5,"1,234"\n3.5,"5,678"\n')
    assert table.frame.to_dict("list") == {"a": [2.5, 3.5], "c": [1234, 5678]}


def test_a_word_for_missing_among_numbers_is_kept_in_the_schema(tmp_path):
    table = of_text(tmp_path, "x,level\n1.5,?\n?,a\n2.5,b\n")
    assert table.frame["x"].isna().tolist() == [False, True, False]
    assert table.schema["x"].missing == ("?",)
    assert table.frame["level"].tolist() == ["?", "a", "b"]


@pytest.mark.parametrize(
    "gap",
    [" ", "  ", "NA ", "n.a.", "#DIV/0!", "(null)", r"\N", "- ", "None", "?"],
    ids=lambda gap: repr(gap),
)
def test_what_stands_for_missing_among_numbers_may_be_frequent_and_padded(gap, tmp_path):
    cells = [gap, "0.5", "1.5", "2.5", "3.5"] * 3
    table = of_text(tmp_path, "x,z\n" + "".join(f"{cell},a\n" for cell in cells))
    assert table.schema["x"].kind == "number"
    assert table.frame["x"].isna().sum() == 3
    assert table.notes == ()
    again = read(str(tmp_path / "t.csv"), schema=table.schema)
    pd.testing.assert_frame_equal(again.frame, table.frame)
    assert again.notes == ()


def test_several_words_for_missing_are_such_among_many_numbers_and_labels_among_few(tmp_path):
    text = "x,few\n" + "".join(f"{i / 2},{i % 3}\n" for i in range(30)) + "-,-\n#DIV/0!,?\n" * 5
    table = of_text(tmp_path, text)
    assert table.frame["x"].isna().sum() == 10
    assert set(table.frame["few"]) == {"0", "1", "2", "-", "?"}


@pytest.mark.parametrize(
    ("cells", "kept"),
    [
        (["NA", "DE", "FR", "ZA"], ("NA",)),  # Namibia
        (["NA", "yes", "no", "no"], ()),
        (["None", "Brick", "Stone", ""], ("None",)),
        (["None", "2020-01-01", "2020-01-02", ""], ()),
    ],
)
def test_words_for_missing_are_levels_where_the_other_levels_say_so(cells, kept, tmp_path):
    table = of_text(tmp_path, "x,z\n" + "".join(f"{cell},a\n" for cell in cells * 3))
    assert table.schema["x"].kept == kept
    assert table.frame["x"].tolist()[0] == (kept[0] if kept else pytest.approx(np.nan, nan_ok=True))
    again = read(str(tmp_path / "t.csv"), schema=table.schema)
    pd.testing.assert_frame_equal(again.frame, table.frame)


def test_a_late_text_makes_text_of_the_whole_column(tmp_path, monkeypatch):
    """Batches before it were taken for numbers."""
    monkeypatch.setattr(delimited, "_BLOCK", 1 << 10)
    rows = [f"{i},{i:03}.50,0{i}" for i in range(1000)]
    table = of_text(tmp_path, "a,b,c\n" + "\n".join([*rows, *["A1,1.5,x"] * 100]) + "\n")
    assert table.frame["a"].tolist() == [*map(str, range(1000)), *["A1"] * 100]
    assert table.frame["b"].tolist()[:2] == [0.5, 1.5]
    assert table.frame["c"].tolist()[:2] == ["00", "01"]


def test_a_cell_may_be_longer_than_a_block(tmp_path, monkeypatch):
    monkeypatch.setattr(delimited, "_BLOCK", 1 << 10)
    table = of_text(tmp_path, "a,b\n1," + "x" * 300_000 + "\n2,y\n")
    assert table.frame["b"].str.len().tolist() == [300_000, 1]


def test_a_long_cell_may_come_late(tmp_path, monkeypatch):
    """Rows were given out before it was met."""
    monkeypatch.setattr(delimited, "_BLOCK", 1 << 10)
    rows = "".join(f"{i},y{i}\n" for i in range(500))
    table = of_text(tmp_path, "a,b\n" + rows + "500," + "x" * 300_000 + "\n501,z\n")
    assert table.frame["a"].tolist() == list(range(502))
    assert table.frame["b"].str.len().tolist()[-2:] == [300_000, 1]
    assert table.frame["b"].tolist()[:500] == [f"y{i}" for i in range(500)]


def test_a_rare_text_among_few_whole_numbers_is_a_label_and_among_many_a_mistake(tmp_path):
    few = of_text(tmp_path, "x,z\n" + "".join(f"{i % 5},a\n" for i in range(99)) + "other,a\n")
    assert few.frame["x"].value_counts()["other"] == 1
    assert few.notes == ()
    many = of_text(tmp_path, "x,z\n" + "".join(f"{i},a\n" for i in range(99)) + "other,a\n")
    assert many.frame["x"].isna().sum() == 1
    assert many.notes == ("Column 'x': 1 value is not a number and counts as missing: 'other' in row 101.",)


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["9007199254740993", "9007199254740992"], [9007199254740993, 9007199254740992]),
        (["12345678901234567890", "12345678901234567891"], ["12345678901234567890", "12345678901234567891"]),
        (["0x1F", "0x20"], ["0x1F", "0x20"]),
        (["inf", "1"], ["inf", "1"]),
        (["1e3", "2"], [1000.0, 2.0]),
        (["TRUE", "FALSE"], ["TRUE", "FALSE"]),
        (["True", "False"], [True, False]),
        (["007", "123"], ["007", "123"]),
    ],
)
def test_cells_are_what_they_say(cells, values, tmp_path):
    table = of_text(tmp_path, "x,z\n" + "".join(f"{cell},a\n" for cell in cells))
    assert table.frame["x"].tolist() == values


# ---------------------------------------------------------------------- new rows


FITTED = "size,code,share,flag,y\n" + "".join(
    f'{i / 7},{c},"{i},5 %",{i % 2 == 0},{i}\n' for i, c in enumerate(["01", "02", "A1", "1", "2.0"] * 8)
)


def test_new_rows_are_read_as_what_the_fitted_table_was(tmp_path):
    schema = of_text(tmp_path, FITTED).schema.of(["size", "code", "share", "flag"])
    alone = of_text(tmp_path, 'code,flag,size,share,more\n01,True,3,"1,5 %",x\n', schema=schema).frame
    assert alone["code"].tolist() == ["01"]
    assert alone["size"].tolist() == [3.0]
    assert alone["share"].tolist() == [1.5]
    assert sorted(alone) == ["code", "flag", "share", "size"]


def test_one_bad_cell_is_missing_and_counted(tmp_path):
    schema = of_text(tmp_path, FITTED).schema.of(["size", "code", "share", "flag"])
    text = (
        'size,code,share,flag\n1,01,"2,5 %",True\nabc,02,"3,5 %",yes\n,A1,2.5,False\n7 kg,A1,"4,5 %",True\n'
    )
    table = of_text(tmp_path, text, schema=schema)
    assert table.frame["size"].isna().tolist() == [False, True, True, True]
    size, share, flag = table.notes
    assert (
        size
        == "Column 'size': 2 values are not a number written as '1234.5' and count as missing: 'abc' in row 3, '7 kg' in row 5."
    )
    assert (
        "'share': 1 value is not a number written as '1234,5 %' and counts as missing: '2.5' in row 4"
        in share
    )
    assert "'flag': 1 value is not true or false and counts as missing: 'yes' in row 3" in flag


def test_a_typed_column_is_spelled_as_the_levels_were():
    levels = pd.DataFrame({"a": ["01", "02", "x"], "b": ["1.0", "2.0", "x"], "c": ["true", "false", "x"]})
    schema = TableSchema.of_frame(levels)
    typed = pd.DataFrame({"a": [1, 2, 7], "b": [1.0, 2.0, 2.5], "c": [True, False, True]})
    found, _ = schema.conform(typed)
    assert found.to_dict("list") == {
        "a": ["01", "02", "7"],
        "b": ["1.0", "2.0", "2.5"],
        "c": ["true", "false", "true"],
    }


COLUMNS = {
    "number": st.floats(-1e6, 1e6) | st.none(),
    "whole": st.integers(-(10**6), 10**6),
    "gaps": st.integers(0, 5) | st.none(),
    "flag": st.booleans(),
    "code": st.sampled_from(["01", "02", "1", "2", "A1", "1.0", None]),
    "word": st.sampled_from(["None", "NA", "red", "blue, green", "é", "x\ny", " x "]),
}
DTYPES = {
    "number": "float64",
    "whole": "int64",
    "gaps": "Int64",
    "flag": "bool",
    "code": "str",
    "word": "str",
}


@st.composite
def tables(draw):
    n = draw(st.integers(20, 40))
    return pd.DataFrame(
        {
            name: pd.Series(draw(st.lists(values, min_size=n, max_size=n)), dtype=object).astype(DTYPES[name])
            for name, values in COLUMNS.items()
        }
    )


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    frame=tables(),
    wrote=st.sampled_from(sorted(WRITERS)),
    name=st.sampled_from(sorted(WRITERS)),
    rows=st.lists(st.integers(0, 19), min_size=1, max_size=20, unique=True),
    from_file=st.booleans(),
)
@pytest.mark.filterwarnings("ignore::inna_tune.estimators.DroppedColumnWarning")
def test_predictions_from_any_file_and_any_rows_are_those_from_the_frame(
    tmp_path, frame, wrote, name, rows, from_file
):
    if "jsonl" in (wrote.split(".")[-1], name.split(".")[-1]):
        frame["number"] = frame["number"].round(6)  # pandas writes 15 digits of JSON's numbers
    if from_file:
        # A model may be fitted on the file: what it holds then is the truth.
        WRITERS[wrote](frame, tmp_path / wrote)
        table = read(str(tmp_path / wrote))
        frame, schema = table.frame, table.schema
    net = InnaRegressor(hidden_layer_sizes=(4,), max_epochs=1, n_members=1, random_state=0)
    net.fit(frame, np.arange(len(frame), dtype=float))
    net.schema_ = schema if from_file else net.schema_
    expected = predict_table(net, frame)["prediction"].to_numpy()
    path = tmp_path / name
    WRITERS[name](frame.iloc[rows].reset_index(drop=True), path)
    found = read(str(path), schema=net.schema_)
    assert found.notes == ()
    np.testing.assert_array_equal(predict_table(net, found.frame)["prediction"], expected[rows])


# ---------------------------------------------------------------------- the target


@pytest.mark.parametrize(
    ("cells", "labels"),
    [
        (["0", "1", ""], [0, 1]),
        (["0.0", "1.0", ""], [0.0, 1.0]),
        (["01", "02", ""], ["01", "02"]),
        (["True", "False", ""], [True, False]),
        (["TRUE", "FALSE", ""], ["TRUE", "FALSE"]),
        (["yes", "no", ""], ["yes", "no"]),
    ],
)
def test_labels_keep_type_and_spelling(cells, labels, tmp_path):
    text = "x,y\n" + "".join(f"{i},{cells[i % 3]}\n" for i in range(30))
    problem = make_problem(of_text(tmp_path, text).frame, "y")
    assert problem.task == "binary"
    assert problem.dropped_rows == 10
    found = problem.y.unique().tolist()
    assert found == labels
    assert [type(a) for a in found] == [type(b) for b in labels]


def test_a_file_without_any_of_the_columns_says_so(tmp_path):
    (tmp_path / "new.csv").write_text("a,b\n1,2\n3,4\n")
    schema = TableSchema.of_frame(pd.DataFrame({"size": [1.0, 2.0], "town": ["Aix", "Bonn"]}))
    with pytest.raises(TableError, match="none of the columns that the model was fitted on"):
        read(str(tmp_path / "new.csv"), schema=schema)


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_what_was_read_can_be_changed(tmp_path, name):
    table = pd.DataFrame(
        {"whole": [1, 2], "part": [0.5, 2.0], "gap": pd.array([1, None], "Int64"), "word": ["a", "b"]}
    )
    path = tmp_path / name
    table.to_csv(path, index=False) if name == "t.csv" else table.to_json(path, orient="records", lines=True)
    frame = read(str(path)).frame
    for column in frame:
        frame.loc[1, column] = frame.loc[0, column]
    assert frame.iloc[0].tolist() == frame.iloc[1].tolist() == [1, 0.5, 1, "a"]

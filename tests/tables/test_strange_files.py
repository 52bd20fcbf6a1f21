"""Files that are no tables, or more than one: a line that says so."""

import bz2
import gzip
import json
import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from inna_tune.space import Prior
from inna_tune.tables import TableError, json_lines, read, sources


@pytest.mark.parametrize("suffix", [".csv.gz", ".csv.bz2", ".jsonl.gz", ".xlsx"])
def test_a_bomb_is_refused_before_memory_is_taken(suffix, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_LARGEST", 100_000)
    path = tmp_path / f"bomb{suffix}"
    line = '{"a": 1}\n' if "jsonl" in suffix else "1,2\n"
    if suffix == ".xlsx":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("xl/workbook.xml", "a" * 5_000_000)
    else:
        text = ("a,b\n" if "csv" in suffix else "") + line * 2_000_000
        path.write_bytes((bz2 if suffix.endswith("bz2") else gzip).compress(text.encode()))
    with pytest.raises(TableError, match="unpacks to over"):
        read(str(path))


def test_a_packed_table_of_any_size_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_LARGEST", 1000)
    table = pd.DataFrame({"a": np.random.default_rng(0).normal(size=5000), "b": ["x", "y"] * 2500})
    table.to_csv(tmp_path / "t.csv.gz", index=False)
    assert len(read(str(tmp_path / "t.csv.gz")).frame) == 5000


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet", ".feather", ".xlsx", ".csv.gz"])
@pytest.mark.parametrize(
    "content",
    [bytes(range(256)) * 20, b"\x7fELF" + b"\0" * 500, b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + b"\xff" * 99],
)
def test_a_file_of_bytes_is_no_table(suffix, content, tmp_path):
    (tmp_path / f"t{suffix}").write_bytes(content)
    with pytest.raises(TableError) as told:
        read(str(tmp_path / f"t{suffix}"))
    assert f"t{suffix}" in str(told.value)


def test_a_table_in_utf_16_is_read_and_a_prior_in_it_told(tmp_path):
    table = pd.DataFrame({"größe": [1.5, 2.5], "name": ["表", "é"]})
    for encoding in ("utf-16", "utf-8-sig"):
        table.to_csv(tmp_path / "t.csv", index=False, encoding=encoding)
        pd.testing.assert_frame_equal(
            read(str(tmp_path / "t.csv")).frame.astype(object), table.astype(object)
        )
    for encoding in ("utf-16-le", "utf-32"):
        table.to_csv(tmp_path / "t.csv", index=False, encoding=encoding)
        with pytest.raises(TableError, match=r"t\.csv"):
            read(str(tmp_path / "t.csv"))
    (tmp_path / "p.json").write_text(json.dumps({"inna_tune_prior": 1}), encoding="utf-16")
    with pytest.raises(ValueError, match="is no prior file"):
        Prior.load(tmp_path / "p.json")


def write(table, path):
    if path.suffix == ".feather":
        pyarrow.feather.write_feather(table, path, compression="uncompressed")
    else:
        pyarrow.parquet.write_table(table, path)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".feather"])
def test_text_that_is_no_utf_8_is_told_with_its_file(suffix, tmp_path):
    path = tmp_path / f"t{suffix}"
    if suffix == ".jsonl":
        path.write_bytes(b'{"a": 1, "b": "good"}\n{"a": 2, "b": "\xffood but dear"}\n')
    else:
        texts = pa.array([b"good", b"\xffood"], pa.binary())
        text = pa.Array.from_buffers(pa.string(), 2, texts.buffers())
        write(pa.table({"a": [1, 2], "b": text}), path)
    with pytest.raises(TableError, match=f"t{suffix} cannot be read as a {suffix[1:]} table"):
        read(str(path))


def test_a_feather_file_whose_texts_lie_beyond_its_end_is_no_table(tmp_path):
    path = tmp_path / "t.feather"
    write(pa.table({"a": [1, 2], "b": pa.array(["good", "bad"])}), path)
    held = np.array([0, 4, 7], dtype=np.int32).tobytes()
    content = path.read_bytes()
    assert content.count(held) == 1
    path.write_bytes(content.replace(held, np.array([0, 4, 2**30], dtype=np.int32).tobytes()))
    with pytest.raises(TableError, match="t.feather cannot be read as a feather table"):
        read(str(path))


def test_columns_of_several_levels_go_by_their_names_in_one(tmp_path):
    names = pd.MultiIndex.from_tuples([("a", "b"), ("a", "c")])
    pd.DataFrame(np.eye(4, 2), columns=names).to_parquet(tmp_path / "t.parquet")
    found = read(str(tmp_path / "t.parquet"))
    assert list(found.frame.columns) == ["('a', 'b')", "('a', 'c')"]
    assert found.frame["('a', 'b')"].sum() == 1


@pytest.mark.parametrize("opened", ["[", '{"a":', '[{"b":', '{"\\\\": "[", "a":'])
@pytest.mark.parametrize("line", [" ", "\n"])
def test_lists_without_an_end_are_no_cells(opened, line, tmp_path):
    closed = "".join("]" if c == "[" else "}" for c in reversed(opened.replace('"[', "")) if c in "[{")
    text = '{"c":' + line + (opened + line) * 3000 + "1" + closed * 3000 + "}\n"
    (tmp_path / "t.jsonl").write_text(text)
    with pytest.raises(TableError, match=r"t\.jsonl holds lists or objects that are nested over 100 deep"):
        read(str(tmp_path / "t.jsonl"))


def test_brackets_in_texts_nest_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(json_lines, "_BLOCK", 1000)
    rows = [
        {"n": i, "t": t}
        for i, t in enumerate(["[" * 300, '\\"[{' * 300, "]" * 300, "\\" * 9 + "[" * 200] * 20)
    ]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read(str(tmp_path / "t.jsonl")).frame["t"].tolist() == [row["t"] for row in rows]


def test_objects_without_names_have_no_columns_and_no_model_is_spoken_of(tmp_path):
    (tmp_path / "t.jsonl").write_text("{}\n{}\n")
    with pytest.raises(TableError, match="is an empty table: it has . rows and 0 columns"):
        read(str(tmp_path / "t.jsonl"))

import datetime
import io
import json

import numpy as np
import pandas as pd
import pytest

from inna_tune.estimators import ColumnSchema, TableEncoder, TableSchema, UnreadableValueWarning
from inna_tune.estimators.number_forms import NumberForm
from inna_tune.estimators.schema import Misfits

N = 24
DAYS = pd.Series(pd.date_range("2020-01-01 06:00", periods=N, freq="31h"))

COLUMNS = {
    "floats": (pd.Series(np.linspace(-1, 1, N) / 3), "number"),
    "integers": (pd.Series(np.arange(N)), "number"),
    "nullable": (pd.Series([1, None] * (N // 2), dtype="Int64"), "number"),
    "arrow": (pd.Series([0.5, None] * (N // 2), dtype="float64[pyarrow]"), "number"),
    "booleans": (pd.Series([True, False] * (N // 2)), "boolean"),
    "boolean objects": (pd.Series([True, None, False] * (N // 3), dtype=object), "boolean"),
    "text": (pd.Series(["a", "None", "NA", None] * (N // 4), dtype="str"), "text"),
    "text objects": (pd.Series(["a", "01", None] * (N // 3), dtype=object), "text"),
    "levels": (pd.Series(["low", "high", None] * (N // 3), dtype="category"), "text"),
    "numbered levels": (pd.Series([1, 2, 3] * (N // 3), dtype="category"), "mixed"),
    "mixed": (pd.Series([1, "K", 2.5] * (N // 3), dtype=object), "mixed"),
    "dates": (DAYS, "date"),
    "zoned": (DAYS.dt.tz_localize("Europe/Paris"), "date"),
    "durations": (DAYS - DAYS[0], "duration"),
    "times": (DAYS.dt.time, "time"),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_a_file_is_read_as_the_frame_that_was_fitted(name):
    column, kind = COLUMNS[name]
    frame = pd.DataFrame({name: column})
    schema = TableSchema.of_frame(frame)
    assert schema[name].kind == kind
    encoder = TableEncoder().fit(frame)
    text = pd.read_csv(io.StringIO(frame.to_csv(index=False)), dtype=str, keep_default_na=False)
    found, misfits = schema.conform(text)
    assert misfits.sentences() == []
    np.testing.assert_array_equal(encoder.transform(found), encoder.transform(frame))
    alone, _ = schema.conform(text.iloc[[3]])
    np.testing.assert_array_equal(encoder.transform(alone), encoder.transform(frame)[[3]])


@pytest.mark.parametrize("name", COLUMNS)
def test_what_has_its_type_already_stays(name):
    frame = pd.DataFrame({name: COLUMNS[name][0]})
    found, misfits = TableSchema.of_frame(frame).conform(frame)
    encoder = TableEncoder().fit(frame)
    np.testing.assert_array_equal(encoder.transform(found), encoder.transform(frame))
    assert misfits.counts == {}


def test_a_schema_goes_through_json():
    schema = TableSchema(
        (
            ColumnSchema("a", "number", whole=True, form=NumberForm(",", ".", "€"), missing=("?",)),
            ColumnSchema("b", "text", kept=("NA",), levels=("NA", "x")),
            *(ColumnSchema(kind, kind) for kind in ("boolean", "date", "duration", "time", "mixed")),
        )
    )
    assert TableSchema.from_plain(json.loads(json.dumps(schema.to_plain()))) == schema


@pytest.mark.parametrize(
    "plain",
    [
        [{"name": "a"}],
        [{"name": "a", "kind": "code"}],
        [{"name": "a", "kind": "number", "form": {"decimal": "x"}}],
        [{"name": "a", "kind": "number", "form": {"colour": "x"}}],
        [{"name": "a", "kind": "text"}, {"name": "a", "kind": "text"}],
        [3],
    ],
)
def test_a_description_that_makes_no_sense_is_refused(plain):
    with pytest.raises((ValueError, TypeError, KeyError, AttributeError)):
        TableSchema.from_plain(plain)


@pytest.mark.parametrize(
    ("kind", "good", "expected"),
    [
        ("number", "1.5", "a number"),
        ("boolean", "TRUE", "true or false"),
        ("duration", "1 days 02:00:00", "a duration"),
        ("time", "10:30:00", "a time of day"),
    ],
)
def test_what_cannot_be_read_is_missing_counted_and_warned_of(kind, good, expected):
    schema = TableSchema((ColumnSchema("x", kind),))
    cells = pd.DataFrame({"x": [good, *["nonsense"] * 5, "", "NA"]})
    found, misfits = schema.conform(cells, first_row=1)
    assert found["x"].notna().tolist() == [True, *[False] * 7]
    assert misfits.counts == {"x": 5}
    with pytest.warns(
        UnreadableValueWarning, match=rf"5 values are not {expected}.*row 3, .*row 5 and others"
    ):
        misfits.warn()


def test_misfits_of_batches_add_up():
    schema = TableSchema((ColumnSchema("x", "number"),))
    found = Misfits()
    for start in (1, 3, 5):
        found.merge(schema.conform(pd.DataFrame({"x": ["a", "b"]}), first_row=start)[1])
    assert found.counts == {"x": 6}
    assert [row for row, _ in found.examples["x"]] == [1, 2, 3]


def test_times_of_day_are_hours():
    schema = TableSchema.of_frame(pd.DataFrame({"t": [datetime.time(10, 30)]}))
    assert schema.conform(pd.DataFrame({"t": ["10:30:00"]}))[0]["t"].tolist() == [10.5]

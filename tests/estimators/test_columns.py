"""Every type that a column may have, in pandas, pyarrow and polars."""

import datetime as dt
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from inna_tune import InnaClassifier, InnaRegressor, InnaSearchCV
from inna_tune.estimators import TableEncoder
from tests.estimators.test_encoder import everything
from tests.estimators.test_estimators import QUICK

NUMBERS = [3, 1, 4, 1, 5, 9, 2, 6]
WORDS = ["a", "b", "a", "c", "b", "a", "c", "a"]
DAYS = [dt.datetime(2020, 1, 9 + i, 3 * (i % 4)) for i in NUMBERS]


def encoded(column, **settings):
    frame = pd.DataFrame({"x": column})
    return TableEncoder(**settings).fit_transform(frame)


def with_gap(values):
    return [*values[:-1], None]


@pytest.mark.parametrize(
    "dtype",
    [
        "float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "uint64", "object",
        "Float64", "Float32", "Int64", "Int8", "UInt16", "Sparse[int]", "Sparse[float]",
        "int64[pyarrow]", "uint8[pyarrow]", "double[pyarrow]", "float[pyarrow]",
    ],
)  # fmt: skip
def test_numbers_of_every_type_are_the_same(dtype):
    np.testing.assert_array_equal(encoded(pd.Series(NUMBERS).astype(dtype)), encoded(NUMBERS))


@pytest.mark.parametrize(
    "dtype", ["object", "Float64", "Float32", "Int64", "Int8", "int64[pyarrow]", "double[pyarrow]"]
)
def test_missing_numbers_of_every_type_are_the_same(dtype):
    expected = encoded([*NUMBERS[:-1], np.nan])
    assert expected.shape == (8, 2)
    np.testing.assert_array_equal(encoded(pd.Series(with_gap(NUMBERS), dtype=object).astype(dtype)), expected)


@pytest.mark.parametrize(
    "values",
    [
        [Decimal(n) for n in NUMBERS],
        pd.array([Decimal(n) for n in NUMBERS], dtype=pd.ArrowDtype(pa.decimal128(10, 2))),
        pd.to_timedelta(NUMBERS, unit="D"),
        pd.Series([dt.timedelta(days=n) for n in NUMBERS], dtype=object),
        pd.Series(pd.to_timedelta(NUMBERS, unit="D")).astype(pd.ArrowDtype(pa.duration("us"))),
        [dt.time(n) for n in NUMBERS],
        pd.Series([dt.time(n) for n in NUMBERS]).astype(pd.ArrowDtype(pa.time64("us"))),
        [float(n) if n % 2 else Decimal(n) for n in NUMBERS],
    ],
)  # fmt: skip
def test_decimals_durations_and_times_are_numbers(values):
    np.testing.assert_allclose(encoded(values), encoded(NUMBERS), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["bool", "boolean", "bool[pyarrow]", "object", "int8"])
def test_booleans_are_numbers(dtype):
    values = [n > 3 for n in NUMBERS]
    np.testing.assert_array_equal(
        encoded(pd.Series(values).astype(dtype)), encoded(np.array(values, dtype=float))
    )
    if dtype != "bool":
        gaps = pd.Series(with_gap(values), dtype=object).astype("object" if dtype == "int8" else dtype)
        assert encoded(gaps).shape == (8, 2)


@pytest.mark.parametrize(
    "dtype",
    [
        "object", "str", "string", "string[python]", "string[pyarrow]", "category",
        pd.ArrowDtype(pa.string()), pd.ArrowDtype(pa.large_string()), pd.ArrowDtype(pa.dictionary(pa.int8(), pa.string())),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("has_gap", [False, True])
def test_strings_of_every_type_are_the_same(dtype, has_gap):
    words = with_gap(WORDS) if has_gap else WORDS
    column = pd.Series(words, dtype=object)
    np.testing.assert_array_equal(encoded(column.astype(dtype)), encoded(column))
    assert encoded(column).shape == (8, 3 + has_gap)


def test_mixed_objects_are_levels():
    values = [1, "a", 2.5, "a", 1, True, dt.date(2020, 1, 1), b"x"]
    frame = pd.DataFrame({"x": pd.Series(values, dtype=object)})
    encoder = TableEncoder().fit(frame)
    assert encoder.plan_[0].kind == "categorical"
    assert set(encoder.plan_[0].levels) == {"1", "a", "2.5", "True", "2020-01-01", "x"}


@pytest.mark.parametrize(
    "column",
    [
        pd.Series(DAYS),
        pd.Series(DAYS).astype("datetime64[s]"),
        pd.Series(DAYS, dtype=object),
        pd.Series(DAYS).astype(pd.ArrowDtype(pa.timestamp("us"))),
        pd.Series(DAYS).dt.tz_localize("Asia/Tokyo"),
        pd.Series(DAYS).dt.tz_localize("Asia/Tokyo").astype(pd.ArrowDtype(pa.timestamp("us", "Asia/Tokyo"))),
        pd.Series([d.isoformat() for d in DAYS]),
        pd.Series([d.strftime("%d.%m.%Y %H:%M") for d in DAYS]),
    ],
)
def test_dates_of_every_type_are_the_same(column):
    # 1970 in Tokyo began nine hours before 1970 in UTC, which the scaling takes out.
    np.testing.assert_allclose(encoded(column), encoded(pd.Series(DAYS)), atol=1e-5)


def test_days_without_a_time_are_dates_too():
    days = pd.Series([d.date() for d in DAYS])
    expected = encoded(pd.to_datetime(days))
    np.testing.assert_allclose(encoded(days), expected)
    np.testing.assert_allclose(encoded(days.astype(pd.ArrowDtype(pa.date32()))), expected)
    np.testing.assert_allclose(encoded(pd.to_datetime(days).dt.to_period("D")), expected)


def test_an_index_of_any_kind_is_ignored():
    frame = everything(100)
    expected = TableEncoder().fit_transform(frame)
    for index in (
        frame.index[::-1],
        pd.Index(["same"] * 100),
        pd.MultiIndex.from_product([range(10), range(10)]),
    ):
        np.testing.assert_array_equal(TableEncoder().fit_transform(frame.set_axis(index)), expected)


def test_columns_may_have_names_of_any_kind():
    frame = pd.DataFrame({0: NUMBERS, 1: WORDS})
    assert list(TableEncoder().fit(frame).get_feature_names_out()) == ["0", "1_a", "1_b", "1_c"]
    mixed = pd.DataFrame({("a", 1): NUMBERS, ("b", 2): WORDS})
    assert len(TableEncoder().fit(mixed).get_feature_names_out()) == 4


# ---------------------------------------------------------------------- other libraries


def test_pyarrow_tables_and_backed_frames_are_what_they_hold():
    frame = everything()
    expected = TableEncoder().fit_transform(frame)
    arrow = pa.Table.from_pandas(frame, preserve_index=False)
    backed = frame.convert_dtypes(dtype_backend="pyarrow").assign(grade=frame["grade"])
    for same in (arrow, backed, frame.convert_dtypes()):
        np.testing.assert_allclose(TableEncoder().fit_transform(same), expected, atol=1e-6)


def test_polars_frames_are_what_they_hold():
    pl = pytest.importorskip("polars")
    frame = everything()
    encoder = TableEncoder().fit(frame)
    theirs = pl.from_pandas(frame)
    np.testing.assert_allclose(TableEncoder().fit_transform(theirs), encoder.transform(frame), atol=1e-6)
    np.testing.assert_allclose(encoder.transform(theirs), encoder.transform(frame), atol=1e-6)
    with pytest.raises(TypeError, match=r"lazy.*X\.collect\(\)"):
        TableEncoder().fit(theirs.lazy())


def test_polars_types():
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame(
        {
            "date": [dt.date(2020, 1, n) for n in NUMBERS],
            "zone": pl.Series(DAYS).dt.replace_time_zone("Europe/Paris"),
            "time": [dt.time(n) for n in NUMBERS],
            "duration": [dt.timedelta(hours=n) for n in NUMBERS],
            "decimal": pl.Series([Decimal(n) for n in NUMBERS], dtype=pl.Decimal(10, 2)),
            "flag": with_gap([n > 3 for n in NUMBERS]),
            "int": with_gap(NUMBERS),
            "category": pl.Series(with_gap(WORDS), dtype=pl.Categorical),
            "enum": pl.Series(WORDS, dtype=pl.Enum(["a", "b", "c"])),
            "word": with_gap(WORDS),
        }
    )
    plans = TableEncoder().fit(frame).plan_
    assert [p.kind for p in plans] == ["date"] * 2 + ["numeric"] * 5 + ["categorical"] * 3
    with pytest.raises(TypeError, match="column 'list' holds"):
        TableEncoder().fit(frame.with_columns(list=pl.Series([[1]] * 8)))


def test_estimators_and_searches_take_polars():
    pl = pytest.importorskip("polars")
    frame = everything(120)
    value, kind = frame["size"].fillna(0), frame["new"].map({True: "yes", False: "no"})
    X, y = pl.from_pandas(frame), pl.from_pandas(value)
    ours, theirs = InnaRegressor(**QUICK).fit(frame, value), InnaRegressor(**QUICK).fit(X, y)
    np.testing.assert_allclose(theirs.predict(X), ours.predict(frame), rtol=1e-4)
    search = InnaSearchCV(InnaClassifier(**QUICK), n_trials=2, cv=2, random_state=0)
    search.fit(X, pl.from_pandas(kind))
    assert set(search.predict(X)) <= {"yes", "no"}

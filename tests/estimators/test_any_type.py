"""What a table means does not depend on the types that hold it, nor a row on the rows that come with it."""

import datetime as dt
import warnings
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inna_tune import InnaClassifier
from inna_tune.estimators import TableEncoder
from inna_tune.estimators.frames import TEXT
from inna_tune.estimators.spelling import shorten, write_level
from tests.estimators.test_encoder import everything

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def objects(kind):
    """A way to write values as a column of objects, None where there is none."""
    return lambda values: pd.Series([None if v is None else kind(v) for v in values], dtype=object)


def typed(dtype):
    return lambda values: objects(lambda v: v)(values).astype(dtype)


def category(write):
    return lambda values: write(values).astype("category")


def alternating(*kinds):
    def write(values):
        return pd.Series(
            [None if v is None else kinds[i % len(kinds)](v) for i, v in enumerate(values)], dtype=object
        )

    return write


NUMBERS = {
    **{dtype: typed(dtype) for dtype in ("float64", "float32", "Int64", "Int16", "Float64", "Float32")},
    **{dtype: typed(dtype) for dtype in ("int64[pyarrow]", "double[pyarrow]", "Sparse[float]")},
    "arrow decimal": lambda v: objects(Decimal)(v).astype(pd.ArrowDtype(pa.decimal128(10, 2))),
    "ints": objects(int),
    "floats": objects(float),
    "decimals": objects(lambda v: Decimal(f"{v}.00")),
    "numpy": alternating(np.int8, np.float32, np.int64),
    "mixed": alternating(int, float, Decimal),
}
TEXTS = {
    "text": lambda v: objects(str)(v).astype(TEXT),
    "text of floats": lambda v: objects(lambda n: str(float(n)))(v).astype(TEXT),
    "text among numbers": alternating(str, int, float),
    "bytes": objects(lambda n: str(n).encode()),
}
CATEGORIES = {
    f"category of {name}": category(NUMBERS[name])
    for name in ("float64", "Int64", "ints", "floats", "double[pyarrow]", "numpy")
} | {f"category of {name}": category(write) for name, write in TEXTS.items()}
WHOLE = {
    "int64": typed("int64"),
    "int8": typed("int8"),
    "uint8": typed("uint8"),
    "Sparse[int]": typed("Sparse[int]"),
}


def encoded(fitted, given):
    encoder = TableEncoder().fit(pd.DataFrame({"x": fitted}))
    return encoder.transform(pd.DataFrame({"x": given}))


@settings(max_examples=40, deadline=None)
@given(st.data(), st.lists(st.integers(0, 9) | st.none(), min_size=12, max_size=20))
def test_numbers_may_come_in_any_type(data, values):
    ways = NUMBERS | (WHOLE if None not in values else {})
    fitted = data.draw(st.sampled_from(sorted(ways)))
    given = data.draw(st.sampled_from(sorted(ways | TEXTS | CATEGORIES)))
    expected = encoded(ways["float64"](values), ways["float64"](values))
    found = encoded(ways[fitted](values), (ways | TEXTS | CATEGORIES)[given](values))
    np.testing.assert_array_equal(found, expected, err_msg=f"{fitted}, then {given}")


@settings(max_examples=40, deadline=None)
@given(st.data(), st.lists(st.integers(0, 9) | st.none(), min_size=12, max_size=20))
def test_levels_may_come_in_any_type(data, values):
    ways = NUMBERS | TEXTS | CATEGORIES | (WHOLE if None not in values else {})
    fitted = data.draw(st.sampled_from(sorted(CATEGORIES)))
    given = data.draw(st.sampled_from(sorted(ways)))
    expected = encoded(CATEGORIES["category of text"](values), CATEGORIES["category of text"](values))
    found = encoded(CATEGORIES[fitted](values), ways[given](values))
    np.testing.assert_array_equal(found, expected, err_msg=f"{fitted}, then {given}")


@settings(max_examples=15, deadline=None)
@given(st.data(), st.lists(st.booleans() | st.none(), min_size=12, max_size=20))
def test_truth_values_may_come_in_any_type(data, values):
    ways = {
        **{dtype: typed(dtype) for dtype in ("boolean", "bool[pyarrow]", "float64", "Int8")},
        **({"bool": typed("bool"), "int8": typed("int8")} if None not in values else {}),
        "objects": objects(bool),
        "numpy": objects(np.bool_),
    }
    late = ways | {
        "text": objects(str),
        "lower case": objects(lambda v: str(v).lower()),
        "category": category(objects(bool)),
        "category of numbers": category(typed("float64")),
    }
    given = data.draw(st.sampled_from(sorted(late)))
    fitted = data.draw(st.sampled_from(sorted(ways)))
    np.testing.assert_array_equal(
        encoded(ways[fitted](values), late[given](values)),
        encoded(ways["boolean"](values), ways["boolean"](values)),
    )
    for early in ("text", "lower case", "category", "category of numbers"):
        np.testing.assert_array_equal(
            encoded(late[early](values), late[given](values)),
            encoded(late[early](values), late[early](values)),
            err_msg=f"{early}, then {given}",
        )


def moments(write):
    return lambda days: objects(lambda n: write(dt.datetime(2019, 12, 25) + dt.timedelta(days=n)))(days)


DATES = {
    **{
        f"[{unit}]": lambda v, u=unit: moments(pd.Timestamp)(v).astype(f"datetime64[{u}]")
        for unit in ("s", "ms", "us", "ns")
    },
    "dates": moments(lambda d: d.date()),
    "datetimes": moments(lambda d: d),
    "timestamps": moments(pd.Timestamp),
    "numpy": moments(np.datetime64),
    "all kinds": lambda v: alternating(
        pd.Timestamp, dt.datetime.date, np.datetime64, lambda d: pd.Period(d, "D")
    )(moments(lambda d: d)(v).astype(object).where(lambda d: d.notna(), None)),
    "periods": moments(lambda d: pd.Period(d, "D")),
    "Period[D]": lambda v: moments(lambda d: pd.Period(d, "D"))(v).astype("period[D]"),
    "arrow": lambda v: moments(pd.Timestamp)(v).astype(pd.ArrowDtype(pa.timestamp("us"))),
    "arrow days": lambda v: moments(lambda d: d.date())(v).astype(pd.ArrowDtype(pa.date32())),
}
DATE_TEXTS = {
    "ISO": moments(lambda d: d.strftime("%Y-%m-%d")),
    "ISO with time": moments(lambda d: d.isoformat()),
    "text among dates": lambda v: pd.Series(
        [
            moments(lambda d: d.date())([n])[0] if i % 2 else DATE_TEXTS["ISO"]([n])[0]
            for i, n in enumerate(v)
        ],
        dtype=object,
    ),
    "category": category(moments(pd.Timestamp)),
    "category of text": category(moments(lambda d: d.strftime("%Y-%m-%d"))),
}


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([*sorted(DATES), "ISO"]),
    st.sampled_from(sorted(DATES | DATE_TEXTS)),
    st.lists(st.integers(0, 400) | st.none(), min_size=12, max_size=20),
)
def test_dates_may_come_in_any_type(fitted, given, days):
    ways = DATES | DATE_TEXTS
    expected = encoded(DATES["[us]"](days), DATES["[us]"](days))
    np.testing.assert_array_equal(encoded(ways[fitted](days), ways[given](days)), expected)


WORDS = {
    **{dtype: typed(dtype) for dtype in ("object", "string", "category", "string[pyarrow]")},
    "str": typed(TEXT),
    "arrow": typed(pd.ArrowDtype(pa.string())),
    "dictionary": typed(pd.ArrowDtype(pa.dictionary(pa.int8(), pa.string()))),
    "bytes": objects(str.encode),
    "numpy": objects(np.str_),
}


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(sorted(WORDS)),
    st.sampled_from(sorted(WORDS)),
    st.lists(st.sampled_from(["a", "b", "c", "01", "1.10", "ä"]) | st.none(), min_size=12, max_size=20),
)
def test_words_may_come_in_any_type(fitted, given, words):
    np.testing.assert_array_equal(
        encoded(WORDS[fitted](words), WORDS[given](words)),
        encoded(WORDS["object"](words), WORDS["object"](words)),
    )


# ---------------------------------------------------------------------- levels as texts


@given(st.floats(width=32, allow_nan=False))
def test_a_float_is_one_level_in_single_and_double_precision(value):
    single = np.float32(value)
    texts = {write_level(v) for v in (single, float(single), np.float64(single), str(float(single)))}
    assert len(texts) == 1
    if not float(single).is_integer():
        assert np.float32(texts.pop()) == single


@given(st.integers(-(10**25), 10**25))
def test_a_whole_number_is_one_level_as_what_ever_it_is_written(value):
    assert write_level(value) == write_level(Decimal(value)) == write_level(str(value)) == str(value)
    if int(float(value)) == value:
        assert write_level(float(value)) == write_level(str(float(value))) == str(value)


@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_different_floats_are_different_levels(one, other):
    with np.errstate(over="ignore"):
        same = np.float32(one) == np.float32(other)
    if not same:
        assert write_level(one) != write_level(other)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=4))
def test_decimals_are_the_floats_they_print_as(value):
    if Decimal(repr(float(value))) == value:
        assert write_level(value) == write_level(float(value)) == write_level(str(float(value)))


@pytest.mark.parametrize(
    "text", ["01", "1.10", "1e5", "+1", " 1", "1.", "1_0", "True", "nan", "1.0.0", "٣.٠"]
)
def test_what_python_would_not_write_is_a_text_of_its_own(text):
    assert write_level(text) == text


def test_very_long_levels_are_told_apart_by_their_digest():
    texts = ["x" * 5_000_000, "x" * 5_000_000 + "y"]
    assert max(map(len, map(shorten, texts))) < 200
    encoder = TableEncoder(text="never").fit(pd.DataFrame({"k": texts * 5}))
    assert len(np.unique(encoder.transform(pd.DataFrame({"k": [*texts, texts[0] + "z"]})), axis=0)) == 3
    assert len(encoder.get_feature_names_out()[0]) < 200


def test_a_truth_value_that_is_a_level_beside_its_number_stays_one():
    column = pd.Series([True, 1, "no"] * 5, dtype=object)
    encoder = TableEncoder().fit(pd.DataFrame({"k": column}))
    assert set(encoder.plan_[0].levels) == {"True", "1", "no"}
    assert len(np.unique(encoder.transform(pd.DataFrame({"k": column})), axis=0)) == 3


# ---------------------------------------------------------------------- rows


def odd_rows():
    """A table of every kind of column as it was fitted, and one with all that may go wrong in a cell."""
    fitted = everything(160).reset_index(drop=True)
    n = len(fitted)
    fitted["note"] = [f"a {'red' if i % 3 else 'blue'} house of {i} rooms by the lake" for i in range(n)]
    fitted["price"] = [f"${i:,}.50" for i in range(900, 900 + n)]
    fitted["wrapped"] = pd.Series([[1.0, 2.5, Decimal("3")][i % 3] for i in range(n)], dtype=object)
    fitted["day"] = [f"{1 + i % 28}.{1 + i % 12}.2020" for i in range(n)]
    fitted["never"] = pd.Series(["2020-01-01", "2021-05-05", "2022-02-02", "9999-12-31"] * (n // 4))
    fitted["zone"] = pd.date_range("2020-01-01", periods=n, freq="31h", tz="Europe/Paris")
    fitted["grade"] = pd.Series([[1, "a", 2.0, True][i % 4] for i in range(n)], dtype=object)
    fitted["flag"] = [i % 3 == 0 for i in range(n)]
    given = fitted.astype(object)
    rows = np.random.default_rng(0)
    for name, values in {
        "size": ["large", "3.5", True, Decimal(2), None, dt.timedelta(days=2), dt.date(2020, 1, 1), object()],
        "price": ["12 dollars", 3.5, "$7", "", None, "1.234,50"],
        "wrapped": ["x", "4", pd.NA, np.float32(0.1), 10**200],
        "day": [
            "31.12.2020",
            "12/31/2020",
            dt.date(2020, 5, 5),
            17.5,
            "today",
            "2020-03-03T12:00:00.123456789",
        ],
        "never": [
            dt.date(9999, 12, 31),
            "0001-01-01",
            "1500-06-06",
            np.datetime64("2020-02-02", "ns"),
            "-44-03-15",
        ],
        "zone": [
            "2020-01-01T00:00+05:00",
            "9999-12-31",
            dt.datetime(2020, 6, 1),
            pd.Timestamp("2020", tz="UTC"),
        ],
        "sold": [pd.Timestamp("2020-01-01", tz="Asia/Tokyo"), "2020-01-01Z", "2021-01-01 10:00", 5, pd.NaT],
        "grade": ["1", 1.0, False, b"a", dt.date(2020, 1, 1), "new", np.int8(2)],
        "flag": ["True", "no", 1, 0.0, None],
    }.items():
        places = rows.choice(n, size=2 * len(values), replace=False)
        given[name] = given[name].astype(object)
        for place, value in zip(places, values * 2, strict=True):
            given.at[place, name] = value
    return fitted, given


FITTED, GIVEN = odd_rows()


@pytest.fixture(
    scope="module", params=[{}, {"numeric": "quantile", "embed": False}], ids=["scale", "quantile"]
)
def fitted_encoder(request):
    return TableEncoder(**request.param).fit(FITTED)


def test_the_odd_table_has_every_kind_of_column(fitted_encoder):
    kinds = dict(zip(FITTED, (plan.kind for plan in fitted_encoder.plan_), strict=True))
    price = "blended" if fitted_encoder.numeric == "blend" else "numeric"
    assert [kinds[name] for name in ("price", "wrapped", "flag")] == [price, "numeric", "numeric"]
    assert {kinds[name] for name in ("day", "never", "zone", "sold")} == {"date"}
    assert {"categorical", "text"} <= set(kinds.values())
    assert np.isfinite(fitted_encoder.transform(GIVEN)).all()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, len(GIVEN) - 1), min_size=1, max_size=8))
def test_a_row_does_not_depend_on_the_rows_with_it(fitted_encoder, rows):
    whole = fitted_encoder.transform(GIVEN)
    # Of the types that the values alone would have; a column of nothing but numbers where there were dates is refused.
    inferred = GIVEN.iloc[rows].infer_objects()
    for name in ("day", "never", "zone", "sold"):
        inferred[name] = GIVEN[name].iloc[rows]
    for frame in (GIVEN.iloc[rows], inferred):
        np.testing.assert_array_equal(fitted_encoder.transform(frame), whole[rows])


@settings(max_examples=6, deadline=None)
@given(rows=st.lists(st.integers(0, len(GIVEN) - 1), min_size=1, max_size=8))
def test_predictions_do_not_depend_on_the_rows_with_it(rows):
    model = fitted_model()
    np.testing.assert_array_equal(model.predict_proba(GIVEN.iloc[rows]), model.predict_proba(GIVEN)[rows])


_MODEL = []


def fitted_model():
    if not _MODEL:
        net = InnaClassifier(hidden_layer_sizes=(4,), n_members=1, max_epochs=2, random_state=0)
        _MODEL.append(net.fit(FITTED, np.arange(len(FITTED)) % 3))
    return _MODEL[0]


def test_a_warning_counts_what_does_not_fit():
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        TableEncoder().fit(FITTED).transform(
            GIVEN[["price"]].join(FITTED.drop(columns="price"))[list(FITTED)]
        )
    texts = [str(w.message) for w in said]
    assert any("'price' holds numbers, written like $1,234.5; 6 value(s), such as" in text for text in texts)

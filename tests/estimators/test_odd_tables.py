"""Odd tables: the right answer, or one line that names the column."""

import datetime as dt
import tracemalloc
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inna_tune import InnaClassifier, load
from inna_tune.estimators import DisguisedNumbersWarning, TableEncoder, UnreadableNumberWarning

N = 40


def objects(values):
    return pd.Series(values, dtype=object)


def fit(column, **settings):
    return TableEncoder(**settings).fit(pd.DataFrame({"c": column}))


def encode(encoder, column):
    return encoder.transform(pd.DataFrame({"c": column}))


# ---------------------------------------------------------------------- numbers in disguise

FORMS = {
    "1,234.5": lambda v: f"{v:,.2f}",
    "1.234,5": lambda v: f"{v:,.2f}".translate(str.maketrans(",.", ".,")),
    "1234,5": lambda v: f"{v:.2f}".replace(".", ","),
    "1 234,5": lambda v: f"{v:,.2f}".replace(",", " ").replace(".", ","),
    "$1234.5": lambda v: f"-${-v:.2f}" if v < 0 else f"${v:.2f}",
    "€1.234,5": lambda v: f"{v:,.2f} €".translate(str.maketrans(",.", ".,")),
    "1234.5 %": lambda v: f"{v:.2f} %",
    "1234.5": lambda v: f"({-v:.2f})" if v < 0 else f"{v:.2f}",
}
AMOUNTS = np.round(np.random.default_rng(0).normal(0, 3000, N), 2)


@pytest.mark.parametrize("words", FORMS)
def test_numbers_in_disguise_are_numbers_and_the_person_is_told(words, tmp_path):
    column = pd.Series([FORMS[words](v) for v in AMOUNTS])
    with pytest.warns(DisguisedNumbersWarning, match=r"1 column\(s\): c \(written like "):
        encoder = fit(column)
    assert encoder.plan_[0].number_form.words == words
    np.testing.assert_array_equal(encode(encoder, column), encode(fit(AMOUNTS), AMOUNTS))
    np.testing.assert_array_equal(encode(encoder, AMOUNTS), encode(encoder, column))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = InnaClassifier(hidden_layer_sizes=(4,), n_members=1, max_epochs=2, random_state=0)
        model.fit(pd.DataFrame({"c": column}), AMOUNTS > 0).save(tmp_path / "m.inna")
    again = load(tmp_path / "m.inna")
    np.testing.assert_array_equal(
        again.predict_proba(pd.DataFrame({"c": column[:3]})),
        model.predict_proba(pd.DataFrame({"c": AMOUNTS[:3]})),
    )


def test_what_is_no_number_of_the_form_is_missing_and_counted():
    column = pd.Series([FORMS["1234,5"](v) for v in AMOUNTS[:-1]] + ["none"])
    with pytest.warns(DisguisedNumbersWarning):
        encoder = fit(column)
    with pytest.warns(
        UnreadableNumberWarning, match=r"'c' .*like 1234,5; 2 value\(s\), such as 'soon', are none"
    ):
        found = encode(encoder, ["soon", None, "12,5", "1.234,5"])
    np.testing.assert_array_equal(found[[0, 1, 3]], encode(encoder, objects([None] * 3)))
    assert found[2, 0] != found[1, 0]


@pytest.mark.parametrize(
    "values",
    [
        ["01", "02", "10"],
        ["1", "2", "3"],
        ["1.0", "2.0", "3.0"],
        ["10115", "20095", "80331"],
        ["1", "2", "K"],
        ["a 1", "b 2", "c 3"],
        ["1.0.2", "1.1.0", "2.0.0"],
        ["12%", "0.12", "7"],
    ],
)
def test_codes_stay_levels(values):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fit(pd.Series(values * 5)).plan_[0].kind == "categorical"
    assert fit(pd.Series(values * 5).astype("category")).plan_[0].kind == "categorical"


def test_categories_that_look_like_numbers_stay_levels():
    assert fit(pd.Categorical(["$1.50", "$2.50"] * 5)).plan_[0].kind == "categorical"


def test_whole_numbers_with_a_few_words_are_what_came_of_a_file():
    column = pd.Series([str(i) for i in range(99)] + ["unknown"])
    with pytest.warns(DisguisedNumbersWarning):
        assert fit(column).plan_[0].kind == "blended"
    with pytest.warns(DisguisedNumbersWarning):
        assert fit(objects([*range(99), "unknown"])).plan_[0].kind == "blended"


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(sorted(FORMS)),
    st.lists(
        st.sampled_from(["", "none", "12,5", "3.5", "$4", "5 %", "(6)", "1,234.50", "x" * 100]), min_size=1
    ),
    st.data(),
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_number_in_disguise_is_read_alone_as_among_others(words, values, data):
    encoder = fit(pd.Series([FORMS[words](v) for v in AMOUNTS]))
    rows = data.draw(st.lists(st.integers(0, len(values) - 1), min_size=1))
    whole = encode(encoder, pd.Series(values))
    np.testing.assert_array_equal(encode(encoder, pd.Series(values).iloc[rows]), whole[rows])


# ---------------------------------------------------------------------- what is refused, and what is not


def column_of(value):
    return objects([value] + ["a", "b"] * 10)


@pytest.mark.parametrize(
    "value", [[1], (1,), {"a": 1}, {1}, frozenset([1]), np.ones(2), pd.Series([1]), pd.Index([1])], ids=repr
)
@pytest.mark.parametrize("fitted", [["a", "b"], [1.0, 2.0], list(pd.date_range("2020", periods=2))], ids=repr)
def test_containers_are_refused_by_name_at_fit_and_predict(value, fitted):
    column = objects([value, None, None])
    with pytest.raises(TypeError, match="column 'c' holds"):
        fit(column)
    with pytest.raises(TypeError, match="column 'c' holds"):
        encode(fit(fitted), column)


@pytest.mark.parametrize(
    "column", [[1j, 2.0], objects([1j, 2j]), column_of(1j)], ids=["dtype", "objects", "mixed"]
)
def test_complex_numbers_are_refused_by_name_at_fit_and_predict(column):
    with pytest.raises(ValueError, match="Complex data not supported: column 'c'"):
        fit(column)
    for fitted in (["a", "b"], [1.0, 2.0], pd.date_range("2020", periods=2)):
        with pytest.raises(ValueError, match="Complex data not supported: column 'c'"):
            encode(fit(fitted), column)


@pytest.mark.parametrize("huge", [np.inf, -np.inf, 10**400, -(10**400), np.float32("inf")])
def test_infinities_of_every_type_are_refused_by_name(huge):
    column = objects([huge, *range(20)])
    with pytest.raises(ValueError, match="infinity.*'c'"):
        fit(column)
    with pytest.raises(ValueError, match="infinity.*'c'"):
        encode(fit(range(20)), column)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "column",
    [
        pd.arrays.SparseArray([0, 1] * 10),
        pd.arrays.SparseArray([False, True] * 10),
        pd.arrays.SparseArray([np.nan, 1.0, 2.0, 3.0] * 5),
        objects([b"a", b"\xff"] * 10),
        objects([bytearray(b"a"), b"b"] * 10),
        objects([dt.timedelta.max, dt.timedelta.min, dt.timedelta(0), dt.timedelta(1)] * 5),
        pd.Series(pd.to_timedelta(range(20), unit="D")).astype("timedelta64[s]"),
        pd.arrays.IntervalArray.from_breaks(range(21)),
        objects(["a\0b", "\ud800", "", "😀"] * 5),
        np.arange(20, dtype=np.longdouble),
        np.array([2**64 - 1, *range(19)], dtype=np.uint64),
        objects([np.datetime64("2020"), np.datetime64("2021-05"), np.datetime64("1500-01-01", "s")] * 7)[:20],
        np.full(20, np.nan),
        objects([None] * 20),
        pd.array([pd.NA] * 20, dtype="Int64"),
        ["same"] * 20,
    ],
    ids=lambda c: f"{getattr(c, 'dtype', 'list')}",
)
def test_odd_columns_are_fitted_saved_and_predicted(column, tmp_path):
    frame = pd.DataFrame({"z": np.arange(20.0), "c": column})
    model = InnaClassifier(hidden_layer_sizes=(4,), n_members=1, max_epochs=2, random_state=0).fit(
        frame, np.arange(20) % 2
    )
    model.save(tmp_path / "m.inna")
    found = model.predict_proba(frame)
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(load(tmp_path / "m.inna").predict_proba(frame.iloc[[3]]), found[[3]])


def test_durations_beyond_what_pandas_holds_are_numbers():
    longest = objects([dt.timedelta.max, dt.timedelta(1), dt.timedelta(2), dt.timedelta(3)])
    encoder = fit(longest)
    np.testing.assert_array_equal(
        encode(encoder, [dt.timedelta.max.days + 1.0, 1, 2, 3]), encode(encoder, longest)
    )


@pytest.mark.parametrize(
    "columns",
    [
        range(3),
        [2019, 2020, 2021],
        pd.MultiIndex.from_tuples([("a", "x"), ("a", "y"), ("b", "x")]),
        pd.date_range("2020", periods=3),
    ],
)
def test_columns_with_names_that_are_no_text_keep_their_order(columns):
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(20, 3)), columns=columns)
    encoder = TableEncoder().fit(frame)
    np.testing.assert_array_equal(encoder.transform(frame), encoder.transform(frame.to_numpy()))
    with pytest.raises(ValueError, match="in another order.*Put them in that order"):
        encoder.transform(frame.iloc[:, ::-1])


# ---------------------------------------------------------------------- size


@pytest.mark.parametrize("shape", [(60_000, 20), (500, 3_000)])
@pytest.mark.parametrize("dtype", ["float64", "mixed"])
def test_encoding_takes_little_memory_beside_the_encoded_table(shape, dtype):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=shape))
    if dtype == "mixed":
        frame = frame.iloc[:, :200]
        for i in range(0, frame.shape[1], 10):
            frame[i] = rng.choice(["a", "b", "c"], shape[0])
            frame[i + 1] = pd.Timestamp("2020-01-01") + pd.to_timedelta(
                rng.integers(0, 10**4, shape[0]), unit="h"
            )
            frame[i + 2] = frame[i + 2].where(frame[i + 2] > -1)
    encoder = TableEncoder().fit(frame)
    tracemalloc.start()
    try:
        encoded = encoder.encode(frame, np.float32)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Blocks of half a million numbers take some megabytes, however small the table is.
    assert peak <= 2.5 * encoded.nbytes + 16e6


def test_a_wide_encoder_comes_back_from_plain_data():
    wide = pd.DataFrame(np.random.default_rng(0).normal(size=(30, 2_000)))
    encoder = TableEncoder(numeric="quantile").fit(wide)
    again = TableEncoder.from_plain(*encoder.to_plain())
    np.testing.assert_array_equal(again.encode(wide, np.float32), encoder.encode(wide, np.float32))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_cells_of_megabytes_and_columns_of_many_levels():
    rng = np.random.default_rng(0)
    words = ["red", "blue", "house", "garden", "lake"]
    cells = [
        " ".join(rng.choice(words, 5)) + f" {i} " + "word " * (400_000 if i < 5 else 1) for i in range(80)
    ]
    encoder = TableEncoder(text=["c"]).fit(pd.DataFrame({"c": cells}))
    assert encoder.plan_[0].kind == "text"
    assert np.isfinite(encoder.transform(pd.DataFrame({"c": cells[:6]}))).all()
    many = pd.DataFrame({"k": pd.Series(np.arange(100_000) % 50_000).map("k{}".format)})
    assert TableEncoder().fit(many).categories_ == (4096,)

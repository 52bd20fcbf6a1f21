import json
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.estimator_checks import parametrize_with_checks

from inna_tune import InnaRegressor
from inna_tune.estimators import DroppedColumnWarning, TableEncoder
from tests.estimators.fixtures.make import table
from tests.warm import Program


@pytest.fixture
def frame():
    return pd.DataFrame(
        {
            "age": [20.0, 30.0, np.nan, 50.0, 60.0, 40.0],
            "job": ["clerk", "smith", None, "clerk", "clerk", "smith"],
            "rooms": pd.array([1, 2, None, 4, 5, 3], dtype="Int64"),
            "married": [True, False, True, True, False, False],
            "town": pd.Categorical(["A", "B", "A", "B", "A", "B"]),
            "shift": pd.to_timedelta([1, 2, 3, None, 5, 6], unit="D"),
        }
    )


def everything(n=400, seed=0):
    """A table in which every section has outputs, and some of them are missing in places."""
    rng = np.random.default_rng(seed)
    frame = table(n)
    frame["code"] = [f"k{i:03}" for i in rng.integers(0, 97, n)]
    for name in ("note", "seen", "code", "town"):
        frame[name] = frame[name].where(rng.random(n) > 0.1)
    frame["gain"] = np.where(rng.random(n) < 0.8, 0.0, rng.lognormal(5.0, 2.0, n).round())
    frame["loss"] = frame["gain"].where(rng.random(n) > 0.05)
    return frame.drop(columns="same")


def fit(frame, **settings):
    return TableEncoder(**settings).fit(frame)


def outputs(encoder, frame):
    """Encoded columns by name."""
    return dict(zip(encoder.get_feature_names_out(), encoder.transform(frame).T, strict=True))


def restored(encoder):
    """The encoder after a round trip through JSON and arrays."""
    content, arrays = encoder.to_plain()
    again = TableEncoder.from_plain(json.loads(json.dumps(content)), arrays)
    again.feature_names_in_ = encoder.feature_names_in_
    return again


# ---------------------------------------------------------------------- sections


def test_sections_numbers_then_other_floats_then_codes(frame):
    many = pd.concat([frame] * 100, ignore_index=True).assign(
        key=[f"k{i % 80}" for i in range(600)], day=pd.date_range("2020-01-01", periods=600)
    )
    encoder = fit(many)
    assert list(encoder.get_feature_names_out()) == [
        "age", "rooms", "married", "shift",
        "day", "day_year", "day_month_circular_0", "day_month_circular_1", "day_day_circular_0",
        "day_day_circular_1", "day_weekday_circular_0", "day_weekday_circular_1",
        "age_missing", "job_clerk", "job_smith", "job_missing", "rooms_missing", "town_A", "town_B", "shift_missing",
        "key",
    ]  # fmt: skip
    assert encoder.n_numeric_ == 12
    assert encoder.categories_ == (82,)
    assert encoder.sections == (12, 8, 1)
    codes = encoder.transform(many)[:, -1]
    assert np.array_equal(codes, np.round(codes))
    assert set(codes) == set(range(2, 82))


@pytest.mark.parametrize(
    "settings", [{}, {"numeric": "scale"}, {"numeric": "quantile"}, {"embed": False}, {"text": "never"}]
)
def test_there_are_as_many_names_as_outputs_and_all_are_finite(settings):
    frame = everything()
    encoder = fit(frame, **settings)
    encoded = encoder.transform(frame)
    assert encoded.dtype == np.float32
    assert encoded.shape == (len(frame), len(encoder.get_feature_names_out())) == (400, sum(encoder.sections))
    assert len(set(encoder.get_feature_names_out())) == encoded.shape[1]
    assert np.isfinite(encoded).all()
    numbers, floats, codes = np.split(encoded, np.cumsum(encoder.sections)[:2], axis=1)
    assert (np.abs(numbers) <= 3).all()
    # Other floats are centred.
    np.testing.assert_allclose(floats.mean(axis=0), 0, atol=0.02)
    for column, n in zip(codes.T, encoder.categories_, strict=True):
        assert set(column) <= set(range(n))
    assert encoder.sections[2] == (0 if settings.get("embed") is False else 1)


def test_names_that_would_repeat_get_a_number():
    frame = pd.DataFrame({"job": ["missing", None, "missing", "x", "x", None], "job_x": [1, 2, 3, 4, 5, 6]})
    assert sorted(fit(frame).get_feature_names_out()) == ["job_missing", "job_missing_2", "job_x", "job_x_2"]


def test_pandas_output(frame):
    encoded = TableEncoder().set_output(transform="pandas").fit_transform(frame)
    assert list(encoded.columns[:2]) == ["age", "rooms"]


# ---------------------------------------------------------------------- what every column has


@settings(max_examples=25, deadline=None)
@given(
    values=st.lists(st.floats(-1e12, 1e12) | st.just(float("nan")), min_size=3, max_size=12),
    counts=st.data(),
    numeric=st.sampled_from(["blend", "scale", "quantile"]),
    embed=st.booleans(),
)
def test_weights_are_repetitions(values, counts, numeric, embed):
    weight = np.array(counts.draw(st.lists(st.integers(0, 3), min_size=len(values), max_size=len(values))))
    if weight.sum() < 2:
        return
    table = pd.DataFrame(
        {
            "x": values,
            "nullable": pd.array(np.round(values), dtype="Float64"),
            "k": [f"level {round(v) % 3 if v == v else None}" for v in values],
            "day": [
                pd.Timestamp("2020-01-01") + pd.Timedelta(days=abs(v) % 1000 if v == v else 0) for v in values
            ],
        }
    )
    repeated = table.loc[np.repeat(np.arange(len(values)), weight)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DroppedColumnWarning)
        one = TableEncoder(numeric=numeric, embed=embed, max_levels=1).fit(table, sample_weight=weight)
        other = TableEncoder(numeric=numeric, embed=embed, max_levels=1).fit(repeated)
    assert [p.kind for p in one.plan_] == [p.kind for p in other.plan_]
    np.testing.assert_allclose(one.transform(table), other.transform(table), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("numeric", ["blend", "scale", "quantile"])
def test_weights_are_repetitions_in_text_dates_and_codes(numeric):
    frame = everything()
    weight = np.random.default_rng(3).integers(0, 3, len(frame))
    one = TableEncoder(numeric=numeric).fit(frame, sample_weight=weight)
    other = TableEncoder(numeric=numeric).fit(frame.loc[np.repeat(frame.index, weight)])
    own = {"blended"} if numeric == "blend" else set()
    kinds = {"numeric", "spiked", "categorical", "coded", "date", "text"} | own
    assert {p.kind for p in one.plan_} == {p.kind for p in other.plan_} == kinds
    np.testing.assert_allclose(one.transform(frame), other.transform(frame), rtol=1e-6, atol=1e-6)


def test_fractional_weights_count_as_their_ratios_do():
    frame = everything()[["size", "rooms", "sold"]]
    weight = np.random.default_rng(3).integers(1, 4, len(frame))
    one, other = (TableEncoder().fit(frame, sample_weight=w) for w in (weight, weight * 0.1))
    np.testing.assert_allclose(one.transform(frame), other.transform(frame), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("settings", [{}, {"numeric": "quantile", "embed": False}])
def test_a_row_is_encoded_the_same_whatever_rows_are_with_it(settings):
    frame = everything()
    encoder = fit(frame, **settings)
    whole = encoder.transform(frame)
    np.testing.assert_array_equal(encoder.transform(frame.iloc[[7, 3, 3, 11]]), whole[[7, 3, 3, 11]])
    for i in range(20):
        np.testing.assert_array_equal(encoder.transform(frame.iloc[[i]]), whole[[i]])
    assert encoder.transform(frame.iloc[:1].reset_index(drop=True)).shape == (1, whole.shape[1])


def test_the_order_of_the_rows_does_not_matter():
    frame = everything()
    shuffled = frame.sample(frac=1.0, random_state=1)
    (one, arrays), (other, others) = (fit(f).to_plain() for f in (frame, shuffled))
    assert one == other
    assert all(np.array_equal(arrays[name], others[name]) for name in arrays | others)


def test_zero_weights_are_rows_that_are_not_there(frame):
    weight = np.array([1, 1, 0, 1, 1, 1])
    encoder = TableEncoder().fit(frame, sample_weight=weight)
    assert "age_missing" not in encoder.get_feature_names_out()
    assert encoder.to_plain() == fit(frame.loc[weight > 0]).to_plain()


def test_the_table_is_not_changed():
    frame = everything()
    before = frame.copy(deep=True)
    fit(frame).transform(frame)
    pd.testing.assert_frame_equal(frame, before)


def test_constant_and_empty_columns_are_left_out_with_a_warning(frame):
    table = frame.assign(
        same=7, nothing=np.nan, word="w", none=None, day=pd.Timestamp("2020-01-01"), never=pd.NaT
    )
    with pytest.warns(DroppedColumnWarning, match="6 constant.*: same, nothing, word, none, day, never"):
        encoder = TableEncoder().fit(table)
    assert list(encoder.get_feature_names_out()) == list(fit(frame).get_feature_names_out())
    assert [p.reason for p in encoder.plan_ if p.kind == "dropped"] == [
        "constant", "empty", "constant", "empty", "constant", "empty",
    ]  # fmt: skip


def test_a_table_of_constant_columns_has_no_outputs():
    with pytest.warns(DroppedColumnWarning):
        encoder = fit(pd.DataFrame({"a": [1, 1], "b": ["x", "x"]}))
    assert encoder.transform(pd.DataFrame({"a": [1], "b": ["y"]})).shape == (1, 0)


# ---------------------------------------------------------------------- shapes of tables


@pytest.mark.parametrize("numeric", ["blend", "scale", "quantile"])
def test_wide_tables_are_encoded_column_by_column(numeric):
    rng = np.random.default_rng(0)
    wide = rng.lognormal(size=(300, 1500))
    wide[rng.random(wide.shape) < 0.001] = np.nan
    encoder = TableEncoder(numeric=numeric).fit(wide)
    encoded = encoder.transform(wide)
    assert encoder.n_numeric_ == 1500
    for i in (0, 700, 1499):
        alone = TableEncoder(numeric=numeric).fit(wide[:, [i]]).transform(wide[:, [i]])
        np.testing.assert_array_equal(encoded[:, i], alone[:, 0])


def test_blocks_of_columns_join_without_a_seam(monkeypatch):
    frame = everything()
    whole = TableEncoder().fit_transform(frame)
    monkeypatch.setattr("inna_tune.estimators.encoder._BLOCK", 1)
    np.testing.assert_array_equal(TableEncoder().fit_transform(frame), whole)


@pytest.mark.parametrize("values", [[1.0, 2.0, 4.0], ["a", "b", "a"], [True, False, None]])
def test_one_column_tables(values):
    frame = pd.DataFrame({"x": values})
    assert TableEncoder().fit_transform(frame).shape[1] >= 1


def test_twenty_thousand_levels_stay_small():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"key": np.char.add("k", rng.integers(0, 20_000, 100_000).astype(str))})
    encoder = fit(frame)
    assert encoder.sections == (0, 0, 1)
    assert encoder.categories_ == (4096,)
    assert encoder.transform(frame).nbytes == 400_000
    few = fit(frame, max_codes=100)
    assert few.categories_ == (100,)
    assert len(few.plan_[0].levels) == 98
    assert fit(frame, embed=False).transform(frame).shape[1] <= 65


def test_arrays_and_sparse_matrices_are_the_frames_they_hold():
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(50, 4)) * (rng.random((50, 4)) < 0.4)
    expected = TableEncoder().fit_transform(pd.DataFrame(dense))
    for kind in (np.asarray, scipy.sparse.csr_matrix, scipy.sparse.csr_array, scipy.sparse.coo_matrix, list):
        np.testing.assert_array_equal(TableEncoder().fit_transform(kind(dense)), expected)
    frame = pd.DataFrame.sparse.from_spmatrix(scipy.sparse.csr_matrix(dense))
    np.testing.assert_array_equal(TableEncoder().fit_transform(frame), expected)
    mixed = np.array([[1, "a", None], [2, "b", 3.5], [4, "a", 1.0]], dtype=object)
    assert [p.kind for p in TableEncoder().fit(mixed).plan_] == ["numeric", "categorical", "numeric"]


# ---------------------------------------------------------------------- messages


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([1.0, np.inf, 2.0], "infinity.*'x'.*Replace it"),
        (pd.array([1.0, np.inf, None], dtype="Float64"), "infinity.*'x'"),
        ([1 + 2j, 0j, 1j], "Complex.*'x'.*Split"),
        ([[1], [2], [3]], r"not list: column 'x' holds \[1\].*drop"),
        ([None, "a", {"a": 1}], "not dict: column 'x'"),
    ],
)
def test_columns_that_cannot_be_used_are_named(column, message):
    with pytest.raises((ValueError, TypeError), match=message):
        TableEncoder().fit(pd.DataFrame({"a": [1.0, 2.0, 3.0], "x": column}))


def test_infinities_in_an_array_are_named_by_place():
    X = np.ones((3, 4))
    X[1, 2] = np.inf
    with pytest.raises(ValueError, match="infinity.*column '2'"):
        TableEncoder().fit(X)
    with pytest.raises(ValueError, match="infinity.*column '2'"):
        TableEncoder().fit(np.arange(12.0).reshape(3, 4)).transform(X)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("size", np.inf, "infinity.*'size'"),
        ("sold", 17.5, "'sold' held dates.*to_datetime"),
    ],
)
def test_columns_that_have_changed_are_named(column, values, message):
    frame = everything()
    encoder = fit(frame)
    with pytest.raises(ValueError, match=message):
        encoder.transform(frame.assign(**{column: values}))


def test_duplicate_names_are_named(frame):
    with pytest.raises(ValueError, match=r"duplicate column names: \['age'\]"):
        TableEncoder().fit(pd.concat([frame, frame[["age"]]], axis=1))


def test_a_column_of_text_that_is_not_there_is_named(frame):
    with pytest.raises(ValueError, match=r"names \['nome'\], but the columns are"):
        TableEncoder(text=["age", "nome"]).fit(frame)


# ---------------------------------------------------------------------- plain data


@pytest.mark.parametrize("settings", [{}, {"numeric": "quantile", "embed": False}, {"text": ["town"]}])
def test_a_round_trip_through_plain_data_encodes_the_same(settings):
    frame = everything()
    encoder = fit(frame, **settings)
    again = restored(encoder)
    np.testing.assert_array_equal(again.transform(frame), encoder.transform(frame))
    assert again.get_params() == encoder.get_params()
    assert again.plan_ == encoder.plan_
    assert (again.sections, again.categories_) == (encoder.sections, encoder.categories_)
    assert list(again.get_feature_names_out()) == list(encoder.get_feature_names_out())


@pytest.mark.parametrize(
    ("column", "field", "value"),
    [
        ("size", "scale", 0.0),
        ("size", "center", "1"),
        ("size", "center", float("nan")),
        ("size", "name", 5),
        ("size", "kind", "strange"),
        ("size", "spare", 1),
        ("gain", "spike", "0"),
        ("gain", "share", float("nan")),
        ("town", "levels", [1, 2, 3, 4, 5]),
        ("town", "shares", [0.5]),
        ("code", "shares", [0.5]),
        ("sold", "parts", ["year"]),
        ("sold", "parts", "year"),
        ("note", "vocabulary", ["abc"]),
        ("note", "vocabulary", None),
        ("note", "scale", -1.0),
    ],
)
def test_plain_data_that_make_no_sense_are_refused(column, field, value):
    frame = everything()
    content, arrays = fit(frame).to_plain()
    content["columns"][list(frame).index(column)][field] = value
    with pytest.raises((ValueError, KeyError, TypeError)):
        TableEncoder.from_plain(content, arrays)


def test_arrays_that_make_no_sense_are_refused():
    content, arrays = fit(everything(), numeric="quantile").to_plain()
    assert len(arrays) > 5
    for name, array in arrays.items():
        for changed in (array[:1], array[..., :1], array * np.nan, array.astype(int).astype(str)):
            if changed.shape == array.shape or "centers" not in name:
                with pytest.raises(ValueError, match="column"):
                    TableEncoder.from_plain(content, arrays | {name: changed})
        with pytest.raises((ValueError, TypeError)):
            TableEncoder.from_plain(content, {n: a for n, a in arrays.items() if n != name})


def test_skrub_is_loaded_only_for_text():
    code = """
import sys, pandas as pd
from inna_tune import InnaRegressor
from inna_tune.estimators import TableEncoder
frame = pd.DataFrame({"x": [1.0, 2.0, None], "k": ["a", "b b", "a"], "d": pd.Categorical(["a", "b", "a"])})
TableEncoder().fit_transform(frame)
TableEncoder().fit_transform(frame.assign(t=pd.date_range("2020", periods=3), s=["2020-01-01"] * 3))
print("skrub" in sys.modules)
words = [f"word {i} of a text" for i in range(100)]
TableEncoder(text=["w"]).fit_transform(pd.DataFrame({"w": words}))
print("skrub" in sys.modules)
"""
    with Program(code) as program:
        printed, said = program.communicate()
    assert program.returncode == 0, said
    assert printed.split() == ["False", "True"]


@pytest.mark.filterwarnings("ignore::inna_tune.estimators.DroppedColumnWarning")
@parametrize_with_checks([TableEncoder(), TableEncoder(numeric="quantile")])
def test_scikit_learn_s_checks_pass(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    ("numeric", "expected"), [("blend", (64, 0.4)), ("scale", (48, 0.0)), ("quantile", (48, 0.0))]
)
def test_how_numbers_are_scaled_says_through_which_pieces_they_go(numeric, expected):
    table = pd.DataFrame({"x": np.arange(100.0), "y": np.arange(100) % 7})
    settings = {"hidden_layer_sizes": (4,), "max_epochs": 1, "n_members": 1}
    model = InnaRegressor(encoder=TableEncoder(numeric=numeric), **settings).fit(table, table["x"])
    assert (model.net_.n_frequencies, model.net_.evenness) == expected
    waves = InnaRegressor(numeric_embedding="pbld", **settings).fit(table, table["x"])
    assert waves.net_.n_frequencies == 16

import json
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inna_tune.estimators import DroppedColumnWarning, TableEncoder


@pytest.fixture
def frame():
    return pd.DataFrame(
        {
            "age": [20.0, 30.0, np.nan, 50.0, 60.0, 40.0],
            "rooms": pd.array([1, 2, None, 4, 5, 3], dtype="Int64"),
            "married": [True, False, True, True, False, False],
            "job": ["clerk", "smith", None, "clerk", "clerk", "smith"],
            "town": pd.Categorical(["A", "B", "A", "B", "A", "B"]),
            "day": pd.to_datetime(
                ["2020-01-01", "2020-01-03", None, "2020-01-09", "2020-02-01", "2020-01-05"]
            ),
        }
    )


def test_names_of_the_output_columns(frame):
    names = TableEncoder().fit(frame).get_feature_names_out()
    assert list(names) == [
        "age", "age_missing", "rooms", "rooms_missing", "married",
        "job_clerk", "job_smith", "job_missing", "town_A", "town_B", "day", "day_missing",
    ]  # fmt: skip


def test_numbers_are_scaled_robustly_and_clipped_smoothly():
    values = np.random.default_rng(0).normal(5.0, 2.0, 100_000)
    encoder = TableEncoder().fit(pd.DataFrame({"x": values}))
    encoded = encoder.transform(pd.DataFrame({"x": [5.0, 7.0, 1e300, -1e300]}))[:, 0]
    np.testing.assert_allclose(encoded, [0.0, 1 / np.sqrt(1 + 1 / 9), 3.0, -3.0], atol=0.02)


def test_a_category_is_a_centred_indicator(frame):
    encoder = TableEncoder().fit(frame)
    columns = dict(zip(encoder.get_feature_names_out(), encoder.transform(frame).T, strict=True))
    np.testing.assert_allclose(columns["job_clerk"], np.array([1, 0, 0, 1, 1, 0]) - 0.5)
    np.testing.assert_allclose(columns["job_missing"], np.array([0, 0, 1, 0, 0, 0]) - 1 / 6, rtol=1e-6)
    for column in columns.values():
        if set(np.round(column - column.min(), 6)) <= {0.0, 1.0}:
            assert abs(column.mean()) < 1e-6


def test_missing_numbers_are_the_median_with_an_indicator(frame):
    encoded = TableEncoder().fit_transform(frame)
    assert encoded[2, 0] == 0.0
    np.testing.assert_allclose(encoded[:, 1], np.array([0, 0, 1, 0, 0, 0]) - 1 / 6, rtol=1e-6)


def test_rare_and_unseen_levels_share_a_column():
    rng = np.random.default_rng(0)
    jobs = rng.choice(["a", "b", "c"], 2000).astype(object)
    jobs[:3] = ["x", "y", "z"]
    encoder = TableEncoder().fit(pd.DataFrame({"job": jobs, "n": rng.normal(size=2000)}))
    assert set(encoder.get_feature_names_out()) == {"job_a", "job_b", "job_c", "job_other", "n"}
    rare, unseen = encoder.transform(pd.DataFrame({"job": ["x", "never met"], "n": [0.0, 0.0]}))
    np.testing.assert_array_equal(rare, unseen)


def test_unseen_without_rare_levels_is_none_of_the_known(frame):
    encoder = TableEncoder().fit(frame[["job", "town"]])
    unseen = encoder.transform(pd.DataFrame({"job": ["pilot"], "town": ["C"]}))[0]
    np.testing.assert_allclose(unseen, [-3 / 6, -2 / 6, -1 / 6, -0.5, -0.5], rtol=1e-6)


def test_constant_and_empty_columns_are_left_out_with_a_warning(frame):
    table = frame.assign(same=7, nothing=np.nan, word="w")
    with pytest.warns(DroppedColumnWarning, match="same, nothing, word"):
        encoder = TableEncoder().fit(table)
    assert list(encoder.get_feature_names_out()) == list(TableEncoder().fit(frame).get_feature_names_out())


@settings(max_examples=25, deadline=None)
@given(
    values=st.lists(st.floats(-1e12, 1e12) | st.just(float("nan")), min_size=3, max_size=12),
    counts=st.data(),
)
def test_weights_are_repetitions(values, counts):
    weight = np.array(counts.draw(st.lists(st.integers(0, 3), min_size=len(values), max_size=len(values))))
    if weight.sum() < 2:
        return
    table = pd.DataFrame({"x": values, "k": [f"level {round(v) % 3 if v == v else None}" for v in values]})
    repeated = table.loc[np.repeat(np.arange(len(values)), weight)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DroppedColumnWarning)
        one = TableEncoder().fit(table, sample_weight=weight)
        other = TableEncoder().fit(repeated)
    assert [p.kind for p in one.plan_] == [p.kind for p in other.plan_]
    np.testing.assert_allclose(one.transform(table), other.transform(table), rtol=1e-6, atol=1e-6)


def test_json_round_trip_encodes_the_same(frame):
    encoder = TableEncoder().fit(frame)
    again = TableEncoder.from_json(json.loads(json.dumps(encoder.to_json())))
    again.feature_names_in_ = encoder.feature_names_in_
    np.testing.assert_array_equal(again.transform(frame), encoder.transform(frame))


def test_the_order_of_the_rows_does_not_matter(frame):
    shuffled = frame.sample(frac=1.0, random_state=1)
    assert TableEncoder().fit(shuffled).to_json() == TableEncoder().fit(frame).to_json()


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([1.0, np.inf, 2.0], "infinity.*'x'"),
        ([1 + 2j, 0j, 1j], "Complex.*'x'"),
    ],
)
def test_impossible_numbers_are_named(column, message):
    with pytest.raises(ValueError, match=message):
        TableEncoder().fit(pd.DataFrame({"x": column}))


def test_text_where_numbers_were_is_named(frame):
    encoder = TableEncoder().fit(frame)
    with pytest.raises(ValueError, match=r"'age' was numeric"):
        encoder.transform(frame.assign(age="old"))


def test_duplicate_names_are_named(frame):
    with pytest.raises(ValueError, match=r"duplicate column names: \['age'\]"):
        TableEncoder().fit(pd.concat([frame, frame[["age"]]], axis=1))

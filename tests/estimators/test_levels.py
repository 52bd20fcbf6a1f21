import numpy as np
import pandas as pd
import pytest

from inna_tune.estimators import DroppedColumnWarning, TableEncoder
from inna_tune.estimators.levels import MISSING, OTHER


def one_hot(encoder, values):
    frame = pd.DataFrame({"k": values})
    return dict(zip(encoder.get_feature_names_out(), encoder.transform(frame).T, strict=True))


def keys(n_levels=100, n=2000, seed=0):
    return pd.DataFrame({"k": [f"k{i}" for i in np.random.default_rng(seed).integers(0, n_levels, n)]})


# ---------------------------------------------------------------------- one output a level


def test_a_category_is_a_centred_indicator():
    values = ["clerk", "smith", None, "clerk", "clerk", "smith"]
    columns = one_hot(TableEncoder().fit(pd.DataFrame({"k": values})), values)
    assert list(columns) == ["k_clerk", "k_smith", "k_missing"]
    np.testing.assert_allclose(columns["k_clerk"], np.array([1, 0, 0, 1, 1, 0]) - 0.5)
    np.testing.assert_allclose(columns["k_missing"], np.array([0, 0, 1, 0, 0, 0]) - 1 / 6, rtol=1e-6)
    for column in columns.values():
        assert abs(column.mean()) < 1e-6


def test_rare_and_unseen_levels_share_an_output():
    rng = np.random.default_rng(0)
    jobs = rng.choice(["a", "b", "c"], 2000).astype(object)
    jobs[:3] = ["x", "y", "z"]
    encoder = TableEncoder().fit(pd.DataFrame({"job": jobs, "n": rng.normal(size=2000)}))
    names = list(encoder.get_feature_names_out())
    assert (names[0], set(names[1:4]), names[4:]) == ("n", {"job_a", "job_b", "job_c"}, ["job_other"])
    rare, unseen = encoder.transform(pd.DataFrame({"job": ["x", "never met"], "n": [0.0, 0.0]}))
    np.testing.assert_array_equal(rare, unseen)


def test_unseen_without_rare_levels_is_none_of_the_known():
    encoder = TableEncoder().fit(pd.DataFrame({"k": ["a", "a", "a", "b", "b", None]}))
    unseen = encoder.transform(pd.DataFrame({"k": ["c"]}))[0]
    np.testing.assert_allclose(unseen, [-3 / 6, -2 / 6, -1 / 6], rtol=1e-6)
    missing = encoder.transform(pd.DataFrame({"k": [None]}))[0]
    np.testing.assert_allclose(missing, [-3 / 6, -2 / 6, 5 / 6], rtol=1e-6)


@pytest.mark.parametrize("embed", [False, True])
def test_levels_beyond_the_most_frequent_are_rare_or_have_codes(embed):
    frame = keys(20)
    encoder = TableEncoder(max_levels=10, embed=embed).fit(frame)
    if embed:
        assert encoder.sections == (0, 0, 1)
        assert encoder.categories_ == (22,)
    else:
        assert encoder.sections == (0, 11, 0)
        assert encoder.categories_ == ()
        counts = frame["k"].value_counts()
        assert set(encoder.plan_[0].levels) == set(counts.index[:10])


def test_a_column_of_rare_levels_only_is_left_out():
    frame = pd.DataFrame({"id": [f"id{i}" for i in range(1000)], "n": range(1000)})
    with pytest.warns(
        DroppedColumnWarning, match="without a level that occurs often enough to learn from: id"
    ):
        encoder = TableEncoder().fit(frame)
    assert encoder.plan_[0].reason == "rare"
    assert encoder.transform(frame).shape == (1000, 1)


def test_categories_that_no_row_has_are_no_levels():
    values = pd.Categorical(["b", "a", "b"], categories=["z", "b", "a"])
    encoder = TableEncoder().fit(pd.DataFrame({"k": values}))
    assert encoder.plan_[0].levels == ["b", "a"]
    assert encoder.plan_[0].shares[-1] == 0


# ---------------------------------------------------------------------- codes


def test_codes_are_the_levels_by_frequency():
    frame = pd.DataFrame({"k": np.repeat([f"k{i:02}" for i in range(70)], np.arange(75, 5, -1))})
    frame.loc[[0, 9], "k"] = None
    encoder = TableEncoder().fit(frame)
    plan = encoder.plan_[0]
    assert (plan.kind, plan.n_codes, encoder.categories_) == ("coded", 72, (72,))
    np.testing.assert_array_equal(
        encoder.transform(pd.DataFrame({"k": ["k01", "k00", "k69", None, "never met"]}))[:, 0],
        [2, 3, 71, MISSING, OTHER],
    )
    assert sum(plan.shares) == pytest.approx(1)
    assert plan.shares[OTHER] == 0
    assert plan.shares[MISSING] == pytest.approx(2 / len(frame))


@pytest.mark.parametrize("has_missing", [False, True])
def test_missing_and_unseen_codes_differ_whether_met_or_not(has_missing):
    frame = keys()
    if has_missing:
        frame.loc[:9, "k"] = None
    missing, unseen = TableEncoder().fit(frame).transform(pd.DataFrame({"k": [None, "new"]}))[:, 0]
    assert (missing, unseen) == (MISSING, OTHER)


def test_levels_that_occur_once_teach_what_unseen_ones_are_like():
    frame = pd.concat([keys(), pd.DataFrame({"k": ["once", "once too"]})])
    encoder = TableEncoder().fit(frame)
    once, unseen = encoder.transform(pd.DataFrame({"k": ["once", "new"]}))[:, 0]
    assert once == unseen == OTHER
    assert encoder.plan_[0].shares[OTHER] == pytest.approx(2 / len(frame))


def test_codes_are_exact_in_float32():
    frame = pd.DataFrame({"k": np.repeat(np.arange(30_000).astype(str), 2)})
    encoder = TableEncoder(max_codes=2**24).fit(frame)
    codes = encoder.transform(frame)[:, 0]
    assert sorted(codes[::2].astype(int)) == list(range(2, 30_002))


# ---------------------------------------------------------------------- values that come as another type


@pytest.mark.parametrize(
    ("fitted", "given"),
    [
        (["1", "2", "1", "3"], [1, 2, 1, 3]),
        (["1", "2", "1", "3"], [1.0, 2.0, 1.0, 3.0]),
        (["1.5", "2", "1.5", "3"], [1.5, 2.0, 1.5, 3.0]),
        (pd.Categorical([1, 2, 1, 3]), [1, 2, 1, 3]),
        (pd.Categorical(["a", "b", "a"]), ["a", "b", "a"]),
        ([True, "no", True], [True, "no", True]),
        ([1, "a", 1, "a"], ["1", "a", "1", "a"]),
        (["caf\u00e9", "the", "caf\u00e9"], ["cafe\u0301", "the", "cafe\u0301"]),
    ],
)
def test_levels_are_their_texts(fitted, given):
    encoder = TableEncoder().fit(pd.DataFrame({"k": fitted}))
    expected = encoder.transform(pd.DataFrame({"k": fitted}))
    np.testing.assert_array_equal(encoder.transform(pd.DataFrame({"k": given})), expected)
    assert len(np.unique(expected, axis=0)) == len(set(map(str, given)))

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import QuantileTransformer

from inna_tune.estimators import TableEncoder
from inna_tune.estimators.encoder import DisguisedNumbersWarning
from inna_tune.estimators.numbers import Ranked, fit_numbers, normal_scores


def encode(values, new=None, **settings):
    frame = pd.DataFrame({"x": values})
    encoder = TableEncoder(**settings).fit(frame)
    return encoder.transform(frame if new is None else pd.DataFrame({"x": new}))


def test_numbers_are_scaled_robustly_and_clipped_smoothly():
    values = np.random.default_rng(0).normal(5.0, 2.0, 100_000)
    encoded = encode(values, [5.0, 7.0, 1e300, -1e300], numeric="scale")[:, 0]
    np.testing.assert_allclose(encoded, [0.0, 1 / np.sqrt(1 + 1 / 9), 3.0, -3.0], atol=0.02)


def test_missing_numbers_are_the_median_with_an_indicator():
    encoded = encode([20.0, 30.0, np.nan, 50.0, 60.0, 40.0])
    assert encoded[2, 0] == encoded[5, 0] == 0.0
    np.testing.assert_allclose(encoded[:, 1], np.array([0, 0, 1, 0, 0, 0]) - 1 / 6, rtol=1e-6)


def test_missing_numbers_where_none_was_missing_are_the_median():
    np.testing.assert_array_equal(encode([1.0, 2.0, 4.0], [2.0, np.nan]), [[0.0], [0.0]])


def test_a_column_that_is_mostly_one_value_is_scaled_by_its_standard_deviation():
    values = np.r_[np.zeros(90), np.full(10, 5.0)]
    np.testing.assert_allclose(
        encode(values, [5.0])[0, 0], (x := 5.0 / values.std()) / np.sqrt(1 + x * x / 9)
    )


@pytest.mark.parametrize(
    "values", [[-1.7e308, 0, 1.7e308], [5e-324, 1e-323, 0], [1e300, 1e300, 1e-300], [0, 0, 1e200]]
)
@pytest.mark.parametrize("numeric", ["blend", "scale", "quantile"])
def test_extreme_numbers_stay_finite_and_apart(values, numeric):
    encoded = encode(np.array(values, dtype=float), [*values, 1.7e308, -1.7e308], numeric=numeric)
    assert np.isfinite(encoded).all()
    assert len(set(encoded[:3, 0])) == len(set(values))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("numeric", ["blend", "scale", "quantile"])
@pytest.mark.parametrize(
    "values",
    [
        np.arange(500) * 5e-324,
        np.exp(-np.random.default_rng(0).gamma(4, 180, 2000)),
        np.exp(-np.random.default_rng(0).uniform(0, 745, 600)),
        np.r_[np.linspace(-1.7e308, -1.6e308, 200), np.linspace(1.6e308, 1.7e308, 200)],
        np.r_[np.linspace(-1e-300, 1e-300, 200), np.linspace(1e290, 1e300, 150)],
        10.0 ** np.linspace(-320, 308, 700),
    ],
)
def test_many_extreme_numbers_stay_finite_and_in_order(values, numeric):
    new = np.r_[np.sort(values), 1.5e308, 1.7e308]
    encoded = encode(values, new, numeric=numeric)[:, 0]
    assert (np.abs(encoded) <= 3.0).all()
    assert (np.diff(encoded[:-2]) >= 0).all()
    assert len(np.unique(encoded)) > 2


# ---------------------------------------------------------------------- quantiles of weighted rows

numbers = st.lists(st.floats(-1e6, 1e6) | st.just(float("nan")), min_size=1, max_size=20)


@settings(max_examples=100, deadline=None)
@given(values=numbers, data=st.data(), shares=st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_quantiles_are_numpy_s_inverted_cdf(values, data, shares):
    weight = data.draw(st.none() | st.lists(st.integers(1, 4), min_size=len(values), max_size=len(values)))
    w = None if weight is None else np.array(weight, dtype=float)
    block = np.array([values])
    found = Ranked(block, w).quantiles(np.array(shares))[0]
    present = ~np.isnan(block[0])
    if not present.any():
        assert np.isnan(found).all()
        return
    repeated = np.repeat(block[0], 1 if weight is None else weight)
    expected = np.quantile(repeated[~np.isnan(repeated)], shares, method="inverted_cdf")
    # Within a rounding error of a jump either side is right.
    nearby = [
        np.quantile(repeated[~np.isnan(repeated)], np.clip(np.array(shares) + d, 0, 1), method="inverted_cdf")
        for d in (-1e-11, 1e-11)
    ]
    assert ((found == expected) | (found == nearby[0]) | (found == nearby[1])).all()


# ---------------------------------------------------------------------- a normal law


def test_quantiles_make_any_law_normal():
    rng = np.random.default_rng(0)
    for values in (rng.lognormal(0, 2, 5000), rng.uniform(size=5000), rng.standard_cauchy(5000)):
        encoded = encode(values, numeric="quantile")[:, 0].astype(float)
        assert abs(encoded.mean()) < 0.01
        assert abs(encoded.std() - 1) < 0.02
        assert abs(encoded).max() < 2.9
        assert (np.diff(encoded[np.argsort(values)]) >= 0).all()


def test_quantiles_are_those_of_scikit_learn_inside():
    values = np.random.default_rng(0).lognormal(size=4000).round(2)
    ours = encode(values, numeric="quantile")[:, 0]
    theirs = QuantileTransformer(n_quantiles=256, output_distribution="normal").fit_transform(
        values[:, None]
    )[:, 0]
    inside = np.abs(theirs) < 2.3
    np.testing.assert_allclose(ours[inside], theirs[inside], atol=0.06)


def test_a_value_of_many_rows_lies_in_the_middle_of_its_ranks():
    encoded = encode(
        np.r_[np.zeros(500), np.ones(500)], [0.0, 1.0, 0.5, -7.0, 7.0, np.nan], numeric="quantile"
    )[:, 0]
    np.testing.assert_allclose(encoded[:3], [-0.674, 0.674, 0.0], atol=0.01)
    np.testing.assert_allclose(encoded[3:], [-2.886, 2.886, 0.0], atol=0.01)


@given(
    st.lists(st.floats(-1e9, 1e9), min_size=2, max_size=30),
    st.lists(st.floats(allow_nan=False, allow_infinity=False)),
)
def test_normal_scores_never_fall(quantiles, values):
    scores = normal_scores(np.sort(values), np.sort(quantiles))
    assert (np.diff(scores) >= -1e-12).all()
    assert (np.abs(scores) < 2.9).all()


# ---------------------------------------------------------------------- between both

laws = st.sampled_from(
    [
        lambda rng, n: rng.normal(size=n),
        lambda rng, n: rng.lognormal(0, 2, n),
        lambda rng, n: rng.standard_cauchy(n),
        lambda rng, n: np.r_[rng.normal(0, 1, n // 2), rng.normal(1e6, 1, n - n // 2)],
        lambda rng, n: rng.poisson(60, n).astype(float),
    ]
)


@settings(max_examples=40, deadline=None)
@given(law=laws, seed=st.integers(0, 99), n=st.integers(100, 1500), gaps=st.booleans())
def test_a_blend_is_a_weighted_mean_of_the_scaled_number_and_its_normal_score(law, seed, n, gaps):
    rng = np.random.default_rng(seed)
    values = law(rng, n)
    if gaps:
        values[rng.random(n) < 0.1] = np.nan
    known = values[~np.isnan(values)]
    ends = np.unique(np.quantile(known, np.linspace(0, 1, 65), method="inverted_cdf"))
    (plan,) = TableEncoder().fit(pd.DataFrame({"x": values})).plan_
    assert plan.kind == ("blended" if len(ends) >= 33 else "numeric")
    new = np.r_[values, np.median(known), known.min() - 1, known.max() + 1e9, np.nan]
    ours = encode(values, new)[:, 0]
    scale = encode(values, new, numeric="scale")[:, 0]
    if plan.kind == "numeric":
        np.testing.assert_array_equal(ours, scale)
        return
    curve = np.quantile(known, np.linspace(0, 1, 65), method="inverted_cdf")
    scores = normal_scores(ends, curve)
    middle = np.quantile(known, 0.5, method="inverted_cdf")
    scores = np.clip(scores - scores[ends == middle], -3, 3)
    expected = 0.6 * scale + 0.4 * np.where(np.isnan(new), 0.0, np.interp(new, ends, scores))
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)
    assert (np.diff(encode(values, np.sort(known))[:, 0]) >= 0).all()
    assert ours[-1] == 0.0
    assert encode(values, [middle])[0, 0] == 0.0
    assert np.abs(ours).max() <= 3.0


def test_numbers_that_lie_close_together_are_further_apart_in_a_blend():
    rng = np.random.default_rng(0)
    values = np.r_[rng.normal(0.0, 0.1, 4000), rng.normal(5.0, 2.0, 6000)]
    inner = np.quantile(values[:4000], [0.25, 0.75])
    (near, near_scaled) = (np.diff(encode(values, inner, numeric=n)[:, 0]).item() for n in ("blend", "scale"))
    assert near > 3 * near_scaled


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("scores", lambda a: a * 1e6, "not between −3 and 3"),
        ("scores", lambda a: np.where(a > 0, 3.1, a), "not between −3 and 3"),
        ("quantiles", lambda a: a * 1e-310, "too close together"),
        ("quantiles", lambda a: np.repeat(a[::2], 2)[: len(a)], "too close together"),
        ("quantiles", lambda a: a * 1e31, "too far out"),
    ],
)
def test_a_blend_that_would_leave_the_range_is_refused(name, change, message):
    content, arrays = TableEncoder().fit(pd.DataFrame({"x": np.arange(100.0)})).to_plain()
    arrays[f"0.{name}"] = change(arrays[f"0.{name}"])
    with pytest.raises(ValueError, match=message):
        TableEncoder.from_plain(content, arrays)


@pytest.mark.parametrize("change", [{"scores": None}, {"quantiles": None}, {"scores": np.arange(3.0)}])
def test_a_blend_without_a_score_for_each_quantile_is_refused(change):
    content, arrays = TableEncoder().fit(pd.DataFrame({"x": np.arange(100.0)})).to_plain()
    assert content["columns"][0]["kind"] == "blended"
    (name, value), *_ = change.items()
    del arrays[f"0.{name}"]
    if value is None:
        content["columns"][0][name] = None
    else:
        arrays[f"0.{name}"] = value
    with pytest.raises(ValueError, match="score for each of its quantiles"):
        TableEncoder.from_plain(content, arrays)


def test_scores_of_a_blend_that_fall_are_refused():
    content, arrays = TableEncoder().fit(pd.DataFrame({"x": np.arange(100.0)})).to_plain()
    arrays["0.scores"] = arrays["0.scores"][::-1].copy()
    with pytest.raises(ValueError, match="ascending order"):
        TableEncoder.from_plain(content, arrays)


# ---------------------------------------------------------------------- a value that most rows have


def amounts(n=2000, share=0.9, seed=0):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(n) < share, 0.0, rng.lognormal(8.0, 2.0, n).round())


def test_a_value_that_most_rows_have_is_told_apart_and_the_others_have_their_own_quantiles():
    values = amounts()
    values[:20] = np.nan
    frame = pd.DataFrame({"gain": values})
    encoder = TableEncoder().fit(frame)
    assert list(encoder.get_feature_names_out()) == ["gain", "gain_missing", "gain_is_0"]
    encoded, is_spike, missing = encoder.transform(frame), values == 0, np.isnan(values)
    others = values[~is_spike & ~missing]
    np.testing.assert_allclose(
        encoded[~is_spike & ~missing, 0], encode(others, numeric="quantile")[:, 0], rtol=1e-6
    )
    assert (encoded[is_spike | missing, 0] == 0).all()
    np.testing.assert_allclose(encoded[:, 1], missing - missing.mean(), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(encoded[:, 2], is_spike - is_spike.mean(), rtol=1e-5)


@given(spike=st.floats(-1e9, 1e9), others=st.integers(0, 40), share=st.floats(0.51, 0.95), data=st.data())
def test_a_value_is_told_apart_where_the_middle_half_has_it_and_sixteen_others_occur(
    spike, others, share, data
):
    side = data.draw(st.sampled_from([-1.0, 1.0]))
    beside = spike + side * (1.0 + np.arange(others)) * max(1.0, abs(spike))
    n_spikes = int(np.ceil(len(beside) * share / (1 - share))) + 1
    column = data.draw(st.permutations([*beside, *[spike] * n_spikes]))
    (plan,) = fit_numbers(["x"], np.array([column]), None, scaling="scale")
    quartiles = np.quantile(column, [0.25, 0.75], method="inverted_cdf")
    assert (plan.kind == "spiked") == (others >= 16 and (quartiles == spike).all())
    if plan.kind == "spiked":
        assert plan.spike == spike
        assert plan.share == pytest.approx(n_spikes / len(column))


@pytest.mark.parametrize("spike", [0.0, -0.0, -1.0, 99999.0])
def test_which_value_it_is_makes_no_difference(spike):
    values = amounts()
    column = np.where(values == 0, spike, values)
    np.testing.assert_array_equal(encode(column), encode(values))


def test_text_that_holds_numbers_may_have_such_a_value_too():
    texts = pd.Series([f"{v:,.2f} EUR" for v in amounts(400)])
    with pytest.warns(DisguisedNumbersWarning):
        encoded = encode(texts)
    np.testing.assert_array_equal(encoded, encode(amounts(400)))


def test_an_encoder_without_the_quantiles_beside_is_refused():
    content, _ = TableEncoder().fit(pd.DataFrame({"x": amounts()})).to_plain()
    content["columns"][0]["quantiles"] = None
    with pytest.raises(ValueError, match="the values beside 0 have no quantiles"):
        TableEncoder.from_plain(content, {})


def test_parts_of_dates_are_never_told_apart():
    days = pd.Timestamp("2020-01-01") + pd.to_timedelta(amounts(400, share=0.8) % 1000, unit="D")
    plan = TableEncoder().fit(pd.DataFrame({"day": days})).plan_[0]
    assert plan.kind == "date"

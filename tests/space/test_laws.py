"""The contract of a law, held by every law there is, over parameters that hypothesis picks."""

import dataclasses
import itertools
import json
import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from inna_tune.space import (
    Beta,
    Categorical,
    Empirical,
    Integer,
    LogNormal,
    LogUniform,
    Mixture,
    Normal,
    Stepped,
    Uniform,
)
from inna_tune.space.laws import LAWS, Continuous, Law
from tests.space.laws import (
    CLOSED_FORM,
    CONTINUOUS,
    PROBABILITIES,
    QUICK,
    ROUNDED,
    STRATEGIES,
    categoricals,
    log_normals,
    mixtures,
    numbers,
    over,
    support,
)


@pytest.mark.parametrize(
    "choices",
    [
        np.array([1, 2]),
        np.array(["relu", "mish"]),
        np.array([0.5, 2.0], dtype=np.float32),
        [np.True_, np.False_],
        [np.int64(3), np.str_("three"), None],
    ],
    ids=str,
)
def test_choices_that_are_numpys_become_plain(choices):
    law = Categorical(choices)
    assert law == Categorical([c.item() if isinstance(c, np.generic) else c for c in choices])
    assert {type(c) for c in law.choices} <= {bool, int, float, str, type(None)}
    assert Categorical.from_json(json.loads(json.dumps(law.to_json()))) == law


def test_every_law_is_held_to_the_contract():
    assert set(STRATEGIES) == set(LAWS.values())


# Continuous laws


@over(CONTINUOUS)
@QUICK
@given(data=st.data())
def test_cdf_undoes_ppf_up_to_the_tails(laws, data):
    law, q = data.draw(laws), data.draw(PROBABILITIES)
    x = law.ppf(q)
    assert law.low <= x <= law.high
    # A probability of one last digit of x is beyond what any x can tell apart.
    resolution = 4 * np.spacing(abs(x)) * math.exp(min(law.log_pdf(x), 700))
    assert law.cdf(x) == pytest.approx(q, abs=1e-9 + resolution)


@over(CONTINUOUS)
@QUICK
@given(data=st.data())
def test_ppf_undoes_cdf_as_far_as_a_probability_can_tell(laws, data):
    law = data.draw(laws)
    # Nearer to a bound see test_beta_has_a_quantile_at_every_probability.
    x = law.flat_ppf(data.draw(st.just(0.0) | numbers(1e-6, 1)))
    density = math.exp(law.log_pdf(x))
    width = law.high - law.low
    # One last digit of the probability moves x by eps over the density, and from where it rounds to one it tells nothing.
    told = width if law.cdf(x) > 1 - 1e-13 else min(1e-13 / max(density, 1e-300), width)
    assert law.ppf(law.cdf(x)) == pytest.approx(x, abs=1e-9 * width + told)


@over(CONTINUOUS)
@QUICK
@given(data=st.data())
def test_cdf_rises_from_zero_to_one_and_stays_there(laws, data):
    law = data.draw(laws)
    x = law.flat_ppf(np.linspace(0, 1, 101))
    cumulative = law.cdf(x)
    assert cumulative[0] == pytest.approx(0, abs=1e-12)
    assert cumulative[-1] == pytest.approx(1, abs=1e-12)
    assert (np.diff(cumulative) >= -1e-14).all()
    assert law.cdf(law.low - 1) == pytest.approx(0, abs=1e-12)
    assert law.cdf(law.high + 1) == pytest.approx(1, abs=1e-12)
    assert law.log_pdf(np.array([law.low - 1, law.high + 1])).tolist() == [-math.inf, -math.inf]


@over(CONTINUOUS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_density_integrates_to_the_cdf(laws, data):
    law = data.draw(laws)
    a, b = sorted(law.flat_ppf(np.array(data.draw(st.tuples(numbers(0.05, 0.95), numbers(0.05, 0.95))))))
    # Narrow laws are looked at through the quantiles of what lies between a and b, tails as thin as the tolerance
    # included, so that the quadrature steps over nothing.
    tail = np.logspace(-9, -2, 8)
    shares = np.concatenate([tail, np.linspace(0.05, 0.95, 15), 1 - tail])
    start, end = law.cdf(a), law.cdf(b)
    cuts = np.clip(law.ppf(np.clip(start + (end - start) * shares, 0, 1)), a, b)
    edges = np.unique(np.concatenate([[a], cuts, [b]]))
    area = sum(
        integrate.quad(lambda x: math.exp(law.log_pdf(x)), lo, hi, epsabs=1e-11)[0]
        for lo, hi in itertools.pairwise(edges)
    )
    assert area == pytest.approx(law.cdf(b) - law.cdf(a), abs=1e-7)


@over(CONTINUOUS)
@QUICK
@given(data=st.data())
def test_flat_counterpart_is_uniform_on_the_scale(laws, data):
    law, q = data.draw(laws), data.draw(PROBABILITIES)
    flat = (LogUniform if law.log else Uniform)(law.low, law.high)
    assert law.flat_ppf(q) == pytest.approx(flat.ppf(q))
    x = law.flat_ppf(q)
    assert law.flat_cdf(x) == pytest.approx(flat.cdf(x), abs=1e-12)
    assert law.log_ratio(x) == pytest.approx(law.log_pdf(x) - flat.log_pdf(x), abs=1e-9)
    assert law.mixture_ppf(q, 0.0) == pytest.approx(flat.ppf(q))


REFERENCES = {
    Uniform: lambda law: stats.uniform(law.low, law.high - law.low),
    LogUniform: lambda law: stats.loguniform(law.low, law.high),
    Normal: lambda law: stats.truncnorm(
        (law.low - law.mean) / law.std, (law.high - law.mean) / law.std, law.mean, law.std
    ),
    Beta: lambda law: stats.beta(law.a, law.b, law.low, law.high - law.low),
}


@over({kind: STRATEGIES[kind] for kind in REFERENCES})
@QUICK
@given(data=st.data())
def test_closed_forms_are_those_of_scipy_stats(laws, data):
    law = data.draw(laws)
    reference = REFERENCES[type(law)](law)
    q = np.array([1e-6, 0.01, 0.3, 0.5, 0.9, 0.999])
    x = law.ppf(q)
    # Next to a bound, a place between the bounds has lost digits to the subtraction of the bound.
    np.testing.assert_allclose(law.cdf(x), reference.cdf(x), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(law.log_pdf(x[1:]), reference.logpdf(x[1:]), rtol=1e-7, atol=1e-7)


@QUICK
@given(law=log_normals(), place=numbers(0, 1))
def test_lognormal_is_normal_in_the_logarithm(law, place):
    normal = Normal(math.log(law.median), law.sigma, low=math.log(law.low), high=math.log(law.high))
    # Taken at a place rather than at a quantile: bounds six deviations out leave a quantile few digits.
    x = law.flat_ppf(place)
    assert law.cdf(x) == pytest.approx(normal.cdf(math.log(x)), abs=1e-9)
    assert law.log_pdf(x) == pytest.approx(normal.log_pdf(math.log(x)) - math.log(x), abs=1e-6)


@pytest.mark.parametrize("deviations", [8, 20, 30])
def test_a_normal_conditioned_on_its_own_far_tail_keeps_its_digits(deviations):
    q = np.array([1e-6, 0.1, 0.5, 0.9])
    upper = Normal(0, 1, low=deviations, high=deviations + 1)
    lower = Normal(0, 1, low=-deviations - 1, high=-deviations)
    np.testing.assert_allclose(upper.ppf(q), stats.truncnorm(deviations, deviations + 1).ppf(q), rtol=1e-12)
    np.testing.assert_allclose(upper.ppf(q), -lower.ppf(1 - q), rtol=1e-9)
    np.testing.assert_allclose(upper.cdf(upper.ppf(q)), q, atol=1e-9)


@QUICK
@given(law=mixtures(), place=numbers(0, 1))
def test_a_mixture_is_the_weighted_sum_of_its_parts(law, place):
    x = law.flat_ppf(place)
    shares = [weight / sum(w for w, _ in law.components) for weight, _ in law.components]
    parts = [part for _, part in law.components]
    assert law.cdf(x) == pytest.approx(
        sum(s * p.cdf(x) for s, p in zip(shares, parts, strict=True)), abs=1e-12
    )
    density = sum(s * math.exp(p.log_pdf(x)) for s, p in zip(shares, parts, strict=True))
    assert law.log_pdf(x) == pytest.approx(math.log(density), abs=1e-9)


def test_beta_has_a_quantile_at_every_probability():
    law = Beta(3.5, 2.0)
    assert law.ppf(law.cdf(1.175494351e-38)) == pytest.approx(0, abs=1e-30)


def test_a_search_ends_next_to_zero():
    law = Empirical([0.1, 0.2, 0.25, 0.9], low=0.0, high=1.0)
    for q in 10.0 ** np.arange(-30, -18):
        assert law.cdf(law.ppf(float(q))) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("law", [LogNormal(0.0625, 1.0, low=0.0625, high=0.09375)], ids=repr)
def test_a_search_ends_next_to_one(law):
    assert law.mixture_ppf(1 - 2**-53, 0.5) == pytest.approx(law.high)


@pytest.mark.parametrize("log", [False, True])
def test_empirical_is_a_mixture_of_its_kernels(log):
    values, weights, bounds = [0.2, 0.5, 0.9], [1.0, 2.0, 3.0], {"low": 0.1, "high": 1.0}
    law = Empirical(values, bandwidth=0.2, weights=weights, log=log, **bounds)
    kernel = LogNormal if log else Normal
    kernels = [(w, kernel(v, 0.2, **bounds)) for w, v in zip(weights, values, strict=True)]
    x = np.linspace(0.1, 1.0, 23)
    np.testing.assert_allclose(law.cdf(x), Mixture(kernels).cdf(x), atol=1e-12)
    np.testing.assert_allclose(law.log_pdf(x), Mixture(kernels).log_pdf(x), atol=1e-9)


def test_empirical_bandwidth_is_silvermans():
    values = np.random.default_rng(0).normal(size=200).clip(-4, 4)
    spread = min(values.std(ddof=1), np.subtract(*np.quantile(values, [0.75, 0.25])) / 1.34)
    chosen = Empirical(values.tolist(), low=-5, high=5)
    given_ = Empirical(values.tolist(), bandwidth=0.9 * spread * 200**-0.2, low=-5, high=5)
    x = np.linspace(-5, 5, 31)
    np.testing.assert_allclose(chosen.cdf(x), given_.cdf(x), atol=5e-3)


# Laws of separate values


@over({**ROUNDED, Categorical: STRATEGIES[Categorical]})
@QUICK
@given(data=st.data())
def test_probabilities_add_up_to_the_cdf(laws, data):
    law = data.draw(laws)
    values = support(law)
    probabilities = np.exp([law.log_pdf(value) for value in values])
    assert probabilities.sum() == pytest.approx(1, abs=1e-9)
    np.testing.assert_allclose([law.cdf(value) for value in values], np.cumsum(probabilities), atol=1e-9)


@over({**ROUNDED, Categorical: STRATEGIES[Categorical]})
@QUICK
@given(data=st.data())
def test_ppf_is_the_first_value_that_reaches_the_probability(laws, data):
    law, q = data.draw(laws), data.draw(numbers(1e-9, 1 - 1e-9))
    values = support(law)
    reached = law.ppf(q)
    index = (
        values.index(reached)
        if isinstance(law, Categorical)
        else int(np.argmin(np.abs(np.array(values) - reached)))
    )
    assert law.cdf(values[index]) >= q - 1e-9
    if index:
        assert law.cdf(values[index - 1]) <= q + 1e-9


@over(ROUNDED)
@QUICK
@given(data=st.data())
def test_every_value_has_its_own_cell(laws, data):
    law, weight = data.draw(laws), data.draw(numbers(0, 0.99))
    for value in support(law):
        prior, flat = law.places(value)
        assert law.mixture_ppf(weight * prior + (1 - weight) * flat, weight) == pytest.approx(value, abs=1e-9)


@QUICK
@given(law=categoricals(), weight=numbers(0, 0.99))
def test_a_choice_is_placed_in_the_middle_of_its_cell(law, weight):
    for index, choice in enumerate(law.choices):
        prior, flat = law.places(choice)
        assert prior == pytest.approx(law.cdf(choice) - math.exp(law.log_pdf(choice)) / 2, abs=1e-12)
        assert flat == pytest.approx((index + 0.5) / len(law.choices))
        assert law.mixture_ppf(weight * prior + (1 - weight) * flat, weight) == choice


def test_the_outermost_values_are_as_likely_as_the_others():
    np.testing.assert_allclose(np.exp(Integer(Uniform(1, 4)).log_pdf(np.arange(1, 5))), 0.25)
    np.testing.assert_allclose(np.exp(Stepped(Uniform(0, 1), 0.25).log_pdf(np.linspace(0, 1, 5))), 0.2)


def test_beside_the_grid_there_is_nothing():
    assert Integer(Uniform(1, 5), 2).log_pdf(np.array([0, 2, 3.5, 7])).tolist() == [-math.inf] * 4
    assert Categorical(["a"]).log_pdf("b") == -math.inf


# Every law


@over(STRATEGIES)
@QUICK
@given(data=st.data())
def test_mixture_of_the_places_gives_the_value_back(laws, data):
    law, u, weight = data.draw(laws), data.draw(numbers(0.001, 0.999)), data.draw(numbers(0, 0.95))
    value = law.mixture_ppf(u, weight)
    prior, flat = law.places(value)
    assert 0 <= prior <= 1
    assert 0 <= flat <= 1
    if isinstance(law, Continuous):
        assert weight * prior + (1 - weight) * flat == pytest.approx(u, abs=1e-8)
    else:
        assert law.mixture_ppf(weight * prior + (1 - weight) * flat, weight) == value


@over(STRATEGIES)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_numbers_give_plain_numbers_and_arrays_give_the_same(laws, data):
    law = data.draw(laws)
    q = np.array([0.1, 0.5, 0.8])
    values = [law.ppf(float(each)) for each in q]
    assert all(type(value) in (float, int, str, bool, type(None)) for value in values)
    assert (
        list(law.ppf(q)) == pytest.approx(values)
        if isinstance(law, Continuous)
        else list(law.ppf(q)) == values
    )
    for function in (law.cdf, law.log_pdf):
        singles = [function(value) for value in values]
        assert all(type(single) is float for single in singles)
        np.testing.assert_allclose(function(values), singles, atol=1e-12)


@over(STRATEGIES)
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_draws_are_reproducible_and_follow_the_law(laws, data):
    law, size = data.draw(laws), 100
    drawn = law.sample(np.random.default_rng(3), size)
    assert list(drawn) == list(law.sample(np.random.default_rng(3), size))
    # How far these 100 uniform numbers are from uniform bounds how far any draws made of them are from their law.
    unevenness = stats.kstest(np.random.default_rng(3).random(size), "uniform").statistic + 1e-9
    if isinstance(law, Continuous):
        assert stats.kstest(law.cdf(drawn), "uniform").statistic <= unevenness
    else:
        for value in support(law):
            share = sum(law.cdf(each) <= law.cdf(value) for each in drawn) / size
            assert abs(share - law.cdf(value)) <= unevenness


@over(STRATEGIES)
@QUICK
@given(data=st.data())
def test_a_law_is_a_value_that_survives_json_and_pickle(laws, data):
    law = data.draw(laws)
    assert Law.from_json(json.loads(json.dumps(law.to_json(), allow_nan=False))) == law
    assert pickle.loads(pickle.dumps(law)) == law
    assert eval(repr(law), {kind.__name__: kind for kind in LAWS.values()}) == law
    with pytest.raises(dataclasses.FrozenInstanceError):
        law.low = 0.5


@over(STRATEGIES)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_optuna_can_store_whatever_is_drawn(laws, data):
    law, u, weight = data.draw(laws), data.draw(PROBABILITIES), data.draw(numbers(0, 1))
    value = law.mixture_ppf(u, weight)
    assert law.distribution._contains(law.distribution.to_internal_repr(value))


@over(STRATEGIES)
@pytest.mark.parametrize("q", [-1e-9, 1 + 1e-9, math.nan])
@settings(max_examples=3, deadline=None)
@given(data=st.data())
def test_a_quantile_beyond_probability_is_refused(laws, data, q):
    with pytest.raises(ValueError, match=r"q=.* must lie within \[0, 1\]"):
        data.draw(laws).ppf(q)


@over(STRATEGIES)
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_json_takes_exactly_the_fields(laws, data):
    plain = data.draw(laws).to_json()
    name = plain["law"]
    with pytest.raises(ValueError, match=f"{name} has no colour; it takes "):
        Law.from_json({**plain, "colour": 1})
    for field in plain.keys() - {"law"}:
        with pytest.raises(ValueError, match=f"{name} lacks {field}"):
            Law.from_json({key: value for key, value in plain.items() if key != field})


@over(CLOSED_FORM)
@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, True, "1", None], ids=repr)
@settings(max_examples=2, deadline=None)
@given(data=st.data())
def test_each_field_must_be_a_finite_number(laws, data, wrong):
    law = data.draw(laws)
    for field in dataclasses.fields(law):
        with pytest.raises(
            ValueError, match=rf"{type(law).__name__}: {field.name}=.* must be a finite number"
        ):
            dataclasses.replace(law, **{field.name: wrong})


@over(CLOSED_FORM)
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_bounds_must_not_be_reversed(laws, data):
    law = data.draw(laws)
    with pytest.raises(ValueError, match="must be below high"):
        dataclasses.replace(law, low=law.high, high=law.low)


def test_a_quantile_close_to_the_end_of_a_mixture_is_found():
    low, high = 0.841736565526522, 1.262604848289783
    bounds = {"low": low, "high": high}
    law = Mixture(
        (
            (0.890625, Uniform(low, high)),
            (2.6015625, LogUniform(low, high)),
            (0.5, Normal(1.2158965224453677, 0.49156100213365245, **bounds)),
            (1.168875411336893, LogNormal(1.2158965224453677, 0.25, **bounds)),
        )
    )
    assert law.cdf(law.ppf(1e-12)) == pytest.approx(1e-12, abs=1e-15)

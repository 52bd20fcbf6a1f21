import json
import logging

import numpy as np
import optuna
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from inna_tune.optim.dynamics import pure_numbers, settings_from_curvature
from inna_tune.space import (
    Beta,
    Categorical,
    Empirical,
    Gamma,
    Integer,
    LogNormal,
    LogUniform,
    Mixture,
    Normal,
    SearchSpace,
    Stepped,
    Uniform,
    When,
)
from inna_tune.space.coordinates import StableStep
from inna_tune.space.priors import Law

CONTINUOUS = [
    Uniform(-2.0, 3.0),
    LogUniform(1e-5, 10.0),
    Normal(1.0, 2.0, low=-3.0, high=4.0),
    Normal(0.0, 1.0, low=6.0, high=9.0),
    LogNormal(0.1, 1.5, low=1e-4, high=5.0),
    Beta(2.0, 5.0),
    Beta(0.7, 3.0, low=-1.0, high=4.0),
    Gamma(2.0, 0.5, low=0.01, high=8.0),
    Mixture([(0.3, Uniform(0.0, 1.0)), (0.7, Normal(2.0, 0.3, low=0.0, high=4.0))]),
    Empirical([0.1, 0.2, 0.25, 0.9], low=0.0, high=1.0),
]
SEPARATE = [
    Integer(Uniform(1, 9)),
    Integer(LogUniform(1, 64)),
    Stepped(Normal(0.0, 1.0, low=-2.0, high=2.0), 0.25),
    Categorical(["a", "b", None, 3]),
    Categorical([True, "x", 2.5], [1.0, 0.0, 3.0]),
]
LAWS = CONTINUOUS + SEPARATE


@pytest.mark.parametrize("law", CONTINUOUS, ids=repr)
@settings(max_examples=60, deadline=None)
@given(q=st.floats(0.0, 1.0))
def test_ppf_then_cdf_is_the_identity(law, q):
    x = law.ppf(q)
    assert law.low <= x <= law.high
    assert law.cdf(x) == pytest.approx(q, abs=1e-9)


@pytest.mark.parametrize("law", CONTINUOUS, ids=repr)
@settings(max_examples=60, deadline=None)
@given(place=st.floats(0.0, 1.0))
def test_cdf_then_ppf_is_the_identity_where_there_is_weight(law, place):
    x = float(law.flat_ppf(place))
    assume(law.log_pdf(x) > np.log(1e-5))
    assert law.ppf(law.cdf(x)) == pytest.approx(x, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("law", CONTINUOUS, ids=repr)
def test_density_is_the_slope_of_the_distribution(law):
    x = law.flat_ppf(np.linspace(0.02, 0.98, 400))
    step = 1e-6 * (law.high - law.low) if not law.log else 1e-6 * x
    slope = (law.cdf(x + step) - law.cdf(x - step)) / (2 * step)
    np.testing.assert_allclose(np.exp(law.log_pdf(x)), slope, rtol=2e-3, atol=1e-6)
    assert law.log_pdf(law.low - 1) == law.log_pdf(law.high + 1) == -np.inf


def test_laws_are_those_of_scipy_between_their_bounds():
    x = np.linspace(0.02, 3.9, 50)
    for law, reference in [
        (Normal(1.0, 2.0, low=0.0, high=4.0), stats.norm(1.0, 2.0)),
        (LogNormal(0.5, 0.8, low=0.01, high=4.0), stats.lognorm(0.8, scale=0.5)),
        (Gamma(2.0, 0.5, low=0.01, high=4.0), stats.gamma(2.0, scale=0.5)),
        (Beta(2.0, 5.0, low=0.0, high=4.0), stats.beta(2.0, 5.0, scale=4.0)),
    ]:
        below, mass = reference.cdf(law.low), reference.cdf(law.high) - reference.cdf(law.low)
        np.testing.assert_allclose(law.cdf(x), (reference.cdf(x) - below) / mass, atol=1e-12)
        np.testing.assert_allclose(law.log_pdf(x), reference.logpdf(x) - np.log(mass), rtol=1e-9)


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_json_round_trip(law):
    again = Law.from_json(json.loads(json.dumps(law.to_json())))
    assert again == law
    assert repr(again) == repr(law)


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_what_is_drawn_is_what_optuna_may_store(law):
    distribution = law.distribution
    for value in (law.ppf(u) for u in np.linspace(0.0, 1.0, 41)):
        assert distribution._contains(distribution.to_internal_repr(value))


@pytest.mark.parametrize("law", LAWS, ids=repr)
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_places_and_mixture_are_inverse(law, weight):
    for u in np.linspace(0.03, 0.97, 21):
        value = law.mixture_ppf(float(u), weight)
        prior, flat = law.places(value)
        mixed = weight * prior + (1 - weight) * flat
        again = law.mixture_ppf(mixed, weight)
        assert again == (pytest.approx(value) if isinstance(value, float) else value)


def test_categorical_draws_by_its_weights():
    law = Categorical(["a", "b", "c"], [1, 0, 3])
    drawn = law.sample(np.random.default_rng(0), 4000)
    assert drawn.count("b") == 0
    assert drawn.count("c") / 4000 == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Uniform(2.0, 1.0), "low=2.0 must be below high=1.0"),
        (lambda: LogUniform(0.0, 1.0), "low=0.0 must be positive"),
        (lambda: Uniform(0.0, float("nan")), "high=nan must be a finite"),
        (lambda: Normal(0.0, 0.0, low=-1.0, high=1.0), "std=0.0 must be positive"),
        (lambda: Normal(0.0, 1e-3, low=500.0, high=501.0), "empty support"),
        (lambda: LogNormal(-1.0, 1.0, low=0.1, high=1.0), "median=-1.0 must be positive"),
        (lambda: Beta(0.0, 1.0), "a=0.0 must be positive"),
        (lambda: Categorical([]), "one or more choices"),
        (lambda: Categorical(["a", "b"], [1, -1]), "none negative"),
        (lambda: Categorical(["a", "b"], [0, 0]), "positive, finite sum"),
        (lambda: Categorical(["a", "b"], [1]), "one weight for each"),
        (lambda: Mixture([(1.0, "law")]), "not a continuous law"),
        (lambda: Integer(Uniform(0.5, 3.5)), "low=0.5 must be an integer"),
        (lambda: Stepped(Uniform(0.0, 1.0), 0.3), "multiple of"),
        (lambda: Law.from_json({"law": "os.system"}), "unknown law 'os.system'"),
        (lambda: Law.from_json({"law": "Uniform", "low": 0, "high": 1, "x": 2}), "has no x"),
        (lambda: Law.from_json({"law": "Uniform", "low": 0}), "lacks high"),
        (lambda: Law.from_json([1]), "JSON object"),
    ],
)
def test_impossible_laws_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ---------------------------------------------------------------------- spaces

CURVATURES = st.floats(1e-3, 1e4)


@settings(max_examples=60, deadline=None)
@given(curvature=CURVATURES, seed=st.integers(0, 10_000))
def test_the_shipped_space_draws_settings_of_the_pure_numbers(curvature, seed):
    """Natural values map back to α̃, ζ and r within the bounds of their laws, whatever the curvature."""
    space = SearchSpace.inna(curvature=curvature)
    config = space.sample(np.random.default_rng(seed))
    numbers = pure_numbers(config["lr"], config["alpha"], config["beta"], curvature)
    for name, value in zip(("alpha", "beta", "lr"), numbers, strict=True):
        law = space[name].law
        assert law.low * (1 - 1e-6) <= value <= law.high * (1 + 1e-6)
        distribution = space.distribution(name)
        assert distribution.low <= config[name] <= distribution.high
    assert ("decay_power" in config) == (config["decay"] == "power")


@settings(max_examples=60, deadline=None)
@given(curvature=CURVATURES, weight=st.floats(0.0, 1.0), us=st.tuples(*[st.floats(0.01, 0.99)] * 3))
def test_places_of_conditional_parameters_give_the_values_back(curvature, weight, us):
    space = SearchSpace.inna(curvature=curvature)
    config = {}
    for name, u in zip(("alpha", "beta", "lr"), us, strict=True):
        config[name] = space.value(name, u, weight, config)
    for name, u in zip(("alpha", "beta", "lr"), us, strict=True):
        prior, flat = space.places(name, config[name], config)
        assert weight * prior + (1 - weight) * flat == pytest.approx(u, abs=2e-5)


@settings(max_examples=30, deadline=None)
@given(curvature=CURVATURES)
@pytest.mark.parametrize("scaled_alpha", [0.06, 0.24], ids=["regression", "classification"])
def test_the_default_settings_are_in_the_middle_of_the_shipped_prior(curvature, scaled_alpha):
    space = SearchSpace.inna(curvature=curvature)
    config = settings_from_curvature(curvature, scaled_alpha=scaled_alpha)._asdict()
    for name in ("alpha", "beta", "lr"):
        assert 0.2 < space.places(name, config[name], config)[0] < 0.8


def test_the_pure_draws_do_not_depend_on_the_curvature():
    one, other = SearchSpace.inna(curvature=2.0), SearchSpace.inna(curvature=500.0)
    for seed in range(20):
        a, b = one.sample(np.random.default_rng(seed)), other.sample(np.random.default_rng(seed))
        np.testing.assert_allclose(
            pure_numbers(a["lr"], a["alpha"], a["beta"], 2.0),
            pure_numbers(b["lr"], b["alpha"], b["beta"], 500.0),
            rtol=1e-6,
        )


@pytest.mark.parametrize("space", [SearchSpace.inna(), SearchSpace.inna(curvature=7.0)])
def test_a_space_survives_json(space):
    again = SearchSpace.from_json(json.loads(json.dumps(space.to_json())))
    assert again == space
    assert list(again) == list(space)
    assert again != SearchSpace.inna(curvature=8.0)


@pytest.mark.parametrize(
    ("laws", "message"),
    [
        ({}, "at least one parameter"),
        ({"1x": Uniform(0, 1)}, "'1x' must be a Python identifier"),
        ({"x": 3}, "'x': 3 is not a law"),
        ({"x": When("y", ("a",), Uniform(0, 1))}, "depends on 'y', which is not in the space"),
        ({"x": When("y", ("a",), Uniform(0, 1)), "y": Categorical(["a"])}, "'y', which comes after it"),
        ({"y": Uniform(0, 1), "x": When("y", (1,), Uniform(0, 1))}, "not a Categorical"),
        ({"y": Categorical(["a"]), "x": When("y", ("b",), Uniform(0, 1))}, r"no choice \['b'\]"),
        ({"lr": StableStep(Uniform(0.5, 2.0), 1.0, 0.1, 1.0)}, "depends on 'alpha'"),
    ],
)
def test_impossible_spaces_are_named(laws, message):
    with pytest.raises(ValueError, match=message):
        SearchSpace(laws)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "JSON object"),
        ({"format": 9, "parameters": []}, "format 9"),
        ({"format": 1, "parameters": [{"law": "Uniform"}]}, "name"),
        ({"format": 1, "parameters": [{"name": "x", "law": "Evil"}]}, "parameter 'x': unknown law"),
        ({"format": 1, "parameters": [{"name": "x", "coordinate": "Evil"}]}, "unknown coordinate"),
    ],
)
def test_a_file_that_is_no_space_is_refused(data, message):
    with pytest.raises(ValueError, match=message):
        SearchSpace.from_json(data)


def test_a_plain_sampler_works_and_is_told_of_once(caplog):
    space = SearchSpace.inna(curvature=10.0)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    with caplog.at_level(logging.WARNING, logger="inna_tune"):
        for _ in range(3):
            config = space.suggest(study.ask())
    assert set(config) - {"decay_power"} == set(space) - {"decay_power"}
    assert len([r for r in caplog.records if "PriorSampler" in r.getMessage()]) == 1

import json
import logging

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inna_tune.optim.dynamics import pure_numbers, settings_from_curvature
from inna_tune.space import (
    Categorical,
    SearchSpace,
    Uniform,
    When,
)
from inna_tune.space.coordinates import StableStep

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


@pytest.mark.parametrize("space", [SearchSpace.inna(), SearchSpace.inna(curvature=7.0, net=True)])
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

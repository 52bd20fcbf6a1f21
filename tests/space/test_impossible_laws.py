import math

import pytest

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
from inna_tune.space.laws import Law


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("law", [Integer, Stepped])
def test_a_step_must_be_positive_and_finite(law, wrong):
    with pytest.raises(ValueError, match="step="):
        law(Uniform(0, 4), wrong)


@pytest.mark.parametrize("weights", [[-1, 2], [0, 0], [math.nan, 1], [math.inf, 1], [1], [1, 1, 1]])
def test_weights_must_be_a_law_over_the_entries(weights):
    with pytest.raises(ValueError, match="weights="):
        Categorical(["a", "b"], weights)
    with pytest.raises(ValueError, match="weights="):
        Empirical([0.1, 0.2], weights=weights, low=0, high=1)
    if len(weights) == 2:
        with pytest.raises(ValueError, match="weights="):
            Mixture([(weight, Uniform(0, 1)) for weight in weights])


@pytest.mark.parametrize("values", [[], [math.nan], [-0.1], [1.1], [[0.1]]])
def test_empirical_values_must_lie_within_the_bounds(values):
    with pytest.raises(ValueError, match="values must be one or more numbers within"):
        Empirical(values, low=0, high=1)


@pytest.mark.parametrize("choices", [["a", "a"], [1, True], [[1]], [math.nan], "ab", []])
def test_choices_must_be_plain_and_distinct(choices):
    with pytest.raises(ValueError, match="Categorical: choice"):
        Categorical(choices)


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

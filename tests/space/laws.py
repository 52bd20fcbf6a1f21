"""Laws of every kind with the parameters that hypothesis picks."""

import math

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st

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

QUICK = settings(max_examples=40, deadline=None)
# Both tails to the last digits that a probability in double precision has.
# Nearer to 0 and 1 see the expected failures of the searches for a quantile.
PROBABILITIES = (
    st.floats(1e-12, 1 - 1e-12) | st.sampled_from([0.0, 1.0]) | st.sampled_from([1e-12, 1e-9, 1 - 1e-9])
)


def numbers(low, high):
    return st.floats(low, high, allow_subnormal=False)


@st.composite
def linear_bounds(draw):
    low = draw(numbers(-10, 10))
    return {"low": low, "high": low + draw(numbers(0.1, 20))}


@st.composite
def positive_bounds(draw):
    low = draw(numbers(1e-4, 1))
    return {"low": low, "high": low * draw(numbers(1.5, 1e4))}


@st.composite
def uniforms(draw):
    return Uniform(**draw(linear_bounds()))


@st.composite
def log_uniforms(draw):
    return LogUniform(**draw(positive_bounds()))


@st.composite
def normals(draw):
    """The mean up to six standard deviations beyond either bound."""
    bounds = draw(linear_bounds())
    std = draw(numbers(0.02, 3)) * (bounds["high"] - bounds["low"])
    mean = draw(st.sampled_from(list(bounds.values()))) + draw(numbers(-6, 6)) * std
    return Normal(mean, std, **bounds)


@st.composite
def log_normals(draw):
    bounds = draw(positive_bounds())
    sigma = draw(numbers(0.1, 3))
    edge = draw(st.sampled_from(list(bounds.values())))
    return LogNormal(edge * math.exp(sigma * draw(numbers(-6, 6))), sigma, **bounds)


@st.composite
def betas(draw):
    return Beta(draw(numbers(0.5, 20)), draw(numbers(0.5, 20)), **draw(linear_bounds()))


CLOSED_FORM = {
    Uniform: uniforms(),
    LogUniform: log_uniforms(),
    Normal: normals(),
    LogNormal: log_normals(),
    Beta: betas(),
}


@st.composite
def mixtures(draw):
    """Over one pair of bounds, so that no gap is left without weight."""
    bounds = draw(positive_bounds())
    width = bounds["high"] - bounds["low"]
    middle = bounds["low"] + draw(numbers(0, 1)) * width
    parts = [
        Uniform(**bounds),
        LogUniform(**bounds),
        Normal(middle, draw(numbers(0.05, 2)) * width, **bounds),
        LogNormal(middle, draw(numbers(0.2, 3)), **bounds),
    ]
    return Mixture([(draw(numbers(0.1, 5)), part) for part in parts])


@st.composite
def empiricals(draw):
    log = draw(st.booleans())
    bounds = draw(positive_bounds() if log else linear_bounds())
    places = draw(st.lists(numbers(0, 1), min_size=1, max_size=12))
    values = (LogUniform if log else Uniform)(**bounds).ppf(np.array(places))
    weights = draw(st.none() | st.just([1.0 + i for i in range(len(places))]))
    return Empirical(values.tolist(), weights=weights, log=log, **bounds)


CONTINUOUS = {**CLOSED_FORM, Mixture: mixtures(), Empirical: empiricals()}


@st.composite
def integers(draw):
    step = draw(st.integers(1, 4))
    low = draw(st.integers(3, 10))
    bounds = {"low": low, "high": low + step * draw(st.integers(1, 12))}
    continuous = [
        Uniform(**bounds),
        LogUniform(**bounds),
        Normal(draw(numbers(0, 60)), draw(numbers(10, 50)), **bounds),
        Beta(draw(numbers(0.5, 5)), draw(numbers(0.5, 5)), **bounds),
        Mixture([(1, Uniform(**bounds)), (2, LogNormal(draw(numbers(3, 60)), 1.0, **bounds))]),
    ]
    return Integer(draw(st.sampled_from(continuous)), step)


@st.composite
def steppeds(draw):
    step = draw(st.sampled_from([0.1, 0.25, 0.5]))
    first, count = draw(st.integers(-8, 8)), draw(st.integers(1, 12))
    # Rounded: Optuna asks for bounds on the grid to the last digit.
    bounds = {"low": round(step * first, 9), "high": round(step * (first + count), 9)}
    middle = bounds["low"] + draw(numbers(0, count)) * step
    return Stepped(draw(st.sampled_from([Uniform(**bounds), Normal(middle, 5 * step, **bounds)])), step)


@st.composite
def categoricals(draw):
    choices = draw(st.permutations([None, True, "a", "b", 2.5, 7]))[: draw(st.integers(1, 6))]
    weights = draw(st.none() | st.just([float(i % 3) + 0.5 * (i == 0) for i in range(len(choices))]))
    return Categorical(choices, weights)


ROUNDED = {Integer: integers(), Stepped: steppeds()}
STRATEGIES = {**CONTINUOUS, **ROUNDED, Categorical: categoricals()}


def over(strategies):
    return pytest.mark.parametrize("laws", strategies.values(), ids=[kind.__name__ for kind in strategies])


def support(law):
    """Every value of a law of separate values."""
    if isinstance(law, Categorical):
        return list(law.choices)
    return [law.low + law.step * index for index in range(round((law.high - law.low) / law.step) + 1)]

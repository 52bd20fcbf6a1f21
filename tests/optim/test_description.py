"""Settings in words agree with the exact maps to optimizers that have names."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inna_tune.optim import describe_settings, from_qhm, from_sgd, pure_numbers

STEPS = st.floats(1e-4, 1.0)


@given(STEPS, st.floats(0.3, 0.999))
def test_what_is_sgd_is_called_so(lr, momentum):
    assert describe_settings(*from_sgd(lr, momentum)).endswith(": SGD with momentum")
    words = describe_settings(*from_sgd(lr, momentum, nesterov=True))
    assert words.endswith(": SGD with Nesterov momentum")


@given(STEPS, st.floats(0.3, 0.999))
def test_quasi_hyperbolic_momentum_without_nu_is_gradient_descent(step, momentum):
    lr, alpha, beta = from_qhm(step, momentum, 0.0)
    assert f"plain gradient descent with step {step:.3g}" in describe_settings(lr, alpha, beta)


@given(STEPS, st.floats(0.9, 0.999), st.floats(0.82, 1.2))
def test_near_is_near(lr, momentum, factor):
    step, alpha, beta = from_sgd(lr, momentum)
    assert re.search(r": (near )?SGD with momentum$", describe_settings(step, alpha, beta * factor))


@given(STEPS, st.floats(0.001, 5.0), st.floats(0.01, 5.0), st.floats(0.1, 500.0))
def test_its_numbers_are_those_of_the_closed_forms(lr, alpha, beta, curvature):
    words = describe_settings(lr, alpha, beta, curvature)
    pure = pure_numbers(lr, alpha, beta, curvature)
    assert words.startswith(f"effective step {lr / alpha:.3g}, momentum {1 - alpha * lr:.3g}, ")
    assert f"damping ratio {pure.damping_ratio:.2g} (" in words
    if 0 < pure.stable_step_ratio < math.inf:
        assert f"stable up to {pure.stable_step_ratio:.3g} times" in words
    assert "\n" not in words


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ((0.1, 0.0, 0.3, 5.0), "no friction"),
        ((0.1, 0.0, 0.3, 5.0), "momentum 1,"),
        ((0.1, 20.0, 0.01), "too much friction"),
        ((0.1, 1.0, 0.15, 4.0), "between SGD with momentum and Nesterov's"),
        ((0.1, 1.0, 0.4, 100.0), "(overdamped)"),
        ((0.1, 1.0, 0.4), "more of each gradient at once than SGD with Nesterov"),
        ((0.1, 1.0, 0.05), "less of each gradient at once"),
        ((0.1, 3.0, 0.5), "takes some back"),
        ((0.1, 0.05, 0.19, 100.0), "near critical"),
        ((0.5, 5.0, 0.1, 1.0), "unstable in flat directions"),
    ],
)
def test_words(settings, words):
    assert words in describe_settings(*settings)


@pytest.mark.parametrize(
    "settings",
    [
        (0.0, 1.0, 1.0),
        (0.1, -1.0, 1.0),
        (0.1, 1.0, 0.0),
        (math.nan, 1, 1),
        (0.1, math.inf, 1),
        (0.1, 1, 1, 0),
    ],
)
def test_numbers_that_are_no_settings_are_refused(settings):
    with pytest.raises(ValueError, match=r"(lr|alpha|beta|curvature)=.* must be"):
        describe_settings(*settings)

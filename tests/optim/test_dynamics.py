import math
import subprocess
import sys

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import assume, settings
from hypothesis import strategies as st
from torch.optim.sgd import sgd

from inna_tune.optim.dynamics import (
    from_qhm,
    from_sgd,
    is_stable,
    largest_stable_step,
    pure_numbers,
    settings_from_curvature,
    to_qhm,
    to_sgd,
    tolerated_curvature,
)
from tests.optim.reference import inna_path


def given(*laws, **named_laws):
    """Properties over examples of no deadline, since machines are shared."""
    return lambda test: settings(deadline=None)(hypothesis.given(*laws, **named_laws)(test))


def magnitudes(low, high):
    return st.floats(math.log(low), math.log(high)).map(math.exp)


alphas = magnitudes(1e-3, 10)
betas = magnitudes(1e-3, 10)
steps = magnitudes(1e-3, 10)
curvatures = magnitudes(1e-3, 1e3)


def spectral_radius(alpha, beta, lr, curvature):
    """Largest modulus of the eigenvalues of INNA's step on a quadratic, arrays broadcast."""
    alpha, beta, lr, curvature = np.broadcast_arrays(alpha, beta, lr, curvature)
    rows = [[1 - lr * beta * curvature, lr], [-lr * (1 - alpha * beta) * curvature, 1 - alpha * lr]]
    matrices = np.moveaxis(np.array(rows), (0, 1), (-2, -1))
    return np.abs(np.linalg.eigvals(matrices)).max(-1)


def random_gradients(seed=0, n_steps=60, size=5):
    return np.random.default_rng(seed).normal(size=(n_steps, size))


def inna_on(gradients, lr, alpha, beta):
    """Positions after each of a sequence of given gradients, from zero."""
    queue = iter(gradients)
    return inna_path(lambda _: next(queue), np.zeros(gradients.shape[1]), lr, alpha, beta, len(gradients))[0][
        1:
    ]


def test_stability_is_that_of_the_eigenvalues():
    rng = np.random.default_rng(0)
    alpha, beta, lr = 10 ** rng.uniform(-3, 1, (3, 200_000))
    curvature = 10 ** rng.uniform(-3, 3, 200_000)
    radius = spectral_radius(alpha, beta, lr, curvature)
    decided = np.abs(radius - 1) > 1e-9
    stable = is_stable(alpha, beta, lr, curvature)
    assert stable[decided].tolist() == (radius < 1)[decided].tolist()
    assert 0.2 < stable.mean() < 0.8


@given(alphas, betas, steps, curvatures)
def test_a_step_up_to_beta_meets_the_first_condition_at_every_curvature(alpha, beta, lr, curvature):
    if lr <= beta:
        assert is_stable(alpha, beta, lr, curvature) == (
            4 - 2 * alpha * lr > lr * curvature * (2 * beta - lr)
        )
    else:
        assert not is_stable(alpha, beta, lr, 1.001 * alpha / (lr - beta))


@given(alphas, betas, curvatures)
def test_largest_stable_step_is_where_stability_ends(alpha, beta, curvature):
    edge = largest_stable_step(alpha, beta, curvature)
    fractions = np.array([1e-3, 0.1, 0.5, 0.9, 0.999, 1.001, 1.1, 2.0, 10.0])
    assert is_stable(alpha, beta, fractions * edge, curvature).tolist() == (fractions < 1).tolist()


@given(alphas, betas, curvatures)
def test_largest_stable_step_formula(alpha, beta, curvature):
    discriminant = (beta * curvature + alpha) ** 2 - 4 * curvature
    expected = beta + alpha / curvature
    if discriminant >= 0:
        expected = min(expected, (beta * curvature + alpha - math.sqrt(discriminant)) / curvature)
    assert largest_stable_step(alpha, beta, curvature) == pytest.approx(expected, rel=1e-6)


@given(alphas, betas)
def test_largest_stable_step_rises_then_falls_with_curvature(alpha, beta):
    assume(abs(alpha * beta - 1) > 1e-3)
    assert largest_stable_step(alpha, beta, 1e-12 * alpha / beta) == pytest.approx(2 / alpha, rel=1e-3)
    peak = (1 - math.sqrt(1 - alpha * beta)) ** 2 / beta**2 if alpha * beta < 1 else 0.0
    grid = np.geomspace(1e-6, 1e6, 400)
    edges = largest_stable_step(alpha, beta, grid)
    assert (np.diff(edges[grid < peak]) >= -1e-9 * edges[grid < peak][1:]).all()
    assert (np.diff(edges[grid > peak]) <= 1e-9 * edges[grid > peak][1:]).all()


@given(alphas, betas, steps)
def test_tolerated_curvature_bounds_the_stable_ones(alpha, beta, lr):
    edge = tolerated_curvature(alpha, beta, lr)
    if edge == 0:
        assert alpha * lr >= 2
        assert spectral_radius(alpha, beta, lr, 1e-9) >= 1
    else:
        assert is_stable(alpha, beta, lr, edge * np.geomspace(1e-6, 1 - 1e-6, 200)).all()
        assert not is_stable(alpha, beta, lr, 1.000001 * edge)
        assert (
            spectral_radius(alpha, beta, lr, edge * 0.99) < 1 < spectral_radius(alpha, beta, lr, edge * 1.01)
        )


@given(alphas, betas, steps)
def test_tolerated_curvature_inverts_the_largest_step(alpha, beta, lr):
    edge = tolerated_curvature(alpha, beta, lr)
    assume(edge > 0)
    around = largest_stable_step(alpha, beta, edge * np.array([1 + 1e-7, 1 - 1e-7]))
    assert around[0] * (1 - 1e-6) <= lr <= around[1] * (1 + 1e-6)


@pytest.mark.parametrize(("lr", "expected"), [(0.5, "bounded"), (1.0, 0.0), (2.0, 0.0)])
def test_without_friction_only_steps_below_beta_are_stable(lr, expected):
    edge = tolerated_curvature(0.0, 1.0, lr)
    assert edge == (4 / (lr * (2 - lr)) if expected == "bounded" else expected)


pure = {
    "scaled_alpha": magnitudes(1e-4, 0.5),
    "damping_ratio": magnitudes(0.3, 3),
    "stable_step_ratio": magnitudes(0.3, 30),
}


@given(curvature=curvatures, **pure)
def test_settings_have_the_pure_numbers_they_are_made_of(
    curvature, scaled_alpha, damping_ratio, stable_step_ratio
):
    lr, alpha, beta = settings_from_curvature(
        curvature,
        scaled_alpha=scaled_alpha,
        damping_ratio=damping_ratio,
        stable_step_ratio=stable_step_ratio,
    )
    root = math.sqrt(curvature)
    assert alpha == pytest.approx(scaled_alpha * root)
    assert (alpha / root + beta * root) / 2 == pytest.approx(damping_ratio)
    assert lr == pytest.approx(largest_stable_step(alpha, beta, stable_step_ratio * curvature))
    edges = stable_step_ratio * curvature * np.array([0.01, 0.5, 0.999, 1.001])
    assert is_stable(alpha, beta, lr, edges).tolist() == [True, True, True, False]


@given(curvature=curvatures, **pure)
def test_pure_numbers_invert_settings(curvature, scaled_alpha, damping_ratio, stable_step_ratio):
    # At these two the largest step jumps, and there is nothing to invert.
    total = stable_step_ratio * (2 * damping_ratio - scaled_alpha) + scaled_alpha
    assume(abs(total**2 / (4 * stable_step_ratio) - 1) > 1e-3)
    given_numbers = (scaled_alpha, damping_ratio, stable_step_ratio)
    natural = settings_from_curvature(
        curvature, scaled_alpha=scaled_alpha, damping_ratio=damping_ratio, stable_step_ratio=stable_step_ratio
    )
    assert pure_numbers(*natural, curvature) == pytest.approx(given_numbers, rel=1e-6)


@given(**pure, curvature=curvatures)
def test_settings_scale_with_the_square_root_of_the_curvature(curvature, **numbers):
    root = math.sqrt(curvature)
    lr, alpha, beta = settings_from_curvature(1.0, **numbers)
    scaled = settings_from_curvature(curvature, **numbers)
    assert scaled == pytest.approx((lr / root, alpha * root, beta / root), rel=1e-6)


def test_settings_never_let_flat_directions_diverge():
    lr, alpha, _ = settings_from_curvature(1.0, scaled_alpha=1.0, damping_ratio=0.75, stable_step_ratio=0.3)
    assert alpha * lr == pytest.approx(2)


def test_effective_step_momentum_and_immediate_share():
    lr, alpha, beta = 0.02, 0.6, 0.3
    impulse = np.zeros((4000, 1))
    impulse[0] = 1.0
    moves = np.diff(np.concatenate([[[0.0]], inna_on(impulse, lr, alpha, beta)]), axis=0)[:, 0]
    assert moves.sum() == pytest.approx(-lr / alpha)
    assert moves[2] / moves[1] == pytest.approx(1 - alpha * lr)
    assert moves[0] / moves.sum() == pytest.approx(alpha * beta)


def test_alpha_beta_one_is_gradient_descent():
    gradients = random_gradients()
    np.testing.assert_allclose(
        inna_on(gradients, 0.05, 4.0, 0.25), -0.05 * 0.25 * np.cumsum(gradients, axis=0), atol=1e-12
    )


@pytest.mark.parametrize("nesterov", [False, True])
@given(lr=magnitudes(1e-3, 1), momentum=st.floats(0.05, 0.99))
def test_from_sgd_takes_the_steps_of_torch(nesterov, lr, momentum):
    gradients = random_gradients()
    weight = torch.nn.Parameter(torch.zeros(5, dtype=torch.float64))
    optimizer = torch.optim.SGD([weight], lr=lr, momentum=momentum, nesterov=nesterov)
    path = []
    for gradient in gradients:
        weight.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
        path.append(weight.detach().numpy().copy())
    equivalent = from_sgd(lr, momentum, nesterov=nesterov)
    np.testing.assert_allclose(inna_on(gradients, *equivalent), path, rtol=1e-9, atol=1e-9)
    back = to_sgd(*equivalent)
    assert back[:3] == pytest.approx((lr, momentum, 0.0), abs=1e-9)
    assert back.nesterov is nesterov


@given(alphas, betas, st.floats(0.01, 0.99))
def test_to_sgd_takes_the_steps_of_inna(alpha, beta, share):
    lr = share * beta
    assume(alpha * lr < 0.95)
    gradients = random_gradients()
    rate, momentum, dampening, nesterov = to_sgd(lr, alpha, beta)
    weight, buffer = torch.zeros(5, dtype=torch.float64), torch.zeros(5, dtype=torch.float64)
    path = []
    for gradient in gradients:
        sgd(
            [weight], [torch.from_numpy(gradient.copy())], [buffer],
            weight_decay=0.0, momentum=momentum, lr=rate, dampening=dampening, nesterov=nesterov, maximize=False,
        )  # fmt: skip
        path.append(weight.numpy().copy())
    expected = inna_on(gradients, lr, alpha, beta)
    np.testing.assert_allclose(path, expected, atol=1e-8 * np.abs(expected).max())


def test_the_defaults_are_a_familiar_sgd():
    assert to_sgd(0.1, 0.5, 0.1) == pytest.approx((0.01, 0.95, 0.0, False))


@given(alphas, betas, steps)
def test_qhm_takes_the_steps_of_inna_and_back(alpha, beta, lr):
    assume(alpha * lr < 1.9 and abs(alpha * lr - 1) > 0.01)
    gradients = random_gradients(n_steps=30)
    rate, momentum, nu = to_qhm(lr, alpha, beta)
    buffer, position, path = 0.0, 0.0, []
    for gradient in gradients:
        buffer = momentum * buffer + (1 - momentum) * gradient
        position = position - rate * ((1 - nu) * gradient + nu * buffer)
        path.append(position)
    expected = inna_on(gradients, lr, alpha, beta)
    np.testing.assert_allclose(path, expected, atol=1e-7 * np.abs(expected).max())
    assert from_qhm(rate, momentum, nu) == pytest.approx((lr, alpha, beta), rel=1e-6)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: to_sgd(0.2, 0.5, 0.1), "lr=0.2 must not exceed beta=0.1"),
        (lambda: to_sgd(0.9, 2.0, 1.0), "alpha [*] lr=1.8"),
        (lambda: to_qhm(0.5, 2.0, 0.1), "alpha [*] lr=1.0 must not be 1"),
        (lambda: to_qhm(0.5, 0.0, 0.1), "alpha=0.0"),
        (lambda: from_qhm(0.5, 1.0, 0.1), "1 - momentum"),
        (lambda: from_sgd(-0.5, 0.9), "lr=-0.5"),
        (lambda: largest_stable_step(1.0, 1.0, 0.0), "curvature=0.0"),
        (lambda: settings_from_curvature(math.nan), "curvature=nan"),
        (lambda: settings_from_curvature(math.inf), "curvature=inf"),
        (
            lambda: settings_from_curvature(1.0, scaled_alpha=2.0),
            "scaled_alpha=2.0 must be below 2 [*] damping_ratio=1.5",
        ),
        (lambda: settings_from_curvature(torch.tensor([1.0, -1.0])), "curvature=tensor"),
    ],
)
def test_bad_arguments_are_named(call, named):
    with pytest.raises(ValueError, match=named):
        call()


SCALAR_FUNCTIONS = [
    (is_stable, (0.5, 0.1, 0.12, 30.0)),
    (largest_stable_step, (0.5, 0.1, 30.0)),
    (tolerated_curvature, (0.5, 0.1, 0.12)),
    (settings_from_curvature, (30.0,)),
    (pure_numbers, (0.12, 0.5, 0.1, 30.0)),
    (to_sgd, (0.08, 0.5, 0.1)),
    (from_sgd, (0.01, 0.9)),
    (to_qhm, (0.12, 0.5, 0.1)),
    (from_qhm, (0.2, 0.9, 0.5)),
]


@pytest.mark.parametrize(
    ("function", "values"), SCALAR_FUNCTIONS, ids=[f.__name__ for f, _ in SCALAR_FUNCTIONS]
)
def test_floats_arrays_and_tensors_agree(function, values):
    def as_tuple(result):
        return result if isinstance(result, tuple) else (result,)

    plain = as_tuple(function(*values))
    assert all(type(value) in (float, bool) for value in plain)
    scales = [1.0, 1.01]
    arrays = as_tuple(function(*(np.multiply(value, scales) for value in values)))
    tensors = as_tuple(function(*(torch.tensor(scales, dtype=torch.float64) * value for value in values)))
    mixed = as_tuple(function(torch.tensor([values[0]], dtype=torch.float64), *values[1:]))
    for value, array, tensor, broad in zip(plain, arrays, tensors, mixed, strict=True):
        assert np.asarray(array).flat[0] == pytest.approx(value)
        np.testing.assert_allclose(array, np.asarray(tensor))
        assert float(torch.as_tensor(broad).flatten()[0]) == pytest.approx(float(value))


@pytest.mark.parametrize("curvature", [0.5, 30.0, 5000.0])
def test_settings_have_finite_gradients(curvature):
    leaf = torch.tensor([curvature], dtype=torch.float64, requires_grad=True)
    for ratio in (0.5, 4.0):
        (slope,) = torch.autograd.grad(
            sum(settings_from_curvature(leaf, stable_step_ratio=ratio)).sum(), leaf
        )
        assert slope.isfinite().all()


def test_the_module_alone_needs_no_scipy():
    code = (
        "import sys, importlib.util as u; s = u.spec_from_file_location('dynamics', sys.argv[1]);"
        "m = u.module_from_spec(s); s.loader.exec_module(m); assert 'scipy' not in sys.modules"
    )
    path = sys.modules[is_stable.__module__].__file__
    subprocess.run([sys.executable, "-c", code, path], check=True)

"""The mathematics of a step a tensor: each formula of its section, numerically, from an independent computation."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.optim.sgd import sgd

from inna_tune.optim import (
    INNA,
    calibrate,
    continuous_trajectory,
    curvature,
    energy,
    is_stable,
    largest_stable_step,
    pure_numbers,
    step_factors,
)

SIZES = st.lists(st.integers(1, 4), min_size=1, max_size=4)
SEEDS = st.integers(0, 2**31)
LIKELY = settings(max_examples=60, deadline=None)


def magnitudes(low, high):
    return st.floats(math.log(low), math.log(high)).map(math.exp)


def problem(sizes, seed, semidefinite=True):
    """A Hessian over tensors of these sizes, and a factor a tensor, spread over its weights."""
    rng = np.random.default_rng(seed)
    size = sum(sizes)
    root = rng.normal(size=(size, size)) * np.repeat(np.exp(rng.normal(size=len(sizes))), sizes)
    hessian = root.T @ root if semidefinite else root + root.T
    factors = np.exp(1.5 * rng.normal(size=len(sizes)))
    return hessian, factors, np.repeat(factors, sizes)


def step_matrix(hessian, spread, alpha, beta, lr):
    """One step of INNA with factors on a quadratic, on (θ, u)."""
    pull = spread[:, None] * hessian
    eye = np.eye(len(hessian))
    return np.block(
        [[eye - lr * beta * pull, lr * eye], [-lr * (1 - alpha * beta) * pull, (1 - alpha * lr) * eye]]
    )


def stretched(hessian, spread):
    roots = np.sqrt(spread)
    return roots[:, None] * hessian * roots


def tensors_of(vector, sizes):
    return [torch.tensor(part) for part in np.split(np.asarray(vector), np.cumsum(sizes)[:-1])]


@LIKELY
@given(sizes=SIZES, seed=SEEDS)
def test_gradient_and_hessian_in_the_stretched_coordinates(sizes, seed):
    hessian, _, spread = problem(sizes, seed, semidefinite=False)
    roots, matrix = torch.tensor(np.sqrt(spread)), torch.tensor(hessian)

    def loss(theta):
        return 0.5 * theta @ matrix @ theta + theta.sin().sum()

    theta = torch.tensor(np.random.default_rng(seed).normal(size=len(spread)))
    phi = (theta / roots).requires_grad_()
    (slope,) = torch.autograd.grad(loss(roots * phi), phi)
    torch.testing.assert_close(slope, roots * torch.autograd.functional.jacobian(loss, theta))
    here = torch.autograd.functional.hessian(lambda phi: loss(roots * phi), phi.detach())
    own = torch.autograd.functional.hessian(loss, theta)
    torch.testing.assert_close(here, torch.tensor(stretched(own.numpy(), spread)))
    assert np.sort(np.linalg.eigvals(spread[:, None] * own.numpy()).real) == pytest.approx(
        np.linalg.eigvalsh(here.numpy()), rel=1e-6, abs=1e-6
    )


@LIKELY
@given(
    sizes=SIZES,
    seed=SEEDS,
    alpha=magnitudes(1e-2, 5),
    beta=magnitudes(1e-2, 5),
    lr=magnitudes(1e-2, 5),
)
def test_stable_if_and_only_if_at_every_eigenvalue_of_the_stretched_hessian(sizes, seed, alpha, beta, lr):
    hessian, _, spread = problem(sizes, seed)
    radius = np.abs(np.linalg.eigvals(step_matrix(hessian, spread, alpha, beta, lr))).max()
    assume(abs(radius - 1) > 1e-6)
    eigenvalues = np.linalg.eigvalsh(stretched(hessian, spread))
    assume(eigenvalues[0] > 1e-6 * eigenvalues[-1])
    assert all(is_stable(alpha, beta, lr, value) for value in eigenvalues) == (radius < 1)


@LIKELY
@given(sizes=SIZES, seed=SEEDS, share=st.sampled_from([0.98, 1.02]))
def test_the_step_of_a_calibration_is_at_the_edge_that_is_asked_for(sizes, seed, share):
    hessian, factors, spread = problem(sizes, seed)
    eigenvalues = np.linalg.eigvalsh(stretched(hessian, spread))
    assume(eigenvalues[0] > 1e-4 * eigenvalues[-1])
    matrix = torch.tensor(hessian)
    params = [part.requires_grad_() for part in tensors_of(np.ones(len(spread)), sizes)]

    def loss_fn():
        point = torch.cat(params)
        return 0.5 * point @ matrix @ point

    found = calibrate(loss_fn, params, step_factors=factors.tolist(), n_iterations=40)
    pure = pure_numbers(found.lr, found.alpha, found.beta, eigenvalues[-1])
    assert (pure.scaled_alpha, pure.damping_ratio, pure.stable_step_ratio) == pytest.approx(
        (0.24, 0.75, 2.0), rel=1e-5
    )
    # Underdamped, the largest step falls with the curvature: the largest eigenvalue is the first to go.
    alpha, beta = 0.1 * math.sqrt(eigenvalues[-1]), 0.3 / math.sqrt(eigenvalues[-1])
    measured = curvature(loss_fn, params, step_factors=factors.tolist(), n_iterations=40)
    lr = share * largest_stable_step(alpha, beta, measured)
    radius = np.abs(np.linalg.eigvals(step_matrix(hessian, spread, alpha, beta, lr))).max()
    assert (radius < 1) == (share < 1)


@LIKELY
@given(sizes=SIZES, seed=SEEDS, members=st.booleans())
def test_factors_of_parts_of_a_tensor_stretch_these(sizes, seed, members):
    """Tensors [n, 2] whose rows have a factor each, alone or of two members."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(2 * sum(sizes), 2 * sum(sizes)))
    matrix = torch.tensor(root.T @ root)
    lead = (2,) if members else ()
    params = [torch.ones(*lead, n, 2, dtype=torch.float64, requires_grad=True) for n in sizes]
    factors = [torch.tensor(np.exp(rng.normal(size=(*lead, n, 1)))) for n in sizes]

    def loss_fn():
        points = torch.cat([p.reshape(*lead, -1) for p in params], -1)
        return 0.5 * (points @ matrix * points).sum()

    found = curvature(loss_fn, params, step_factors=factors, n_iterations=60, member_axis=members)
    spread = torch.cat([f.expand_as(p).reshape(*lead, -1) for f, p in zip(factors, params, strict=True)], -1)
    for own, value in zip(spread.reshape(-1, len(matrix)), torch.as_tensor(found).reshape(-1), strict=True):
        expected = np.linalg.eigvalsh(stretched(matrix.numpy(), own.numpy()))[-1]
        assert float(value) == pytest.approx(expected, rel=1e-4)


@LIKELY
@given(
    sizes=SIZES, seed=SEEDS, lr=st.sampled_from([0.02, 0.05, 0.08]), weight_decay=st.sampled_from([0, 0.1])
)
def test_inna_steps_by_that_matrix(sizes, seed, lr, weight_decay):
    """The optimizer itself, on whatever way it takes, is the matrix whose eigenvalues were looked at."""
    hessian, factors, spread = problem(sizes, seed)
    alpha, beta = 0.5, 0.08
    # The weight decay is the curvature λ/(βf), of which f makes λ/β.
    decayed = hessian + np.diag(weight_decay / (beta * spread))
    matrix = step_matrix(decayed, spread, alpha, beta, lr)
    state = np.concatenate([np.ones(len(spread)), np.zeros(len(spread))])
    params = [torch.nn.Parameter(part) for part in tensors_of(state[: len(spread)], sizes)]
    groups = [{"params": [p], "step_factor": f} for p, f in zip(params, factors.tolist(), strict=True)]
    optimizer = INNA(groups, lr, alpha, beta, weight_decay=weight_decay)
    for _ in range(15):
        grads = tensors_of(hessian @ np.concatenate([p.detach().numpy() for p in params]), sizes)
        for p, grad in zip(params, grads, strict=True):
            p.grad = grad
        optimizer.step()
        state = matrix @ state
    theta = np.concatenate([p.detach().numpy() for p in params])
    size = np.abs(state).max()
    np.testing.assert_allclose(theta, state[: len(theta)], rtol=0, atol=1e-10 * max(size, 1.0))


def test_weight_decay_minimises_the_loss_with_a_penalty_a_tensor():
    hessian, factors, spread = problem([3, 2], 5)
    hessian = hessian / np.linalg.eigvalsh(stretched(hessian, spread))[-1]
    alpha, beta, weight_decay = 0.8, 0.5, 0.02
    aim = np.linspace(-1, 1, 5)
    params = [torch.nn.Parameter(part) for part in tensors_of(np.zeros(5), [3, 2])]
    groups = [{"params": [p], "step_factor": f} for p, f in zip(params, factors.tolist(), strict=True)]
    optimizer = INNA(groups, 0.3, alpha, beta, weight_decay=weight_decay)
    for _ in range(4000):
        theta = np.concatenate([p.detach().numpy() for p in params])
        for p, grad in zip(params, tensors_of(hessian @ (theta - aim), [3, 2]), strict=True):
            p.grad = grad
        optimizer.step()
    # Where J(θ) + Σ λ/(2βf)‖θ‖² is least.
    penalty = np.diag(weight_decay / (beta * spread))
    np.testing.assert_allclose(theta, np.linalg.solve(hessian + penalty, hessian @ aim), atol=1e-9)


def test_the_effective_step_of_a_tensor_is_its_factor_times_that_of_inna():
    alpha, beta, lr, factor = 0.7, 0.2, 0.15, 0.03
    p = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = INNA([p], lr, alpha, beta, step_factor=factor)
    for step in range(600):
        p.grad = torch.full_like(p, 1.0 if step == 0 else 0.0)
        optimizer.step()
        if step == 0:
            at_once = -p.item()
    assert at_once == pytest.approx(factor * lr * beta)
    assert -p.item() == pytest.approx(factor * lr / alpha)
    assert at_once / -p.item() == pytest.approx(alpha * beta)


@pytest.mark.parametrize(("alpha", "beta"), [(0.1, 0.1), (0.1, 2.0), (3.0, 0.05), (2.0, 2.0)])
@pytest.mark.parametrize("factors", [(1.0, 0.2), (0.3, 3.0)])
def test_energy_falls_at_its_rate_along_the_stretched_system(alpha, beta, factors):
    def slope(theta):
        x, y = theta
        return np.array([x**3 - x + 2 * (x - y), 3 * y - 2 * (x - y)])

    def loss(theta):
        x, y = theta
        return x**4 / 4 - x**2 / 2 + (x - y) ** 2 + 1.5 * y**2

    spread = np.array(factors)
    times = np.linspace(0, 8, 8001)
    path = continuous_trajectory(lambda t: spread * slope(t), [2.0, -1.0], times, alpha=alpha, beta=beta)
    energies = np.array(
        [
            energy(loss(p), [u[:1], u[1:]], alpha, beta, step_factors=list(factors))
            for p, u in zip(path.positions, path.velocities, strict=True)
        ]
    )
    assert (np.diff(energies) < 0).all()
    slopes = np.array([slope(position) for position in path.positions])
    motion = path.velocities - beta * spread * slopes
    rate = -alpha * (motion**2 / spread).sum(1) - beta * (spread * slopes**2).sum(1)
    np.testing.assert_allclose(np.gradient(energies, times)[1:-1], rate[1:-1], rtol=1e-3, atol=1e-3)


def test_energy_takes_a_factor_for_each_velocity():
    velocities = [np.array([1.0, 2.0]), np.array([3.0])]
    assert energy(2.0, velocities, 0.5, 0.2, step_factors=[0.5, 2.0]) == pytest.approx(2.2 + 5.0 + 9.0 / 4)
    assert energy(2.0, velocities, 0.5, 0.2, step_factors=[1, 1]) == energy(2.0, velocities, 0.5, 0.2)
    assert energy(2.0, velocities[0], 0.5, 0.2, step_factors=0.5) == pytest.approx(2.2 + 5.0)
    with pytest.raises(ValueError, match="1 factors for 2 velocities"):
        energy(2.0, velocities, 0.5, 0.2, step_factors=[1.0])


@LIKELY
@given(
    seed=SEEDS,
    alpha=magnitudes(1e-2, 3),
    beta=magnitudes(1e-2, 3),
    weight_decay=st.sampled_from([0.0, 0.1]),
)
def test_the_kernel_s_numbers_with_a_factor(seed, alpha, beta, weight_decay):
    """The formulas of the page, given to torch's SGD by hand, while step size and factor change."""
    rng = np.random.default_rng(seed)
    theta, u = rng.normal(size=4), np.zeros(4)
    weights, buffer, c = torch.tensor(theta), torch.zeros(4, dtype=torch.float64), None
    for _ in range(25):
        lr = min(beta, 1 / alpha) * rng.uniform(0.05, 0.9)
        f = math.exp(rng.normal())
        g = rng.normal(size=4)
        m = 1 - alpha * lr
        if c is None:
            c = f * m * (beta - lr)
        c_next = math.sqrt(c * f * m * (beta - lr))
        sgd(
            [weights],
            [torch.tensor(g)],
            [buffer],
            weight_decay=weight_decay / (beta * f),
            momentum=c / c_next * m,
            lr=lr * c_next**2 / (c * m**2),
            dampening=1 - lr * (1 - alpha * beta) * f / c_next,
            nesterov=True,
            maximize=False,
            has_sparse_grad=False,
            foreach=False,
            fused=True,
        )
        c = c_next
        slope = f * g + weight_decay / beta * theta
        theta, u = theta + lr * (u - beta * slope), m * u - lr * (1 - alpha * beta) * slope
        size = max(1.0, np.abs(theta).max(), np.abs(u).max())
        np.testing.assert_allclose(weights.numpy(), theta, rtol=0, atol=1e-10 * size)
        np.testing.assert_allclose(-c * buffer.numpy(), u, rtol=0, atol=1e-10 * size)


@LIKELY
@given(sizes=SIZES, seed=SEEDS)
def test_measured_factors_bound_the_curvature_by_the_first_tensor_s(sizes, seed):
    hessian, _, _ = problem(sizes, seed)
    matrix = torch.tensor(hessian)
    params = [part[:, None].clone().requires_grad_() for part in tensors_of(np.ones(sum(sizes)), sizes)]

    def loss_fn():
        point = torch.cat(params)[:, 0]
        return 0.5 * point @ matrix @ point

    found = step_factors(loss_fn, params, n_iterations=20, lowest=1e-12)
    ends = np.cumsum(sizes)
    blocks = [np.linalg.eigvalsh(hessian[e - n : e, e - n : e])[-1] for e, n in zip(ends, sizes, strict=True)]
    assert found == pytest.approx([min(1.0, blocks[0] / block) for block in blocks], rel=1e-5)
    largest = np.linalg.eigvalsh(stretched(hessian, np.repeat(found, sizes)))[-1]
    assert blocks[0] * (1 - 1e-5) <= largest <= len(sizes) * blocks[0] * (1 + 1e-5)


@LIKELY
@given(seed=SEEDS, column=st.integers(0, 2))
def test_the_block_of_a_column_is_its_square_times_what_is_behind_the_layer(seed, column):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x, weight, head = normal(7, 3), normal(3, 4), normal(4)

    def of_row(z):
        return (z.tanh() @ head).square()

    def loss(own):
        rows = torch.arange(3)[:, None] == column
        return of_row(x @ torch.where(rows, own, weight)).mean()

    block = torch.autograd.functional.hessian(loss, weight[column])
    behind = torch.stack([torch.autograd.functional.hessian(of_row, z) for z in x @ weight])
    expected = (x[:, column, None, None] ** 2 * behind).mean(0)
    torch.testing.assert_close(block, expected)

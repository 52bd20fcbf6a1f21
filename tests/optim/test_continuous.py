import math

import numpy as np
import pytest
import torch

from inna_tune.optim.continuous import continuous_trajectory, energy
from tests.optim.reference import inna_path


def bananas(theta):
    """Gradient of a smooth non-convex function of two variables."""
    x, y = theta
    return np.array([x**3 - x + 2 * (x - y), 3 * y - 2 * (x - y)])


def bananas_loss(theta):
    x, y = theta
    return x**4 / 4 - x**2 / 2 + (x - y) ** 2 + 1.5 * y**2


def test_energy_is_the_papers_in_velocity_terms():
    alpha, beta = 0.7, 0.3
    rng = np.random.default_rng(0)
    theta, psi = rng.normal(size=(2, 6))
    velocity = (1 / beta - alpha) * theta - psi / beta
    expected = (1 + alpha * beta) * 2.5 + 0.5 * np.sum(((alpha - 1 / beta) * theta + psi / beta) ** 2)
    assert energy(2.5, velocity, alpha, beta) == pytest.approx(expected)
    assert energy(2.5, [velocity[:2], velocity[2:]], alpha, beta) == pytest.approx(expected)
    tensor = energy(torch.tensor(2.5), [torch.from_numpy(velocity)], alpha, beta)
    assert tensor.item() == pytest.approx(expected)


@pytest.mark.parametrize(("alpha", "beta"), [(0.1, 0.1), (0.1, 2.0), (3.0, 0.05), (2.0, 2.0)])
def test_energy_falls_at_its_rate_along_the_continuous_system(alpha, beta):
    times = np.linspace(0, 8, 8001)
    path = continuous_trajectory(bananas, [2.0, -1.0], times, alpha=alpha, beta=beta)
    energies = np.array(
        [
            energy(bananas_loss(p), u, alpha, beta)
            for p, u in zip(path.positions, path.velocities, strict=True)
        ]
    )
    assert (np.diff(energies) < 0).all()
    slopes = np.array([bananas(position) for position in path.positions])
    rate = -alpha * ((path.velocities - beta * slopes) ** 2).sum(1) - beta * (slopes**2).sum(1)
    np.testing.assert_allclose(np.gradient(energies, times)[1:-1], rate[1:-1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("alpha", "beta"), [(0.2, 0.1), (0.2, 1.0), (3.0, 0.1), (1.0, 1.5)])
def test_inna_approaches_the_continuous_system_to_first_order(alpha, beta):
    start, duration = [2.0, -1.0], 4.0
    errors = []
    step_sizes = duration / np.array([400, 800, 1600, 3200])
    for lr in step_sizes:
        n_steps = round(duration / lr)
        path, velocities = inna_path(bananas, start, lr, alpha, beta, n_steps)
        exact = continuous_trajectory(bananas, start, lr * np.arange(n_steps + 1), alpha=alpha, beta=beta)
        errors.append(max(np.abs(path - exact.positions).max(), np.abs(velocities - exact.velocities).max()))
    slope = np.polyfit(np.log(step_sizes), np.log(errors), 1)[0]
    assert slope == pytest.approx(1, abs=0.07)


def test_continuous_system_solves_the_second_order_equation():
    """On a quadratic it is a damped oscillator, with a solution in closed form."""
    alpha, beta, curvature = 0.3, 0.05, 4.0
    times = np.linspace(0, 10, 50)
    path = continuous_trajectory(lambda theta: curvature * theta, [1.0], times, alpha=alpha, beta=beta)
    damping = (alpha + beta * curvature) / 2
    frequency = math.sqrt(curvature - damping**2)
    start_speed = -beta * curvature
    exact = np.exp(-damping * times) * (
        np.cos(frequency * times) + (start_speed + damping) / frequency * np.sin(frequency * times)
    )
    np.testing.assert_allclose(path.positions[:, 0], exact, atol=1e-7)


def test_continuous_system_says_when_it_cannot_be_solved():
    with pytest.raises(RuntimeError, match="could not be solved"):
        continuous_trajectory(lambda theta: -(theta**3), [5.0], [0.0, 10.0], alpha=0.1, beta=0.1)

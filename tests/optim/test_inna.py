"""INNA's trajectory: against the paper's phase form, torch's SGD, the stability region, and P separate runs."""

import functools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inna_tune.optim import INNA

PATHS = [
    pytest.param({}, id="default"),
    pytest.param({"foreach": True}, id="foreach"),
    pytest.param({"foreach": False}, id="single"),
    pytest.param({"capturable": True}, id="capturable"),
]


class PhaseForm:
    """The paper's Algorithm 1 in ψ, one array a parameter; weight decay as the authors' code has it.

    In extended precision, since ψ/β and θ/β cancel and the rounding seen should be INNA's own.
    """

    def __init__(self, thetas, *, alpha, beta, weight_decay=0.0):
        self.alpha, self.beta, self.weight_decay = alpha, beta, weight_decay
        self.thetas = [np.array(theta, dtype=np.longdouble) for theta in thetas]
        self.psis = [np.array((1 - alpha * beta) * theta) for theta in self.thetas]

    def reset(self, alpha, beta):
        """Change alpha and beta and keep the velocity u = (1/β − α)θ − ψ/β."""
        for theta, psi in zip(self.thetas, self.psis, strict=True):
            velocity = (1 / self.beta - self.alpha) * theta - psi / self.beta
            psi[...] = (1 - alpha * beta) * theta - beta * velocity
        self.alpha, self.beta = alpha, beta

    def step(self, grads, lr, skip=()):
        alpha, beta = self.alpha, self.beta
        for i, (theta, psi, grad) in enumerate(zip(self.thetas, self.psis, grads, strict=True)):
            if i in skip:
                continue
            phase = (alpha - 1 / beta) * theta + psi / beta
            psi -= lr * phase
            theta -= lr * (phase + beta * grad + self.weight_decay * theta)


def parameters(seed=0, shapes=((4, 3), (5,), ()), dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for shape in shapes]


def noisy_gradients(thetas, generator):
    """Subgradients of a non-smooth, stochastic loss Σ|θ − noise| + ½θ²."""
    return [np.sign(theta - generator.normal(size=theta.shape)) + theta for theta in thetas]


def set_gradients(params, grads):
    for p, grad in zip(params, grads, strict=True):
        p.grad = None if grad is None else torch.as_tensor(np.asarray(grad, dtype=np.float64), dtype=p.dtype)


def assert_close(params, thetas, tolerance=1e-12):
    for p, theta in zip(params, thetas, strict=True):
        np.testing.assert_allclose(p.detach().double().numpy(), theta, rtol=tolerance, atol=tolerance)


@functools.cache
def phase_form_of(decay_power, weight_decay, lr, alpha, beta):
    """The gradients that the phase form meets, and where it ends: the same for every way of stepping."""
    reference = PhaseForm(
        [p.detach().numpy() for p in parameters()], alpha=alpha, beta=beta, weight_decay=weight_decay
    )
    generator, met = np.random.default_rng(1), []
    for k in range(500):
        met.append(noisy_gradients(reference.thetas, generator))
        reference.step(met[-1], lr * (k + 1) ** -decay_power)
    return met, reference.thetas


@pytest.mark.parametrize("options", PATHS)
@pytest.mark.parametrize("decay_power", [0.0, 0.25])
@pytest.mark.parametrize("weight_decay", [0.0, 0.03])
@pytest.mark.parametrize(
    ("lr", "alpha", "beta"),
    [(0.1, 0.5, 0.1), (0.05, 0.5, 0.1), (0.1, 0.5, 0.05), (0.1, 2.0, 0.8), (0.1, 0.0, 0.3), (0.1, 10.0, 0.1)],
    ids=["gamma = beta", "gamma < beta", "gamma > beta", "alpha beta > 1", "no friction", "alpha gamma = 1"],
)
def test_same_trajectory_as_the_phase_form(options, decay_power, weight_decay, lr, alpha, beta):
    params = parameters()
    optimizer = INNA(params, lr, alpha, beta, decay_power=decay_power, weight_decay=weight_decay, **options)
    met, thetas = phase_form_of(decay_power, weight_decay, lr, alpha, beta)
    for grads in met:
        set_gradients(params, grads)
        optimizer.step()
    # The capturable count is a float32 tensor, and so is its power.
    assert_close(params, thetas, 1e-12 if not (decay_power and "capturable" in options) else 1e-5)


@pytest.mark.parametrize("options", PATHS)
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.95])
@pytest.mark.parametrize("eta", [0.01, 0.3])
def test_heavy_ball_is_torch_sgd(options, momentum, eta):
    ours, theirs = parameters(), parameters()
    root = math.sqrt(eta)
    optimizer = INNA(ours, lr=root, alpha=(1 - momentum) / root, beta=root, **options)
    sgd = torch.optim.SGD(theirs, lr=eta, momentum=momentum)
    for _ in range(100):
        for params, stepper in ((ours, optimizer), (theirs, sgd)):
            stepper.zero_grad()
            sum((p.square() + p.cos()).sum() for p in params).backward()
            stepper.step()
    assert_close(ours, [p.detach().numpy() for p in theirs])


def test_alpha_beta_one_is_gradient_descent():
    params = parameters()
    expected = [p.detach().clone() for p in params]
    optimizer = INNA(params, lr=0.2, alpha=4.0, beta=0.25)
    for _ in range(20):
        grads = [theta.cos() for theta in expected]
        set_gradients(params, grads)
        optimizer.step()
        expected = [theta - 0.05 * grad for theta, grad in zip(expected, grads, strict=True)]
    assert_close(params, [theta.numpy() for theta in expected])


@pytest.mark.parametrize("options", PATHS)
@settings(max_examples=60, deadline=None)
@given(
    lr=st.floats(0.01, 3.0),
    alpha=st.floats(0.0, 3.0),
    beta=st.floats(0.01, 3.0),
    curvature=st.floats(0.01, 30.0),
)
def test_stability_region_on_a_quadratic(options, lr, alpha, beta, curvature):
    margins = (
        alpha + curvature * (beta - lr),
        4 - 2 * alpha * lr - 2 * lr * beta * curvature + lr**2 * curvature,
    )
    matrix = np.array(
        [[1 - lr * beta * curvature, lr], [-lr * (1 - alpha * beta) * curvature, 1 - alpha * lr]]
    )
    radius = abs(np.linalg.eigvals(matrix)).max()
    if abs(radius - 1) > 1e-6:
        assert (min(margins) > 0) == (radius < 1)

    theta = torch.nn.Parameter(torch.ones((), dtype=torch.float64))
    optimizer = INNA([theta], lr, alpha, beta, **options)
    state = np.array([1.0, 0.0])
    for _ in range(30):
        theta.grad = curvature * theta.detach()
        optimizer.step()
        state = matrix @ state
        assert theta.item() == pytest.approx(state[0], rel=1e-9, abs=1e-9 * max(1.0, radius) ** 30)


class TestRandomWalk:
    """Every way of stepping, from one to the next and back, while everything changes."""

    @staticmethod
    def settings_of(generator):
        beta = generator.choice([0.05, 0.1, 0.7, 1.5])
        alpha = generator.choice([0.0, 0.3, 1.0, 1 / beta, 3.0, 12.0])
        return alpha, beta

    @staticmethod
    def lr_of(generator, alpha, beta):
        choices = [
            beta,
            beta * generator.uniform(0.01, 1),
            beta * (1 - 1e-9),
            beta * (1 - 1e-4),
            beta * 1.3,
            0.0,
            np.nextafter(beta, 0),
        ]
        if alpha > 0:
            choices += [1 / alpha, 1.2 / alpha, 0.99 / alpha]
        # Beyond 2/α the velocity grows by itself and all digits go with it.
        return min(float(generator.choice(choices)), 1.4 * beta, 1.9 / max(alpha, 1e-9))

    @pytest.mark.parametrize("seed", range(12))
    def test_stays_with_the_phase_form(self, seed):
        generator = np.random.default_rng(seed)
        alpha, beta = self.settings_of(generator)
        params = parameters(seed)
        optimizer = INNA(params, 0.1, alpha, beta, weight_decay=0.01)
        reference = PhaseForm([p.detach().numpy() for p in params], alpha=alpha, beta=beta, weight_decay=0.01)
        largest = 1.0
        for _ in range(300):
            group = optimizer.param_groups[0]
            if generator.random() < 0.1:
                alpha, beta = self.settings_of(generator)
                reference.reset(alpha, beta)
                group["alpha"], group["beta"] = alpha, beta
            if generator.random() < 0.2:
                group["fused"], group["foreach"] = [
                    (None, None), (True, None), (None, True), (None, False), (False, None)
                ][generator.integers(5)]  # fmt: skip
            if generator.random() < 0.1:
                saved, params = (
                    optimizer.state_dict(),
                    [torch.nn.Parameter(p.detach().clone()) for p in params],
                )
                optimizer = INNA(params, 0.3, 0.2, 0.1)
                optimizer.load_state_dict(saved)
            group = optimizer.param_groups[0]
            group["lr"] = lr = self.lr_of(generator, alpha, beta)
            skip = [i for i in range(len(params)) if generator.random() < 0.15]
            # Gradients that pull towards zero keep the walk bounded whatever the settings.
            grads = [
                generator.normal(size=theta.shape) + 0.1 * np.clip(theta, -1, 1) for theta in reference.thetas
            ]
            set_gradients(params, [None if i in skip else grad for i, grad in enumerate(grads)])
            optimizer.step()
            reference.step(grads, lr, skip)
            for p, theta in zip(params, reference.thetas, strict=True):
                largest = max(largest, np.abs(theta).max())
                np.testing.assert_allclose(p.detach().numpy(), theta, rtol=0, atol=1e-12 * largest)

    def test_takes_the_kernel_where_it_says(self, monkeypatch):
        taken = []
        import inna_tune.optim._inertial as module

        for name in ("fused_step", "foreach_step", "single_step"):
            original = getattr(module, name)
            monkeypatch.setattr(
                module,
                name,
                lambda *a, original=original, name=name, **k: (taken.append(name), original(*a, **k)),
            )
        for lr, options, expected in [
            (0.1, {}, "fused_step"),
            (0.05, {}, "fused_step"),
            (0.05, {"fused": True}, "fused_step"),
            (0.15, {}, "foreach_step"),
            (0.15, {"fused": True}, "foreach_step"),
            (0.05, {"foreach": True}, "foreach_step"),
            (0.05, {"fused": False}, "foreach_step"),
            (0.05, {"foreach": False}, "single_step"),
        ]:
            params = parameters()
            optimizer = INNA(params, lr, 0.5, 0.1, **options)
            set_gradients(params, [torch.ones_like(p) for p in params])
            optimizer.step()
            assert taken.pop() == expected, (lr, options)


@pytest.mark.parametrize("options", PATHS)
def test_strides_that_differ_are_not_mixed_up(options):
    def run(**options):
        generator = torch.Generator().manual_seed(0)
        image = torch.randn(2, 3, 4, 5, generator=generator).to(memory_format=torch.channels_last)
        params = [torch.nn.Parameter(image), torch.nn.Parameter(torch.randn(6, 7, generator=generator).t())]
        optimizer = INNA(params, 0.05, 0.5, 0.1, **options)
        for _ in range(3):
            for p in params:
                p.grad = torch.randn(p.shape, generator=generator)
            optimizer.step()
        return params

    for got, expected in zip(run(**options), run(foreach=False), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("options", PATHS)
def test_maximize_mirrors_minimize(options):
    down, up = parameters(), parameters()
    minimizer = INNA(down, 0.05, 0.5, 0.1, weight_decay=0.1, **options)
    maximizer = INNA(up, 0.05, 0.5, 0.1, weight_decay=0.1, maximize=True, **options)
    for k in range(30):
        grads = [np.cos(k + p.detach().numpy()) for p in down]
        set_gradients(down, grads)
        set_gradients(up, [-grad for grad in grads])
        minimizer.step()
        maximizer.step()
    assert_close(up, [p.detach().numpy() for p in down])


@pytest.mark.parametrize("options", PATHS)
def test_decoupled_weight_decay_shrinks_and_leaves_the_velocity(options):
    params = parameters()
    thetas = [p.detach().numpy().copy() for p in params]
    velocities = [np.zeros_like(theta) for theta in thetas]
    optimizer = INNA(params, 0.05, 0.5, 0.1, weight_decay=0.3, decoupled_weight_decay=True, **options)
    generator = np.random.default_rng(0)
    for _ in range(50):
        grads = noisy_gradients(thetas, generator)
        set_gradients(params, grads)
        optimizer.step()
        for i, grad in enumerate(grads):
            thetas[i] = (1 - 0.05 * 0.3) * thetas[i] + 0.05 * (velocities[i] - 0.1 * grad)
            velocities[i] = (1 - 0.025) * velocities[i] - 0.05 * (1 - 0.05) * grad
    assert_close(params, thetas)


def test_closure_groups_and_missing_gradients():
    first, second, third = parameters(shapes=((2,), (2,), (2,)))
    optimizer = INNA([{"params": [first], "lr": 0.2}, {"params": [second, third], "beta": 0.5}], lr=0.1)
    before = third.detach().clone()

    def closure():
        optimizer.zero_grad()
        loss = (first * second).sum()
        loss.backward()
        return loss

    start = [p.detach().clone() for p in (first, second)]
    loss = optimizer.step(closure)
    assert loss.item() == pytest.approx((start[0] * start[1]).sum().item())
    torch.testing.assert_close(first.detach(), start[0] - 0.2 * 0.1 * start[1])
    torch.testing.assert_close(second.detach(), start[1] - 0.1 * 0.5 * start[0])
    assert torch.equal(third.detach(), before)
    assert third not in optimizer.state


def test_torch_scheduler_drives_it():
    params = parameters()
    reference = PhaseForm([p.detach().numpy() for p in params], alpha=0.5, beta=0.1)
    optimizer = INNA(params, 0.1, 0.5, 0.1)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.97)
    generator = np.random.default_rng(3)
    for k in range(100):
        grads = noisy_gradients(reference.thetas, generator)
        set_gradients(params, grads)
        optimizer.step()
        scheduler.step()
        reference.step(grads, 0.1 * 0.97**k)
    assert_close(params, reference.thetas)

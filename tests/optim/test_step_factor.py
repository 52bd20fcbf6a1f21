"""INNA's ``step_factor``: INNA in stretched coordinates, on whatever way the step is made."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import inna_tune.optim._inertial as stepping
from inna_tune.optim import INNA, INNAprop
from tests.optim.test_inna import PATHS, parameters, set_gradients

WAYS = [{}, {"fused": True}, {"foreach": True}, {"foreach": False}, {"capturable": True}]
TOLERANCES = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}


class Naive:
    """INNA as its formulas stand, with fg for g and the weight decay as it is, in float64 numpy."""

    def __init__(self, thetas, *, decoupled=False, maximize=False):
        self.thetas = [np.array(theta, dtype=np.float64) for theta in thetas]
        self.velocities = [np.zeros_like(theta) for theta in self.thetas]
        self.decoupled, self.sign = decoupled, -1.0 if maximize else 1.0

    def step(self, grads, factors, lr, alpha, beta, weight_decay):
        for i, (grad, factor) in enumerate(zip(grads, factors, strict=True)):
            if grad is None:
                continue
            theta, u = self.thetas[i], self.velocities[i]
            slope = self.sign * factor * grad
            if self.decoupled:
                theta = (1 - lr * weight_decay) * theta
            else:
                slope = slope + weight_decay / beta * theta
            self.thetas[i] = theta + lr * (u - beta * slope)
            self.velocities[i] = (1 - alpha * lr) * u - lr * (1 - alpha * beta) * slope


NUMBERS = {
    "lr": st.sampled_from([0.02, 0.05, 0.1, 0.1 * (1 - 1e-9), 0.15, 0.0]),
    "alpha": st.sampled_from([0.0, 0.5, 2.0, 10.0]),
    "beta": st.sampled_from([0.05, 0.1, 0.8]),
    "weight_decay": st.sampled_from([0.0, 0.03]),
}
FACTORS = st.one_of(st.sampled_from([1.0, 0.5, 1e-3]), st.floats(1e-4, 30.0))


@st.composite
def walks(draw, n_tensors=2):
    """Stretches of steps, each with settings and factors of its own, and who sits out."""
    stretches = []
    for _ in range(draw(st.integers(1, 4))):
        numbers = {name: draw(law) for name, law in NUMBERS.items()}
        factors = [draw(FACTORS) for _ in range(n_tensors)]
        sits_out = draw(st.sampled_from([None, None, 0, 1]))
        stretches.append((draw(st.integers(1, 4)), numbers, factors, sits_out))
    return stretches


@settings(max_examples=120, deadline=None)
@given(
    walk=walks(),
    options=st.sampled_from(WAYS),
    dtype=st.sampled_from(list(TOLERANCES)),
    decoupled=st.booleans(),
    maximize=st.booleans(),
    reloads=st.booleans(),
    as_tensor=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_steps_as_the_formulas_do_whatever_changes(
    walk, options, dtype, decoupled, maximize, reloads, as_tensor, seed
):
    params = parameters(seed, shapes=((4, 3), (5,)), dtype=dtype)
    kinds = {"decoupled_weight_decay": decoupled, "maximize": maximize}
    naive = Naive([p.detach().double().numpy() for p in params], decoupled=decoupled, maximize=maximize)
    optimizer = INNA([{"params": [p]} for p in params], 0.1, 0.5, 0.1, **kinds, **options)
    generator = np.random.default_rng(seed)
    for n_steps, numbers, factors, sits_out in walk:
        for group, factor in zip(optimizer.param_groups, factors, strict=True):
            shaped = torch.full((1,) * group["params"][0].dim(), factor, dtype=torch.float64)
            group.update(numbers, step_factor=shaped if as_tensor else factor)
        if reloads:
            params = [torch.nn.Parameter(p.detach().clone()) for p in params]
            fresh = INNA([{"params": [p]} for p in params], 0.3, 0.1, 0.2, **kinds, **options)
            # Low precision keeps what the weight lost in its state.
            fresh.load_state_dict(copy.deepcopy(optimizer.state_dict()))
            optimizer = fresh
        for _ in range(n_steps):
            grads = [
                torch.as_tensor(generator.normal(size=p.shape)).to(dtype).double().numpy() for p in params
            ]
            grads = [None if i == sits_out else grad for i, grad in enumerate(grads)]
            set_gradients(params, grads)
            optimizer.step()
            naive.step(grads, factors, **numbers)
    for p, theta in zip(params, naive.thetas, strict=True):
        scale = max(1.0, np.abs(theta).max())
        np.testing.assert_allclose(
            p.detach().double().numpy(), theta, rtol=TOLERANCES[dtype], atol=TOLERANCES[dtype] * scale
        )


@pytest.mark.parametrize("options", PATHS)
@settings(max_examples=25, deadline=None)
@given(
    factors=st.tuples(st.floats(1e-3, 10.0), st.floats(1e-3, 10.0)),
    lr=st.sampled_from([0.02, 0.05, 0.1, 0.12]),
    seed=st.integers(0, 1000),
)
def test_is_plain_inna_on_stretched_parameters(options, factors, lr, seed):
    """φ = θ/√f of a loss J(√f φ), without weight decay, and with the decoupled one, which knows no coordinates."""
    ours = parameters(seed, shapes=((4, 3), (5,)))
    roots = [math.sqrt(f) for f in factors]
    phis = [torch.nn.Parameter(p.detach() / root) for p, root in zip(ours, roots, strict=True)]
    kinds = {"weight_decay": 0.05, "decoupled_weight_decay": True} | options
    groups = [{"params": [p], "step_factor": f} for p, f in zip(ours, factors, strict=True)]
    optimizer, plain = INNA(groups, lr, 0.5, 0.1, **kinds), INNA(phis, lr, 0.5, 0.1, **kinds)

    def loss(first, second):
        return (first.sin() + 0.3 * first.square()).sum() + (first.sum() - second.cos().sum()).square() / 40

    for _ in range(25):
        for params, stepper, by in ((ours, optimizer, (1.0, 1.0)), (phis, plain, roots)):
            stepper.zero_grad()
            loss(*(p * root for p, root in zip(params, by, strict=True))).backward()
            stepper.step()
    for p, phi, root in zip(ours, phis, roots, strict=True):
        torch.testing.assert_close(p.detach(), phi.detach() * root, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("options", PATHS)
@pytest.mark.parametrize("lr", [0.05, 0.1, 0.15])
def test_a_factor_is_what_the_gradients_are_multiplied_by(options, lr):
    ours, theirs = parameters(), parameters()
    optimizer = INNA(ours, lr, 0.5, 0.1, weight_decay=0.01, step_factor=0.03, decay_power=0.2, **options)
    plain = INNA(theirs, lr, 0.5, 0.1, weight_decay=0.01, decay_power=0.2, **options)
    for step in range(40):
        for params, stepper, by in ((ours, optimizer, 1.0), (theirs, plain, 0.03)):
            set_gradients(params, [by * np.cos(step + p.detach().numpy()) for p in params])
            stepper.step()
    # A capturable count is a float32 tensor, and so is the step size that it makes.
    tolerance = 1e-6 if "capturable" in options else 1e-12
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("options", [*WAYS, {"foreach": False, "capturable": True}], ids=str)
def test_a_factor_of_one_changes_no_bit(options):
    def trained(**more):
        params = parameters(dtype=torch.float32)
        optimizer = INNA(params, 0.05, 0.5, 0.1, weight_decay=0.01, **options, **more)
        for step in range(10):
            set_gradients(params, [np.cos(step + p.detach().numpy()) for p in params])
            optimizer.step()
        return params, [optimizer.state[p] for p in params]

    (ours, states), (theirs, others) = trained(step_factor=1.0), trained()
    for p, q, one, other in zip(ours, theirs, states, others, strict=True):
        assert torch.equal(p, q)
        assert torch.equal(one["momentum"], other["momentum"])
        assert one["scale"] == other["scale"]


@pytest.mark.parametrize("lr", [0.05, 0.1], ids=["gamma < beta", "gamma = beta"])
@pytest.mark.parametrize("factor", [0.37, 1e-3, 7.0, 1e-14])
@pytest.mark.parametrize("capturable", [False, True])
def test_it_costs_the_kernel_no_pass_and_the_scale_stands_still(lr, factor, capturable, monkeypatch):
    calls = []
    original = stepping.fused_step
    monkeypatch.setattr(stepping, "fused_step", lambda *a, **k: (calls.append(1), original(*a, **k)))
    monkeypatch.setattr(stepping, "rest", lambda *_: pytest.fail("the buffers were rescaled"))
    params = parameters()
    optimizer = INNA(params, lr, 0.5, 0.1, weight_decay=0.01, step_factor=factor, capturable=capturable)
    scales = set()
    for step in range(10):
        set_gradients(params, [np.cos(step + p.detach().numpy()) for p in params])
        grads = [p.grad for p in params]
        optimizer.step()
        assert all(p.grad is grad for p, grad in zip(params, grads, strict=True))
        scales |= {optimizer.state[p]["scale"] for p in params}
    assert len(calls) == 10
    assert len(scales) == 1
    # The buffer is that of a unit of f: it neither vanishes nor overflows in low precision.
    twin = parameters()
    plain = INNA(twin, lr, 0.5, 0.1)
    set_gradients(twin, [np.ones(p.shape) for p in twin])
    plain.step()
    set_gradients(params, [np.ones(p.shape) for p in params])
    fresh = INNA(params, lr, 0.5, 0.1, step_factor=factor)
    fresh.step()
    for p, q in zip(params, twin, strict=True):
        torch.testing.assert_close(fresh.state[p]["momentum"], plain.state[q]["momentum"], rtol=1e-12, atol=0)


@pytest.mark.parametrize("shape", [(3, 1), (3, 4), (1, 4), (1, 1)], ids=str)
@pytest.mark.parametrize("decoupled", [False, True])
def test_a_tensor_of_factors_has_one_for_each_member_or_weight(shape, decoupled):
    generator = torch.Generator().manual_seed(0)
    factors = torch.rand(shape, generator=generator, dtype=torch.float64) + 0.1
    lr = torch.tensor([[0.05], [0.1], [0.0]], dtype=torch.float64)
    start = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    together = torch.nn.Parameter(start.clone())
    kinds = {"weight_decay": 0.1, "decoupled_weight_decay": decoupled}
    optimizer = INNA([together], lr, 0.5, 0.1, step_factor=factors.clone(), **kinds)
    singles = [[torch.nn.Parameter(start[i, j].clone()) for j in range(4)] for i in range(3)]
    spread = factors.expand(3, 4)
    alone = [
        INNA([singles[i][j]], lr[i].item(), 0.5, 0.1, step_factor=spread[i, j].item(), **kinds)
        for i in range(3)
        for j in range(4)
    ]
    for step in range(20):
        if step == 10:
            optimizer.param_groups[0]["step_factor"].mul_(0.3)
            for single in alone:
                single.param_groups[0]["step_factor"] *= 0.3
        grad = torch.randn(3, 4, generator=generator, dtype=torch.float64)
        together.grad = grad.clone()
        optimizer.step()
        for n, single in enumerate(alone):
            singles[n // 4][n % 4].grad = grad[n // 4, n % 4].clone()
            single.step()
    for i, row in enumerate(singles):
        torch.testing.assert_close(together[i], torch.stack(list(row)), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("lr", [0.05, 0.1, 0.15])
@pytest.mark.parametrize("decoupled", [False, True])
def test_a_grad_scaler_s_steps_are_the_ordinary_ones(lr, decoupled):
    """Unscaled and skipped by the kernel, while the factor changes."""
    options = {"weight_decay": 0.1, "decoupled_weight_decay": decoupled, "step_factor": 0.2}
    pairs = []
    for fused in (True, None):
        params = parameters(dtype=torch.float32)
        pairs.append((params, INNA(params, lr, 0.5, 0.1, fused=fused, **options)))
    scalers = [torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=3) for _ in pairs]
    for step in range(14):
        for (params, optimizer), scaler in zip(pairs, scalers, strict=True):
            optimizer.param_groups[0]["step_factor"] = 0.2 if step < 6 else 0.05 * step
            optimizer.zero_grad()
            loss = sum((p.cos() + p.square()).sum() for p in params)
            scaler.scale(loss * (torch.inf if step in (0, 4, 9) else 1.0)).backward()
            scaler.step(optimizer)
            scaler.update()
    for p, q in zip(pairs[0][0], pairs[1][0], strict=True):
        assert p.isfinite().all()
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


def test_a_factor_without_dimensions_is_a_number():
    ours, theirs = parameters(), parameters()
    factor = torch.tensor(0.2, dtype=torch.float64)
    tensors = INNA(ours, 0.05, 0.5, 0.1, step_factor=factor, weight_decay=0.1, capturable=True)
    numbers = INNA(theirs, 0.05, 0.5, 0.1, step_factor=0.2, weight_decay=0.1)
    for step in range(20):
        if step == 10:
            factor.fill_(0.7)
            numbers.param_groups[0]["step_factor"] = 0.7
        for params, optimizer in ((ours, tensors), (theirs, numbers)):
            set_gradients(params, [np.cos(step + p.detach().numpy()) for p in params])
            optimizer.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0.0, r"step_factor must be a finite number > 0, got 0.0"),
        (-1.0, r"step_factor must be a finite number > 0, got -1.0"),
        (math.nan, r"step_factor .* got nan"),
        (math.inf, r"step_factor .* got inf"),
        ("half", r"step_factor .* got 'half'"),
        (torch.zeros(1, 1), r"step_factor must be finite and > 0 everywhere"),
        (torch.ones(7), r"step_factor of shape \(7,\) does not broadcast"),
    ],
)
def test_factors_out_of_range(value, message):
    with pytest.raises(ValueError, match=message):
        INNA(parameters(shapes=((4, 3),)), step_factor=value)
    with pytest.raises(ValueError, match=message):
        INNA([{"params": parameters(shapes=((4, 3),)), "step_factor": value}])


def test_a_factor_that_went_bad_between_steps():
    params = parameters()
    optimizer = INNA(params)
    set_gradients(params, [np.ones(p.shape) for p in params])
    optimizer.param_groups[0]["step_factor"] = 0.0
    with pytest.raises(ValueError, match="step_factor"):
        optimizer.step()


def test_innaprop_which_a_factor_would_not_change_refuses_it():
    with pytest.raises(ValueError, match=r"step_factor=0.5: INNAprop .* an lr of its own"):
        INNAprop([{"params": parameters(), "step_factor": 0.5}])


@pytest.mark.parametrize("lr", [0.05, 0.1, 0.15])
def test_is_sgd_with_a_step_a_tensor(lr):
    """The map of heavy ball, tensor by tensor: γ = β = √η, α = (1 − μ)/√η, and SGD's step f η."""
    ours, theirs = parameters(), parameters()
    factors, momentum = [0.02, 0.5, 1.3], 0.9
    optimizer = INNA(
        [{"params": [p], "step_factor": f} for p, f in zip(ours, factors, strict=True)],
        lr=lr,
        alpha=(1 - momentum) / lr,
        beta=lr,
    )
    sgd = torch.optim.SGD(
        [{"params": [p], "lr": f * lr * lr} for p, f in zip(theirs, factors, strict=True)], momentum=momentum
    )
    for _ in range(60):
        for params, stepper in ((ours, optimizer), (theirs, sgd)):
            stepper.zero_grad()
            sum((p.square() + p.cos()).sum() for p in params).backward()
            stepper.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)

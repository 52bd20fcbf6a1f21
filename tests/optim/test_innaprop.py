"""INNAprop against its published update, at γ = β where that has no value, and as a population."""

import functools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inna_tune.optim import INNA, INNAprop, _step, innaprop

WAYS = [{}, {"foreach": True}, {"foreach": False}, {"fused": True}, {"fused": False}, {"capturable": True}]
SHAPES = ((3, 2), (4,))


class Published:
    """The update of arXiv:2410.05871 in θ and ψ, for γ ≠ β; in extended precision, as β − γ divides."""

    def __init__(self, thetas, *, alpha, beta, sigma=0.999, eps=1e-8, weight_decay=0.01):
        numbers = (alpha, beta, sigma, eps, weight_decay)
        self.alpha, self.beta, self.sigma, self.eps, self.weight_decay = map(np.longdouble, numbers)
        self.thetas = [np.array(theta, dtype=np.longdouble) for theta in thetas]
        self.psis = [(1 - self.alpha * self.beta) * theta for theta in self.thetas]
        self.moments = [np.zeros_like(theta) for theta in self.thetas]
        self.updates = 0

    def step(self, grads, lr):
        alpha, beta, sigma, lr = self.alpha, self.beta, self.sigma, np.longdouble(lr)
        self.updates += 1
        for i, grad in enumerate(grads):
            grad = np.asarray(grad, dtype=np.longdouble)
            theta = self.thetas[i] * (1 - lr * self.weight_decay)
            self.moments[i] = sigma * self.moments[i] + (1 - sigma) * grad**2
            root = np.sqrt(self.moments[i] / (1 - sigma**self.updates)) + self.eps
            self.psis[i] = (1 - lr / beta) * self.psis[i] + lr * (1 / beta - alpha) * theta
            self.thetas[i] = (
                (1 + lr * (1 - alpha * beta) / (beta - lr)) * theta
                - lr / (beta - lr) * self.psis[i]
                - lr * beta * grad / root
            )


def parameters(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for shape in SHAPES]


def gradients(step, dtype=torch.float64, members=()):
    generator = torch.Generator().manual_seed(step)
    return [
        torch.randn(*members, *shape, generator=generator, dtype=torch.float64).to(dtype) for shape in SHAPES
    ]


@functools.cache
def many_gradients():
    return [gradients(step) for step in range(300)]


@functools.cache
def published(weight_decay, lr, alpha, beta):
    """Where the published update ends by these gradients: the same for every way of stepping."""
    reference = Published(
        [p.detach().numpy() for p in parameters()], alpha=alpha, beta=beta, weight_decay=weight_decay
    )
    for step, grads in enumerate(many_gradients()):
        reference.step([grad.numpy() for grad in grads], lr * (step + 1) ** -0.1)
    return reference.thetas


@pytest.mark.parametrize("options", WAYS, ids=str)
@pytest.mark.parametrize("weight_decay", [0.0, 0.3, 2.0])
@pytest.mark.parametrize(
    ("lr", "alpha", "beta"),
    [(1e-3, 0.1, 0.9), (0.05, 2.0, 2.0), (0.3, 0.1, 0.2), (0.0999, 1.0, 0.1)],
    ids=["defaults", "alpha beta > 1", "gamma > beta", "gamma near beta"],
)
def test_equals_the_published_update(options, weight_decay, lr, alpha, beta):
    params = parameters()
    optimizer = INNAprop(params, lr, alpha, beta, weight_decay=weight_decay, **options)
    for step, grads in enumerate(many_gradients()):
        for p, grad in zip(params, grads, strict=True):
            p.grad = grad.clone()
        optimizer.param_groups[0]["lr"] = lr * (step + 1) ** -0.1
        optimizer.step()
    # The capturable count of updates, and so the bias correction, is a float32.
    tolerance = 1e-5 if "capturable" in options else 1e-11
    for p, theta in zip(params, published(weight_decay, lr, alpha, beta), strict=True):
        np.testing.assert_allclose(
            p.detach().numpy(), theta.astype(np.float64), rtol=tolerance, atol=tolerance
        )


@pytest.mark.parametrize("options", WAYS, ids=str)
def test_gamma_equal_to_beta_is_the_limit(options):
    """Finite, and between the published trajectories on either side."""

    def run(lr):
        params = parameters()
        optimizer = INNAprop(params, lr, 0.5, 0.1, **options)
        for step in range(50):
            for p, grad in zip(params, gradients(step), strict=True):
                p.grad = grad
            optimizer.step()
        return torch.cat([p.detach().flatten() for p in params])

    at, below, above = run(0.1), run(0.1 - 1e-7), run(0.1 + 1e-7)
    assert at.isfinite().all()
    torch.testing.assert_close(at, (below + above) / 2, rtol=0, atol=1e-10)


def test_without_memory_it_is_inna_on_signs():
    ours, theirs = parameters(), parameters()
    optimizer = INNAprop(ours, 0.01, 0.5, 0.1, sigma=0.0, eps=1e-30, weight_decay=0.0)
    inna = INNA(theirs, 0.01, 0.5, 0.1)
    for step in range(30):
        for p, q, grad in zip(ours, theirs, gradients(step), strict=True):
            p.grad, q.grad = grad, grad.sign()
        optimizer.step()
        inna.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_members_train_as_separate_optimizers(maximize, dtype):
    values = {
        "lr": [0.01, 0.1, 0.15, 0.0],
        "alpha": [0.5, 0.5, 0.1, 0.5],
        "beta": [0.9, 0.1, 0.1, 0.9],
        "weight_decay": [0.01, 0.0, 0.1, 0.1],
    }
    members = len(values["lr"])
    start = gradients(-1, dtype, (members,))
    for shape, tensor in zip(SHAPES, start, strict=True):
        together = torch.nn.Parameter(tensor.clone())
        column = (members, *[1] * len(shape))
        population = INNAprop(
            [together],
            **{key: torch.tensor(v, dtype=torch.float64).view(column) for key, v in values.items()},
            maximize=maximize,
        )
        singles = [torch.nn.Parameter(tensor[i].clone()) for i in range(members)]
        alone = [
            INNAprop([p], **{key: v[i] for key, v in values.items()}, maximize=maximize, foreach=False)
            for i, p in enumerate(singles)
        ]
        for step in range(40):
            grad = torch.randn(
                tensor.shape, generator=torch.Generator().manual_seed(step), dtype=torch.float64
            ).to(dtype)
            together.grad = grad.clone()
            population.step()
            for i, (p, optimizer) in enumerate(zip(singles, alone, strict=True)):
                p.grad = grad[i].clone()
                optimizer.step()
        tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-2}[dtype]
        for i, p in enumerate(singles):
            torch.testing.assert_close(together[i], p, rtol=tolerance, atol=tolerance)


def test_a_member_at_lr_zero_is_exactly_untouched():
    p = torch.nn.Parameter(torch.randn(3, 5, generator=torch.Generator().manual_seed(0)))
    optimizer = INNAprop([p], lr=torch.full((3, 1), 0.01), weight_decay=0.1)
    for step in range(8):
        p.grad = torch.randn(3, 5, generator=torch.Generator().manual_seed(step))
        if step == 4:
            optimizer.param_groups[0]["lr"][1] = 0.0
            state = optimizer.state[p]
            before = p.detach()[1].clone(), state["momentum"][1].clone(), state["second_moment"][1].clone()
        if step >= 4:
            p.grad[1] = torch.tensor([torch.nan, torch.inf, -torch.inf, 1.0, 2.0])
        optimizer.step()
    assert torch.equal(p.detach()[1], before[0])
    assert torch.equal(optimizer.state[p]["momentum"][1], before[1])
    assert torch.equal(optimizer.state[p]["second_moment"][1], before[2])
    assert p.isfinite().all()
    assert optimizer.state[p]["updates"].flatten().tolist() == [8, 4, 8]


def test_a_member_that_sat_out_steps_goes_on_as_if_there_had_been_none():
    start = torch.randn(2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    together, alone = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start[1].clone())
    lr = torch.full((2, 1), 0.01, dtype=torch.float64)
    both, single = INNAprop([together], lr=lr), INNAprop([alone], lr=0.01)
    for step in range(12):
        grad = torch.randn(2, 5, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        resting = step % 3 == 2
        both.param_groups[0]["lr"] = lr * torch.tensor([[1.0], [0.0 if resting else 1.0]])
        together.grad, alone.grad = grad, grad[1]
        both.step()
        if not resting:
            single.step()
    torch.testing.assert_close(together[1], alone, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("saving", WAYS, ids=str)
@pytest.mark.parametrize("loading", WAYS, ids=str)
def test_state_moves_between_ways_of_stepping(saving, loading):
    def advance(params, optimizer, steps):
        for step in steps:
            for p, grad in zip(params, gradients(step), strict=True):
                # One parameter joins late: its bias correction counts its own updates.
                p.grad = grad if p.dim() == 2 or step > 3 else None
            optimizer.step()

    whole, first = parameters(), parameters()
    advance(whole, INNAprop(whole, 0.01), range(20))
    optimizer = INNAprop(first, 0.01, **saving)
    advance(first, optimizer, range(9))
    second = [torch.nn.Parameter(p.detach().clone()) for p in first]
    resumed = INNAprop(second, **loading)
    resumed.load_state_dict(optimizer.state_dict())
    advance(second, resumed, range(9, 20))
    tolerance = 1e-5 if {"capturable": True} in (saving, loading) else 1e-12
    for p, expected in zip(second, whole, strict=True):
        torch.testing.assert_close(p, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("lr", -1.0, "lr must be a finite number >= 0, got -1.0"),
        ("beta", 0.0, "beta must be a finite number > 0, got 0.0"),
        ("sigma", 1.0, "sigma must be below 1, got 1.0"),
        ("sigma", -0.1, "sigma must be a finite number >= 0, got -0.1"),
        ("eps", 0.0, "eps must be a finite number > 0, got 0.0"),
        ("weight_decay", math.nan, "weight_decay must be a finite number >= 0, got nan"),
    ],
)
def test_numbers_out_of_range(name, value, message):
    with pytest.raises(ValueError, match=message):
        INNAprop(parameters(), **{name: value})


def test_states_of_relatives_are_refused():
    params = parameters()
    inna, innaprop = INNA(params), INNAprop(params)
    with pytest.raises(ValueError, match=r"not that of INNAprop: its parameter groups lack .*'sigma'"):
        innaprop.load_state_dict(inna.state_dict())
    with pytest.raises(ValueError, match=r"not that of INNA: its parameter groups lack .*'decay_power'"):
        inna.load_state_dict(innaprop.state_dict())


@pytest.mark.parametrize("piece", [1, 3, 5, 7, 100])
@pytest.mark.parametrize(
    ("cls", "options"), [(INNAprop, {}), (INNAprop, {"foreach": True}), (INNA, {"foreach": True})]
)
def test_stepping_in_pieces_changes_nothing(cls, options, piece, monkeypatch):
    def run():
        params = parameters()
        optimizer = cls(params, 0.05, 0.5, 0.1, weight_decay=0.1, **options)
        for step in range(20):
            for p, grad in zip(params, gradients(step), strict=True):
                p.grad = grad if p.dim() == 2 or step % 3 else None
            optimizer.step()
        return params

    expected = run()
    monkeypatch.setattr(_step, "PIECE", piece)
    monkeypatch.setattr(innaprop, "_PIECE", piece)
    for p, q in zip(run(), expected, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-14, atol=1e-14)


@given(st.lists(st.integers(0, 12), min_size=1, max_size=8), st.integers(1, 10))
def test_pieces_cover_every_number_once(sizes, piece):
    columns = [[torch.zeros(size) for size in sizes] for _ in range(2)]
    for rows, (first, second) in _step.pieces(columns, piece):
        assert sum(t.numel() for t in first) <= piece or sum(sizes) <= piece
        assert [t.shape for t in first] == [t.shape for t in second]
        assert len(first) == len(sizes[rows])
        for tensor in first:
            tensor += 1
    assert all((tensor == 1).all() for tensor in columns[0])
    assert not any(tensor.any() for tensor in columns[1])

"""Tensor hyper-parameters: P members in one tensor train as P optimizers of their own do."""

import pytest
import torch

from inna_tune.optim import INNA, _step

MEMBERS = 5


def hyperparameters(dtype=torch.float64):
    """Members of every kind: γ < β, = β, > β, αβ > 1, and one that stands still."""
    column = lambda *values: torch.tensor(values, dtype=dtype)  # noqa: E731
    return {
        "lr": column(0.05, 0.1, 0.15, 0.1, 0.0),
        "alpha": column(0.5, 0.5, 0.5, 2.0, 0.5),
        "beta": column(0.1, 0.1, 0.1, 0.8, 0.1),
        "weight_decay": column(0.0, 0.1, 0.0, 0.02, 0.1),
    }


def gradients(step, shapes, dtype):
    generator = torch.Generator().manual_seed(step)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("inner", [[(7,)], [(3, 4), (1, 4)]], ids=["flat", "layers"])
@pytest.mark.parametrize("piece", [1, 15, 2**18], ids=["one by one", "two by two", "all at once"])
def test_members_train_as_separate_optimizers(decoupled, maximize, dtype, inner, piece, monkeypatch):
    monkeypatch.setattr(_step, "PIECE", piece)
    shapes = [(MEMBERS, *shape) for shape in inner]
    start = gradients(-1, shapes, dtype)
    options = {"decoupled_weight_decay": decoupled, "maximize": maximize, "decay_power": 0.1}
    params = [torch.nn.Parameter(tensor.clone()) for tensor in start]
    values = hyperparameters()
    together = INNA(params, **{key: v.view(-1, *[1] * len(inner[0])) for key, v in values.items()}, **options)
    singles = [[torch.nn.Parameter(tensor[i].clone()) for tensor in start] for i in range(MEMBERS)]
    alone = [
        INNA(singles[i], **{key: v[i].item() for key, v in values.items()}, foreach=False, **options)
        for i in range(MEMBERS)
    ]
    for step in range(40):
        grads = gradients(step, shapes, dtype)
        for p, grad in zip(params, grads, strict=True):
            p.grad = grad.clone()
        together.step()
        for i, optimizer in enumerate(alone):
            for p, grad in zip(singles[i], grads, strict=True):
                p.grad = grad[i].clone()
            optimizer.step()
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-2}[dtype]
    for i in range(MEMBERS):
        for p, single in zip(params, singles[i], strict=True):
            torch.testing.assert_close(p[i], single, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("decoupled", [False, True])
def test_a_member_at_lr_zero_is_exactly_untouched(dtype, decoupled):
    (start,) = gradients(-1, [(MEMBERS, 9)], dtype)
    p = torch.nn.Parameter(start.clone())
    lr = torch.full((MEMBERS, 1), 0.05)
    optimizer = INNA([p], lr=lr, weight_decay=0.1, decoupled_weight_decay=decoupled)
    for step in range(5):
        (p.grad,) = gradients(step, [p.shape], dtype)
        optimizer.step()
    optimizer.param_groups[0]["lr"].copy_(torch.tensor([[0.05], [0.0], [0.05], [0.0], [0.05]]))
    frozen = torch.tensor([1, 3])
    before = {key: v[frozen].clone() for key, v in optimizer.state[p].items() if torch.is_tensor(v)}
    weights = p.detach()[frozen].clone()
    for step in range(5, 10):
        (p.grad,) = gradients(step, [p.shape], dtype)
        p.grad[1] = torch.nan
        p.grad[3] = torch.inf
        optimizer.step()
    assert torch.equal(p.detach()[frozen], weights)
    for key, value in before.items():
        assert torch.equal(optimizer.state[p][key][frozen], value)
    assert p.isfinite().all()
    assert not torch.equal(p.detach()[0], start[0])


def test_members_can_be_dropped_mid_training():
    """What the engine does at a rung: index_select on the weights, the state and the hyper-parameters."""
    values = {key: v.view(-1, 1) for key, v in hyperparameters().items()}
    (start,) = gradients(-1, [(MEMBERS, 6)], torch.float64)
    keep = torch.tensor([0, 3])
    whole, part = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    reference = INNA([whole], **{key: v.clone() for key, v in values.items()})
    optimizer = INNA([part], **{key: v.clone() for key, v in values.items()})
    for step in range(20):
        (grad,) = gradients(step, [start.shape], torch.float64)
        if step == 10:
            group, state = optimizer.param_groups[0], optimizer.state[part]
            part.data = part.data.index_select(0, keep)
            part.grad = None
            for key in values:
                group[key] = group[key].index_select(0, keep)
            for key, value in state.items():
                if torch.is_tensor(value):
                    state[key] = value.index_select(0, keep)
        whole.grad = grad.clone()
        part.grad = grad[keep].clone() if step >= 10 else grad.clone()
        reference.step()
        optimizer.step()
    torch.testing.assert_close(part.detach(), whole.detach()[keep], rtol=1e-14, atol=1e-14)


def test_scalar_tensors_step_as_numbers_do():
    (start,) = gradients(-1, [(4, 3)], torch.float64)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    scalar = lambda value: torch.tensor(value, dtype=torch.float64)  # noqa: E731
    tensors = INNA([ours], lr=scalar(0.05), alpha=scalar(0.5), beta=scalar(0.1), capturable=True)
    numbers = INNA([theirs], lr=0.05, alpha=0.5, beta=0.1)
    for step in range(20):
        (grad,) = gradients(step, [start.shape], torch.float64)
        ours.grad, theirs.grad = grad.clone(), grad.clone()
        tensors.step()
        numbers.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-13)

"""What INNA saves, loads and refuses."""

import copy
import math
import pickle

import pytest
import torch

from inna_tune.optim import INNA

WAYS = [{}, {"fused": True}, {"foreach": True}, {"foreach": False}, {"capturable": True}]


def parameters(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for shape in ((3, 2), (4,))
    ]


def run(params, optimizer, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        sum((p.abs() + p.cos()).sum() for p in params).backward()
        optimizer.step()


@pytest.mark.parametrize("saving", WAYS, ids=str)
@pytest.mark.parametrize("loading", WAYS, ids=str)
@pytest.mark.parametrize("lr", [0.05, 0.1, 0.15])
def test_a_state_saved_by_one_way_of_stepping_loads_in_another(saving, loading, lr):
    options = {"alpha": 0.5, "beta": 0.1, "decay_power": 0.1, "weight_decay": 0.01}
    whole = parameters()
    run(whole, INNA(whole, lr, **options), 20)

    first = parameters()
    optimizer = INNA(first, lr, **options, **saving)
    run(first, optimizer, 9)
    saved = pickle.loads(pickle.dumps(optimizer.state_dict()))
    second = [torch.nn.Parameter(p.detach().clone()) for p in first]
    resumed = INNA(second, **loading)
    resumed.load_state_dict(saved)
    for key in ("fused", "foreach", "capturable"):
        assert resumed.param_groups[0][key] == loading.get(key, INNA(second).defaults[key])
    run(second, resumed, 11)
    # The capturable step count is a float32.
    tolerance = 1e-5 if {"capturable": True} in (saving, loading) else 1e-12
    for p, expected in zip(second, whole, strict=True):
        torch.testing.assert_close(p, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "copier", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"]
)
def test_optimizer_copies_whole(copier):
    params = parameters()
    optimizer = INNA(params, 0.05)
    run(params, optimizer, 5)
    twin = copier(optimizer)
    twins = twin.param_groups[0]["params"]
    run(params, optimizer, 5)
    run(twins, twin, 5)
    for p, expected in zip(twins, params, strict=True):
        assert torch.equal(p, expected)


def test_state_tensors_have_the_parameters_shape():
    for dtype in (torch.float32, torch.bfloat16):
        params = parameters(dtype)
        optimizer = INNA(params)
        run(params, optimizer, 2)
        for p in params:
            assert {v.shape for v in optimizer.state[p].values() if torch.is_tensor(v)} == {p.shape}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("lr", -0.1, r"lr must be a finite number >= 0, got -0.1"),
        ("lr", math.nan, r"lr must be a finite number >= 0, got nan"),
        ("lr", math.inf, r"lr .* got inf"),
        ("lr", "fast", r"lr .* got 'fast'"),
        ("lr", None, r"lr .* got None"),
        ("alpha", -1.0, r"alpha must be a finite number >= 0, got -1.0"),
        ("beta", 0.0, r"beta must be a finite number > 0, got 0.0"),
        ("beta", -2.0, r"beta must be a finite number > 0, got -2.0"),
        ("weight_decay", -1e-3, r"weight_decay must be a finite number >= 0, got -0.001"),
        ("decay_power", -0.5, r"decay_power must be a finite number >= 0, got -0.5"),
    ],
)
def test_numbers_out_of_range(name, value, message):
    with pytest.raises(ValueError, match=message):
        INNA(parameters(), **{name: value})
    with pytest.raises(ValueError, match=message):
        INNA([{"params": parameters(), name: value}])
    optimizer = INNA(parameters())
    with pytest.raises(ValueError, match=message):
        optimizer.add_param_group({"params": parameters(), name: value})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize(("name", "value"), [("lr", math.nan), ("alpha", -1.0), ("beta", 0.0)])
def test_numbers_that_went_bad_between_steps(name, value):
    params = parameters()
    optimizer = INNA(params)
    run(params, optimizer, 1)
    before = [p.detach().clone() for p in params]
    optimizer.param_groups[0][name] = value
    with pytest.raises(ValueError, match=name):
        run(params, optimizer, 1)
    assert all(torch.equal(p, was) for p, was in zip(params, before, strict=True))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.tensor(0.1), r"capturable=False: give a float, or set capturable=True"),
        (torch.full((2,), 0.1), r"lr of shape \(2,\) does not broadcast against a parameter of shape \(4,\)"),
        (torch.full((3, 1, 1), 0.1), r"lr of shape \(3, 1, 1\) does not broadcast"),
        (torch.tensor([[0.1], [-0.1], [0.1]]), r"lr must be finite and >= 0 everywhere, got -0.1"),
        (torch.tensor([[0.1], [math.nan], [0.1]]), r"lr must be finite and >= 0 everywhere, got nan"),
        (
            torch.ones(3, 1, dtype=torch.int64),
            r"lr must be a real floating-point tensor, got dtype torch.int64",
        ),
    ],
)
def test_tensors_out_of_range(value, message):
    with pytest.raises(ValueError, match=message):
        INNA(parameters(), lr=value)
    with pytest.raises(ValueError, match=message.replace("lr", "weight_decay")):
        INNA(parameters(), weight_decay=value)


def test_parameters_it_cannot_work_with():
    with pytest.raises(ValueError, match=r"complex one of dtype torch.complex64.*view_as_real"):
        INNA([torch.nn.Parameter(torch.zeros(3, dtype=torch.complex64))])
    with pytest.raises(ValueError, match="foreach=True and fused=True exclude each other"):
        INNA(parameters(), foreach=True, fused=True)
    with pytest.raises(ValueError, match="fused=True works on ordinary tensors"):
        INNA([torch.nn.Parameter(torch.zeros(3, device="meta"))], fused=True)
    embedding = torch.nn.Embedding(4, 2, sparse=True)
    optimizer = INNA(embedding.parameters())
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match=r"torch.sparse_coo gradient .* shape \(4, 2\).*sparse=False"):
        optimizer.step()


@pytest.mark.parametrize(
    "other",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: torch.optim.SGD(p, lr=0.1),
        lambda p: torch.optim.Adam(p),
        lambda p: torch.optim.RMSprop(p),
    ],
    ids=["SGD momentum", "SGD", "Adam", "RMSprop"],
)
def test_the_state_of_another_optimizer_is_refused(other):
    params = parameters()
    stranger = other(params)
    run(params, stranger, 2)
    optimizer = INNA(params)
    before = optimizer.state_dict()
    with pytest.raises(
        ValueError, match=r"state_dict is not that of INNA: its parameter groups lack .*start INNA"
    ):
        optimizer.load_state_dict(stranger.state_dict())
    assert optimizer.state_dict() == before


def test_a_state_of_other_shapes_is_refused():
    params = parameters()
    optimizer = INNA(params)
    run(params, optimizer, 1)
    wider = INNA([torch.nn.Parameter(torch.zeros(3, 3)), torch.nn.Parameter(torch.zeros(4))])
    with pytest.raises(
        ValueError, match=r"'momentum' of shape \(3, 2\) for parameter 0, whose shape is \(3, 3\)"
    ):
        wider.load_state_dict(optimizer.state_dict())
    with pytest.raises(ValueError, match="doesn't match the size"):
        INNA(parameters()[:1]).load_state_dict(optimizer.state_dict())

"""A linear model beside the trunk."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inna_tune.engine.forward import outputs
from inna_tune.engine.predicting import predicted
from inna_tune.nets import LinearPath, LinearStart, TabularNet
from inna_tune.nets.linear import NAMES, SCALE

CATEGORIES = (3, 5)


def make(n_numeric=2, n_others=3, out=2, **choices):
    width = n_numeric + n_others + len(CATEGORIES)
    return TabularNet(
        width, (6, 5), out, n_numeric=n_numeric, categories=CATEGORIES, linear_path=True, **choices
    )


def some_start(path, seed=0, used=None):
    numeric, others = (path.n_numeric, path.n_others) if used is None else used
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(
        numeric + others + sum(path.categories), path.out_features, generator=generator, dtype=torch.float64
    )
    bias = torch.randn(path.out_features, generator=generator, dtype=torch.float64)
    return LinearStart(weight, bias, 0.25 + 0.5 * (seed % 2))


def some_rows(net, n_members, n_rows, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    floats = torch.randn(
        n_members, n_rows, net.n_numeric + net.n_others, generator=generator, dtype=torch.float64
    )
    codes = [torch.randint(n, (n_members, n_rows, 1), generator=generator).double() for n in net.categories]
    return torch.cat([floats.clamp(-2.99, 2.99), *codes], 2).to(dtype)


def drawn(net, starts, dtype=torch.float64, **options):
    own = [
        net.initialize(torch.Generator().manual_seed(i), dtype=dtype, linear=start, **options)
        for i, start in enumerate(starts)
    ]
    return {name: torch.stack([each[name] for each in own]) for name in net.parameter_shapes}


@settings(max_examples=25)
@given(
    n_numeric=st.integers(0, 3), n_others=st.integers(0, 3), out=st.integers(1, 3), seed=st.integers(0, 99)
)
def test_outputs_are_those_of_the_model_and_the_scaled_trunk(n_numeric, n_others, out, seed):
    net = make(n_numeric, n_others, out)
    start = some_start(net.linear, seed)
    parameters = drawn(net, [start, None])
    x = some_rows(net, 2, 4, seed)
    trunk = TabularNet(
        net.in_features, (6, 5), out, n_numeric=n_numeric, categories=CATEGORIES, linear_path=False
    )({name: value for name, value in parameters.items() if name not in NAMES}, x)
    rows = x[0].numpy()
    numbers = np.clip(rows[:, :n_numeric], -2.9, 2.9)
    unbent = numbers / np.sqrt(1 - (numbers / 3) ** 2)
    codes = rows[:, n_numeric + n_others :].astype(int)
    design = np.hstack(
        [unbent, rows[:, n_numeric : n_numeric + n_others]]
        + [np.eye(n)[codes[:, j]] for j, n in enumerate(CATEGORIES)]
    )
    np.testing.assert_allclose(net.linear.columns(x[0]), design, rtol=1e-12)
    expected = design @ start.weight.numpy() + start.bias.numpy() + start.scale * trunk[0].numpy()
    found = net(parameters, x)
    np.testing.assert_allclose(found[0], expected, rtol=1e-10, atol=1e-12)
    assert torch.equal(found[1], trunk[1]), "without a model the net is its trunk, to the last bit"


def test_what_was_bent_is_straight_again():
    numbers = torch.linspace(-11.0, 11.0, 45, dtype=torch.float64)[:, None]
    bent = numbers / torch.sqrt(1 + (numbers / 3) ** 2)
    torch.testing.assert_close(LinearPath(1, 0, (), 1).floats(bent), numbers)
    assert LinearPath(1, 0, (), 1).floats(torch.tensor([[3.0]])).isfinite().all()


def test_padding_reads_nothing():
    narrow, wide = make(2, 1), make(4, 3)
    start = some_start(narrow.linear)
    values = wide.initialize(
        torch.Generator().manual_seed(0), dtype=torch.float64, used_features=(2, 1), linear=start
    )
    x = some_rows(narrow, 1, 5)
    parts = [x[..., :2], x.new_zeros(1, 5, 2), x[..., 2:3], x.new_zeros(1, 5, 2), x[..., 3:]]
    padded = torch.cat(parts, 2)
    own = {name: value[None] for name, value in values.items()}
    small = drawn(narrow, [start])
    torch.testing.assert_close(wide(own, padded), narrow(small, x))
    flat = torch.cat([values[name].reshape(-1) for name in wide.parameter_shapes])
    expected = torch.cat([small[name].reshape(-1) for name in narrow.parameter_shapes])
    assert torch.equal(flat[wide.used_entries((2, 1))], expected)


@pytest.mark.parametrize("hidden", [(16, 32), (6, 5)], ids=["in blocks", "in double precision"])
def test_a_row_is_told_alike_in_any_company_and_as_the_net_has_it(hidden):
    net = TabularNet(7, hidden, 3, n_numeric=2, categories=CATEGORIES, linear_path=True)
    parameters = drawn(net, [some_start(net.linear), None, some_start(net.linear, 1)], torch.float32)
    weights = torch.cat([parameters[name].reshape(3, -1) for name in net.parameter_shapes], 1)
    x = some_rows(net, 1, 300, dtype=torch.float32)[0]
    found = predicted(net, weights, x)
    expected = net({name: value.double() for name, value in parameters.items()}, x.double().expand(3, -1, -1))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    for rows in ([7], [299, 3, 150]):
        assert torch.equal(predicted(net, weights, x[rows]), found[:, rows])
    for member in range(3):
        assert torch.equal(predicted(net, weights[member : member + 1], x)[0], found[member])


def test_where_nobody_gives_a_model_there_is_none():
    net = make()
    parameters = drawn(net, [None, None])
    assert net.linear_outputs(parameters) is None
    assert (parameters[SCALE] == 1).all()
    assert net.linear_outputs(drawn(net, [None, some_start(net.linear)])) is not None
    assert not TabularNet(3, (4,), 2).buffers


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("given", [[False, False], [False, True]])
def test_what_no_member_has_is_computed_by_none(given, dtype, monkeypatch):
    net = make()
    parameters = drawn(net, [some_start(net.linear) if each else None for each in given], dtype)
    weights = torch.cat([parameters[name].reshape(2, -1) for name in net.parameter_shapes], 1)
    x = some_rows(net, 1, 50, dtype=dtype)[0]
    calls, call = [], LinearPath.__call__
    monkeypatch.setattr(LinearPath, "__call__", lambda *args: calls.append(1) or call(*args))
    found = outputs(net, weights, x)
    assert bool(calls) == any(given)
    monkeypatch.setattr(TabularNet, "needed", lambda self, parameters: parameters)
    assert torch.equal(outputs(net, weights, x), found)


def test_more_outputs_than_targets_begin_alike():
    net = make(out=3)
    single = LinearPath(2, 3, CATEGORIES, 1)
    parameters = drawn(net, [some_start(single)])
    linear = net.linear(parameters, some_rows(net, 1, 4))
    assert torch.equal(linear[..., 0], linear[..., 2])


def test_a_scaled_trunk_learns_in_its_own_units():
    """Squared errors beside a model are those of what it leaves, over s: the steps of a net of its own for that."""
    net = make(out=1, activation="mish")
    start = some_start(net.linear, 1)
    parameters = drawn(net, [start])
    x, y = some_rows(net, 1, 6), torch.randn(1, 6, 1, dtype=torch.float64)
    left = (y - net.linear(parameters, x)) / start.scale
    trunk = drawn(net, [None])
    trained = [name for name in parameters if name not in NAMES]

    def slopes(own, target):
        leaves = {name: own[name].clone().requires_grad_() for name in trained}
        loss = (net(own | leaves, x, training=True) - target).square().mean()
        return torch.autograd.grad(loss, list(leaves.values()))

    for found, expected in zip(slopes(parameters, y), slopes(trunk, left), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_few_digits_are_for_the_trunk_alone():
    net = make(out=1)
    parameters = drawn(net, [LinearStart(torch.ones(13, 1), torch.zeros(1), 0.01)], torch.float32)
    parameters |= {
        name: torch.zeros_like(value) for name, value in parameters.items() if name.startswith("layers")
    }
    x = some_rows(net, 1, 5, dtype=torch.float32)
    expected = net(parameters, x)
    with torch.autocast("cpu", torch.bfloat16):
        found = net(parameters, x, training=True)
    torch.testing.assert_close(found.float(), expected, rtol=1e-6, atol=1e-6)

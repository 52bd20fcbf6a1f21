import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from inna_tune.nets import TabularNet


def stack(net, seeds, **kwargs):
    drawn = [net.initialize(torch.Generator().manual_seed(s), **kwargs) for s in seeds]
    return {name: torch.stack([d[name] for d in drawn]) for name in net.parameter_shapes}


def as_sequential(net, parameters, member):
    """The same member as plain torch modules: an independent forward pass."""
    modules = []
    for i, layer in enumerate(net.layers):
        linear = nn.Linear(layer.in_features, layer.out_features, dtype=torch.float64)
        linear.weight.data = parameters[f"layers.{i}.weight"][member].T.clone()
        linear.bias.data = parameters[f"layers.{i}.bias"][member, 0].clone()
        modules += [linear, nn.ReLU()]
    return nn.Sequential(*modules[:-1])


@settings(max_examples=20, deadline=None)
@given(
    in_features=st.integers(1, 6),
    hidden=st.lists(st.integers(1, 7), max_size=3),
    out_features=st.integers(1, 4),
    n_members=st.integers(1, 4),
)
def test_each_member_is_the_plain_torch_net(in_features, hidden, out_features, n_members):
    net = TabularNet(in_features, tuple(hidden), out_features)
    parameters = stack(net, range(n_members), dtype=torch.float64)
    x = torch.randn(
        n_members, 5, in_features, dtype=torch.float64, generator=torch.Generator().manual_seed(9)
    )
    found = net(parameters, x)
    assert found.shape == (n_members, 5, out_features)
    for member in range(n_members):
        torch.testing.assert_close(found[member], as_sequential(net, parameters, member)(x[member]))


def test_initial_variance_is_he():
    net = TabularNet(400, (500,), 1)
    values = net.initialize(torch.Generator().manual_seed(0))
    assert values["layers.0.weight"].std().item() == pytest.approx(math.sqrt(2 / 400), rel=0.02)
    assert values["layers.1.weight"].std().item() == pytest.approx(math.sqrt(1 / 500), rel=0.2)
    assert not values["layers.0.bias"].any()


def test_padding_changes_neither_draw_nor_output():
    narrow, wide = TabularNet(3, (4,), 2), TabularNet(5, (4,), 2)
    own = narrow.initialize(torch.Generator().manual_seed(1))
    padded = wide.initialize(torch.Generator().manual_seed(1), used_features=3)
    assert torch.equal(padded["layers.0.weight"][:3], own["layers.0.weight"])
    assert not padded["layers.0.weight"][3:].any()
    assert torch.equal(padded["layers.1.weight"], own["layers.1.weight"])


def test_a_member_starts_at_the_same_point_in_every_dtype():
    net = TabularNet(3, (4,), 2)
    double = net.initialize(torch.Generator().manual_seed(1), dtype=torch.float64)
    single = net.initialize(torch.Generator().manual_seed(1), dtype=torch.float32)
    assert torch.equal(double["layers.0.weight"].float(), single["layers.0.weight"])


def test_dropout_mask_multiplies_the_hidden_units():
    net = TabularNet(3, (4, 2), 1)
    parameters = stack(net, [0])
    x = torch.randn(1, 6, 3)
    mask = torch.ones(1, 6, net.dropout_width)
    torch.testing.assert_close(net(parameters, x, mask), net(parameters, x))
    mask[..., 4:] = 0.0
    torch.testing.assert_close(
        net(parameters, x, mask),
        parameters["layers.2.bias"].expand(1, 6, 1),
        msg="all of the last layer dropped",
    )

"""The net against a plain one, member by member, and what it says of itself."""

import math
import pickle
from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inna_tune.nets import TabularNet
from inna_tune.nets.activations import ACTIVATIONS
from inna_tune.nets.numeric import NUMERIC_EMBEDDINGS
from tests.nets.reference import forward, jiggle, rows, stack

FULL = {
    "n_numeric": 3,
    "categories": (4, 2),
    "embedding_dim": 3,
    "n_frequencies": 5,
    "frequency_scale": 0.2,
    "evenness": 0.4,
}


def member(parameters, i):
    return {name: value[i] for name, value in parameters.items()}


@settings(max_examples=100, deadline=None)
@given(
    n_numeric=st.integers(0, 4),
    n_others=st.integers(0, 3),
    categories=st.lists(st.integers(1, 12), max_size=3),
    hidden=st.lists(st.integers(1, 7), max_size=4),
    out_features=st.integers(1, 3),
    n_members=st.integers(1, 3),
    choices=st.fixed_dictionaries(
        {
            "numeric_embedding": st.sampled_from(list(NUMERIC_EMBEDDINGS)),
            "embedding_dim": st.integers(2, 4),
            "n_frequencies": st.integers(1, 5),
            "frequency_scale": st.floats(0.01, 2),
            "block": st.sampled_from(["plain", "residual"]),
            "activation": st.sampled_from(list(ACTIVATIONS)),
        }
    ),
    drops=st.booleans(),
)
def test_each_member_is_the_plain_net(
    n_numeric, n_others, categories, hidden, out_features, n_members, choices, drops
):
    net = TabularNet(
        n_numeric + n_others + len(categories),
        tuple(hidden),
        out_features,
        n_numeric=n_numeric,
        categories=tuple(categories),
        **choices,
    )
    parameters = jiggle(stack(net, range(n_members), dtype=torch.float64))
    x = rows(net, n_members, 5)
    mask = None
    if drops:
        mask = torch.rand(n_members, 5, net.dropout_width, dtype=torch.float64).round() * 2
    found = net(parameters, x, mask)
    assert found.shape == (n_members, 5, out_features)
    for i in range(n_members):
        own = member(parameters, i)
        expected = forward(net, own, x[i], None if mask is None else mask[i])
        torch.testing.assert_close(found[i], expected, rtol=1e-12, atol=1e-12)
        alone = {name: value[None] for name, value in own.items()}
        single = net(alone, x[i : i + 1], None if mask is None else mask[i : i + 1])
        torch.testing.assert_close(single[0], found[i], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("embedding", NUMERIC_EMBEDDINGS)
@pytest.mark.parametrize("block", ["plain", "residual"])
def test_first_and_second_derivatives(embedding, block):
    # Smooth activations everywhere but in the ReLU of the periodic embedding, which random points miss.
    net = TabularNet(6, (4, 3), 2, numeric_embedding=embedding, block=block, activation="silu", **FULL)
    parameters = jiggle(stack(net, [0, 1], dtype=torch.float64))
    x = rows(net, 2, 3)
    leaves = [value.requires_grad_() for value in parameters.values()]

    def outputs(*values):
        return net(dict(zip(parameters, values, strict=True)), x)

    assert torch.autograd.gradcheck(outputs, leaves)
    # Along directions drawn at random: all entries of it take a hundred times as long.
    assert torch.autograd.gradgradcheck(outputs, leaves, fast_mode=True)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_have_second_derivatives(activation):
    z = torch.randn(20, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradgradcheck(ACTIVATIONS[activation].function, z)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gain_keeps_the_second_moment(activation):
    function, gain = ACTIVATIONS[activation]
    points = torch.special.ndtri((torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000)
    assert (function(gain * points) ** 2).mean().item() == pytest.approx(1, rel=1e-4)


def test_initial_variance_is_he():
    net = TabularNet(400, (500,), 1)
    values = net.initialize(torch.Generator().manual_seed(0))
    assert values["layers.0.weight"].std().item() == pytest.approx(math.sqrt(2 / 400), rel=0.02)
    assert values["layers.1.weight"].std().item() == pytest.approx(math.sqrt(1 / 500), rel=0.2)
    assert not values["layers.0.bias"].any()


def test_residual_net_starts_as_one_hidden_layer():
    deep = TabularNet(3, (6, 5, 4), 2, block="residual")
    shallow = TabularNet(3, (6,), 2)
    parameters = stack(deep, [0], dtype=torch.float64)
    x = rows(deep, 1, 8)
    own = {
        "layers.0.weight": parameters["layers.0.weight"],
        "layers.0.bias": parameters["layers.0.bias"],
        "layers.1.weight": parameters["layers.5.weight"],
        "layers.1.bias": parameters["layers.5.bias"],
    }
    torch.testing.assert_close(deep(parameters, x), shallow(own, x), rtol=0, atol=0)
    # The blocks' ends learn at the first step, and their beginnings from the second on.
    leaves = {name: value.requires_grad_() for name, value in parameters.items()}
    gradients = torch.autograd.grad(deep(leaves, x).square().sum(), leaves.values())
    assert all(g.any() for name, g in zip(leaves, gradients, strict=True) if name == "layers.2.weight")


def test_a_residual_net_of_one_hidden_layer_is_the_plain_one():
    seeds = [3]
    plain, residual = (TabularNet(3, (4,), 2, block=block) for block in ("plain", "residual"))
    x = rows(plain, 1, 5)
    ours = plain(stack(plain, seeds, dtype=torch.float64), x)
    assert torch.equal(residual(stack(residual, seeds, dtype=torch.float64), x), ours)


@pytest.mark.parametrize("embedding", NUMERIC_EMBEDDINGS)
def test_a_member_starts_at_the_same_point_in_every_dtype(embedding):
    net = TabularNet(6, (4, 4), 2, numeric_embedding=embedding, block="residual", **FULL)
    double = net.initialize(torch.Generator().manual_seed(1), dtype=torch.float64)
    single = net.initialize(torch.Generator().manual_seed(1), dtype=torch.float32)
    again = net.initialize(torch.Generator().manual_seed(1), dtype=torch.float64)
    assert list(double) == list(net.parameter_shapes)
    for name, shape in net.parameter_shapes.items():
        assert double[name].shape == shape
        assert torch.equal(double[name].float(), single[name])
        assert torch.equal(double[name], again[name])


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


@pytest.mark.parametrize("embedding", NUMERIC_EMBEDDINGS)
def test_views_of_one_flat_tensor_will_do(embedding):
    """As the engine keeps them: a member's parameters lie behind each other, and the rows may be shared."""
    net = TabularNet(6, (4,), 2, numeric_embedding=embedding, **FULL)
    parameters = stack(net, [0, 1], dtype=torch.float64)
    flat = torch.cat([value.reshape(2, -1) for value in parameters.values()], 1)
    views, start = {}, 0
    for name, value in parameters.items():
        size = value[0].numel()
        views[name] = flat[:, start : start + size].view(value.shape)
        start += size
    x = rows(net, 1, 5)
    torch.testing.assert_close(net(views, x.expand(2, -1, -1)), net(parameters, x.repeat(2, 1, 1)))


@pytest.mark.parametrize("embedding", NUMERIC_EMBEDDINGS)
def test_without_numeric_columns_there_is_nothing_to_embed(embedding):
    net = TabularNet(3, (4,), 2, numeric_embedding=embedding)
    assert net.parameter_shapes == TabularNet(3, (4,), 2).parameter_shapes


def test_widest_counts_the_inside_of_the_embedding():
    assert TabularNet(3, (4,), 2).widest == 4
    wide = {"n_numeric": 3, "n_frequencies": 16}
    assert TabularNet(3, (4,), 2, numeric_embedding="pbld", **wide).widest == 3 * 16
    assert TabularNet(3, (4,), 2, numeric_embedding="periodic", **wide).widest == 3 * 32
    assert TabularNet(3, (4,), 2, categories=(100,) * 3).widest == 24


def test_a_net_travels():
    net = TabularNet(6, (4,), 2, numeric_embedding="piecewise", **FULL)
    stack(net, [0])
    assert pickle.loads(pickle.dumps(net)) == net == deepcopy(net)
    assert hash(net) == hash(deepcopy(net))
    assert net != TabularNet(6, (5,), 2, numeric_embedding="piecewise", **FULL)


@pytest.mark.parametrize("block", ["plain", "residual"])
def test_the_weights_of_all_layers_may_be_scaled_and_nothing_else(block):
    net = TabularNet(6, (4, 4), 2, numeric_embedding="piecewise", block=block, **FULL)
    assert net.scaled == tuple(n for n in net.parameter_shapes if n.startswith("layers.") and "weight" in n)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_features": -1}, "in_features must be a whole number of at least 0, got -1"),
        ({"in_features": 2.5}, "in_features must be a whole number of at least 0, got 2.5"),
        ({"out_features": 0}, "out_features must be a whole number of at least 1, got 0"),
        (
            {"hidden_layer_sizes": (4, 0)},
            r"hidden_layer_sizes\[1\] must be a whole number of at least 1, got 0",
        ),
        ({"n_numeric": -2}, "n_numeric must be a whole number of at least 0, got -2"),
        ({"n_numeric": 7}, "n_numeric=7 and 0 categories are more than in_features=6 .* Make in_features"),
        ({"n_numeric": 5, "categories": (2, 2)}, "n_numeric=5 and 2 categories are more than in_features=6"),
        ({"categories": (3, 0)}, r"categories\[1\] must be a whole number of at least 1, got 0"),
        (
            {"categories": (2**24 + 1,)},
            r"categories\[0\] must be at most 2\*\*24, .* got 16777217.*share a code",
        ),
        (
            {"numeric_embedding": "plr"},
            "numeric_embedding must be one of none, periodic, pbld, piecewise, got 'plr'",
        ),
        ({"embedding_dim": 0}, "embedding_dim must be a whole number of at least 1, got 0"),
        (
            {"numeric_embedding": "pbld", "embedding_dim": 1},
            "embedding_dim must be a whole number of at least 2, got 1",
        ),
        ({"n_frequencies": 0}, "n_frequencies must be a whole number of at least 1, got 0"),
        ({"frequency_scale": 0.0}, "frequency_scale must be positive and finite, got 0.0; try 0.1"),
        ({"frequency_scale": math.nan}, "frequency_scale must be positive and finite, got nan"),
        ({"block": "dense"}, "block must be one of plain, residual, got 'dense'"),
        (
            {"activation": "tanh"},
            "activation must be one of relu, gelu, silu, mish, selu, got 'tanh'",
        ),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    good = {"in_features": 6, "hidden_layer_sizes": (4,), "out_features": 2}
    with pytest.raises(ValueError, match=message):
        TabularNet(**good | arguments)

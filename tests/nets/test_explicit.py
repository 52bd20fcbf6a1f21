"""The passes written out, against autograd."""

import pytest
import torch

from inna_tune.engine import CrossEntropy, SquaredError
from inna_tune.nets import ExplicitGradient, ExplicitInputs, TabularNet, explicit_inputs
from inna_tune.nets.products import aligned

P, B, IN, OUT = 3, 7, 5, 4


def setting(hidden, *, seed=0, activation="relu"):
    net = TabularNet(IN, hidden, OUT, activation=activation)
    drawn = [net.initialize(torch.Generator().manual_seed(seed + i), dtype=torch.float64) for i in range(P)]
    parameters = {name: torch.stack([own[name] for own in drawn]) for name in net.parameter_shapes}
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(P, B, IN, generator=generator, dtype=torch.float64)
    coefficient = torch.rand(P, B, generator=generator, dtype=torch.float64)
    coefficient[0, 4:] = 0.0
    labels = torch.randint(OUT, (P, B), generator=generator)
    values = torch.randn(P, B, OUT, generator=generator, dtype=torch.float64)
    mask = torch.randint(2, (P, B, net.dropout_width), generator=generator).double() * 1.7
    return net, parameters, x, coefficient, labels, values, mask


@pytest.mark.parametrize("hidden", [(), (6,), (6, 3, 8)])
@pytest.mark.parametrize("kind", ["classes", "smoothed classes", "values"])
@pytest.mark.parametrize("drops", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "mish", "selu"])
def test_loss_and_gradients_are_those_of_autograd(hidden, kind, drops, activation):
    net, parameters, x, coefficient, labels, values, mask = setting(hidden, activation=activation)
    loss = SquaredError() if kind == "values" else CrossEntropy()
    target = values if kind == "values" else labels
    smoothing = torch.tensor([[0.0], [0.1], [0.5]], dtype=torch.float64) if "smoothed" in kind else None
    mask = mask if drops else None
    leaves = {name: value.clone().requires_grad_() for name, value in parameters.items()}
    expected = (loss.per_row(net(leaves, x, mask), target, smoothing) * coefficient).sum(1)
    gradients = torch.autograd.grad(expected.sum(), list(leaves.values()))
    explicit = ExplicitGradient(net, parameters)
    found, slope = loss.with_slope(explicit.forward(x, mask), target, coefficient, smoothing)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-14)
    explicit.backward(slope)
    for name, autograds in zip(leaves, gradients, strict=True):
        torch.testing.assert_close(explicit.gradients[name], autograds, rtol=1e-12, atol=1e-14)


def test_batches_of_any_length_in_any_order():
    net, parameters, x, coefficient, labels, _, _ = setting((6,))
    explicit = ExplicitGradient(net, parameters)
    for length in (7, 3, 7, 5, 1, 3):
        leaves = {name: value.clone().requires_grad_() for name, value in parameters.items()}
        part = (labels[:, :length], coefficient[:, :length])
        expected = (CrossEntropy().per_row(net(leaves, x[:, :length]), part[0]) * part[1]).sum()
        gradients = torch.autograd.grad(expected, list(leaves.values()))
        _, slope = CrossEntropy().with_slope(explicit.forward(x[:, :length]), *part)
        explicit.backward(slope)
        for name, autograds in zip(leaves, gradients, strict=True):
            torch.testing.assert_close(explicit.gradients[name], autograds, rtol=1e-12, atol=1e-14)


def test_parameters_changed_in_place_are_seen_and_the_rows_stay():
    net, parameters, x, *_ = setting((6,))
    explicit, before = ExplicitGradient(net, parameters), x.clone()
    first = explicit.forward(x).clone()
    for value in parameters.values():
        value.mul_(1.5)
    assert not torch.allclose(explicit.forward(x), first)
    torch.testing.assert_close(explicit.forward(x), net(parameters, x))
    assert torch.equal(x, before)


def test_outputs_that_are_not_finite_stay_with_their_member():
    net, parameters, x, coefficient, labels, _, _ = setting((6,))
    parameters["layers.0.weight"][1] = float("nan")
    explicit = ExplicitGradient(net, parameters)
    loss, slope = CrossEntropy().with_slope(explicit.forward(x), labels, coefficient)
    assert loss.isfinite().tolist() == [True, False, True]
    explicit.backward(slope)
    for gradient in explicit.gradients.values():
        assert gradient[[0, 2]].isfinite().all()


@pytest.mark.parametrize("embedding", ["none", "piecewise"])
@pytest.mark.parametrize("categories", [(), (3,), (2, 40, 5)])
@pytest.mark.parametrize(("n_numeric", "n_others"), [(0, 2), (1, 0), (3, 0), (3, 2)])
@pytest.mark.parametrize("hidden", [(), (6,)])
@pytest.mark.parametrize("n_outputs", [1, 3])
def test_gradients_of_embeddings_are_those_of_autograd(
    embedding, categories, n_numeric, n_others, hidden, n_outputs
):
    net = TabularNet(
        n_numeric + n_others + len(categories),
        hidden,
        n_outputs,
        n_numeric=n_numeric,
        categories=categories,
        numeric_embedding=embedding,
        n_frequencies=5,
    )
    stream = torch.Generator().manual_seed(0)
    drawn = [net.initialize(stream, dtype=torch.float64) for _ in range(P)]
    parameters = {name: torch.stack([own[name] for own in drawn]) for name in net.parameter_shapes}
    trunk, inputs = ExplicitGradient(net, parameters), ExplicitInputs(net, parameters)
    assert {*trunk.gradients, *inputs.gradients} == {*parameters}
    for length in (7, 3, 7, 1, 3):
        x = torch.randn(P, length, n_numeric + n_others, generator=stream, dtype=torch.float64)
        codes = [torch.randint(n, (P, length, 1), generator=stream) for n in categories]
        x = torch.cat([x, *codes], 2)
        leaves = {name: value.clone().requires_grad_() for name, value in parameters.items()}
        expected = net(leaves, x)
        found = trunk.forward(inputs.forward(x))
        torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-14)
        slope = torch.randn(expected.shape, generator=stream, dtype=torch.float64)
        gradients = torch.autograd.grad(expected, list(leaves.values()), slope)
        read = trunk.backward(slope, through=not inputs.is_plain)
        if read is not None:
            inputs.backward(read)
        for name, autograds in zip(leaves, gradients, strict=True):
            own = {**trunk.gradients, **inputs.gradients}[name]
            torch.testing.assert_close(own, autograds, rtol=1e-12, atol=1e-14)
        # As between two steps.
        for value in parameters.values():
            value.mul_(1.1)


@pytest.mark.parametrize("n_frequencies", [5, 16])
@pytest.mark.parametrize("n_members", [1, 3])
@pytest.mark.parametrize("n_numeric", [1, 7])
def test_features_made_in_parts_are_the_same_bits(n_numeric, n_members, n_frequencies, monkeypatch):
    net = TabularNet(
        n_numeric + 2,
        (6,),
        2,
        n_numeric=n_numeric,
        categories=(3,),
        numeric_embedding="piecewise",
        n_frequencies=n_frequencies,
    )
    stream = torch.Generator().manual_seed(0)
    drawn = [net.initialize(stream) for _ in range(n_members)]
    parameters = {name: aligned(torch.stack([own[name] for own in drawn])) for name in net.parameter_shapes}
    x = torch.cat([torch.randn(n_members, 32, n_numeric + 1), torch.ones(n_members, 32, 1)], 2)
    # Rows innermost, as the first layer gives it.
    slope = torch.randn(n_members, net.layers[0].in_features, 32).transpose(1, 2)
    found = []
    for columns in (10**6, n_numeric, 2 * n_numeric, 2, 1, 0):
        monkeypatch.setattr(explicit_inputs, "_MOST_FEATURES", columns * n_frequencies * 32)
        inputs = ExplicitInputs(net, parameters)
        read = inputs.forward(x).clone()
        inputs.backward(slope)
        found.append([read, *inputs.gradients.values()])
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


def test_waves_are_left_to_autograd():
    assert not ExplicitInputs.is_possible(TabularNet(2, (3,), 1, n_numeric=2, numeric_embedding="pbld"))
    assert ExplicitInputs.is_possible(TabularNet(2, (3,), 1, n_numeric=2, numeric_embedding="piecewise"))

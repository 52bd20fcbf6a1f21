"""Products of large matrices by oneDNN: right, and the same bits of each member and each row in any company."""

import pytest
import torch

from inna_tune.nets import ExplicitGradient, TabularNet, onednn
from inna_tune.nets.products import affine, product

ROWS, INNER, COLUMNS = 128, 160, 112

has_it = pytest.mark.skipif(onednn._linear() is None, reason="this processor or torch has no quicker oneDNN")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def operands(n_members):
    return (
        drawn(n_members, ROWS, INNER),
        drawn(n_members, INNER, COLUMNS, seed=1),
        drawn(n_members, 1, COLUMNS, seed=2),
    )


def flipped(matrices):
    """The same numbers, columns innermost in memory."""
    return matrices.transpose(1, 2).contiguous().transpose(1, 2)


def shifted(tensor):
    """The same numbers, four bytes further in memory."""
    place = tensor.new_empty(tensor.numel() + 1)[1:].view(tensor.shape)
    return place.copy_(tensor)


@has_it
@pytest.mark.parametrize("a_flipped", [False, True])
@pytest.mark.parametrize("b_flipped", [False, True])
def test_products_are_right_in_every_layout(a_flipped, b_flipped):
    a, b, bias = operands(3)
    exact = a.double() @ b.double()
    a, b = flipped(a) if a_flipped else a, flipped(b) if b_flipped else b
    found = onednn.multiply(a, b, torch.empty(3, ROWS, COLUMNS), bias)
    torch.testing.assert_close(found.double(), exact + bias.double(), rtol=1e-5, atol=1e-4)
    without = onednn.multiply(a, b, torch.empty(3, ROWS, COLUMNS))
    torch.testing.assert_close(without.double(), exact, rtol=1e-5, atol=1e-4)


@has_it
@pytest.mark.parametrize("a_flipped", [False, True])
@pytest.mark.parametrize("b_flipped", [False, True])
def test_a_member_is_the_same_bits_alone_and_in_company_wherever_it_lies(a_flipped, b_flipped):
    a, b, bias = operands(3)
    a, b = flipped(a) if a_flipped else a, flipped(b) if b_flipped else b
    together = onednn.multiply(a, b, torch.empty(3, ROWS, COLUMNS), bias)
    for i in range(3):
        own = [shifted(t[i : i + 1].clone()) for t in (a, b, bias)]
        own = [flipped(t) if flip else t for t, flip in zip(own, (a_flipped, b_flipped, False), strict=True)]
        alone = onednn.multiply(own[0], own[1], torch.empty(1, ROWS, COLUMNS), own[2])
        assert torch.equal(alone[0], together[i])


@has_it
def test_a_row_is_the_same_bits_wherever_it_is_and_whatever_is_beside_it():
    a, b, bias = operands(1)
    found = onednn.multiply(a, b, torch.empty(1, ROWS, COLUMNS), bias)
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(3))
    moved = onednn.multiply(a[:, order], b, torch.empty(1, ROWS, COLUMNS), bias)
    assert torch.equal(moved, found[:, order])
    others = a.clone()
    others[:, 1:] = 1e30
    assert torch.equal(onednn.multiply(others, b, torch.empty(1, ROWS, COLUMNS), bias)[:, 0], found[:, 0])


@pytest.mark.parametrize("n_members", [1, 3])
@pytest.mark.parametrize("sides", [(128, 160, 112), (140, 130, 140), (6, 5, 7), (1, 3000, 800)], ids=str)
@pytest.mark.parametrize("per", ["column", "row", "entry", "matrix"])
def test_a_bias_is_added_however_it_lies(n_members, sides, per):
    """Large products and small ones; of a layer that is made on its side a bias is one a row."""
    rows, inner, columns = sides
    shape = {"column": (1, columns), "row": (rows, 1), "entry": (rows, columns), "matrix": (1, 1)}[per]
    a, b, bias = drawn(n_members, rows, inner), drawn(n_members, inner, columns), drawn(n_members, *shape)
    leaves = [t.clone().requires_grad_() for t in (bias, a, b)]
    exact_leaves = [t.double().requires_grad_() for t in (bias, a, b)]
    found = affine(*leaves)
    exact = exact_leaves[0] + exact_leaves[1] @ exact_leaves[2]
    torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-3)
    slope = drawn(n_members, rows, columns, seed=3)
    for ours, theirs in zip(
        torch.autograd.grad(found, leaves, slope),
        torch.autograd.grad(exact, exact_leaves, slope),
        strict=True,
    ):
        torch.testing.assert_close(ours.double(), theirs.double(), rtol=1e-4, atol=1e-2)


@has_it
def test_large_products_have_two_derivatives():
    a, b, bias = operands(2)

    def derivatives(a, b, bias, multiplied):
        leaves = [t.clone().requires_grad_() for t in (a, b, bias)]
        out = multiplied(*leaves)
        first = torch.autograd.grad((out.tanh()).sum(), leaves, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), leaves)
        return [out, *first, *second]

    exact = derivatives(
        a.double() / 10, b.double() / 10, bias.double(), lambda a, b, bias: torch.baddbmm(bias, a, b)
    )
    found = derivatives(a / 10, b / 10, bias, lambda a, b, bias: affine(bias, a, b))
    for ours, theirs in zip(found, exact, strict=True):
        assert (ours.double() - theirs).abs().max() <= 1e-4 * theirs.abs().max()


@has_it
def test_trunks_and_products_take_it_only_where_it_is_quicker(monkeypatch):
    made = []
    monkeypatch.setattr(onednn, "multiply", lambda *operands: made.append(1) or operands[2])
    a, b, _ = operands(2)
    product(a, b)
    assert len(made) == 1
    product(a.double(), b.double())
    product(a[:, :32].clone(), b)
    with torch.backends.mkldnn.flags(enabled=False):
        product(a, b)
    monkeypatch.setattr(onednn, "_linear", lambda: None)
    product(a, b)
    assert len(made) == 1


def gradients(net, parameters, x, slope):
    explicit = ExplicitGradient(net, parameters)
    output = explicit.forward(x).clone()
    read = explicit.backward(slope, through=True)
    return {"output": output, "read": read.clone()} | {n: g.clone() for n, g in explicit.gradients.items()}


@pytest.mark.parametrize("n_members", [1, 2])
@pytest.mark.parametrize("sizes", [(2100,), (1, 2100)])
def test_a_layer_of_one_column_is_none_of_its(n_members, sizes):
    """Which is made twice for one member, so that it is none of a vector."""
    net = TabularNet(1, sizes, 2)
    own = [net.initialize(torch.Generator().manual_seed(seed)) for seed in range(n_members)]
    parameters = {name: torch.stack([one[name] for one in own]) for name in own[0]}
    x, slope = drawn(n_members, 1024, 1), drawn(n_members, 1024, 2, seed=1)
    found = gradients(net, parameters, x, slope)
    assert (found["output"] - net(parameters, x)).abs().max() < 1e-4


@pytest.mark.parametrize("activation", ["relu", "mish"])
def test_gradients_of_wide_layers_are_those_of_autograd_and_a_members_own(activation):
    net = TabularNet(INNER, (COLUMNS, 160), 2, activation=activation)
    own = [net.initialize(torch.Generator().manual_seed(seed)) for seed in range(3)]
    parameters = {name: torch.stack([one[name] for one in own]) for name in own[0]}
    x, slope = drawn(3, ROWS, INNER), drawn(3, ROWS, 2, seed=1)
    found = gradients(net, parameters, x, slope)

    leaves = {name: tensor.double().requires_grad_() for name, tensor in parameters.items()}
    rows = x.double().requires_grad_()
    output = net(leaves, rows)
    exact = torch.autograd.grad(output, [rows, *leaves.values()], slope.double())
    for name, theirs in zip(["output", "read", *leaves], [output, *exact], strict=True):
        assert (found[name].double() - theirs).abs().max() <= 1e-5 * theirs.abs().max(), name
    for i in range(3):
        one = {name: tensor[i : i + 1].clone() for name, tensor in parameters.items()}
        alone = gradients(net, one, x[i : i + 1].clone(), slope[i : i + 1].clone())
        for name, values in alone.items():
            assert torch.equal(values[0], found[name][i]), name

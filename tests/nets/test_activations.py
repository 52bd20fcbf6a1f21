"""Mish from one logistic function, against torch's in float64."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from inna_tune.nets.activations import mish, passes

# Both tails, to where the exponential of a float32 vanishes.
Z = torch.cat([torch.linspace(-80, 80, 20_001, dtype=torch.float64), torch.tensor([0.0, 1e30, -1e4])])


def reference(z):
    z = z.double().clone().requires_grad_()
    (slope,) = torch.autograd.grad(F.mish(z).sum(), z)
    return F.mish(z).detach(), slope


def padded(z, width=16):
    """As a layer's output, [1, B, width]."""
    return torch.cat([z, z.new_zeros(-len(z) % (32 * width))]).view(1, -1, width)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mish_is_exact_to_rounding_at_both_tails(dtype):
    z = Z.to(dtype)
    expected, _ = reference(z)
    torch.testing.assert_close(mish(z).double(), expected, rtol=4 * torch.finfo(dtype).eps, atol=1e-37)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_so_is_its_derivative_in_units_of_what_is_multiplied(dtype):
    """Where x is large the derivative is one and x times something that vanishes: its error is that of this product."""
    z = padded(Z.to(dtype))
    expected, slope = reference(z)
    written = passes("mish", z)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(written.forward(z, None).double(), expected, rtol=4 * eps, atol=1e-37)
    found = written.backward(torch.ones_like(z), None).double()
    scale = z.double().abs().clamp(1, 12)
    torch.testing.assert_close(found / scale, slope / scale, rtol=4 * eps, atol=4 * eps)


def test_infinities_and_what_is_no_number_are_as_torch_has_them():
    z = torch.tensor([float("inf"), float("-inf"), float("nan")])
    torch.testing.assert_close(mish(z), F.mish(z), equal_nan=True)


def test_second_derivatives_are_there_where_gradients_are_asked_for():
    z = torch.linspace(-6, 6, 25, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(mish, z)


def second_derivatives(function, z):
    """Two products with the Hessian, by one graph."""
    z = z.clone().requires_grad_()
    (slope,) = torch.autograd.grad(function(z).square().sum(), z, create_graph=True)
    return [torch.autograd.grad(slope, z, torch.full_like(z, by), retain_graph=True)[0] for by in (1.0, -0.5)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_so_are_they_at_both_tails(dtype):
    z = Z[Z.abs() < 1e3].to(dtype)
    for ours, theirs in zip(second_derivatives(mish, z), second_derivatives(F.mish, z.double()), strict=True):
        # Each of the two factors has the error of its product.
        error = (ours.double() - theirs) / z.double().abs().clamp(1, 12).square()
        assert error.abs().max() <= 32 * torch.finfo(dtype).eps


def test_what_it_has_not_is_refused():
    z = torch.ones(3, requires_grad=True)
    (slope,) = torch.autograd.grad(mish(z).sum(), z, create_graph=True)
    (second,) = torch.autograd.grad(slope.square().sum(), z, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        second.sum().backward()


def test_functions_of_torch_func_get_torchs_own():
    z = torch.linspace(-3, 3, 7)
    torch.testing.assert_close(
        torch.func.vmap(torch.func.grad(mish))(z), torch.func.vmap(torch.func.grad(F.mish))(z)
    )


@given(
    shape=st.tuples(st.integers(1, 3), st.sampled_from([1, 7, 32, 96]), st.sampled_from([1, 5, 64, 700])),
    drops=st.booleans(),
)
def test_pieces_of_any_shape_are_the_whole(shape, drops):
    """Layers wide and narrow, beside other layers in the mask of all."""
    stream = torch.Generator().manual_seed(0)
    z = torch.randn(shape, generator=stream, dtype=torch.float64)
    slope = torch.randn(shape, generator=stream, dtype=torch.float64)
    masks = torch.rand(*shape[:2], shape[2] + 3, generator=stream, dtype=torch.float64)
    mask = masks[..., 2:-1] if drops else None
    leaf = z.clone().requires_grad_()
    expected = F.mish(leaf) if mask is None else F.mish(leaf) * mask
    (gradient,) = torch.autograd.grad(expected, leaf, slope)
    written = passes("mish", z)
    torch.testing.assert_close(written.forward(z, mask), expected.detach())
    torch.testing.assert_close(written.backward(slope.clone(), mask), gradient)


@given(size=st.integers(0, 100_000))
def test_mish_of_any_number_of_numbers(size):
    z = torch.linspace(-5, 5, size, dtype=torch.float64)
    torch.testing.assert_close(mish(z), F.mish(z))


def test_mish_of_a_tensor_that_lies_otherwise_in_memory():
    z = torch.linspace(-5, 5, 60, dtype=torch.float64).view(3, 4, 5).transpose(1, 2)
    torch.testing.assert_close(mish(z), F.mish(z))

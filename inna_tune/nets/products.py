"""Batched matrix products that round alike whatever else is in the batch.

MKL chooses its kernels by more than the sizes of the matrices. On processors other than Intel's it looks at the address of
each, and rounds another way where one does not begin at a multiple of 64 bytes: of several matrices one behind the other
that is every second or third, wherever a matrix is no multiple of 64 bytes long. And everywhere a product that is alone and
has a side of length one goes to a matrix-vector routine, which the same product in company does not. So here every matrix
begins at such a multiple, with a gap behind it where need be, and no product with a side of length one is alone. Matrices
of the usual sizes are multiples anyway and cost nothing more.

What is left: with several threads MKL parts the work by their number and that of the matrices.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from inna_tune.nets import onednn
from inna_tune.nets.signed import applied, signed

_ALIGNMENT = 64


def spaced(shape: Sequence[int], like: Tensor) -> Tensor:
    """An uninitialised tensor [P, ...] whose members each begin at a multiple of 64 bytes.

    Parameters
    ----------
    shape : sequence of int
        With the axis of members in front.
    like : Tensor
        Of the dtype and on the device that it is to have.

    Returns
    -------
    Tensor
        A member's own numbers are contiguous.
    """
    size = torch.Size(shape[1:]).numel()
    each = _ALIGNMENT // like.element_size()
    step = -(-size // each) * each
    whole = like.new_empty(shape[0], step)
    return whole[:, :size].view(shape)


def in_place(tensor: Tensor) -> bool:
    """Whether every member of [P, ...] on a CPU begins at a multiple of 64 bytes; on other devices it does not matter."""
    if not tensor.is_cpu or tensor.numel() == 0:
        return True
    step = 0 if len(tensor) == 1 else tensor.stride(0) * tensor.element_size()
    return tensor.data_ptr() % _ALIGNMENT == 0 and step % _ALIGNMENT == 0


def aligned(tensor: Tensor) -> Tensor:
    """The same numbers [P, ...], copied where a member does not begin at a multiple of 64 bytes."""
    return tensor if in_place(tensor) else spaced(tensor.shape, tensor).copy_(tensor)


def affine(bias: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """``bias + a @ b``, [P, M, N] of [P, M, K] and [P, K, N]; see `product`."""
    if _as_torch_has_it(a, b):
        return torch.baddbmm(bias, a, b)
    made: Tensor = applied(_Product, bias, a, b)
    return made


def product(a: Tensor, b: Tensor) -> Tensor:
    """Batched product, [P, M, N] of [P, M, K] and [P, K, N]: a member's is the same bits in any company.

    The same holds for its derivatives, first and second. What comes from elsewhere and is large, such as rows of a
    table, must be `in_place` to be sure of it.
    """
    if _as_torch_has_it(a, b):
        return torch.bmm(a, b)
    made: Tensor = applied(_Product, None, a, b)
    return made


def alone(n_members: int, *sides: int) -> bool:
    """Whether a product of so many matrices with these sides would go to a matrix-vector routine."""
    return n_members == 1 and 1 in sides


def _as_torch_has_it(a: Tensor, b: Tensor) -> bool:
    """Whether torch's own product and its derivatives do, made of matrices that lie one behind the other.

    NOTE: this must not depend on the number of members, though one is always in place: autograd adds up the slopes that meet
    in a tensor in an order that depends on the functions they come from.
    """
    if not a.is_cpu or torch.is_autocast_enabled(a.device.type):
        return True
    (m, k), n = a.shape[1:], b.shape[2]
    if onednn.is_quicker(a, m, k, n):
        return False
    size = a.element_size()
    whole = m * k * size % _ALIGNMENT == k * n * size % _ALIGNMENT == m * n * size % _ALIGNMENT == 0
    return whole and 1 not in (m, k, n)


class _Product(torch.autograd.Function):
    @staticmethod
    @signed
    def forward(bias: Tensor | None, a: Tensor, b: Tensor) -> Tensor:
        if onednn.is_quicker(a, *a.shape[1:], b.shape[2]):
            return onednn.multiply(a, b, a.new_empty(*a.shape[:2], b.shape[2]), bias)
        a, b = _settled(a), _settled(b)
        (n_members, m, k), n = a.shape, b.shape[2]
        several = 2 if alone(n_members, m, k, n) else n_members
        out = spaced((several, m, n), a)
        a, b = a.expand(several, -1, -1), b.expand(several, -1, -1)
        if bias is None:
            torch.bmm(a, b, out=out)
        else:
            torch.baddbmm(bias, a, b, out=out)
        return out[:n_members]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor | None, Tensor, Tensor], output: Tensor) -> None:
        bias, a, b = inputs
        ctx.bias_shape = None if bias is None else bias.shape
        ctx.save_for_backward(a, b)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        a, b = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        return (
            slope.sum_to_size(ctx.bias_shape) if wanted[0] else None,
            product(slope, b.transpose(1, 2)) if wanted[1] else None,
            product(a.transpose(1, 2), slope) if wanted[2] else None,
        )


def _settled(matrices: Tensor) -> Tensor:
    """Matrices in place and without gaps inside, in the order of their rows or, where they are so, of their columns."""
    flipped = matrices.stride(1) == 1 and matrices.stride(2) == matrices.shape[1] and matrices.stride(2) > 1
    own = matrices.transpose(1, 2) if flipped else matrices
    whole = own.stride(2) == 1 and own.stride(1) == own.shape[2]
    if not (whole and in_place(own)):
        own = spaced(own.shape, own).copy_(own)
    return own.transpose(1, 2) if flipped else own

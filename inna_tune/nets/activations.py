"""Nonlinearities, and their passes forward and backward as a training step makes them: with few and in place.

Mish, x tanh(softplus x), is the dearest: torch's kernel takes an exponential, a logarithm and a hyperbolic tangent a number,
and all of them again for the derivative. With s the logistic function and h = s - s²/2 it is t = h / (1 - h) times x, since
e^x (e^x + 2) / (e^x (e^x + 2) + 2) is that: nothing overflows, and nothing small is the difference of large numbers. The
derivative is t + x s (1 - t²). So one logistic function and seven passes of arithmetic serve both, in a fifth of the time.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from inna_tune.nets.signed import signed

# Numbers that go through all passes at once: some tensors of so many remain in a core's own cache.
_PIECE = 2**15
# Pieces are of whole vectors, like batches.
_PIECE_ROWS = 32

# Outputs, slopes and masks have places of their own; a caller that makes them anew each time is to leave few behind.
_REMEMBERED = 8

# A tensor, since torch has no subtraction from a number that writes where it is told and is as quick.
_ONE = torch.ones((), device="cpu")


def mish(z: Tensor) -> Tensor:
    """x tanh(softplus x), which on a CPU has two derivatives and no more."""
    if not z.is_cpu or torch._C._are_functorch_transforms_active():
        return F.mish(z)
    if z.requires_grad and torch.is_grad_enabled():
        found: Tensor = _TwiceDifferentiable.apply(z)  # type: ignore[no-untyped-call]
        return found
    out = torch.empty_like(z, memory_format=torch.contiguous_format)
    logistic, ratio = (out.new_empty(min(_PIECE, z.numel())) for _ in range(2))
    for one, part in zip(torch.split(z.reshape(-1), _PIECE), torch.split(out.view(-1), _PIECE), strict=True):
        _mish(one, logistic[: len(one)], ratio[: len(one)], part)
    return out


def _mish(z: Tensor, logistic: Tensor, ratio: Tensor, out: Tensor) -> Tensor:
    """Mish of z into ``out``; s and t of the derivative stay in ``logistic`` and ``ratio``."""
    torch.sigmoid(z, out=logistic)
    torch.addcmul(logistic, logistic, logistic, value=-0.5, out=ratio)
    torch.sub(_ONE, ratio, out=out)
    ratio.div_(out)
    return torch.mul(z, ratio, out=out)


def _rise(logistic: Tensor, ratio: Tensor) -> Tensor:
    """Derivative of t, s (1 - t²)."""
    return torch.addcmul(logistic, logistic * ratio, ratio, value=-1.0)


class _TwiceDifferentiable(torch.autograd.Function):
    """Mish, of which many products with one Hessian are made: what they are multiplied by is computed once."""

    @staticmethod
    @signed
    def forward(ctx: Any, z: Tensor) -> Tensor:
        logistic, ratio, out = (torch.empty_like(z, memory_format=torch.contiguous_format) for _ in range(3))
        _mish(z, logistic, ratio, out)
        ctx.save_for_backward(z, torch.addcmul(ratio, z, _rise(logistic, ratio)))
        return out

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        z, first = ctx.saved_tensors
        found: Tensor = _Slope.apply(slope, z, first) if torch.is_grad_enabled() else slope * first  # type: ignore[no-untyped-call]
        return found


class _Slope(torch.autograd.Function):
    """A slope times the derivative of mish, by both."""

    @staticmethod
    @signed
    def forward(ctx: Any, slope: Tensor, z: Tensor, first: Tensor) -> Tensor:
        logistic, ratio, scratch = (
            torch.empty_like(z, memory_format=torch.contiguous_format) for _ in range(3)
        )
        _mish(z, logistic, ratio, scratch)
        # The second derivative is s (1 - t²) (2 + x (1 - s - 2 s t)).
        second = _rise(logistic, ratio)
        torch.addcmul(logistic, logistic, ratio, value=2.0, out=scratch)
        torch.sub(_ONE, scratch, out=scratch)
        scratch.mul_(z).add_(2.0)
        ctx.save_for_backward(first, second.mul_(scratch).mul_(slope))
        return slope * first

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, vector: Tensor) -> tuple[Tensor, Tensor, None]:
        first, bent = ctx.saved_tensors
        return vector * first, vector * bent, None


class Activation(NamedTuple):
    """An elementwise nonlinearity.

    Attributes
    ----------
    function : callable
        Tensor to tensor of the same shape.
    gain : float
        Factor g of the weights before it that keeps a second moment of 1: E[f(g z)²] = 1 for z from N(0, 1).
    """

    function: Callable[[Tensor], Tensor]
    gain: float


ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(torch.relu, math.sqrt(2.0)),
    "gelu": Activation(F.gelu, 1.4680112605),
    "silu": Activation(F.silu, 1.5587599301),
    "mish": Activation(mish, 1.4514912400),
    "selu": Activation(torch.selu, 1.0),
}


class Passes(Protocol):
    """An activation behind one layer, with dropout behind it."""

    def forward(self, z: Tensor, mask: Tensor | None) -> Tensor:
        """What the next layer reads, [P, B, n]; ``z`` may be overwritten, and is needed until `backward`."""
        ...

    def backward(self, slope: Tensor, mask: Tensor | None) -> Tensor:
        """Derivative with respect to z of a loss whose derivative behind the mask is ``slope``, which is overwritten."""
        ...


def passes(activation: str, like: Tensor) -> Passes:
    """Passes of an activation.

    Parameters
    ----------
    activation : str
        One of `ACTIVATIONS`.
    like : Tensor of shape [P, B, n]
        As what it will be applied to.
    """
    if activation == "relu":
        return _Relu()
    return _Mish(like) if activation == "mish" and like.is_cpu else _Smooth(activation)


class _Relu:
    def forward(self, z: Tensor, mask: Tensor | None) -> Tensor:
        self._out = z.relu_()
        if mask is not None:
            z.mul_(mask)
        return z

    def backward(self, slope: Tensor, mask: Tensor | None) -> Tensor:
        if mask is not None:
            slope.mul_(mask)
        # Where a unit was dropped or negative its activation is zero, and so is its derivative.
        torch.ops.aten.threshold_backward.grad_input(slope, self._out, 0, grad_input=slope)
        return slope


def _selu_backward(slope: Tensor, z: Tensor) -> Tensor:
    scale, alpha = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717
    backward: Tensor = torch.ops.aten.elu_backward(slope, alpha, scale, 1.0, False, z)
    return backward


# The kernels that autograd would call; an accelerator waits for memory, and computes Mish anew meanwhile.
_SLOPES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mish": torch.ops.aten.mish_backward,
    "gelu": torch.ops.aten.gelu_backward,
    "silu": torch.ops.aten.silu_backward,
    "selu": _selu_backward,
}


class _Smooth:
    """One that torch has quick kernels for."""

    def __init__(self, name: str) -> None:
        self._function = F.mish if name == "mish" else ACTIVATIONS[name].function
        self._slope = _SLOPES[name]

    def forward(self, z: Tensor, mask: Tensor | None) -> Tensor:
        self._before = z
        out = self._function(z)
        return out if mask is None else out.mul_(mask)

    def backward(self, slope: Tensor, mask: Tensor | None) -> Tensor:
        if mask is not None:
            slope.mul_(mask)
        return self._slope(slope, self._before)


class _Mish:
    """Mish, in pieces that a CPU's cache holds."""

    def __init__(self, like: Tensor) -> None:
        self._kept = [torch.empty_like(like) for _ in range(3)]
        n_rows, width = like.shape[0] * like.shape[1], like.shape[2]
        whole = max(_PIECE_ROWS, _PIECE // max(width, 1) // _PIECE_ROWS * _PIECE_ROWS)
        self._pieces = [slice(start, start + whole) for start in range(0, n_rows, whole)]
        self._known: dict[int, tuple[Tensor, list[Tensor]]] = {}
        self._kept_pieces = [self._cut(kept) for kept in self._kept]

    def _cut(self, tensor: Tensor) -> list[Tensor]:
        """Pieces of [P, B, n]; those of tensors that come again and again are remembered."""
        known = self._known.get(id(tensor))
        if known is None or known[0] is not tensor:
            rows = tensor.flatten(0, 1)
            known = tensor, [rows] if len(self._pieces) == 1 else [rows[piece] for piece in self._pieces]
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[id(tensor)] = known
        return known[1]

    def _masks(self, mask: Tensor | None) -> list[Tensor] | list[None]:
        return [None] * len(self._pieces) if mask is None else self._cut(mask)

    def forward(self, z: Tensor, mask: Tensor | None) -> Tensor:
        self._before = self._cut(z)
        for one, logistic, ratio, out, own in zip(
            self._before, *self._kept_pieces, self._masks(mask), strict=True
        ):
            _mish(one, logistic, ratio, out)
            if own is not None:
                out.mul_(own)
        return self._kept[2]

    def backward(self, slope: Tensor, mask: Tensor | None) -> Tensor:
        logistics, ratios, scratches = self._kept_pieces
        for down, z, logistic, ratio, scratch, own in zip(
            self._cut(slope), self._before, logistics, ratios, scratches, self._masks(mask), strict=True
        ):
            # s (1 - t²), then t + x s (1 - t²).
            torch.mul(logistic, ratio, out=scratch)
            torch.addcmul(logistic, scratch, ratio, value=-1.0, out=scratch)
            torch.addcmul(ratio, z, scratch, out=scratch)
            if own is not None:
                down.mul_(own)
            down.mul_(scratch)
        return slope

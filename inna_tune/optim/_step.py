"""One INNA step on lists of tensors, by torch's fused SGD kernel, by foreach, or one tensor at a time.

What is kept of the velocity u is a momentum buffer b and a number c, its scale, with u = -c b. The split is free,
and choosing c well makes the step a Nesterov (γ < β) or heavy-ball (γ = β) step of SGD, for which torch has a kernel
that passes over memory once. Every way of stepping below maps (θ, b, c) to the same (θ', b', c').

A step factor f makes the gradient g + dθ, with ``gradient_decay`` d, count f times. The buffer knows nothing of it: all of
f is in c, and a step after f has changed goes on from the c that it finds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer
from torch.optim.sgd import sgd

Number: TypeAlias = float | Tensor

# Below these the kernel's coefficients would lose digits to cancellation; the other ways of stepping do not.
_SMALLEST_MOMENTUM = 1 / 64
_SMALLEST_GAP = 1e-6
_SCALE_RANGE = (1e-12, 1e12)
# Numbers of each tensor that are stepped together on a CPU: 1 MiB in float32.
PIECE = 2**18

# NOTE: what a CPU's vector units leave over is computed by other, scalar functions, which may round an exponential another
# way. So many numbers, or rows, leave nothing over, wherever in the stack a member is, if each member's begin at a multiple
# of 64 bytes; without that its result would depend on its company in the last bit.
FULL_VECTORS = 32


@dataclass(slots=True)
class Batch:
    """What of a parameter group has a gradient; ``weights`` are the ``params``, or float32 copies of them."""

    params: list[Tensor]
    weights: list[Tensor]
    grads: list[Tensor]
    momenta: list[Tensor]
    scale: float


def kernel_scale(
    scale: float | None, lr: float, alpha: float, beta: float, factor: float = 1.0
) -> float | None:
    """Scale after a step of the fused kernel from ``scale``; None where the kernel cannot make that step.

    ``scale=None`` stands for an empty buffer, whose scale is free: the fixed point fm(β - γ) is chosen, m = 1 - αγ.
    """
    momentum, gap = 1.0 - alpha * lr, beta - lr
    if momentum < _SMALLEST_MOMENTUM or gap < 0.0:
        return None
    if gap == 0.0:
        return factor if scale is None else scale
    if gap < _SMALLEST_GAP * beta:
        return None
    fixed_point = momentum * gap * factor
    new_scale = fixed_point if scale is None or scale == fixed_point else math.sqrt(scale * fixed_point)
    return new_scale if _SCALE_RANGE[0] < new_scale / factor < _SCALE_RANGE[1] else None


def fused_step(
    batch: Batch,
    new_scale: float,
    *,
    lr: float,
    alpha: float,
    beta: float,
    factor: float,
    gradient_decay: float,
    maximize: bool,
    grad_scale: Tensor | None = None,
    found_inf: Tensor | None = None,
) -> None:
    """θ, b ← one step of torch's fused SGD; ``new_scale`` must come from `kernel_scale`."""
    momentum = 1.0 - alpha * lr
    nesterov = lr < beta
    ratio = new_scale / (batch.scale * momentum) if nesterov else 1.0
    sgd(
        batch.weights,
        batch.grads,
        batch.momenta,  # type: ignore[arg-type]
        weight_decay=gradient_decay,
        momentum=momentum * (batch.scale / new_scale),
        lr=lr * new_scale / momentum * ratio,
        dampening=1.0 - lr * (1.0 - alpha * beta) * factor / new_scale,
        nesterov=nesterov,
        maximize=maximize,
        has_sparse_grad=False,
        foreach=False,
        fused=True,
        grad_scale=grad_scale,
        found_inf=found_inf,
    )
    batch.scale = new_scale


def foreach_step(
    batch: Batch,
    new_scale: float,
    *,
    lr: float,
    alpha: float,
    beta: float,
    factor: float,
    gradient_decay: float,
    maximize: bool,
) -> None:
    """θ ← θ - γcb - γβfg, b ← (mc/c')b + (γ(1-αβ)f/c')g, over lists grouped by device and dtype."""
    sign = -1.0 if maximize else 1.0
    groups: Any = Optimizer._group_tensors_by_device_and_dtype(
        [batch.weights, batch.grads, batch.momenta]  # type: ignore[list-item]
    )
    for (thetas, gradients, buffers), _ in groups.values():
        columns = [thetas, gradients, buffers]
        stretches = pieces(columns, PIECE) if _all_contiguous(columns) else [(slice(None), columns)]
        for _, (weights, grads, momenta) in stretches:
            if gradient_decay != 0.0:
                grads = list(torch._foreach_add(grads, weights, alpha=sign * gradient_decay))
            torch._foreach_add_(weights, momenta, alpha=-lr * batch.scale)
            torch._foreach_add_(weights, grads, alpha=-sign * lr * beta * factor)
            torch._foreach_mul_(momenta, (1.0 - alpha * lr) * (batch.scale / new_scale))
            torch._foreach_add_(momenta, grads, alpha=sign * lr * (1.0 - alpha * beta) * factor / new_scale)
    batch.scale = new_scale


def single_step(
    batch: Batch,
    new_scale: float,
    *,
    lr: Number,
    alpha: Number,
    beta: Number,
    factor: Number,
    gradient_decay: Number,
    maximize: bool,
) -> None:
    """The same, one tensor at a time; the hyper-parameters may be tensors that broadcast against each parameter."""
    sign = -1.0 if maximize else 1.0
    # NOTE: products of the hyper-parameters are taken before they meet a parameter, so that a population of
    # [P, 1] hyper-parameters costs as many passes over its [P, n] weights as a single net does.
    from_buffer = -lr * batch.scale
    from_gradient = -sign * lr * beta * factor
    keep = (1.0 - alpha * lr) * (batch.scale / new_scale)
    gain = sign * lr * (1.0 - alpha * beta) * factor / new_scale
    factors = (gradient_decay * sign, from_buffer, from_gradient, keep, gain)
    for tensors in zip(batch.weights, batch.grads, batch.momenta, strict=True):
        for (theta, gradient, buffer), (decay, to_theta, to_theta_too, kept, gained) in _members(
            tensors, factors
        ):
            if isinstance(decay, Tensor):
                gradient = torch.addcmul(gradient, theta, match(decay, theta))
            elif decay != 0.0:
                gradient = torch.add(gradient, theta, alpha=decay)
            add_scaled(theta, buffer, to_theta)
            add_scaled(theta, gradient, to_theta_too)
            add_scaled(multiply(buffer, kept), gradient, gained)
    batch.scale = new_scale


def is_lean(batch: Batch, lr: Number, alpha: Number, beta: Number, factor: Number) -> bool:
    """Whether `lean_step` is the way to step: of tensors on an accelerator, by hyper-parameters in tensors."""
    tensors = isinstance(lr, Tensor) and isinstance(alpha, Tensor) and isinstance(beta, Tensor)
    on_device = not batch.weights[0].is_cpu and not torch.compiler.is_compiling()
    return on_device and tensors and not isinstance(factor, Tensor)


def lean_step(
    batch: Batch,
    *,
    lr: Tensor,
    alpha: Tensor,
    beta: Tensor,
    factor: float,
    gradient_decay: Number,
    maximize: bool,
) -> None:
    """`single_step` in the fewest operations: on an accelerator those of a few numbers cost as much as those of many."""
    sign = -1.0 if maximize else 1.0
    friction = lr * alpha
    damping, gain = lr * beta, torch.addcmul(lr, friction, beta, value=-1.0)
    for theta, gradient, buffer in zip(batch.weights, batch.grads, batch.momenta, strict=True):
        if isinstance(gradient_decay, Tensor):
            gradient = torch.addcmul(gradient, theta, match(gradient_decay, theta), value=sign)
        elif gradient_decay != 0.0:
            gradient = torch.add(gradient, theta, alpha=sign * gradient_decay)
        theta.addcmul_(buffer, match(lr, theta), value=-batch.scale)
        theta.addcmul_(gradient, match(damping, theta), value=-sign * factor)
        buffer.addcmul_(buffer, match(friction, theta), value=-1.0)
        buffer.addcmul_(gradient, match(gain, theta), value=sign * factor / batch.scale)


def _members(
    tensors: tuple[Tensor, ...], factors: tuple[Number, ...]
) -> Iterator[tuple[tuple[Tensor, ...], tuple[Number, ...]]]:
    """Runs of members that a cache holds, each with its own factors; all at once where that does not pay."""
    whole = tensors[0]
    n_members = len(whole) if whole.dim() > 1 else 1
    if not whole.is_cpu or n_members == 1 or whole.numel() <= PIECE or torch.compiler.is_compiling():
        yield tensors, factors
        return
    run = max(1, PIECE * n_members // whole.numel())
    for start in range(0, n_members, run):
        yield (
            tuple(tensor[start : start + run] for tensor in tensors),
            tuple(
                factor[start : start + run]
                if isinstance(factor, Tensor) and factor.dim() == whole.dim() and len(factor) == n_members
                else factor
                for factor in factors
            ),
        )


def pieces(columns: list[list[Tensor]], most: int) -> Iterator[tuple[slice, list[list[Tensor]]]]:
    """Runs of equally long rows of contiguous CPU tensors, or stretches of one row, that a cache holds.

    A step that takes several passes then takes but the first of them over memory. ``most`` is how many numbers of a
    column make a piece. On other devices, all at once.
    """
    rows = columns[0]
    if not rows[0].is_cpu or sum(row.numel() for row in rows) <= most:
        yield slice(None), columns
        return
    start = filled = 0
    for i, row in enumerate(rows):
        size = row.numel()
        if filled and filled + size > most:
            yield slice(start, i), [column[start:i] for column in columns]
            start, filled = i, 0
        if size > most:
            for stretch in zip(*(torch.split(column[i].view(-1), most) for column in columns), strict=True):
                yield slice(i, i + 1), [[part] for part in stretch]
            start = i + 1
        else:
            filled += size
    if filled:
        yield slice(start, None), [column[start:] for column in columns]


def _all_contiguous(columns: list[list[Tensor]]) -> bool:
    return all(tensor.is_contiguous() for column in columns for tensor in column)


def has_tensors(*numbers: Number) -> bool:
    """Whether any of the hyper-parameters is a tensor."""
    return any(isinstance(number, Tensor) for number in numbers)


def match(factor: Tensor, target: Tensor) -> Tensor:
    """A hyper-parameter in the dtype and on the device of what it meets, so that nothing is promoted."""
    return factor.to(device=target.device, dtype=target.dtype)


def add_scaled(target: Tensor, tensor: Tensor, factor: Number) -> Tensor:
    """``target += factor * tensor`` in place, in one pass."""
    if isinstance(factor, Tensor):
        return target.addcmul_(tensor, match(factor, target))
    return target.add_(tensor, alpha=factor)


def add_scaled_all(targets: list[Tensor], tensors: list[Tensor], factor: Number) -> None:
    """``target += factor * tensor`` in place, for each pair."""
    if isinstance(factor, Tensor):
        for target, tensor in zip(targets, tensors, strict=True):
            add_scaled(target, tensor, factor)
    elif factor != 0.0:
        torch._foreach_add_(targets, tensors, alpha=factor)


def shrink(weights: list[Tensor], lr: Number, rate: Number) -> None:
    """θ ← (1 - γλ)θ, for each."""
    if not isinstance(rate, Tensor) and rate == 0.0:
        return
    if has_tensors(lr, rate):
        for weight in weights:
            multiply(weight, 1.0 - lr * rate)
    elif any(abs(float(lr * rate)) > torch.finfo(weight.dtype).eps / 4 for weight in weights):
        # Below that the factor rounds to 1.
        torch._foreach_mul_(weights, 1.0 - lr * rate)


def multiply(target: Tensor, factor: Number) -> Tensor:
    """``target *= factor`` in place."""
    return target.mul_(match(factor, target) if isinstance(factor, Tensor) else factor)

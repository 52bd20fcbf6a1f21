"""What the optimizers refuse, each time with the argument, the value and the remedy."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._foreach_utils import _get_fused_kernels_supported_devices

PLAIN_TYPES = (Tensor, torch.nn.Parameter)
FUSED_DEVICES = frozenset(_get_fused_kernels_supported_devices())


class Bound(NamedTuple):
    """The least value of a hyper-parameter, and whether it is itself allowed."""

    low: float
    open: bool = False

    def __str__(self) -> str:
        return f"{'>' if self.open else '>='} {self.low:g}"


def check_number(key: str, value: Any, bound: Bound) -> float:
    """``value`` as a float, if it is a finite number within ``bound``."""
    try:
        if bound.low < value < math.inf or (value == bound.low and not bound.open):
            return float(value)
    except TypeError:
        pass
    raise ValueError(f"{key} must be a finite number {bound}, got {value!r}")


def check_tensor(key: str, value: Tensor, bound: Bound, group: dict[str, Any]) -> None:
    """Refuse values out of ``bound`` and shapes and devices that do not fit the parameters of ``group``."""
    shape = tuple(value.shape)
    if not value.is_floating_point():
        raise ValueError(
            f"{key} must be a real floating-point tensor, got dtype {value.dtype}: use {key}.float()"
        )
    outside = ~(value.isfinite() & ((value > bound.low) if bound.open else (value >= bound.low)))
    # A tensor on the meta device has no values.
    if not value.is_meta and outside.any():
        raise ValueError(
            f"{key} must be finite and {bound} everywhere, got {value[outside].flatten()[0].item()}"
        )
    if value.dim() == 0 and not group["capturable"]:
        raise ValueError(
            f"{key} is a tensor without dimensions ({value.item()}) and capturable=False: give a float, or set "
            "capturable=True to step in a CUDA graph. A tensor with dimensions holds one value a population member"
        )
    for p in group["params"]:
        if not _broadcasts_to(shape, tuple(p.shape)):
            raise ValueError(
                f"{key} of shape {shape} does not broadcast against a parameter of shape {tuple(p.shape)}: give it "
                "the parameter's number of dimensions, of size 1 where its members share a value, as [P, 1, 1] does "
                "for [P, in, out]"
            )
        if value.dim() > 0 and value.device != p.device:
            raise ValueError(f"{key} is on {value.device} and a parameter on {p.device}: move {key} there")


def _broadcasts_to(shape: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether a tensor of one shape broadcasts to another shape, which stays as it is.

    `torch.broadcast_shapes` would load sympy for it, which takes longer than a small fit.
    """
    pairs = zip(reversed(shape), reversed(other), strict=False)
    return len(shape) <= len(other) and all(size in (1, wanted) for size, wanted in pairs)


def check_parameters(params: list[Tensor], optimizer: str) -> None:
    """Refuse parameters that are not real."""
    for p in params:
        if not p.is_floating_point():
            kind = "complex" if p.is_complex() else "integer"
            raise ValueError(
                f"{optimizer} works on real parameters, got a {kind} one of dtype {p.dtype} and shape "
                f"{tuple(p.shape)}: optimize torch.view_as_real(parameter) instead, or leave it out"
            )


def check_fused(params: list[Tensor]) -> None:
    """Refuse parameters that no fused kernel takes."""
    for p in params:
        if p.device.type not in FUSED_DEVICES or type(p) not in PLAIN_TYPES:
            raise ValueError(
                f"fused=True works on ordinary tensors on {sorted(FUSED_DEVICES)}, got a {type(p).__name__} on "
                f"{p.device}: leave fused=None"
            )


def trained(params: Iterable[Tensor], *, member_axis: bool) -> tuple[list[Tensor], int]:
    """Those that require a gradient, and the number of members on their leading axis, 1 if they have none."""
    params = [param for param in params if param.requires_grad]
    if not params:
        raise ValueError("params: none of the parameters requires a gradient")
    n_members = len(params[0]) if member_axis and params[0].ndim else 1
    if member_axis and any(param.ndim == 0 or len(param) != n_members for param in params):
        raise ValueError(
            f"params: with member_axis=True all need one leading axis, got shapes {[tuple(p.shape) for p in params]}"
        )
    return params, n_members

"""Products of large matrices by oneDNN, which torch has beside MKL.

MKL makes use of AVX-512 on Intel's processors alone. On others that have it oneDNN takes two thirds of its time from some size
on (128 rows through a layer of 256 to 256 units: 96 µs for 157 on an EPYC of the fifth generation). It is asked a matrix at a
time, so that a member's product is the same bits in any company, wherever it lies.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor

# Multiplications from which on a matrix is worth a call of its own.
_WORTH_A_CALL = 2**21


@cache
def _linear() -> Callable[..., Tensor] | None:
    """What torch makes dense layers of compiled models by; not public, and so done without where it is missing."""
    widest = torch.backends.cpu.get_cpu_capability()
    if not (widest.startswith("AVX512") and torch.backends.mkldnn.is_available()):  # type: ignore[no-untyped-call]
        return None
    found: Callable[..., Tensor] | None = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    return found


def is_quicker(like: Tensor, *sides: int) -> bool:
    """Whether products of matrices with these three sides are to be made here; it depends on no number of members."""
    rows, inner, columns = sides
    # With a side of one a product is one of a matrix and a vector, which some make twice.
    is_large = min(sides) > 1 and rows * inner * columns >= _WORTH_A_CALL
    if not (is_large and like.is_cpu and like.dtype == torch.float32):
        return False
    return _linear() is not None and bool(torch.backends.mkldnn.enabled)


def multiply(a: Tensor, b: Tensor, out: Tensor, bias: Tensor | None = None) -> Tensor:
    """Write ``bias + a @ b`` into ``out``, [P, M, N] of [P, M, K] and [P, K, N]; a bias broadcasts against that."""
    linear: Any = _linear()
    # One a column it knows; a layer that is made on its side has one a row.
    is_known = bias is not None and bias.shape == (len(out), 1, out.shape[2])
    biases = cast("Tensor", bias).flatten(1).unbind() if is_known else [None] * len(out)
    for own, weight, start, place in zip(
        a.unbind(), b.transpose(1, 2).unbind(), biases, out.unbind(), strict=True
    ):
        place.copy_(linear(own, weight, start, "none", [], ""))
    return out if bias is None or is_known else out.add_(bias)

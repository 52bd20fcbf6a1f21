"""float16 and bfloat16 weights kept to float32's precision, with 16 bits more a weight.

A weight near 1 in bfloat16 cannot move by less than 1/256, and most steps are smaller. So what the rounding of a weight
cuts off is kept beside it and put back before the next step; studies/low_precision.py measures what that is worth.

The remainder counts units in the last place of float32. A bfloat16 number is the upper half of a float32 one, so 16
bits always hold it; those of a float16 number hold it down to weights of about 1e-5, and part of it below.
"""

import torch
from torch import Tensor

LOW_PRECISION = (torch.float16, torch.bfloat16)


def no_remainder(weight: Tensor) -> Tensor:
    """The remainder of a weight that nothing was cut off from."""
    return torch.zeros_like(weight, dtype=torch.int16, memory_format=torch.preserve_format)


def widen(weight: Tensor, remainder: Tensor) -> Tensor:
    """The float32 weight that `narrow` rounded, in a new tensor."""
    wide = weight.float()
    wide.view(torch.int32).add_(remainder)
    return wide


def narrow(wide: Tensor, weight: Tensor, remainder: Tensor) -> None:
    """Round ``wide`` to ``weight`` and put what that cuts off into ``remainder``; both in place."""
    weight.copy_(wide)
    cut = wide.view(torch.int32) - weight.float().view(torch.int32)
    # Of the two halves ±2^15 that rounding to even leaves, int16 holds one; the other loses its last bit.
    remainder.copy_(cut.clamp_(-(2**15), 2**15 - 1)).masked_fill_(wide.isnan(), 0)

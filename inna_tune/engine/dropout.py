"""Which hidden units a step leaves out, drawn from a member's own stream."""

import torch
from torch import Tensor

_LEVELS = 2**16


def fill_dropout(mask: Tensor, rate: float, stream: torch.Generator) -> None:
    """Fill a tensor with 0 at a share `rate` of the places, and elsewhere with the factor that keeps the mean at 1.

    Sixteen random bits decide a place, four places a draw of the generator: three times as quick as ``bernoulli_``, which
    takes one draw each. So the rate is one of 65,536.

    Parameters
    ----------
    mask : Tensor of any shape, on the CPU
        Overwritten.
    rate : float
        In [0, 1).
    stream : torch.Generator
    """
    dropped = min(round(rate * _LEVELS), _LEVELS - 1)
    count = mask.numel()
    draws = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None, generator=stream)
    kept = draws.view(torch.int16)[:count].view(mask.shape) >= dropped - _LEVELS // 2
    torch.mul(kept, _LEVELS / (_LEVELS - dropped), out=mask)

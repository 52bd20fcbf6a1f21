"""Which hidden units a step leaves out, drawn from a member's own stream."""

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_DIGITS = 16


def fill_dropout(mask: Tensor, rate: float, stream: torch.Generator) -> None:
    """Fill a tensor with 0 at a share `rate` of the places, and elsewhere with the factor that keeps the mean at 1.

    The rate is one of 65,536. Each of 64 bits of a draw belongs to a place, and as many draws as the rate has binary digits
    decide whether a random number of so many digits is below it: two for a quarter, where sixteen bits a place, or
    ``bernoulli_``, would take eight and thirty-two times as many.

    Parameters
    ----------
    mask : Tensor of float32 or float64, of any shape, on the CPU
        Overwritten.
    rate : float
        In [0, 1).
    stream : torch.Generator
    """
    dropped = min(round(rate * 2**_DIGITS), 2**_DIGITS - 1)
    if dropped == 0:
        mask.fill_(1.0)
        return
    digits = [dropped >> i & 1 for i in range(_DIGITS)]
    digits = digits[digits.index(1) :]
    count = mask.numel()
    draws = torch.empty(len(digits), -(-count // 64), dtype=torch.int64, device="cpu")
    draws.random_(-(2**63), None, generator=stream)
    # From the last digit on: of two numbers the one is below the other if its first digit is, or is the same and so on.
    below = draws[0]
    for digit, draw in zip(digits[1:], draws[1:], strict=True):
        below = below.bitwise_or_(draw) if digit else below.bitwise_and_(draw)
    octets = below.view(torch.uint8).numpy()
    factors = _factors(dropped, str(mask.numpy().dtype))
    flat = mask.view(-1) if mask.is_contiguous() else mask.new_empty(count)
    whole = count // 8
    np.take(factors, octets[:whole], axis=0, out=flat[: 8 * whole].view(whole, 8).numpy(), mode="clip")
    if count % 8:
        flat[8 * whole :] = torch.from_numpy(factors[octets[whole], : count % 8])
    if not mask.is_contiguous():
        mask.copy_(flat.view(mask.shape))


@lru_cache(maxsize=64)
def _factors(dropped: int, dtype: str) -> npt.NDArray[Any]:
    """For each octet the factors of its eight places, [256, 8]; a bit that is set drops its place."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    return np.where(bits == 1, 0.0, 2**_DIGITS / (2**_DIGITS - dropped)).astype(dtype)

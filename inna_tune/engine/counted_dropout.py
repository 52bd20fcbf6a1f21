"""Dropout masks drawn on a device, by counters: nothing is drawn one after the other, and nothing comes from the host.

A member's stream gives one key a step, all of an epoch at once. What a unit of a row is told is a hash of that key and of the
place of row and unit, so that it is the same whoever trains beside the member, and however many steps are drawn together.
"""

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

# Bits of a hash that decide on one unit, and how many units a hash decides on.
_DIGITS, _UNITS = 16, 4

# The step of SplitMix64 (Steele, Lea and Flood, 2014), and the factors and the shift of the finisher of MurmurHash3.
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_FACTORS = (0xFF51AFD7ED558CCD - 2**64, 0xC4CEB9FE1A85EC53 - 2**64)
_SHIFT = 33

# Columns of a kind of the table are told apart by numbers that begin here for each kind.
_KIND = 2**20


def _folded(words: Tensor) -> Tensor:
    # torch's shift drags the sign along.
    return words.bitwise_xor_((words >> _SHIFT).bitwise_and_(2 ** (64 - _SHIFT) - 1))


def mixed(words: Tensor) -> Tensor:
    """Numbers of int64 hashed in place: each bit of what comes out depends on all bits of what went in."""
    return reduce(lambda found, factor: _folded(found.mul_(factor)), _FACTORS, _folded(words))


def row_keys(x: Tensor, sections: Sequence[int]) -> Tensor:
    """A number a row that rows of equal columns share, whatever columns of zeros are beside them.

    Parameters
    ----------
    x : Tensor of float64, shape [M, d]
    sections : sequence of int
        How many columns the leading sections have; columns are told apart by their section and their place in it.

    Returns
    -------
    Tensor of int64, shape [M]
    """
    ends = [0, *torch.tensor(list(sections), device="cpu").cumsum(0).tolist()]
    number = [max(k for k, end in enumerate(ends) if end <= j) for j in range(x.shape[1])]
    place = torch.tensor(
        [_KIND * k + j - ends[k] + 1 for j, k in enumerate(number)], dtype=torch.int64, device="cpu"
    )
    factor = mixed(place * _GOLDEN) | 1
    # Zero has two signs and one value.
    bits = (x + 0.0).contiguous().view(torch.int64)
    return mixed((mixed(bits.clone()) * factor.to(x.device)).sum(1))


class CountedDropout:
    """Masks of a population.

    Parameters
    ----------
    rates : sequence of float
        Of the members; a rate is one of 65,536.
    width : int
        Units of a row.
    like : Tensor
        Of the type and on the device that masks are to have.
    keys : Tensor of int64, shape [M], optional
        Rows of the table with the same key drop the same units. By default it is the place in the batch that tells.
    """

    def __init__(self, rates: Sequence[float], width: int, like: Tensor, keys: Tensor | None = None) -> None:
        self._rates, self._width, self._keys = list(rates), width, keys
        most = 2**_DIGITS
        dropped = torch.tensor([min(round(rate * most), most - 1) for rate in rates], device="cpu")
        # Digits are read as signed numbers.
        least = (dropped - most // 2).to(torch.int16)
        self._least = least.to(like.device)[:, None, None]
        self._factor = (most / (most - dropped)).to(like)[:, None, None]
        self._words = torch.arange(-(-width // _UNITS), device=like.device) * _GOLDEN

    def draw(self, streams: Sequence[torch.Generator], steps: Sequence[int]) -> Tensor:
        """Keys of an epoch, [steps, P], from the members' streams, which draw for those steps that are theirs."""
        keys = torch.zeros(max(steps), len(streams), dtype=torch.int64, device="cpu")
        for i, (rate, stream, own) in enumerate(zip(self._rates, streams, steps, strict=True)):
            if rate > 0:
                keys[:own, i] = torch.empty(own, dtype=torch.int64, device="cpu").random_(
                    -(2**63), None, generator=stream
                )
        return keys.to(self._words.device)

    def masks(self, keys: Tensor, rows: Tensor, first_step: int, batch_size: int) -> Tensor:
        """Factors of the units of some batches, one behind the other: zero, or what keeps the mean at one.

        Parameters
        ----------
        keys : Tensor of int64, shape [steps, P]
            What `draw` gave.
        rows : Tensor of int64, shape [P, n]
            Rows of the table, from the beginning of a batch on.
        first_step : int
            The step of this batch.
        batch_size : int

        Returns
        -------
        Tensor of shape [P, n, width]
        """
        place = torch.arange(rows.shape[1], device=rows.device)
        step = (place // batch_size).add_(first_step)
        if self._keys is None:
            whose = (place % batch_size).mul_(len(self._words)).mul_(_GOLDEN)[None]
        else:
            whose = self._keys[rows]
        # Hashed before the unit is added: keys and places that differ by a multiple must not meet in another unit.
        own = mixed(keys.index_select(0, step).T + whose)
        words = mixed(own[:, :, None] + self._words)
        kept = words.view(torch.int16)[:, :, : self._width] >= self._least
        return torch.mul(kept, self._factor)

"""Which row each member sees when: every member sees each of its rows exactly once an epoch."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inna_tune.optim._step import FULL_VECTORS as FULL_VECTORS

# Rows are gathered for a stretch of batches at once and then taken as views (9 µs instead of 28 µs a batch);
# a stretch is as long as this many elements of x allow: of a large table, a small part.
_GATHER_ELEMENTS = 2**22

# NOTE: products and activations of a multiple of so many rows round every row alike, however many there are, also where a
# layer is as narrow as four units: found by trial, since libraries do not say.
FULL_ROWS = 64


@dataclass(frozen=True)
class TableTensors:
    """A whole encoded table on its device.

    Attributes
    ----------
    x : Tensor of shape [M, d]
    target : Tensor of shape [M] (int64 classes) or [M, k] (values)
    weight : Tensor of shape [M] or None
        Sample weights; each member scales them to mean one over its training rows.
    """

    x: Tensor
    target: Tensor
    weight: Tensor | None = None


@dataclass(frozen=True)
class Batch:
    """A stacked batch.

    Attributes
    ----------
    x : Tensor of shape [P, B, d]
    target : Tensor of shape [P, B] or [P, B, k]
    coefficient : Tensor of shape [P, B]
        What each row's loss counts: weight / number of the member's rows in this batch, 0 where the member has none.
        Its sum with the row losses is the mean over the batch, summed over members.
    count : Tensor of shape [P]
        How many of the rows are the member's own.
    counts : tuple of P int
        The same on the host.
    rows : Tensor of int64, shape [P, B]
        Their numbers in the table.
    mask : Tensor of shape [P, B, width], optional
        Factors of the hidden units, where these are drawn with the batches.
    """

    x: Tensor
    target: Tensor
    coefficient: Tensor
    count: Tensor
    counts: tuple[int, ...]
    rows: Tensor
    mask: Tensor | None = None


def pad(rows: Sequence[Tensor], multiple: int = 1) -> tuple[Tensor, Tensor]:
    """Stack row numbers of unequal count, to a width that is a ``multiple``.

    Returns
    -------
    index : Tensor of shape [P, n_max]
        Short members are filled up with their first row (row 0 if they have none).
    valid : Tensor of bool, shape [P, n_max]
        False where filled up.
    """
    longest = -(-max(len(r) for r in rows) // multiple) * multiple
    counts = torch.tensor([len(r) for r in rows], device=rows[0].device)
    index = torch.stack(
        [
            r
            if len(r) == longest
            else torch.cat([r, (r[:1] if len(r) else r.new_zeros(1)).expand(longest - len(r))])
            for r in rows
        ]
    )
    return index, torch.arange(longest, device=index.device) < counts[:, None]


def take(table: Tensor, index: Tensor) -> Tensor:
    """``table[index]`` for a 2-d index, by the quicker ``index_select``."""
    return table.index_select(0, index.reshape(-1)).view(*index.shape, *table.shape[1:])


def _filled_up(index: Tensor, valid: Tensor, batch_size: int) -> tuple[Tensor, Tensor, int]:
    """Row numbers with every batch filled up to a multiple of `FULL_VECTORS` by its last row; and that multiple."""
    n_batches, size = -(-index.shape[1] // batch_size), -(-batch_size // FULL_VECTORS) * FULL_VECTORS
    within = torch.arange(size, device=index.device).clamp(max=batch_size - 1)
    place = torch.arange(n_batches, device=index.device)[:, None] * batch_size + within
    own = (torch.arange(size, device=index.device) < batch_size) & (place < index.shape[1])
    place = place.clamp(max=index.shape[1] - 1).reshape(-1)
    return index[:, place], valid[:, place] & own.reshape(-1), size


def iterate_batches(
    table: TableTensors,
    rows: Sequence[Tensor],
    mean_weight: Tensor | None,
    batch_size: int,
    minimum_rows: int = 1,
    *,
    full_vectors: bool = False,
    masks: Callable[[Tensor, int], Tensor] | None = None,
    mask_width: int = 0,
) -> Iterator[Batch]:
    """Batches of one epoch.

    Parameters
    ----------
    table : TableTensors
        The table.
    rows : sequence of P Tensors of int64
        Each member's training rows in this epoch's order.
    mean_weight : Tensor of shape [P, 1], optional
        Mean sample weight over each member's rows, if the table has weights.
    batch_size : int
        Rows in a batch; the last batch of a member holds what is left.
    minimum_rows : int
        A last batch of fewer rows is passed over: the member counts none in it.
    full_vectors : bool, default=False
        Fill up every batch, the last too, to one length, a multiple of `FULL_VECTORS`: how a product of matrices is
        rounded depends on their sizes, and the longest of the last batches on who trains beside a member.
    masks : callable, optional
        Masks [P, n, mask_width] of rows [P, n], from the batch of a number on.
    mask_width : int, default=0
    """
    lengths = [len(r) for r in rows]
    own_size = batch_size
    if full_vectors:
        # A whole table that is shorter than a batch is the most that any member could have in one.
        batch_size = min(batch_size, max(len(table.x), *lengths, 1))
    length = -(-batch_size // FULL_VECTORS) * FULL_VECTORS
    multiple = FULL_VECTORS if not full_vectors else length
    index, valid = pad(rows, multiple if length == batch_size else 1)
    starts = range(0, index.shape[1], own_size)
    if full_vectors and length != batch_size:
        index, valid, batch_size = _filled_up(index, valid, batch_size)
    longest = index.shape[1]
    # Numbers of own rows, a row a batch; divided by once an epoch, not once a batch.
    counts = [
        tuple(n if n >= minimum_rows else 0 for n in (min(max(m - start, 0), own_size) for m in lengths))
        for start in starts
    ]
    count = torch.tensor(counts, dtype=table.x.dtype, device=table.x.device)
    # A batch may be far longer than the table.
    each = min(batch_size, max(longest, 1))
    share = torch.where(count > 0, 1 / count, 0.0).repeat_interleave(each, 0)[:longest].T
    coefficient = valid.to(table.x.dtype) * share
    if table.weight is not None and mean_weight is not None:
        coefficient = coefficient * (take(table.weight, index) / mean_weight)
    if not coefficient.is_cpu:
        # Products read it a row after the other.
        coefficient = coefficient.contiguous()
    width = max(table.x.shape[1], 0 if masks is None else mask_width, 1)
    stretch = max(1, _GATHER_ELEMENTS // (len(rows) * batch_size * width)) * batch_size
    for begin in range(0, longest, stretch):
        part = index[:, begin : begin + stretch]
        x, target = take(table.x, part), take(table.target, part)
        mask = None if masks is None else masks(part, begin // batch_size)
        for start in range(0, part.shape[1], batch_size):
            here, step = slice(start, start + batch_size), (begin + start) // batch_size
            if not any(counts[step]):
                return
            yield Batch(
                x[:, here],
                target[:, here],
                coefficient[:, begin + start : begin + start + batch_size],
                count[step],
                counts[step],
                part[:, here],
                None if mask is None else mask[:, here],
            )

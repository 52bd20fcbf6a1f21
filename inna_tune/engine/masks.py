"""Dropout masks of a population: each member's from its own stream, for its own rows only."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from inna_tune.engine.batches import Batch, TableTensors
from inna_tune.engine.counted_dropout import CountedDropout, row_keys
from inna_tune.engine.dropout import fill_dropout
from inna_tune.engine.members import Member
from inna_tune.nets import Net, TabularNet


class Masks:
    """Factors of the hidden units.

    In float64, the type of small tables, rows whose columns are equal drop the same units, so that a row of weight two is two
    rows: on a CPU they are told in the order of their values, which is the same however often and wherever they come; on a
    device by a hash of these.

    Parameters
    ----------
    net : Net
    table : TableTensors
    members : sequence of Member
    streams : sequence of torch.Generator
        One a member, on the CPU.
    batch_size : int
    """

    def __init__(
        self,
        net: Net,
        table: TableTensors,
        members: Sequence[Member],
        streams: Sequence[torch.Generator],
        batch_size: int,
    ) -> None:
        self._rates, self._streams, self._batch_size = [m.dropout for m in members], streams, batch_size
        self.width = net.dropout_width if any(self._rates) else 0
        self._dtype = table.x.dtype
        # Written anew each step; ones where a member drops nothing.
        self._mask: Tensor | None = None
        self._kinds: Tensor | None = None
        self._counted: CountedDropout | None = None
        tells_rows = self._dtype == torch.float64 and table.x.shape[1] > 0
        if self.width and not table.x.is_cpu:
            # Of the sections to which a member's padding is added.
            sections = (net.n_numeric, net.n_others) if isinstance(net, TabularNet) else ()
            keys = row_keys(table.x, sections) if tells_rows else None
            self._counted = CountedDropout(self._rates, self.width, table.x, keys)
        elif self.width and tells_rows:
            self._kinds = table.x.unique(dim=0, return_inverse=True)[1]  # type: ignore[no-untyped-call]

    def of_epoch(self, steps: Sequence[int]) -> Callable[[Tensor, int], Tensor] | None:
        """What draws the masks of an epoch's batches with these, on a device; ``steps`` are those of each member."""
        if self._counted is None:
            return None
        keys = self._counted.draw(self._streams, steps)
        return partial(self._counted.masks, keys, batch_size=self._batch_size)

    def of(self, batch: Batch) -> Tensor | None:
        """The mask of a batch, [P, B, width], or None where all units are kept."""
        if self.width == 0 or self._counted is not None:
            return batch.mask
        shape = (*batch.x.shape[:2], self.width)
        if self._mask is None or self._mask.shape != shape:
            self._mask = torch.ones(shape, dtype=self._dtype, device="cpu")
        mask = self._mask
        for i, (rate, stream) in enumerate(zip(self._rates, self._streams, strict=True)):
            if rate > 0:
                own = mask[i, : batch.counts[i]]
                if len(own) < shape[1]:
                    mask[i, len(own) :] = 1.0
                if self._kinds is None:
                    fill_dropout(own, rate, stream)
                    continue
                kinds = self._kinds[batch.rows[i, : len(own)]]
                present, place = kinds.unique(return_inverse=True)  # type: ignore[no-untyped-call]
                drawn = own.new_empty(len(present), own.shape[1])
                fill_dropout(drawn, rate, stream)
                own.copy_(drawn[place])
        return mask

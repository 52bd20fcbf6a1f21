"""Outputs of stacked members, without gradients: the same bits of each in any company."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from inna_tune.engine.batches import FULL_ROWS, FULL_VECTORS, pad, take
from inna_tune.nets import Net, TabularNet
from inna_tune.nets.products import aligned

# Forward passes without gradients go through the rows in pieces of about this many elements of the widest layer.
_FORWARD_ELEMENTS = 2**22
# Where members have rows of their own the first piece has so many: all of it is filled up, which costs.
_FORWARD_ROWS = 128


def stacked_views(net: Net, flat: Tensor) -> dict[str, Tensor]:
    """Views of ``flat`` [P, n] under the names and shapes of the net's parameters, each [P, *shape]."""
    views, start = {}, 0
    for name, shape in net.parameter_shapes.items():
        size = int(np.prod(shape))
        views[name] = flat[:, start : start + size].view(len(flat), *shape)
        start += size
    return views


@torch.no_grad()
def outputs(net: Net, flat: Tensor, x: Tensor, rows: Sequence[Tensor] | None = None) -> Tensor:
    """Outputs of stacked members, without dropout.

    Parameters
    ----------
    net : TabularNet
        The architecture.
    flat : Tensor of shape [P, n]
        The members' weights.
    x : Tensor of shape [M, d]
        Encoded table.
    rows : sequence of P Tensors, optional
        Rows for each member; None means all rows for every member.

    Returns
    -------
    Tensor of shape [P, B, out], ``B`` the longest member's number of rows (what lies beyond a shorter member's rows
    means nothing). Those in float64 of all rows are rounded to the digits of float32.
    """
    return forward(net, stacked_views(net, flat), x, rows)


def forward(
    net: Net, tensors: Mapping[str, Tensor], x: Tensor, rows: Sequence[Tensor] | None = None
) -> Tensor:
    """As `outputs`, of tensors by name, each [P, *shape]."""
    n_members = len(next(iter(tensors.values())))
    if isinstance(net, TabularNet):
        tensors = net.needed(tensors)
    tensors = {name: aligned(tensor) for name, tensor in tensors.items()}
    longest = len(x) if rows is None else max(map(len, rows))
    pieces = _pieces(longest, len(x) if rows is None else min(len(x), _FORWARD_ROWS), net.widest)
    end = max((piece.stop for piece in pieces), default=0)
    if rows is None:
        index = torch.arange(end, device=x.device).clamp(max=longest - 1)[None]
    else:
        index = pad(rows, max(end, 1))[0]
        longest = -(-longest // FULL_VECTORS) * FULL_VECTORS
    parts = []
    for piece in pieces:
        at_once = max(1, _FORWARD_ELEMENTS // ((piece.stop - piece.start) * net.widest))
        batch = take(x, index[:, piece]).expand(n_members, -1, -1)
        members = [slice(start, start + at_once) for start in range(0, n_members, at_once)]
        parts.append(
            torch.cat([net({name: t[some] for name, t in tensors.items()}, batch[some]) for some in members])
        )
    found = torch.cat(parts, 1)[:, :longest] if parts else x.new_zeros(n_members, 0, net.out_features)
    # NOTE: where threads share the work they cut it anywhere, and there a last bit may differ. In float64 that is far behind
    # the digits of float32, so that with those alone a row's outputs are its own.
    return found.float().double() if found.dtype == torch.float64 and rows is None else found


def _pieces(n_rows: int, least: int, widest: int) -> list[slice]:
    """Stretches of rows that go through a net at once, the last one beyond their end.

    NOTE: where they begin and end depends on nobody's company, and each is a multiple of `FULL_ROWS`: a product of
    other sizes may be rounded another way. They grow, so that little is filled up and they stay few.
    """
    most = max(FULL_ROWS, _FORWARD_ELEMENTS // widest // FULL_ROWS * FULL_ROWS)
    found, start = [], 0
    while start < n_rows:
        length = -(-max(least, start // 4) // FULL_ROWS) * FULL_ROWS
        found.append(slice(start, start + min(length, most)))
        start = found[-1].stop
    return found

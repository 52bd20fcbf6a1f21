"""Outputs of trained members for any rows: what a row is told does not depend on the rows told with it.

How a product is rounded depends on the sizes of its matrices and on how threads share the work. So in the usual nets rows go
through in float32 in blocks of one shape, each by one thread; several threads take blocks of their own. The others tell in
float64, of which the digits of float32 are kept.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from inna_tune.engine.forward import outputs, stacked_views
from inna_tune.engine.threads import torch_threads
from inna_tune.nets import ExplicitGradient, ExplicitInputs, LinearPath, Net, TabularNet
from inna_tune.nets.linear import SCALE
from inna_tune.nets.products import aligned, spaced

# Little enough that a single row is told at once, and enough that products are worth their calls.
_BLOCK_ROWS = 128
# Numbers of float32 in 64 bytes.
_WHOLE = 16
# Members that go through a block together: more would leave the caches.
_MEMBERS_AT_ONCE = 8
# In float64 so many rows at a time: little memory beside the encoded table.
_ROWS_AT_ONCE = 2**14


def predicted(net: Net, weights: Tensor, x: Tensor) -> Tensor:
    """Outputs of stacked members for all rows of a table.

    Parameters
    ----------
    net : Net
    weights : Tensor of shape [P, n]
        Of float32 if they were trained so.
    x : Tensor of shape [M, d]
        Encoded rows, of the same type.

    Returns
    -------
    Tensor of float64, shape [P, M, out]
        With the digits of float32. A row's are the same bits whatever rows are beside it.
    """
    in_float32 = weights.is_cpu and weights.dtype == x.dtype == torch.float32
    if in_float32 and isinstance(net, TabularNet) and rounds_rows_alike(net):
        return _in_blocks(net, weights, x).double()
    # Copies of torch's own, since products round by how memory is aligned, which others leave to chance.
    weights = weights.double()
    return torch.cat(
        [outputs(net, weights, part.to(torch.float64, copy=True)) for part in x.split(_ROWS_AT_ONCE)],  # type: ignore[no-untyped-call]
        1,
    )


def rounds_rows_alike(net: TabularNet) -> bool:
    """Whether in float32 a row's outputs are the same bits wherever in a block it is.

    Found by trial, since libraries do not say: not where a product has few columns that fill no vector (5, 7 or 10). Layers of
    multiples of sixteen have none, as their passes are written out: there outputs and embedded numbers are not columns.
    """
    whole = all(width % _WHOLE == 0 for width in net.hidden_layer_sizes)
    return whole and net.is_trunk_plain and ExplicitInputs.is_possible(net)


def _in_blocks(net: TabularNet, weights: Tensor, x: Tensor) -> Tensor:
    """Outputs in float32, [P, M, out]."""
    found = weights.new_empty(len(weights), len(x), net.out_features)
    starts = range(0, len(x), _BLOCK_ROWS)
    stacks = [slice(first, first + _MEMBERS_AT_ONCE) for first in range(0, len(weights), _MEMBERS_AT_ONCE)]
    tensors = [
        {name: aligned(view) for name, view in stacked_views(net, weights[stack]).items()} for stack in stacks
    ]

    # Gradients are recorded or not a thread at a time.
    @torch.no_grad()
    def tell(which: Iterable[int]) -> None:
        told = [_block_outputs(net, own) for own in tensors]
        block = spaced((1, _BLOCK_ROWS, x.shape[1]), x)
        for start in which:
            rows = x[start : start + _BLOCK_ROWS]
            block[0, : len(rows)] = rows
            block[0, len(rows) :] = rows[-1]
            for stack, outputs_of in zip(stacks, told, strict=True):
                found[stack, start : start + len(rows)] = outputs_of(block)[:, : len(rows)]

    n_threads = min(torch.get_num_threads(), len(starts))
    with torch_threads(1):
        if n_threads <= 1:
            tell(starts)
        else:
            with ThreadPoolExecutor(n_threads) as pool:
                list(pool.map(tell, (starts[i::n_threads] for i in range(n_threads))))
    return found


def _block_outputs(net: TabularNet, tensors: dict[str, Tensor]) -> Callable[[Tensor], Tensor]:
    """Outputs [P, B, out] of a block [1, B, d], good until the next."""
    n_members = len(next(iter(tensors.values())))
    inputs, trunk = ExplicitInputs(net, tensors), ExplicitGradient(net, tensors)
    linear = net.linear_outputs(tensors)

    def told(block: Tensor) -> Tensor:
        rows = block.expand(n_members, -1, -1)
        output = trunk.forward(inputs.forward(rows))
        return output if linear is None else LinearPath.beside(linear(rows), output, tensors[SCALE])

    return told

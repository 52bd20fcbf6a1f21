"""The loss of several members together, on rows that each of them did not train on."""

from collections.abc import Sequence

import torch
from torch import Tensor

from inna_tune.engine.batches import TableTensors
from inna_tune.engine.losses import Loss


@torch.no_grad()
def output_together(loss: Loss, rows: Sequence[Tensor], outputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The rows that any member validates on, and the mean of what those say that do.

    Parameters
    ----------
    loss : Loss
        Whose `Loss.pooled` the mean is of.
    rows : sequence of Tensors of int64, each [n]
        Validation rows of each member.
    outputs : sequence of Tensors, each [n, out]
        What each member says of them.

    Returns
    -------
    index : Tensor of int64, shape [m]
    output : Tensor of float64, shape [m, out]
    """
    # On the host in double precision, so that sums do not depend on the order of threads.
    everything = torch.cat(list(rows)).cpu()
    index, place, count = torch.unique(everything, return_inverse=True, return_counts=True)
    pooled = loss.pooled(torch.cat(list(outputs)).cpu().double())
    mean = torch.zeros(len(index), pooled.shape[1], dtype=torch.float64, device="cpu").index_add_(
        0, place, pooled
    )
    return index, mean / count[:, None]


@torch.no_grad()
def mean_loss(loss: Loss, table: TableTensors, index: Tensor, output: Tensor) -> float:
    """Mean loss of outputs [m, out] for the rows ``index`` [m], on the host, by their weights."""
    target = table.target.cpu()[index]
    target = target if target.dtype == torch.int64 else target.double()
    row_loss = loss.per_row(output[None], target[None])[0]
    if table.weight is None:
        return float(row_loss.mean())
    weight = table.weight.cpu()[index].double()
    return float((row_loss * weight).sum() / weight.sum())

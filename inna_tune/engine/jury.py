"""The loss of several members together, on rows that each of them did not train on."""

from collections.abc import Sequence

import torch
from torch import Tensor

from inna_tune.engine.batches import TableTensors
from inna_tune.engine.losses import Loss


@torch.no_grad()
def loss_together(
    loss: Loss, table: TableTensors, rows: Sequence[Tensor], outputs: Sequence[Tensor]
) -> float:
    """Mean loss, over the rows that any member validates on, of the mean of what those that do predict.

    Parameters
    ----------
    loss : Loss
    table : TableTensors
    rows : sequence of Tensors of int64, each [n]
        Validation rows of each member.
    outputs : sequence of Tensors, each [n, out]
        What each member says of them.

    Returns
    -------
    float
        Of the means of what `Loss.pooled` makes of the outputs, by the weights of the rows, each of which counts once.
    """
    # On the host in double precision, so that sums do not depend on the order of threads.
    everything = torch.cat(list(rows)).cpu()
    index, place, count = torch.unique(everything, return_inverse=True, return_counts=True)
    pooled = loss.pooled(torch.cat(list(outputs)).cpu().double())
    mean = torch.zeros(len(index), pooled.shape[1], dtype=torch.float64).index_add_(0, place, pooled)
    mean /= count[:, None]
    target = table.target.cpu()[index]
    target = target if target.dtype == torch.int64 else target.double()
    row_loss = loss.per_row(mean[None], target[None])[0]
    if table.weight is None:
        return float(row_loss.mean())
    weight = table.weight.cpu()[index].double()
    return float((row_loss * weight).sum() / weight.sum())

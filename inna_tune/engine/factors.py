"""Factors of members' steps: those of tensors, with which some go on, and those of columns that a table has small."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from inna_tune.engine.batches import TableTensors
from inna_tune.engine.members import MemberState
from inna_tune.nets import Net

_BLOCK = 2**22  # numbers at a time


def column_factors(net: Net, table: TableTensors, rows: Sequence[Tensor], most: float) -> dict[str, Tensor]:
    r"""Factors of the steps of weights that read columns of the table as they are, such as those of levels.

    The weights of column j have the curvature :math:`E[x_j^2]` times that of what their layer puts out, so that a level which
    few rows have is learned that much more slowly than a number of variance one. Their steps get the factor
    :math:`1/E[x_j^2]`, at least one and at most ``most``, over the member's training rows, by their weights. Where they start,
    and so what of them is noise, stays as it is. No state keeps these factors, since the rows tell them again.

    Parameters
    ----------
    net : Net
    table : TableTensors
    rows : sequence of Tensor
        Each member's training rows.
    most : float
        At least 1, which changes nothing.

    Returns
    -------
    dict of str to Tensor of shape [P, n_inputs, 1]
        By name of the tensor; empty where the net has no such columns, or nothing is to change.
    """
    plain = net.plain_columns
    if plain is None or most == 1.0:
        return {}
    found = table.x.new_ones(len(rows), net.parameter_shapes[plain.name][0], 1)
    known: dict[tuple[int, int], Tensor] = {}  # members of one fold often have the same rows
    for factors, own in zip(found, rows, strict=True):
        place = own.data_ptr(), len(own)
        if place not in known:
            known[place] = _second_moments(table, own, plain.columns)
        # NOTE: of single precision, in which neither the order of the rows nor the width of the table shows.
        moments = known[place].float().clamp(max=1.0)
        factors[plain.inputs, 0] = (1.0 / moments).clamp(max=most).to(factors)
    return {plain.name: found}


def factors_at(states: Sequence[MemberState | None], like: Tensor) -> dict[str, Tensor]:
    """Factors of tensors with which members go on, each [P, 1] and like ``like``, by name; those that begin have none."""
    found = [{} if state is None else state.factors for state in states]
    names = dict.fromkeys(name for own in found for name in own)
    return {name: like.new_tensor([[own.get(name, 1.0)] for own in found]) for name in names}


def all_factors(net: Net, tensors: Mapping[str, Tensor], columns: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Factors of tensors, each [P, 1], and of columns together, by name, each of as many axes as its tensor [P, *shape]."""
    found = dict(columns)
    for name, factor in tensors.items():
        own = factor.view(-1, *[1] * len(net.parameter_shapes[name]))
        found[name] = own * found[name] if name in found else own
    return found


def _second_moments(table: TableTensors, rows: Tensor, columns: slice) -> Tensor:
    """Of these columns, [n_columns] in double precision where the device has it."""
    x = table.x[:, columns]
    double = torch.float32 if x.device.type == "mps" else torch.float64
    total = x.new_zeros(x.shape[1], dtype=double)
    weight = torch.zeros((), dtype=double, device=x.device)
    for part in torch.split(rows, max(1, _BLOCK // x.shape[1])):
        own = torch.ones(len(part), dtype=double, device=x.device)
        if table.weight is not None:
            own = table.weight[part].to(double)
        total += own @ x[part].to(double).square()
        weight += own.sum()
    return total / weight.clamp(min=torch.finfo(double).tiny)

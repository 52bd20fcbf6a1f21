"""Steps of an epoch, and their sizes by the laws of decay of the members."""

from collections.abc import Sequence

import torch
from torch import Tensor

from inna_tune.engine.batches import FULL_VECTORS
from inna_tune.engine.members import Member
from inna_tune.optim.decay import DECAY_LAWS, decay_factor


def steps_of_epoch(n_rows: int, batch_size: int, minimum_rows: int) -> int:
    """Batches of so many rows; a last one of fewer than the least that a net takes is left out."""
    return -(-n_rows // batch_size) - (0 < n_rows % batch_size < minimum_rows)


def learning_rates(
    members: Sequence[Member], own_steps: Sequence[int], epoch: int, lr: Tensor, horizon: float
) -> Tensor:
    """Step sizes of one epoch.

    Parameters
    ----------
    members : sequence of P Member
    own_steps : sequence of P int
        Steps of each in an epoch.
    epoch : int
        Epochs done.
    lr : Tensor of shape [P, 1]
        The members' step sizes.
    horizon : float
        Epochs over which the cosine law falls to zero.

    Returns
    -------
    Tensor of shape [steps, P, 1]; 0 where a member has no batch left.
    """
    steps = torch.tensor(own_steps, device="cpu")
    step = torch.arange(int(steps.max()), device="cpu")[:, None]
    # A law that ends with the horizon is begun anew by a member that goes on.
    before = torch.tensor(
        [0 if m.start is None or DECAY_LAWS[m.decay].needs_horizon else m.start.epochs for m in members],
        device="cpu",
    )
    position = epoch + before + step.double() / steps
    factor = torch.ones_like(position)
    # NOTE: one member after the other, with whole vectors of steps: how a CPU rounds a power depends on its place.
    whole = -(-len(position) // FULL_VECTORS) * FULL_VECTORS
    for i, member in enumerate(members):
        own = position.new_zeros(whole)
        own[: len(position)] = position[:, i]
        law = decay_factor(member.decay, own, power=member.decay_power, horizon=horizon)
        factor[:, i] = law[: len(position)]
    factor = torch.where(step < steps, factor, 0.0)
    return lr * factor[..., None].to(lr)

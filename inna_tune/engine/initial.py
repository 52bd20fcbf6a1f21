"""The weights that a population begins with."""

from collections.abc import Sequence

import torch
from torch import Tensor

from inna_tune.engine.forward import stacked_views
from inna_tune.engine.members import Member, MemberState
from inna_tune.nets import Net


def drawn(
    net: Net, members: Sequence[Member], streams: Sequence[torch.Generator], like: Tensor
) -> dict[str, Tensor]:
    """Initial values of each tensor, [P, *shape], each member's from its own stream.

    Parameters
    ----------
    net : Net
    members : sequence of P Member
    streams : sequence of P torch.Generator
        On the CPU, so that values are the same on every device.
    like : Tensor
        Of the dtype and on the device that they are to have.
    """
    found: dict[str, Tensor] = {}
    # One after the other into their place: of large nets all of them beside it would be twice the memory.
    for i, (member, stream) in enumerate(zip(members, streams, strict=True)):
        more = {} if member.linear is None else {"linear": member.linear}
        own = net.initialize(stream, used_features=member.used_features, dtype=like.dtype, **more)
        for name in net.parameter_shapes:
            if i == 0:
                found[name] = like.new_empty(len(members), *own[name].shape, dtype=own[name].dtype)
            found[name][i] = own[name]
    return found


def begun_at(net: Net, states: Sequence[MemberState], like: Tensor) -> dict[str, Tensor]:
    """Values of each tensor, [P, *shape], where training stood; dtype and device are those of ``like``."""
    weights = torch.stack([state.weights for state in states]).to(like)
    return {name: view.clone() for name, view in stacked_views(net, weights).items()}

"""How far one gradient may carry a net: a share of how long its weights are.

The curvature that sets a step is that of the initial weights. Where it rises in training by more than the step allows for, each
step is longer than the one before, until the weights are no numbers. What a gradient by itself would carry farther than a share
of the weights' length is shortened to that, by which the net comes to where the curvature is less (docs/mathematics.md, "The
longest step"). Gradients that follow each other, and weight decay, may carry them farther together.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from inna_tune.engine.method import Method
from inna_tune.optim.optimizers import record_of

# Of nets that begin as zero.
_LEAST_LENGTH = 1.0


class StepLimit:
    """What shortens gradients of members whose weights they would carry too far.

    Parameters
    ----------
    method : Method
        With a longest step.
    settings : mapping of str to Tensor of shape [P, 1]
        The members'.
    rows : sequence of Tensor
        The weights, each [P, n].
    """

    def __init__(self, method: Method, settings: Mapping[str, Tensor], rows: Sequence[Tensor]) -> None:
        record = record_of(method.optimizer)
        if method.longest_step is None or record.reach is None:
            raise ValueError("nothing limits a step of this method")
        self._share = method.longest_step
        self._reach = record.reach(settings, dict(record.options) | dict(method.optimizer_params))
        self._is_free = settings["held"] == 0 if "held" in settings else None
        self._decay = None
        if record.decay is not None and bool((settings["weight_decay"] != 0).any()):
            self._decay = record.decay(settings)
        self._most, self._room = torch.empty_like(self._reach), torch.empty_like(self._reach)
        self.measure(rows)

    @staticmethod
    def is_asked_for(method: Method, settings: Mapping[str, Tensor]) -> bool:
        """Whether the method limits a step of any member, and what its optimizer makes of a gradient is known."""
        if method.longest_step is None or record_of(method.optimizer).reach is None:
            return False
        return "held" not in settings or bool((settings["held"] != 0).any())

    @torch.no_grad()
    def measure(self, rows: Sequence[Tensor]) -> None:
        """Take the lengths of the weights as they are now."""
        length = lengths(rows)
        if self._decay is not None:
            self._room.copy_(length * self._decay)
        self._most.copy_(length.clamp(min=_LEAST_LENGTH).mul_(self._share).div_(self._reach))
        if self._is_free is not None:
            self._most.masked_fill_(self._is_free, float("inf"))

    def hold(self, gradients: Sequence[Tensor], rate: Any) -> None:
        """Shorten what would go too far at a step of ``rate``."""
        most = self._most / rate
        if self._decay is not None:
            # A gradient has to hold against the decay of the weights before it moves them.
            most += self._room
        # What is not a number stays so, and a member is seen to have diverged; of one whose length is beyond numbers nothing
        # is left.
        factor = (most / lengths(gradients)).clamp_(max=1.0)
        # A look is cheaper than a pass over all, where it is not to wait for.
        if factor.is_cpu and not bool((factor != 1.0).any()):
            return
        for gradient in gradients:
            gradient.mul_(factor)


def lengths(rows: Sequence[Tensor]) -> Tensor:
    """Of each member's vector that is given in parts, [P, 1]."""
    if len(rows) == 1 and not rows[0].is_cpu:
        whole: Tensor = torch.linalg.vector_norm(rows[0], dim=1, keepdim=True)
        return whole
    # One by one: how a stack of them is summed up, and rounded, depends on the number of members; so does hypot.
    total: Tensor = rows[0].square().sum(1, keepdim=True)
    for part in rows[1:]:
        total += part.square().sum(1, keepdim=True)
    return total.sqrt_()

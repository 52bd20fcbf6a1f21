"""How far one gradient may carry a net: a share of how long its weights are.

The curvature that sets a step is that of the initial weights. Where it rises in training by more than the step allows for, each
step is longer than the one before, until the weights are no numbers. A gradient g carries INNA's weights by max(γβ, γ/α)·‖g‖ at
most, and ordinary training seldom by a thirtieth of ‖θ‖ (docs/mathematics.md, "The longest step"); what would carry them
farther than a share of it is shortened to that, by which the net comes to where the curvature is less.
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
        self._most = torch.empty_like(self._reach)
        self.measure(rows)

    @staticmethod
    def is_asked_for(method: Method) -> bool:
        """Whether the method limits a step, and what its optimizer makes of a gradient is known."""
        return method.longest_step is not None and record_of(method.optimizer).reach is not None

    @torch.no_grad()
    def measure(self, rows: Sequence[Tensor]) -> None:
        """Take the lengths of the weights as they are now."""
        self._most.copy_(_lengths(rows).clamp_(min=_LEAST_LENGTH).mul_(self._share).div_(self._reach))

    def hold(self, gradients: Sequence[Tensor], rate: Any) -> None:
        """Shorten what would go too far at a step of ``rate``."""
        # What is not a number stays so, and a member is seen to have diverged.
        factor = (self._most / _lengths(gradients).mul_(rate)).clamp_(max=1.0)
        # A look is cheaper than a pass over all, where it is not to wait for.
        if factor.is_cpu and not bool((factor != 1.0).any()):
            return
        for gradient in gradients:
            gradient.mul_(factor)


def _lengths(rows: Sequence[Tensor]) -> Tensor:
    """Of each member's vector that is given in parts, [P, 1]."""
    # One by one: how a stack of them is summed up, and rounded, depends on the number of members.
    lengths: list[Tensor] = [torch.linalg.vector_norm(part, dim=1, keepdim=True) for part in rows]
    total = lengths[0]
    for length in lengths[1:]:
        total = total.hypot(length)
    return total

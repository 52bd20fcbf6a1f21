"""How far one gradient may carry a net: a share of how long its weights are.

The curvature that sets a step is that of the initial weights. Where it rises in training by more than the step allows for, each
step is longer than the one before, until the weights are no numbers. What a gradient by itself would carry farther than a share
of the weights' length is shortened to that, by which the net comes to where the curvature is less (docs/mathematics.md, "The
longest step"). Gradients that follow each other, and weight decay, may carry them farther together. What would go a thousand
times the weights' length is no rise of the curvature but a step that nothing can be learnt by: it is let go, so that a trial
with such settings is seen to diverge at once in place of training for nothing.

Where many steps have to be held, the step is longer than the curvature allows as it is now. It is shortened then from epoch to
epoch, until few are.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from inna_tune.engine.members import MemberState
from inna_tune.engine.method import Method
from inna_tune.optim.optimizers import record_of

# Of nets that begin as zero.
_LEAST_LENGTH = 1.0
# Lengths of the weights: what would go farther is not held. On the made tables of studies/longest_step.py automatic steps would
# have gone two at most, and fourteen at a sixteenth of the friction.
_LET_GO = 1000.0

# A member may be held once in twenty steps. Each time beyond that shortens the steps of later epochs by a fiftieth, an epoch
# by a half at most.
_SELDOM, _EASING, _MOST_EASED = 0.05, 0.02, 0.5


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
        self._decay = None
        if record.decay is not None and bool((settings["weight_decay"] != 0).any()):
            self._decay = record.decay(settings)
        self._most, self._room = torch.empty_like(self._reach), torch.empty_like(self._reach)
        self._held, self._steps = torch.zeros_like(self._reach), torch.zeros_like(self._reach)
        self.measure(rows)

    @staticmethod
    def is_asked_for(method: Method) -> bool:
        """Whether the method limits steps, and what its optimizer makes of a gradient is known."""
        return method.longest_step is not None and record_of(method.optimizer).reach is not None

    @torch.no_grad()
    def measure(self, rows: Sequence[Tensor]) -> None:
        """Take the lengths of the weights as they are now."""
        length = lengths(rows)
        if self._decay is not None:
            self._room.copy_(length * self._decay)
        self._most.copy_(length.clamp(min=_LEAST_LENGTH).mul_(self._share).div_(self._reach))

    @torch.no_grad()
    def expect(self, rates: Tensor) -> None:
        """Count anew what is held, of the steps of an epoch, [steps, P, 1], that are more than 0."""
        self._held.zero_()
        self._steps.copy_((rates != 0).sum(0))

    def hold(self, gradients: Sequence[Tensor], rate: Any) -> None:
        """Shorten what would go too far at a step of ``rate``."""
        most = self._most / rate
        if self._decay is not None:
            # A gradient has to hold against the decay of the weights before it moves them.
            most += self._room
        factor = (most / lengths(gradients)).clamp_(max=1.0)
        # What is not a number stays so, and what is beyond numbers is let go: a member is seen to have diverged.
        torch.threshold_(factor, self._share / _LET_GO, 1.0)
        # A look is cheaper than a pass over all, where it is not to wait for.
        if factor.is_cpu and not bool((factor != 1.0).any()):
            return
        self._held += factor < 1.0
        for gradient in gradients:
            gradient.mul_(factor)

    def eased(self, settings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``eased`` and ``spare``, each [P, 1], with which the members go on after an epoch.

        The one is what their step sizes are multiplied by. The other is what short epochs have left of what may be held, up to
        one step: else a single one of hundreds would shorten all that follow.
        """
        # NOTE: products and sums alone, which are rounded alike in whatever company.
        allowed = _SELDOM * self._steps
        often = self._held - allowed - settings["spare"]
        factor = (1.0 - _EASING * often.clamp(min=0.0)).clamp_(min=_MOST_EASED)
        spare = torch.minimum(often.neg(), 1.0 - allowed).clamp_(min=0.0)
        return {"eased": settings["eased"] * factor, "spare": spare}


def eased_before(states: Sequence[MemberState | None], lr: Tensor) -> dict[str, Tensor]:
    """``eased`` and ``spare`` of members that go on from states, by step sizes, [P, 1]; of another step nothing is known."""
    found = {}
    known = [{} if state is None else state.settings for state in states]
    is_same = lr == lr.new_tensor([settings.get("lr", math.nan) for settings in known])[:, None]
    for name, usual in (("eased", 1.0), ("spare", 0.0)):
        before = lr.new_tensor([settings.get(name, usual) for settings in known])[:, None]
        found[name] = torch.where(is_same, before, usual)
    return found


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

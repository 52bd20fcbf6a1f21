"""SGD and AdamW for stacked members, whose settings have a value a member.

Each is torch's own, member by member; tests/engine/test_method.py compares them. Their options and what these usually are
stand in `inna_tune.optim.optimizers`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from inna_tune.optim._step import FULL_VECTORS
from inna_tune.optim._uncompiled import UncompiledOptimizer


class StackedOptimizer(UncompiledOptimizer):
    """Base of optimizers that are given a setting a member: who stands still, and what has a gradient."""

    def __init__(self, rows: Sequence[Tensor], **settings: Any) -> None:
        super().__init__(rows, settings)

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        with torch.no_grad():
            for group in self.param_groups:
                lr = group["lr"]
                # A member whose step is zero stands still, state and all.
                moving = (lr != 0) if isinstance(lr, Tensor) else None
                # A look at the values is free on a CPU alone.
                if moving is not None and moving.is_cpu and bool(moving.all()):
                    moving = None
                for p in group["params"]:
                    if p.grad is not None:
                        grad = p.grad if moving is None else torch.where(moving, p.grad, 0.0)
                        self._update(group, p, grad, self.state[p], moving)

    def _update(
        self, group: dict[str, Any], p: Tensor, grad: Tensor, state: dict[str, Any], moving: Tensor | None
    ) -> None:
        raise NotImplementedError


class StackedSGD(StackedOptimizer):
    """SGD with momentum: v ← μv + g, θ ← θ − γv, with the gradient λθ of the weight decay in g."""

    def _update(
        self, group: dict[str, Any], p: Tensor, grad: Tensor, state: dict[str, Any], moving: Tensor | None
    ) -> None:
        decay, momentum = group["weight_decay"], group["momentum"]
        if isinstance(decay, Tensor) or decay != 0.0:
            grad = grad + decay * p
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(p)
        velocity = state["velocity"]
        fresh = momentum * velocity + grad
        velocity.copy_(fresh if moving is None else torch.where(moving, fresh, velocity))
        p.sub_(group["lr"] * (grad + momentum * velocity if group["nesterov"] else velocity))


class StackedAdamW(StackedOptimizer):
    """AdamW, as torch has it; members that stand still are not counted a step."""

    def _update(
        self, group: dict[str, Any], p: Tensor, grad: Tensor, state: dict[str, Any], moving: Tensor | None
    ) -> None:
        first, second = group["betas"]
        if not state:
            state["mean"], state["square"] = torch.zeros_like(p), torch.zeros_like(p)
            state["count"] = p.new_zeros(len(p), 1).expand(p.shape).clone()[:, :1]
        count, mean, square = state["count"], state["mean"], state["square"]
        count += 1 if moving is None else moving
        keep_first, keep_second = (
            beta if moving is None else torch.ones_like(count).masked_fill(moving, beta)
            for beta in (first, second)
        )
        # Where a member stands still its gradient is zero. NOTE: numbers, since as tensors they would round another way.
        mean.mul_(keep_first).add_(grad * (1 - first))
        square.mul_(keep_second).add_(grad.square() * (1 - second))
        decay = group["weight_decay"]
        if isinstance(decay, Tensor) or decay != 0.0:
            p.mul_(1.0 - group["lr"] * decay)
        # Repeated, so that the powers of every member are computed by whole vectors, with one rounding.
        counted = count.clamp(min=1).repeat(1, FULL_VECTORS)
        below_first, below_second = ((1 - beta**counted)[:, :1] for beta in (first, second))
        direction = mean / below_first / ((square / below_second).sqrt() + group["eps"])
        p.sub_(group["lr"] * direction)

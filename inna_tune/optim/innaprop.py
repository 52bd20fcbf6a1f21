"""INNAprop: INNA on gradients scaled by RMSprop's second moment (Bolte, Boustany, Pauwels, Purica)."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.adamw import adamw
from torch.optim.optimizer import ParamsT

from inna_tune.optim._checks import Bound, check_number
from inna_tune.optim._inertial import InertialNewton, counter, may_foreach, may_fuse, standing_still
from inna_tune.optim._step import (
    FULL_VECTORS,
    Batch,
    Number,
    add_scaled_all,
    has_tensors,
    is_lean,
    lean_step,
    match,
    pieces,
    shrink,
)

# Several calls a piece: larger ones than INNA's make up for what the calls themselves cost (studies/optimizer_speed.py).
_PIECE = 2**20


class INNAprop(InertialNewton):
    r"""INNA with each gradient divided by a running root mean square of it, and decoupled weight decay.

    With g the gradient, v its second moment, starting at zero, and t the number of updates of the parameter,

    .. math::
        v &\leftarrow \sigma v + (1 - \sigma) g^2, \qquad
        d = g \big/ \big(\sqrt{v / (1 - \sigma^t)} + \epsilon\big) \\
        \theta &\leftarrow (1 - \gamma\lambda) \theta, \qquad
        u \leftarrow u - \gamma\lambda (1/\beta - \alpha) \theta \\
        \theta &\leftarrow \theta + \gamma (u - \beta d), \qquad
        u \leftarrow (1 - \alpha\gamma) u - \gamma (1 - \alpha\beta) d

    where the second line uses θ as it was. This is the published trajectory; the published formulas divide by β − γ,
    so they have no value at γ = β, and lose digits near it, where this form is as good as anywhere. The change of
    the velocity u in the weight decay follows from the published one, which shrinks θ and leaves the phase ψ alone.

    Parameters
    ----------
    params : iterable
        Parameters, named parameters, or dicts that define groups, as for any torch optimizer.
    lr : float or Tensor, default 1e-3
        Step size γ ≥ 0. Where it is zero, weights and velocity stay exactly what they are, also when the gradient is
        not finite. The second moment goes on, with what is not finite counted as zero; that of a population's member,
        whose ``lr`` is one of several in a tensor, stays as well.
    alpha : float or Tensor, default 0.1
        Viscous friction α ≥ 0.
    beta : float or Tensor, default 0.9
        Newtonian damping β > 0.
    sigma : float, default 0.999
        Decay of the second moment, 0 ≤ σ < 1.
    eps : float, default 1e-8
        ε > 0, added to the root.
    weight_decay : float or Tensor, default 0.01
        Decoupled weight decay λ ≥ 0.
    maximize : bool, default False
        Ascend instead of descend.
    foreach : bool, optional
        True steps by torch's multi-tensor functions, False one tensor at a time.
    fused : bool, optional
        True steps by torch's fused AdamW and SGD kernels wherever they can make the step, decided anew at each; foreach
        otherwise. False never uses them. With both ``foreach`` and ``fused`` None, the quickest way that is safe for the
        parameters is taken.
    capturable : bool, default False
        Keep the counts on the device and read nothing on the host, for CUDA graphs and torch.compile; hyper-parameters
        given as tensors without dimensions need it.
    differentiable : bool, default False
        As in `INNA`: True is refused.

    Raises
    ------
    ValueError
        If a hyper-parameter is out of range, not finite, or a tensor that does not broadcast against each parameter of
        its group; if a parameter is complex; if ``foreach`` and ``fused`` are both True, or ``differentiable`` is.

    Notes
    -----
    Tensor hyper-parameters train a population, as in `INNA`. The state of a parameter is two tensors, ``momentum`` and
    ``second_moment`` (float32 for float16 and bfloat16 parameters, which have a third, ``remainder``), and the
    numbers ``scale`` and ``updates``.

    References
    ----------
    J. Bolte, R. Boustany, E. Pauwels, A. Purica, "A second-order-like optimizer with adaptive gradient scaling for deep
    learning", arXiv:2410.05871, 2024.

    Examples
    --------
    >>> import torch
    >>> weight = torch.nn.Parameter(torch.ones(3))
    >>> optimizer = INNAprop([weight], lr=0.01, alpha=0.1, beta=0.9)
    >>> for _ in range(300):
    ...     optimizer.zero_grad()
    ...     weight.square().sum().backward()
    ...     optimizer.step()
    >>> bool(weight.detach().norm() < 0.1)
    True
    """

    _state_tensors: ClassVar[tuple[str, ...]] = ("momentum", "second_moment")
    _identity: ClassVar[tuple[str, ...]] = (*InertialNewton._identity, "sigma", "eps")

    def __init__(
        self,
        params: ParamsT,
        lr: Number = 1e-3,
        alpha: Number = 0.1,
        beta: Number = 0.9,
        *,
        sigma: float = 0.999,
        eps: float = 1e-8,
        weight_decay: Number = 0.01,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "alpha": alpha,
            "beta": beta,
            "sigma": sigma,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "fused": fused,
            "capturable": capturable,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def _check_group(self, group: dict[str, Any]) -> None:
        if "step_factor" in group:
            raise ValueError(
                f"step_factor={group['step_factor']!r}: INNAprop divides a gradient by its own size, so that a factor of "
                "it changes nothing. Give the group an lr of its own"
            )
        super()._check_group(group)
        group["eps"] = check_number("eps", group["eps"], Bound(0.0, open=True))
        group["sigma"] = check_number("sigma", group["sigma"], Bound(0.0))
        if group["sigma"] >= 1.0:
            raise ValueError(f"sigma must be below 1, got {group['sigma']}")

    def _init_state(self, group: dict[str, Any], p: Tensor, state: dict[str, Any]) -> None:
        super()._init_state(group, p, state)
        state["updates"] = counter(0, group)

    def _update(self, group: dict[str, Any], batch: Batch) -> None:
        lr, alpha, beta, weight_decay = group["lr"], group["alpha"], group["beta"], group["weight_decay"]
        if _is_by_member(lr) and is_lean(batch, lr, alpha, beta, 1.0) and not hasattr(self, "found_inf"):
            self._update_lean(group, batch)
            return
        still = standing_still(lr) if isinstance(lr, Tensor) else None
        if still is not None:
            batch.grads = [
                torch.where(still.to(g.device), g.nan_to_num(0.0, 0.0, 0.0), g) for g in batch.grads
            ]
        by_member = _is_by_member(lr)
        moments, updates = [], []
        for p in batch.params:
            state = self.state[p]
            if by_member:
                _count_by_member(state, lr)
            elif not group["capturable"]:
                _count_by_number(state)
            state["updates"] += 1 if still is None or not by_member else ~still
            moments.append(state["second_moment"])
            updates.append(state["updates"])
        before = [moment.clone() for moment in moments] if by_member and still is not None else []
        by_kernel = (
            not (group["capturable"] or by_member)
            and may_fuse(group, batch)
            and all(v.is_contiguous() for v in moments)
            and not any(isinstance(count, Tensor) for count in updates)
        )
        whole = not by_kernel or has_tensors(lr, alpha, beta, weight_decay)
        columns = [batch.weights, batch.grads, batch.momenta, moments]
        scale = batch.scale
        scratch: list[Tensor] = []
        for rows, (weights, grads, momenta, seconds) in (
            [(slice(None), columns)] if whole else pieces(columns, _PIECE)
        ):
            if by_kernel:
                directions = _directions_by_kernel(grads, seconds, updates[rows], group, scratch)
            else:
                directions = _directions(
                    grads, seconds, updates[rows], group, foreach=may_foreach(group, weights)
                )
            if not isinstance(lr, Tensor) and lr == 0.0:
                continue
            decay, excess = 0.0, lr * lr * weight_decay / beta
            if has_tensors(lr, alpha, beta, weight_decay) or excess > 0.5:
                add_scaled_all(momenta, weights, lr * weight_decay * (1.0 / beta - alpha) / scale)
                shrink(weights, lr, weight_decay)
            elif weight_decay != 0.0:
                # NOTE: the same in one pass less. What the decay does to θ and u is what the direction d + cθ does,
                # which the inertial step takes in its stride, but for a factor on θ that usual settings round to 1.
                shrink(weights, lr, excess / lr)
                decay = (1.0 - alpha * lr) * weight_decay / beta / (1.0 - excess)
            for second, old in zip(seconds, before, strict=False):
                second.copy_(torch.where(still.to(second.device), old, second))  # type: ignore[union-attr]
            piece = Batch(batch.params[rows], weights, directions, momenta, scale)
            self._advance(group, piece, lr, gradient_decay=decay)
            batch.scale = piece.scale

    def _update_lean(self, group: dict[str, Any], batch: Batch) -> None:
        """The same of members on an accelerator, in the fewest operations."""
        lr, beta, weight_decay = group["lr"], group["beta"], group["weight_decay"]
        still, moving = lr == 0, lr.sign()
        # Where a member stands still this is one, exactly, and its gradient is zero.
        keep = (moving * (group["sigma"] - 1.0)).add_(1.0)
        directions = []
        for p, gradient in zip(batch.params, batch.grads, strict=True):
            state = self.state[p]
            _count_by_member(state, lr)
            state["updates"] += moving
            gradient = gradient.masked_fill(still, 0.0)
            second = state["second_moment"].mul_(match(keep, gradient))
            second.addcmul_(gradient, gradient, value=1.0 - group["sigma"])
            denominator = second.sqrt()
            if group["sigma"] > 0.0:
                exponent = state["updates"].clamp(min=1.0).mul_(math.log(group["sigma"]))
                denominator.div_(match(exponent.expm1_().neg_().sqrt_(), gradient))
            directions.append(gradient / denominator.add_(group["eps"]))
        batch.grads = directions
        if isinstance(weight_decay, Tensor) or weight_decay != 0.0:
            by = lr * weight_decay * (1.0 / beta - group["alpha"]) / batch.scale
            add_scaled_all(batch.momenta, batch.weights, by)
            shrink(batch.weights, lr, weight_decay)
        lean_step(
            batch,
            lr=lr,
            alpha=group["alpha"],
            beta=beta,
            factor=1.0,
            gradient_decay=0.0,
            maximize=group["maximize"],
        )


def _is_by_member(lr: Number) -> bool:
    """Whether a step size has a value a member."""
    return isinstance(lr, Tensor) and lr.dim() > 0


def _count_by_member(state: dict[str, Any], lr: Tensor) -> None:
    """Make a count of updates one a member."""
    if not (isinstance(state["updates"], Tensor) and state["updates"].dim() > 0):
        state["updates"] = torch.zeros_like(lr) + state["updates"]


def _count_by_number(state: dict[str, Any]) -> None:
    """Make a count of updates a number, where it is one of a single member or of a graph's step, and goes on without."""
    if isinstance(state["updates"], Tensor) and state["updates"].numel() == 1:
        state["updates"] = state["updates"].item()


def _directions_by_kernel(
    grads: list[Tensor],
    moments: list[Tensor],
    updates: list[int],
    group: dict[str, Any],
    scratch: list[Tensor],
) -> list[Tensor]:
    """Update the second moments and divide the gradients by their roots, in one pass of torch's fused AdamW.

    Without a first moment and with a step of −1, what it adds to a weight is just that quotient. ``scratch`` holds the
    memory of the piece before, which is still in the cache; the directions are good until the next call.
    """
    directions, first_moments = _zeros(grads, scratch)
    adamw(
        directions,
        grads,
        first_moments,
        moments,
        [],
        [torch.full((), count - 1.0, device=grad.device) for count, grad in zip(updates, grads, strict=True)],
        foreach=False,
        fused=True,
        amsgrad=False,
        beta1=0.0,
        beta2=group["sigma"],
        lr=-1.0,
        weight_decay=0.0,
        eps=group["eps"],
        maximize=False,
    )
    return directions


def _zeros(tensors: list[Tensor], scratch: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Two lists of zeros in the shapes of ``tensors``, in the memory that ``scratch`` has or gets."""
    first, sizes = tensors[0], [tensor.numel() for tensor in tensors]
    if any(tensor.dtype != first.dtype or tensor.device != first.device for tensor in tensors):
        return [torch.zeros_like(tensor) for tensor in tensors], [torch.zeros_like(t) for t in tensors]
    total = sum(sizes)
    if not scratch or scratch[0].shape[1] < total or scratch[0].dtype != first.dtype:
        scratch[:] = [first.new_empty(2, total)]
    lists = (
        [part.view_as(tensor) for part, tensor in zip(row.split(sizes), tensors, strict=True)]
        for row in scratch[0][:, :total].zero_()
    )
    directions, first_moments = lists
    return directions, first_moments


def _directions(
    grads: list[Tensor], moments: list[Tensor], updates: list[Any], group: dict[str, Any], *, foreach: bool
) -> list[Tensor]:
    """The same by foreach or one by one."""
    sigma, eps = group["sigma"], group["eps"]
    roots: list[Any] = [_root_of_bias(sigma, count) for count in updates]
    if foreach and not any(isinstance(root, Tensor) for root in roots):
        torch._foreach_mul_(moments, sigma)
        torch._foreach_addcmul_(moments, grads, grads, 1.0 - sigma)
        denominators = torch._foreach_sqrt(moments)
        torch._foreach_div_(denominators, roots)
        torch._foreach_add_(denominators, eps)
        return list(torch._foreach_div(grads, denominators))
    directions = []
    for moment, grad, root in zip(moments, grads, roots, strict=True):
        moment.mul_(sigma).addcmul_(grad, grad, value=1.0 - sigma)
        directions.append(grad / moment.sqrt().div_(root).add_(eps))
    return directions


def _root_of_bias(sigma: float, updates: int | Tensor) -> Number:
    """√(1 − σ^t)."""
    if isinstance(updates, Tensor):
        if sigma == 0.0:
            return 1.0
        # expm1 keeps the digits of 1 − σ^t that a float32 power would round away. NOTE: repeated, so that whole vectors
        # compute it for every member: what they leave over a CPU rounds another way.
        repeated = (updates * math.log(sigma)).unsqueeze(-1).repeat(*[1] * updates.dim(), FULL_VECTORS)
        return torch.expm1(repeated)[..., 0].neg().sqrt_()
    return math.sqrt(1.0 - sigma**updates)

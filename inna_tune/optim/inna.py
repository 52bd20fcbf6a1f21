"""INNA, the inertial Newton algorithm of Castera, Bolte, Févotte and Pauwels."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor
from torch.optim.optimizer import ParamsT

from inna_tune.optim._checks import Bound, check_number
from inna_tune.optim._inertial import InertialNewton, counter
from inna_tune.optim._step import Batch, Number


class INNA(InertialNewton):
    r"""Stochastic gradients with viscous friction ``alpha`` and Newtonian damping ``beta``.

    With g the gradient at the weights θ, γ the step size and u the velocity, which starts at zero,

    .. math::
        \theta_{k+1} &= \theta_k + \gamma_k (u_k - \beta g_k) \\
        u_{k+1} &= (1 - \alpha\gamma_k) u_k - \gamma_k (1 - \alpha\beta) g_k

    the trajectory of the paper's Algorithm 1, whose phase variable is ψ = (1 − αβ)θ − βu. The family holds
    gradient descent with step γβ (where αβ = 1) and heavy ball: ``INNA(lr=b, alpha=(1-m)/b, beta=b)`` steps as
    ``torch.optim.SGD(lr=b*b, momentum=m)`` does. At γ > β, curvatures above α/(γ − β) make it diverge.

    Parameters
    ----------
    params : iterable
        Parameters, named parameters, or dicts that define groups, as for any torch optimizer.
    lr : float or Tensor, default 0.1
        Step size γ ≥ 0. Where it is zero, weights and velocity stay exactly what they are, also when the gradient is
        not finite.
    alpha : float or Tensor, default 0.5
        Viscous friction α ≥ 0.
    beta : float or Tensor, default 0.1
        Newtonian damping β > 0.
    decay_power : float, default 0.0
        q ≥ 0 of the step-size law ``lr * (k + 1) ** -q``. Here k counts *steps*, calls of `step` with a gradient in
        the group, as the authors' code does; the schedulers of `inna_tune.optim.schedules` count epochs. Use one or
        the other.
    weight_decay : float or Tensor, default 0.0
        λ ≥ 0: γλθ is subtracted from θ and not from ψ, as in the authors' code, which is the gradient g + (λ/β)θ.
    step_factor : float or Tensor, default 1.0
        f > 0: INNA in coordinates θ/√f, in which the parameter is stretched by 1/√f. That is INNA with fg for g; the weight
        decay stays as it is. In a parameter group it is a step a tensor; `inna_tune.optim.step_factors` measures good ones.
    decoupled_weight_decay : bool, default False
        Shrink the weights by 1 − γλ before the step instead, and leave the velocity alone.
    maximize : bool, default False
        Ascend instead of descend.
    foreach : bool, optional
        True steps by torch's multi-tensor functions, False one tensor at a time.
    fused : bool, optional
        True steps by torch's fused SGD kernel, one pass over memory, wherever it can make the step: for γ ≤ β and
        1 − αγ not near zero or below; foreach otherwise, decided anew at each step. It also takes over the unscaling
        and the skipping of steps of `torch.amp.GradScaler`. False never uses the kernel. With both ``foreach`` and
        ``fused`` None, the quickest way that is safe for the parameters is taken.
    capturable : bool, default False
        Keep the step count on the device and read nothing on the host, so that `step` can be captured in a CUDA graph
        or compiled. Hyper-parameters given as tensors without dimensions need it.
    differentiable : bool, default False
        Known since torch's own optimizers have it; no gradient flows through a step, and True is refused.

    Raises
    ------
    ValueError
        If a hyper-parameter is out of range, not finite, or a tensor that does not broadcast against each parameter of
        its group; if a parameter is complex; if ``foreach`` and ``fused`` are both True, or ``differentiable`` is.

    Notes
    -----
    A hyper-parameter may be a tensor that broadcasts against every parameter of its group, [P, 1, 1] against
    [P, in, out]: each of P members then trains as by an optimizer of its own. Its values are checked at construction,
    may be rewritten in place between steps, and are never read on the host (on the CPU, zeros of ``lr`` are looked
    for). Products are taken in the dtype of the hyper-parameters: float64 costs little and rounds them once.

    The state of a parameter is one tensor, ``momentum`` (float32 for float16 and bfloat16 parameters), and one number,
    ``scale``, with u = −scale · momentum; float16 and bfloat16 parameters have a third, ``remainder``, which holds
    what the rounding of the weight cut off. Every way of stepping reads and writes the same state.

    References
    ----------
    C. Castera, J. Bolte, C. Févotte, E. Pauwels, "An Inertial Newton Algorithm for Deep Learning", Journal of Machine
    Learning Research 22(134), 2021.

    Examples
    --------
    >>> import torch
    >>> weight = torch.nn.Parameter(torch.ones(3))
    >>> optimizer = INNA([weight], lr=0.1, alpha=0.5, beta=0.1)
    >>> for _ in range(200):
    ...     optimizer.zero_grad()
    ...     weight.square().sum().backward()
    ...     optimizer.step()
    >>> bool(weight.detach().norm() < 0.1)
    True
    """

    _bounds: ClassVar[dict[str, Bound]] = {**InertialNewton._bounds, "step_factor": Bound(0.0, open=True)}
    _identity: ClassVar[tuple[str, ...]] = (*InertialNewton._identity, "step")

    def __init__(
        self,
        params: ParamsT,
        lr: Number = 0.1,
        alpha: Number = 0.5,
        beta: Number = 0.1,
        *,
        decay_power: float = 0.0,
        weight_decay: Number = 0.0,
        step_factor: Number = 1.0,
        decoupled_weight_decay: bool = False,
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
            "decay_power": decay_power,
            "weight_decay": weight_decay,
            "step_factor": step_factor,
            "decoupled_weight_decay": decoupled_weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "fused": fused,
            "capturable": capturable,
            "differentiable": differentiable,
            "step": 0,
        }
        super().__init__(params, defaults)

    @property
    def _step_supports_amp_scaling(self) -> bool:
        # Read by torch.amp.GradScaler, which then leaves unscaling and skipping to `step`.
        return any(group["fused"] for group in self.param_groups)

    def _factor(self, group: dict[str, Any]) -> Number:
        factor: Number = group["step_factor"]
        return factor

    def _check_group(self, group: dict[str, Any]) -> None:
        super()._check_group(group)
        group["decay_power"] = check_number("decay_power", group["decay_power"], Bound(0.0))
        group["step"] = counter(group["step"], group)

    def _update(self, group: dict[str, Any], batch: Batch) -> None:
        lr, weight_decay, capturable = group["lr"], group["weight_decay"], group["capturable"]
        found_inf = getattr(self, "found_inf", None)
        if group["decay_power"] != 0.0:
            # A count kept on the host cannot know that the device is about to skip this step.
            if found_inf is not None and not capturable and found_inf.item():
                return
            lr = lr * (group["step"] + 1) ** -group["decay_power"]
        group["step"] += 1 - found_inf.to(group["step"].device) if capturable and found_inf is not None else 1
        if not isinstance(lr, Tensor) and lr == 0.0:
            return
        if not isinstance(weight_decay, Tensor) and weight_decay == 0.0:
            self._advance(group, batch, lr)
        elif group["decoupled_weight_decay"]:
            self._advance(group, batch, lr, shrinkage=weight_decay)
        else:
            decay = weight_decay / (group["beta"] * group["step_factor"])
            self._advance(group, batch, lr, gradient_decay=decay)

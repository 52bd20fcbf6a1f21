r"""Closed forms of INNA's dynamics: stability, and maps to SGD and QHM.

On a quadratic of curvature :math:`\lambda` INNA's step is a 2×2 matrix, and stability is a question about its two
eigenvalues. Time rescaled by :math:`\sqrt\lambda` leaves three pure numbers, which mean the same on every problem:

- scaled alpha, :math:`\tilde\alpha = \alpha/\sqrt\lambda`;
- damping ratio, :math:`\zeta = (\alpha/\sqrt\lambda + \beta\sqrt\lambda)/2`, 1 being critical;
- stable-step ratio :math:`r`: the step size is the largest that is stable up to curvature :math:`r\lambda`.

Every function here takes floats, numpy arrays or torch tensors, mixed freely, and broadcasts: it returns a float
(or bool) for floats, an array for arrays, a tensor where any argument is a tensor.
"""

import sys
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

# What is said of the dynamics beyond closed forms has files of its own, and can be asked for here.
from inna_tune.optim.continuous import Trajectory as Trajectory
from inna_tune.optim.continuous import continuous_trajectory as continuous_trajectory
from inna_tune.optim.continuous import energy as energy

if TYPE_CHECKING:
    from inna_tune.optim.criticality import stationarity as stationarity

DAMPING_RATIO, STABLE_STEP_RATIO = 0.75, 2.0
"""Where ζ and r are left open: the best on average, see `settings_from_curvature`."""

Real: TypeAlias = Any
"""A float, a numpy array or a torch tensor."""


class Settings(NamedTuple):
    """INNA's hyper-parameters: step size, viscous friction, Newtonian damping."""

    lr: Real
    alpha: Real
    beta: Real


class PureNumbers(NamedTuple):
    """Settings measured in units of a curvature; see `pure_numbers`."""

    scaled_alpha: Real
    damping_ratio: Real
    stable_step_ratio: Real


class SGDSettings(NamedTuple):
    """The arguments of torch's SGD that take the same steps as INNA; see `to_sgd`."""

    lr: Real
    momentum: Real
    dampening: Real
    nesterov: bool


class QHMSettings(NamedTuple):
    """Quasi-hyperbolic momentum; see `to_qhm`."""

    lr: Real
    momentum: Real
    nu: Real


def _lift(*values: Real) -> tuple[Any, list[Any]]:
    """Bring values to one kind: torch and tensors where any is a tensor, else numpy and float64 arrays."""
    # NOTE: whoever has a tensor has loaded torch, and who has none need not wait for it.
    torch = sys.modules.get("torch")
    tensor = None if torch is None else next((v for v in values if isinstance(v, torch.Tensor)), None)
    if torch is None or tensor is None:
        return np, [np.asarray(value, dtype=np.float64) for value in values]
    dtype = tensor.dtype if tensor.is_floating_point() else torch.get_default_dtype()
    return torch, [torch.as_tensor(value, dtype=dtype, device=tensor.device) for value in values]


def _lower(value: Any) -> Real:
    """Undo the lift of plain numbers."""
    return value.item() if isinstance(value, np.ndarray | np.generic) and value.ndim == 0 else value


def _require_positive(**values: Real) -> None:
    for name, value in values.items():
        _, (lifted,) = _lift(value)
        if not bool((lifted > 0).all()):
            raise ValueError(f"{name}={value!r} must be positive")


def is_stable(alpha: Real, beta: Real, lr: Real, curvature: Real) -> Real:
    r"""Whether INNA converges on a quadratic of the given curvature.

    Both eigenvalues of the step lie inside the unit circle if and only if
    :math:`\alpha + \lambda(\beta - \gamma) > 0` and :math:`4 - 2\alpha\gamma - 2\gamma\beta\lambda + \gamma^2\lambda > 0`
    (Jury's conditions; for :math:`\gamma, \lambda > 0`). A step size :math:`\gamma \le \beta` meets the first at
    every curvature, a larger one fails it where :math:`\lambda \ge \alpha/(\gamma - \beta)`.

    Parameters
    ----------
    alpha, beta, lr, curvature : float, array or Tensor

    Returns
    -------
    bool, array or Tensor of bool

    Raises
    ------
    ValueError
        If `lr` or `curvature` is not positive.
    """
    _require_positive(lr=lr, curvature=curvature)
    _, (alpha, beta, lr, curvature) = _lift(alpha, beta, lr, curvature)
    contracts = alpha + curvature * (beta - lr) > 0
    keeps_sign = 4 - 2 * alpha * lr - 2 * lr * beta * curvature + lr**2 * curvature > 0
    return _lower(contracts & keeps_sign)


def largest_stable_step(alpha: Real, beta: Real, curvature: Real) -> Real:
    r"""The largest step size that is stable at one curvature: all smaller ones are.

    With :math:`s = \beta\lambda + \alpha` and :math:`D = s^2 - 4\lambda`:
    :math:`\gamma_{\max} = s/\lambda` where :math:`D < 0`, else :math:`(s - \sqrt D)/\lambda`.

    Parameters
    ----------
    alpha, beta, curvature : float, array or Tensor

    Returns
    -------
    float, array or Tensor

    Raises
    ------
    ValueError
        If `curvature` is not positive.

    Notes
    -----
    As a function of the curvature it is not monotone. It starts at :math:`2/\alpha`; if :math:`\alpha\beta < 1`
    it rises up to :math:`\lambda_1 = (1 - \sqrt{1 - \alpha\beta})^2/\beta^2`, where :math:`D` changes sign, and
    falls from there. So stability at one curvature does not imply it at all smaller ones unless
    :math:`\alpha\gamma < 2`; `tolerated_curvature` speaks of all of them. At the second zero of :math:`D`, where
    that curvature is critically damped, it drops steeply.
    """
    _require_positive(curvature=curvature)
    xp, values = _lift(alpha, beta, curvature)
    return _lower(_largest_stable_step(xp, *values))


def _largest_stable_step(xp: Any, alpha: Any, beta: Any, curvature: Any) -> Any:
    total = beta * curvature + alpha
    discriminant = total**2 - 4 * curvature
    real = discriminant >= 0
    # (s - √D)/λ written as 4/(s + √D) loses no digits; the inner `where` keeps its gradient finite where D < 0.
    root = xp.where(real, xp.sqrt(xp.where(real, discriminant, discriminant * 0 + 1)), discriminant * 0)
    return xp.where(real, 4 / (total + root), total / curvature)


def tolerated_curvature(alpha: Real, beta: Real, lr: Real) -> Real:
    r"""The largest curvature :math:`x` such that INNA is stable at every curvature in :math:`(0, x)`.

    The minimum of :math:`\alpha/(\gamma - \beta)` where :math:`\gamma > \beta` and of
    :math:`(4 - 2\alpha\gamma)/(\gamma(2\beta - \gamma))` where :math:`\gamma < 2\beta`; zero where
    :math:`\alpha\gamma \ge 2`, since then the flattest directions diverge. It inverts `largest_stable_step`
    wherever that falls with the curvature.

    Parameters
    ----------
    alpha, beta, lr : float, array or Tensor

    Returns
    -------
    float, array or Tensor

    Raises
    ------
    ValueError
        If `beta` or `lr` is not positive.
    """
    _require_positive(beta=beta, lr=lr)
    xp, (alpha, beta, lr) = _lift(alpha, beta, lr)
    one = 1 + 0 * (alpha + beta + lr)
    # At least one of the two holds, so no infinity is left in the minimum.
    above, below = lr > beta, lr < 2 * beta
    contracts = xp.where(above, alpha / xp.where(above, lr - beta, one), np.inf * one)
    keeps_sign = (4 - 2 * alpha * lr) / (lr * xp.where(below, 2 * beta - lr, one))
    keeps_sign = xp.where(below, keeps_sign, np.inf * one)
    anywhere = (alpha * lr < 2) & ((alpha > 0) | (lr < beta))
    return _lower(xp.where(anywhere, xp.minimum(contracts, keeps_sign), 0 * one))


def settings_from_curvature(
    curvature: Real,
    *,
    scaled_alpha: Real = 0.24,
    damping_ratio: Real = DAMPING_RATIO,
    stable_step_ratio: Real = STABLE_STEP_RATIO,
) -> Settings:
    r"""INNA's hyper-parameters from the curvature of the problem and three pure numbers.

    :math:`\alpha = \tilde\alpha\sqrt\lambda`, :math:`\beta = (2\zeta - \tilde\alpha)/\sqrt\lambda`, and
    :math:`\gamma` the largest step size that is stable at every curvature in :math:`(0, r\lambda)`, which is
    :math:`\gamma_{\max}(\alpha, \beta, r\lambda)` but never more than :math:`2/\alpha`.

    Parameters
    ----------
    curvature : float, array or Tensor
        Largest Hessian eigenvalue λ of the loss, positive.
    scaled_alpha : float, array or Tensor, default 0.24
        α̃, positive and less than twice the damping ratio.
    damping_ratio : float, array or Tensor, default 0.75
        ζ of the stiffest direction.
    stable_step_ratio : float, array or Tensor, default 2
        r; below 1 the step is beyond the edge of stability at `curvature`, above 1 short of it.

    Returns
    -------
    Settings
        ``(lr, alpha, beta)``.

    Raises
    ------
    ValueError
        If an argument is not positive and finite, or `scaled_alpha` is not below ``2 * damping_ratio``.

    See Also
    --------
    pure_numbers : the inverse.

    Notes
    -----
    The defaults are the best single setting over 13 tables, three nets and five seeds each: on average 2.8% above each
    problem's best of 36 settings, none diverged (studies/edge_of_stability.py). Regression likes less friction:
    scaled_alpha=0.06 is 1.5% above the best there.
    """
    given = {
        "curvature": curvature,
        "scaled_alpha": scaled_alpha,
        "damping_ratio": damping_ratio,
        "stable_step_ratio": stable_step_ratio,
    }
    _require_positive(**given)
    xp, (curvature, scaled_alpha, damping_ratio, stable_step_ratio) = _lift(*given.values())
    if not bool(xp.isfinite(curvature).all()):
        raise ValueError(f"curvature={_lower(curvature)!r} must be finite")
    if not bool((scaled_alpha < 2 * damping_ratio).all()):
        raise ValueError(
            f"scaled_alpha={_lower(scaled_alpha)!r} must be below 2 * damping_ratio={_lower(2 * damping_ratio)!r}, "
            "or beta would not be positive"
        )
    frequency = xp.sqrt(curvature)
    alpha = scaled_alpha * frequency
    beta = (2 * damping_ratio - scaled_alpha) / frequency
    lr = xp.minimum(_largest_stable_step(xp, alpha, beta, stable_step_ratio * curvature), 2 / alpha)
    return Settings(*map(_lower, (lr, alpha, beta)))


def pure_numbers(lr: Real, alpha: Real, beta: Real, curvature: Real) -> PureNumbers:
    r"""INNA's hyper-parameters in units of a curvature; the inverse of `settings_from_curvature`.

    Parameters
    ----------
    lr, alpha, beta, curvature : float, array or Tensor

    Returns
    -------
    PureNumbers
        ``(scaled_alpha, damping_ratio, stable_step_ratio)``. The ratio is `tolerated_curvature` over `curvature`,
        0 for settings that diverge in flat directions.

    Raises
    ------
    ValueError
        If `lr`, `beta` or `curvature` is not positive.
    """
    _require_positive(curvature=curvature)
    xp, (lr, alpha, beta, curvature) = _lift(lr, alpha, beta, curvature)
    frequency = xp.sqrt(curvature)
    scaled_alpha = alpha / frequency
    numbers = (
        scaled_alpha,
        (scaled_alpha + beta * frequency) / 2,
        tolerated_curvature(alpha, beta, lr) / curvature,
    )
    return PureNumbers(*map(_lower, numbers))


def to_sgd(lr: Real, alpha: Real, beta: Real) -> SGDSettings:
    r"""SGD with momentum that takes INNA's steps, for :math:`\gamma \le \beta` and :math:`\alpha\gamma < 1`.

    At :math:`\gamma = \beta` it is heavy ball, SGD(lr :math:`\gamma^2`, momentum :math:`1 - \alpha\gamma`). Below,
    it is Nesterov's variant with dampening :math:`1 - \gamma(1-\alpha\beta)/(m(\beta-\gamma))`,
    :math:`m = 1 - \alpha\gamma` being the momentum, and lr :math:`\gamma(\beta-\gamma)/m`.

    Parameters
    ----------
    lr, alpha, beta : float, array or Tensor
        All on one side: everywhere `lr` equal to `beta`, or everywhere below.

    Returns
    -------
    SGDSettings
        ``(lr, momentum, dampening, nesterov)``.

    Raises
    ------
    ValueError
        Where no such SGD exists: `lr` above `beta`, or ``alpha * lr`` at least 1.

    Notes
    -----
    torch.optim.SGD refuses Nesterov with dampening in its constructor, and its buffer starts at the first gradient
    undampened; ``torch.optim.sgd.sgd`` on buffers of zeros takes the very steps.
    """
    _require_positive(lr=lr, beta=beta)
    _, (lr, alpha, beta) = _lift(lr, alpha, beta)
    heavy_ball = bool((lr == beta).all())
    if not heavy_ball and not bool((lr < beta).all()):
        raise ValueError(
            f"lr={_lower(lr)!r} must not exceed beta={_lower(beta)!r}: no SGD takes such steps; to_qhm maps them"
        )
    momentum = 1 - alpha * lr
    if not bool((momentum > 0).all()):
        raise ValueError(
            f"alpha * lr={_lower(alpha * lr)!r} must be below 1, or the momentum would not be positive"
        )
    if heavy_ball:
        return SGDSettings(_lower(lr**2), _lower(momentum), 0.0, nesterov=False)
    dampening = 1 - lr * (1 - alpha * beta) / (momentum * (beta - lr))
    rate = lr * (beta - lr) / momentum
    return SGDSettings(_lower(rate), _lower(momentum), _lower(dampening), nesterov=True)


def from_sgd(lr: Real, momentum: Real, *, nesterov: bool = False) -> Settings:
    r"""INNA's hyper-parameters that take the very steps of ``torch.optim.SGD(lr, momentum, nesterov=...)``.

    :math:`\gamma = \sqrt\eta`, :math:`\alpha = (1-\mu)/\sqrt\eta` and :math:`\beta = \sqrt\eta`, or
    :math:`\beta = (1+\mu)\sqrt\eta` for Nesterov's variant.

    Parameters
    ----------
    lr, momentum : float, array or Tensor
    nesterov : bool, default False

    Returns
    -------
    Settings
        ``(lr, alpha, beta)``.

    Raises
    ------
    ValueError
        If `lr` is not positive.
    """
    _require_positive(lr=lr)
    xp, (lr, momentum) = _lift(lr, momentum)
    step = xp.sqrt(lr)
    beta = (1 + momentum) * step if nesterov else step + 0 * momentum
    return Settings(*map(_lower, (step + 0 * momentum, (1 - momentum) / step, beta)))


def to_qhm(lr: Real, alpha: Real, beta: Real) -> QHMSettings:
    r"""Quasi-hyperbolic momentum that takes INNA's steps.

    QHM keeps :math:`b' = \mu b + (1-\mu)g` and steps by :math:`-a[(1-\nu)g + \nu b']`. INNA is
    :math:`a = \gamma/\alpha` (the effective step), :math:`\mu = 1 - \alpha\gamma`,
    :math:`\nu = (1-\alpha\beta)/(1-\alpha\gamma)`.

    Parameters
    ----------
    lr, alpha, beta : float, array or Tensor

    Returns
    -------
    QHMSettings
        ``(lr, momentum, nu)``.

    Raises
    ------
    ValueError
        If `lr` or `alpha` is not positive (undamped INNA has an infinite effective step), or ``alpha * lr`` is 1
        (INNA then still remembers one gradient, QHM none).

    References
    ----------
    Ma, Yarats (2019). Quasi-hyperbolic momentum and Adam for deep learning. ICLR.
    """
    _require_positive(lr=lr, alpha=alpha)
    _, (lr, alpha, beta) = _lift(lr, alpha, beta)
    momentum = 1 - alpha * lr
    if not bool((momentum != 0).all()):
        raise ValueError(
            f"alpha * lr={_lower(alpha * lr)!r} must not be 1: QHM without momentum has no memory, INNA has"
        )
    return QHMSettings(*map(_lower, (lr / alpha, momentum, (1 - alpha * beta) / momentum)))


def from_qhm(lr: Real, momentum: Real, nu: Real) -> Settings:
    r"""INNA's hyper-parameters that take the steps of quasi-hyperbolic momentum; the inverse of `to_qhm`.

    :math:`\gamma = \sqrt{a(1-\mu)}`, :math:`\alpha = \sqrt{(1-\mu)/a}`, :math:`\beta = (1-\nu\mu)/\alpha`.

    Parameters
    ----------
    lr, momentum, nu : float, array or Tensor
        `momentum` below 1.

    Returns
    -------
    Settings
        ``(lr, alpha, beta)``.

    Raises
    ------
    ValueError
        If `lr` or ``1 - momentum`` is not positive.
    """
    _require_positive(**{"lr": lr, "1 - momentum": 1 - momentum})
    xp, (lr, momentum, nu) = _lift(lr, momentum, nu)
    alpha = xp.sqrt((1 - momentum) / lr)
    return Settings(*map(_lower, (xp.sqrt(lr * (1 - momentum)), alpha, (1 - nu * momentum) / alpha)))


def __getattr__(name: str) -> Any:
    if name == "stationarity":  # which loads torch
        from inna_tune.optim.criticality import stationarity

        return stationarity
    raise AttributeError(f"module 'inna_tune.optim.dynamics' has no attribute {name!r}")

"""The one table of laws by which a step size falls, pure functions of the epoch. Does without torch."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

Real: TypeAlias = Any
"""A float or a torch tensor."""


@dataclass(frozen=True)
class DecayLaw:
    r"""A law of decay.

    Attributes
    ----------
    factor : callable
        Epoch :math:`k`, power and horizon, each a number or a tensor of torch, to :math:`\gamma_k/\gamma_0`.
    power : float, optional
        The usual power; None if the law takes none.
    needs_horizon : bool
        Whether it falls towards an epoch known beforehand. If so, training that goes on begins the law anew, and what is
        seen before the horizon says little of what will be there.
    words : str, optional
        What the step does, as a clause; "the step falls by the NAME law" if not given.
    """

    factor: Callable[[Real, Real, Real], Real]
    power: float | None = None
    needs_horizon: bool = False
    words: str = ""


def _on(name: str, value: Any) -> Any:
    """A function of ``math``, of a number; the method of that name, of a tensor."""
    return getattr(value, name)() if _is_tensor(value) else getattr(math, name)(value)


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "log1p")


def _power(epoch: Any, power: Any, _: Any) -> Any:
    return _on("exp", -power * _on("log1p", epoch))


def _log(epoch: Any, power: Any, _: Any) -> Any:
    return _on("exp", -power * _on("log1p", _on("log1p", epoch)))


def _cosine(epoch: Any, _: Any, horizon: Any) -> Any:
    progress = epoch / horizon
    within = progress.clamp(max=1) if _is_tensor(progress) else min(progress, 1.0)
    return 0.5 * (1 + _on("cos", math.pi * within))


# 1/2 is the fastest power the INNA paper tries. 3/2 lies inside what its theory asks of the log law (more than 1)
# and ends 100 epochs about where the square root does: 0.075 against 0.100.
DECAY_LAWS: dict[str, DecayLaw] = {
    "constant": DecayLaw(lambda epoch, power, horizon: epoch**0.0, words="the step stays as it is"),
    "power": DecayLaw(_power, power=0.5),
    "log": DecayLaw(_log, power=1.5),
    "cosine": DecayLaw(_cosine, needs_horizon=True),
}


def decay_factor(law: str, epoch: Real, *, power: Real | None = None, horizon: Real | None = None) -> Real:
    r"""Factor :math:`\gamma_k/\gamma_0` by which a decay law has shrunk the step size.

    ============  ====================================================  ===============
    law           factor at epoch :math:`k`                             default power
    ============  ====================================================  ===============
    ``constant``  1                                                     (takes none)
    ``power``     :math:`(1+k)^{-q}`                                    :math:`q = 1/2`
    ``log``       :math:`(1+\ln(1+k))^{-p}`                             :math:`p = 3/2`
    ``cosine``    :math:`(1+\cos(\pi\min(k/\text{horizon},1)))/2`       (takes none)
    ============  ====================================================  ===============

    The epoch is a real number, steps divided by the steps of an epoch, so that a law means the same on every
    size of data. All but cosine need no horizon: a run cut short is a prefix of the longer one.

    Parameters
    ----------
    law : {"constant", "power", "log", "cosine"}
    epoch : float or Tensor
        Epochs trained so far, at least 0.
    power : float or Tensor, optional
        Exponent of the power and log laws, at least 0; a tensor broadcasts against `epoch` (one exponent a member
        of a population). The other laws ignore it. The convergence theory asks for :math:`\gamma_k = o(1/\log k)`:
        any positive power, and for the log law, the slowest it allows, an exponent above 1.
    horizon : float or Tensor, optional
        Epoch at which cosine reaches zero. The other laws ignore it.

    Returns
    -------
    float or Tensor
        In [0, 1], 1 at epoch 0. A tensor where `epoch`, `power` or `horizon` is one.

    Raises
    ------
    ValueError
        For an unknown law, a negative epoch or power, or cosine without a positive horizon. Values inside tensors
        are not checked, since that would wait for the device at every step.

    References
    ----------
    Castera, Bolte, Févotte, Pauwels (2021). An inertial Newton algorithm for deep learning. JMLR 22(134),
    sections 3 and 5.
    """
    if law not in DECAY_LAWS:
        raise ValueError(f"law={law!r} is not a decay law; choose one of {', '.join(DECAY_LAWS)}")
    if not _is_tensor(epoch) and not epoch >= 0:
        raise ValueError(f"epoch={epoch!r} must be at least 0")
    known = DECAY_LAWS[law]
    if known.needs_horizon and (horizon is None or (not _is_tensor(horizon) and not horizon > 0)):
        raise ValueError(
            f"horizon={horizon!r}: the {law} law needs horizon, the positive number of epochs after which it is zero"
        )
    exponent: Real = known.power if power is None else power
    if known.power is not None and not _is_tensor(exponent) and not exponent >= 0:
        raise ValueError(f"power={exponent!r} must be at least 0, or the step size would grow")
    return known.factor(epoch, exponent, horizon)


def describe_decay(law: str, power: float | None = None) -> str:
    """Say in a clause how the step falls; of a law that is not known no more than its name.

    A power of None or NaN is the usual one, which is not told.
    """
    known = DECAY_LAWS.get(law)
    words = known.words if known is not None and known.words else f"the step falls by the {law} law"
    takes_power = known is not None and known.power is not None
    return (
        words if not takes_power or power is None or math.isnan(power) else f"{words}, exponent {power:.3g}"
    )

"""Decay laws of the step size: pure functions of the epoch, and torch schedulers made of them."""

import math
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

DECAY_LAWS = ("constant", "power", "log", "cosine")

# 1/2 is the fastest power the INNA paper tries. 3/2 lies inside what its theory asks of the log law (more than 1)
# and ends 100 epochs about where the square root does: 0.075 against 0.100.
DEFAULT_POWER = {"power": 0.5, "log": 1.5}


@overload
def decay_factor(
    law: str, epoch: float, *, power: float | None = None, horizon: float | None = None
) -> float: ...
@overload
def decay_factor(
    law: str, epoch: Tensor, *, power: float | Tensor | None = None, horizon: float | Tensor | None = None
) -> Tensor: ...
@overload
def decay_factor(
    law: str, epoch: float, *, power: Tensor, horizon: float | Tensor | None = None
) -> Tensor: ...
def decay_factor(
    law: str,
    epoch: float | Tensor,
    *,
    power: float | Tensor | None = None,
    horizon: float | Tensor | None = None,
) -> float | Tensor:
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
    if not isinstance(epoch, Tensor) and not epoch >= 0:
        raise ValueError(f"epoch={epoch!r} must be at least 0")
    if law == "constant":
        return torch.ones_like(epoch) if isinstance(epoch, Tensor) else 1.0
    if law == "cosine":
        return _cosine(epoch, horizon)

    exponent = DEFAULT_POWER[law] if power is None else power
    if not isinstance(exponent, Tensor) and not exponent >= 0:
        raise ValueError(f"power={exponent!r} must be at least 0, or the step size would grow")
    log = torch.log1p(epoch) if isinstance(epoch, Tensor) else math.log1p(epoch)
    if law == "log":
        log = torch.log1p(log) if isinstance(log, Tensor) else math.log1p(log)
    decay = -exponent * log
    return torch.exp(decay) if isinstance(decay, Tensor) else math.exp(decay)


def _cosine(epoch: float | Tensor, horizon: float | Tensor | None) -> float | Tensor:
    if horizon is None or (not isinstance(horizon, Tensor) and not horizon > 0):
        raise ValueError(
            f"horizon={horizon!r}: the cosine law needs horizon, the positive number of epochs after which it is zero"
        )
    progress = epoch / horizon
    if isinstance(progress, Tensor):
        return 0.5 * (1 + torch.cos(math.pi * progress.clamp(max=1)))
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


class _EpochDecay(LRScheduler):
    """A torch scheduler that follows one law of `decay_factor`, by ratios so that it composes with others."""

    law: str

    def __init__(
        self,
        optimizer: Optimizer,
        power: float | None = None,
        *,
        steps_per_epoch: float = 1,
        last_epoch: int = -1,
    ) -> None:
        if not steps_per_epoch > 0:
            raise ValueError(
                f"steps_per_epoch={steps_per_epoch!r} must be positive: the calls of step() that make an epoch, "
                "len(loader) when called after every batch, 1 when called after every epoch"
            )
        self.power = DEFAULT_POWER[self.law] if power is None else power
        self.steps_per_epoch = steps_per_epoch
        decay_factor(self.law, 0.0, power=self.power)
        super().__init__(optimizer, last_epoch)

    def _factor(self, step: int) -> float:
        return decay_factor(self.law, step / self.steps_per_epoch, power=self.power)

    def get_lr(self) -> list[Any]:
        """Step sizes of the groups after one more step: the present ones, shrunk as the law shrinks."""
        if self._is_initial or self.last_epoch <= 0:
            ratio = 1.0
        else:
            ratio = self._factor(self.last_epoch) / self._factor(self.last_epoch - 1)
        return [group["lr"] * ratio for group in self.optimizer.param_groups]

    def _get_closed_form_lr(self) -> list[Any]:
        return [base * self._factor(max(self.last_epoch, 0)) for base in self.base_lrs]


class PowerDecay(_EpochDecay):
    r"""The power law :math:`\gamma_k = \gamma_0 (1+k)^{-q}` as a torch scheduler, :math:`k` in epochs.

    Parameters
    ----------
    optimizer : Optimizer
    power : float, default 0.5
        The exponent :math:`q`; the paper of INNA tries 1/2, 1/4, 1/8 and 1/16.
    steps_per_epoch : float, default 1
        Calls of ``step()`` that make an epoch: 1 when called after every epoch, ``len(loader)`` when called after
        every batch.
    last_epoch : int, default -1
        As in torch: the number of the last step taken, when one goes on from a checkpoint.

    Raises
    ------
    ValueError
        If `power` is negative or `steps_per_epoch` is not positive.

    See Also
    --------
    decay_factor : the law itself.

    Examples
    --------
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))], lr=1.0)
    >>> scheduler = PowerDecay(optimizer, 0.5, steps_per_epoch=10)
    >>> for _ in range(30):
    ...     optimizer.step()
    ...     scheduler.step()
    >>> round(scheduler.get_last_lr()[0], 6)
    0.5
    """

    law = "power"


class LogDecay(_EpochDecay):
    r"""The log law :math:`\gamma_k = \gamma_0 (1+\ln(1+k))^{-p}` as a torch scheduler, :math:`k` in epochs.

    Parameters
    ----------
    optimizer : Optimizer
    power : float, default 1.5
        The exponent :math:`p`; the convergence theory of INNA wants more than 1.
    steps_per_epoch : float, default 1
        Calls of ``step()`` that make an epoch: 1 when called after every epoch, ``len(loader)`` when called after
        every batch.
    last_epoch : int, default -1
        As in torch: the number of the last step taken, when one goes on from a checkpoint.

    Raises
    ------
    ValueError
        If `power` is negative or `steps_per_epoch` is not positive.

    See Also
    --------
    decay_factor : the law itself.
    """

    law = "log"

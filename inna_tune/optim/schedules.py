"""Laws of decay of the step size as schedulers of torch."""

from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from inna_tune.optim.decay import DECAY_LAWS, decay_factor


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
        self.power = DECAY_LAWS[self.law].power if power is None else power
        self.steps_per_epoch = steps_per_epoch
        decay_factor(self.law, 0.0, power=self.power)
        super().__init__(optimizer, last_epoch)

    def _factor(self, step: int) -> Any:
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
    >>> import torch
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

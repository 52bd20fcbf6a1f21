"""What a member of a population is told, and what it brings back."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from inna_tune.engine.arrays import as_arrays, as_tensors
from inna_tune.nets import LinearStart

StopReason = Literal["max_epochs", "early_stopping", "diverged", "dropped", "time", "interrupted"]
HISTORY = ("epoch", "train_loss", "validation_loss", "lr", "seconds")  # columns
SCORE = "validation_score"  # another, of members that have a measure

# Juries whose losses differ by less are level.
_LEVEL = 0.01

Measure = Callable[[Tensor, Tensor], float]
"""Rows of the population's table, [n], and outputs for them, [n, out], to a number that is less the better these are."""


@dataclass(eq=False)
class MemberState:
    """Where a member's training stands, to go on from there; without velocity and with new streams, where these are left out.

    Attributes
    ----------
    weights : Tensor of shape [n_parameters]
        The last ones, which need not be the best.
    epochs : int
        Epochs trained, over all continuations; the laws of decay go on from there.
    settings : dict of str to float
        ``lr``, ``alpha``, ``beta``, ``curvature`` in use, NaN where it is not known; ``eased``, by which steps were shortened
        where many had to be held, and ``spare``, what is left of those that may be (`inna_tune.engine.reach`).
    updates : list of dict
        The optimizer's state of each trained tensor, with a leading axis of one member.
    averages : list of Tensor, each [1, n]
        Averaged weights of each trained tensor; empty without averaging.
    count : Tensor of shape [1, 1]
        Steps that are in the averages.
    streams : list of Tensor
        States of the streams of the order of rows and of dropout.
    factors : dict of str to float
        Of the steps of tensors, by name; those not named have 1.
    """

    weights: Tensor
    epochs: int
    settings: dict[str, float]
    updates: list[dict[str, Any]] = field(default_factory=list)
    averages: list[Tensor] = field(default_factory=list)
    count: Tensor = field(default_factory=lambda: torch.zeros(1, 1, device="cpu"))
    streams: list[Tensor] = field(default_factory=list)
    factors: dict[str, float] = field(default_factory=dict)

    def __getstate__(self) -> dict[str, Any]:
        return {name: as_arrays(value) for name, value in vars(self).items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({name: as_tensors(value) for name, value in state.items()})


@dataclass(frozen=True, eq=False)
class Jury:
    """What members hold that are stopped together, by what they predict together; one object for all of them.

    Each member has validation rows of its own, which others train on, and a row may be that of several members: then the
    mean of what they predict counts. All keep the weights of one epoch, that of the least loss on all of these rows. A
    member's own loss would be least too early for an ensemble, whose mean takes back what each of its nets overfits.

    Parameters
    ----------
    number : int, default=0
        Of a fit with several: by their losses it is told which of them count, see `who_counts`.
    """

    number: int = 0


@dataclass(frozen=True, eq=False)
class Member:
    """One net to train: the rows, the seed and the hyper-parameters of one (trial, fold, seed).

    Parameters
    ----------
    train_rows, validation_rows : ndarray of int64
        Rows of the population's table. Without validation rows the member trains to the end and keeps its last weights.
    seed : int
        Root of the member's three streams: initial weights, order of the rows, dropout.
    lr, alpha, beta : float or None
        INNA's step size γ, viscous friction α and Newtonian damping β. None means: from the curvature of the
        member's loss at its initial weights (see ``inna_tune.optim.calibrate``).
    step_ratio, friction, damping : float, optional
        The pure numbers r, α̃ and ζ by which ``lr``, ``alpha`` and ``beta`` follow from the curvature, where these are None.
    decay, decay_power : str, float or None
        Law by which the step falls with the epoch, and its power (None: the law's own default).
    weight_decay, dropout, label_smoothing : float
        L2 penalty (as INNA's ``weight_decay``), probability of dropping a hidden unit, share of each label that
        is spread over all classes.
    patience : int, optional
        The member stops after this many epochs without a better validation loss. None: never.
    jury : Jury, optional
        Members that hold the same one are stopped together; they stand side by side and all have validation rows.
    measure : callable, optional
        What validation rows are judged by in place of the loss, see `Measure`; of members of one jury that of the first.
    used_features : tuple of two int, or int, optional
        How many of the table's leading numeric columns, and of its leading other columns, are this member's (an int:
        how many leading columns in all); the others are padding and hold zeros.
    linear : LinearStart, optional
        The linear model that the net begins as.
    start : MemberState, optional
        To go on from, in place of new weights; all members of a population have one, or none has. Settings that are left
        open are those of the state, and pure numbers are taken at its curvature. Laws of decay count its epochs, but for the
        cosine law, which begins anew.
    """

    train_rows: npt.NDArray[np.int64]
    validation_rows: npt.NDArray[np.int64]
    seed: int
    lr: float | None = None
    alpha: float | None = None
    beta: float | None = None
    step_ratio: float | None = None
    friction: float | None = None
    damping: float | None = None
    decay: str = "constant"
    decay_power: float | None = None
    weight_decay: float = 0.0
    dropout: float = 0.0
    label_smoothing: float = 0.0
    patience: int | None = None
    jury: Jury | None = None
    measure: Measure | None = None
    used_features: tuple[int, int] | int | None = None
    linear: LinearStart | None = None
    start: MemberState | None = None


@dataclass
class MemberResult:
    """What became of one member.

    Attributes
    ----------
    weights : Tensor of shape [n_parameters] or None
        The weights of the best epoch (of the last one without validation rows); None if no epoch ended finite.
    best_epoch : int
        Epochs trained when ``weights`` were reached; 0 means none.
    best_loss : float
        Validation loss there, or what a measure made of the validation rows (training loss without validation rows; that of
        the ensemble, where a `Jury` judges).
    epochs : int
        Epochs trained in all.
    stop_reason : str
        Why training ended.
    lr, alpha, beta : float
        The settings used, calibrated ones included.
    curvature : float or None
        The measured curvature, where it was needed.
    history : dict of str to list
        Columns ``epoch``, ``train_loss``, ``validation_loss``, ``lr``, ``seconds``, and ``validation_score``, higher is
        better, where a measure judges; one entry an epoch.
    state : MemberState or None
        Where training ended, if it was asked for and is finite.
    step_factors : dict of str to float
        Of tensors whose steps were scaled, by name.
    jury : int
        Number of the jury by which it was judged.
    """

    weights: Tensor | None
    best_epoch: int
    best_loss: float
    epochs: int
    stop_reason: StopReason
    lr: float
    alpha: float
    beta: float
    curvature: float | None
    history: dict[str, list[float]] = field(default_factory=dict)
    state: MemberState | None = None
    step_factors: dict[str, float] = field(default_factory=dict)
    jury: int = 0

    def at_rest(self) -> MemberState:
        """A state of the best weights, without velocity."""
        assert self.weights is not None
        settings = {"lr": self.lr, "alpha": self.alpha, "beta": self.beta}
        curvature = float("nan") if self.curvature is None else self.curvature
        settings |= {"curvature": curvature}
        return state_at_rest(self.weights, self.epochs, settings, self.step_factors)


def state_at_rest(
    weights: Tensor, epochs: int, settings: dict[str, float], factors: dict[str, float] | None = None
) -> MemberState:
    """Weights that training may go on from, without velocity and with new streams.

    Parameters
    ----------
    weights : Tensor of shape [n]
        Everything that the net holds, as one vector.
    epochs : int
        That it was trained.
    settings : dict of str to float
        Its ``lr``, ``alpha``, ``beta`` and curvature.
    factors : dict of str to float, optional
        Of the steps of its tensors.
    """
    return MemberState(weights, epochs, settings, factors={} if factors is None else dict(factors))


@dataclass(frozen=True, eq=False)
class MemberProgress:
    """All that is known of a member between two epochs: with it, training goes on as if there had been no break.

    `Member.start` begins another training where an earlier one ended; this goes on with the same one.

    Attributes
    ----------
    result : MemberResult
        So far; ``weights`` are the best up to now.
    state : MemberState or None
        None: the member has left.
    """

    result: MemberResult
    state: MemberState | None


def who_counts(results: Iterable[MemberResult], are_trained: Iterable[bool]) -> list[bool]:
    """Which of several nets that are averaged count: those that have weights, without those that diverged unless all did.

    What a net kept that diverged beside others may be its first epoch's, of a loss a hundred times theirs, and a mean is as bad
    as the worst of them. Of several juries those alone count whose loss is near that of the best: they judge by the same rows.

    Parameters
    ----------
    results : iterable of MemberResult
    are_trained : iterable of bool
        Whether each has weights of any epoch.
    """
    pairs = list(zip(results, are_trained, strict=True))
    trained = [is_trained for _, is_trained in pairs]
    lasted = [is_trained and result.stop_reason != "diverged" for result, is_trained in pairs]
    if not any(lasted):
        return trained
    losses: dict[int, float] = {}
    for (result, _), counts in zip(pairs, lasted, strict=True):
        if counts:
            losses[result.jury] = min(result.best_loss, losses.get(result.jury, math.inf))
    best = min(losses.values())
    # A score that is boundless where it is best has no hundredth.
    most = best + _LEVEL * abs(best) if math.isfinite(best) else best
    return [counts and losses[result.jury] <= most for (result, _), counts in zip(pairs, lasted, strict=True)]

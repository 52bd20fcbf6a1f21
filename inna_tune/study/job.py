"""What the runner of trials speaks of: the job, a trial in hand, and what trains together."""

from dataclasses import dataclass, field
from typing import Any

from optuna.trial import Trial

from inna_tune.estimators.base import InnaEstimator
from inna_tune.space import SearchSpace
from inna_tune.study.checkpoints import Checkpoint
from inna_tune.study.evaluation import Cohort, FoldedTable
from inna_tune.study.scoring import Scorer


@dataclass(frozen=True)
class Training:
    """What trains together now.

    Attributes
    ----------
    trials : tuple of int
        Their numbers.
    members : int
        Nets in the population, of all folds of these trials.
    epoch, until, epochs : int
        Epochs that are done, the epoch of the next rung, and those of a training that nothing ends early.
    """

    trials: tuple[int, ...]
    members: int
    epoch: int
    until: int
    epochs: int

    def __str__(self) -> str:
        trials = f"{len(self.trials)} trials" if len(self.trials) > 1 else f"trial {self.trials[0]}"
        until = (
            f"the rung at {self.until}, of {self.epochs}"
            if self.until < self.epochs
            else f"{self.until}, the last"
        )
        return f"{self.members} members of {trials} train: epoch {self.epoch} to {until}"


@dataclass
class Candidate:
    """A trial, the estimator with its settings, and how far it is.

    ``saved`` is the checkpoint it goes on from; ``place`` its cohort, and its place in it, while it trains.
    """

    trial: Trial
    estimator: InnaEstimator
    notes: dict[str, Any] = field(default_factory=dict)
    identity: str = ""
    saved: Checkpoint | None = None
    saved_epoch: int = 0
    reports: dict[int, float] = field(default_factory=dict)
    place: tuple[Cohort, int] | None = None

    @property
    def seconds(self) -> float:
        """Spent in earlier lives."""
        return 0.0 if self.saved is None else self.saved.seconds

    @property
    def where(self) -> tuple[Cohort, int]:
        assert self.place is not None
        return self.place


@dataclass(frozen=True)
class Job:
    """What the trials of a study are, the same for all its workers.

    Attributes
    ----------
    folded : FoldedTable
    estimator : InnaEstimator
        Settings that the space does not name are its.
    space : SearchSpace
    scorer : callable
        (model, X, y) -> float, higher is better.
    seed : int
        Root of the trials' own seeds.
    n_trials : int
        Of the study, over all its workers.
    population : int
        Trials to draw together.
    error_score : "raise" or number
    log_level : int
        At which a finished trial is logged.
    """

    folded: FoldedTable
    estimator: InnaEstimator
    space: SearchSpace
    scorer: Scorer
    seed: int
    n_trials: int
    population: int
    error_score: float | str
    log_level: int

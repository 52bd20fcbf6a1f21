"""What the runner of trials is told, and what it tells: the job, and what trains together."""

from dataclasses import dataclass

from inna_tune.estimators.base import InnaEstimator
from inna_tune.space import SearchSpace
from inna_tune.study.folding import FoldedTable
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

"""What the workers of a study are told, and what they tell: the job, what gives trials their scores, what trains together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import optuna
from optuna.trial import Trial

from inna_tune.space import SearchSpace

if TYPE_CHECKING:
    from inna_tune.study.running import TrialRunner


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
class Beginning:
    """What the trials of a study are drawn from, and what is tried before.

    Attributes
    ----------
    space : SearchSpace
    first : callable
        Gives the settings to try before the sampler's, in natural values; asked only where the study has not begun.
    curvature : float or None
        That the space is centred on, where it is.
    """

    space: SearchSpace
    first: Callable[[], list[dict[str, Any]]]
    curvature: float | None = None


class Evaluation(Protocol):
    """What gives the trials of a study their scores; the same for all its workers, to whom it is sent."""

    def begin(self, study: optuna.Study, seed: int) -> Beginning:
        """How a study begins, or goes on, whose own seed this is."""

    def prepare(self, runner: "TrialRunner", trial: Trial, settings: dict[str, Any]) -> Any:
        """A trial with its settings, ready to be evaluated; an error that is raised fails it."""

    def run(self, runner: "TrialRunner", prepared: Sequence[Any]) -> None:
        """Evaluate trials that were drawn together, and tell each by the runner or put it back."""


@dataclass(frozen=True)
class StudyJob:
    """What the workers of a study do, the same for all of them.

    ``seed`` is the root of the trials' own; ``n_trials`` counts over all workers; ``population`` are drawn together; finished
    trials are logged at ``log_level``.
    """

    evaluation: Evaluation
    space: SearchSpace
    seed: int
    n_trials: int
    population: int
    error_score: float | str
    log_level: int

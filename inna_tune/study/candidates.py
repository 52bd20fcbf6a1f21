"""Trials while they train: how far each is, and the time that it has cost."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import Trial

from inna_tune import clock
from inna_tune.estimators.base import InnaEstimator
from inna_tune.study.checkpoints import Checkpoint
from inna_tune.study.evaluation import Cohort
from inna_tune.study.folding import FoldedTable


@dataclass
class Candidate:
    """A trial, the estimator with its settings, and how far it is.

    ``table`` is encoded for its settings; ``saved`` is the checkpoint it goes on from, ``saved_at`` the step and the epoch of
    the last that was written; ``place`` its cohort, and its place in it, while it trains; ``spent`` are the seconds of this
    life; ``is_told`` says that it is told, or put back.
    """

    trial: Trial
    estimator: InnaEstimator
    table: FoldedTable
    notes: dict[str, Any] = field(default_factory=dict)
    identity: str = ""
    saved: Checkpoint | None = None
    saved_at: tuple[int, int] = (0, 0)
    reports: dict[int, float] = field(default_factory=dict)
    place: tuple[Cohort, int] | None = None
    spent: float = 0.0
    is_told: bool = False

    @property
    def seconds(self) -> float:
        """Spent on it, in earlier lives too."""
        return self.spent + (0.0 if self.saved is None else self.saved.seconds)

    @property
    def kind(self) -> Any:
        """Trials of one kind train as one population."""
        # Trials that stop early may have more epochs than others, over which their steps fall.
        epochs = [self.table.plan_for(self.estimator, k).max_epochs for k in range(len(self.table.folds))]
        return self.estimator._population_key(), self.estimator._may_be_padded, self.table.key, tuple(epochs)

    def begin_anew(self) -> None:
        """Let go of its checkpoint, but not of the seconds that it has cost."""
        self.spent = self.seconds
        self.saved, self.saved_at, self.reports = None, (0, 0), {}

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count the time within as spent on this trial."""
        began = clock.now()
        try:
            yield
        finally:
            self.spent += clock.now() - began

    @property
    def where(self) -> tuple[Cohort, int]:
        assert self.place is not None
        return self.place


@contextmanager
def shared_time(candidates: Sequence[Candidate]) -> Iterator[None]:
    """Count the time within as spent on trials, by the epochs that each one's members trained, or in equal parts."""

    def epochs() -> list[int]:
        return [
            0 if c.place is None else sum(r.epochs for r in c.place[0].results(c.place[1]))
            for c in candidates
        ]

    began, before = clock.now(), epochs()
    try:
        yield
    finally:
        elapsed = clock.now() - began
        trained = [now - then for now, then in zip(epochs(), before, strict=True)]
        if not any(trained):
            trained = [1] * len(candidates)
        for candidate, own in zip(candidates, trained, strict=True):
            candidate.spent += elapsed * own / sum(trained)

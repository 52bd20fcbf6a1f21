"""A search's seconds: what of them its trials may take, so that the fit that follows has its time."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from inna_tune import clock
from inna_tune.estimators.member_plan import usual_epochs
from inna_tune.space import SearchSpace
from inna_tune.study.metrics import ENSEMBLE
from inna_tune.study.tuned import is_ours, net_of

# The fit has at most this share of the whole: settings that nothing was compared for are worth no more time.
_MOST_KEPT = 0.5
# Estimates of a fit come from folds that trained beside others; alone it may take longer.
_MARGIN = 1.25
# A trial is begun where this share of it fits in, since it may end early, and drawn together are at most half of those
# that fit, so that an estimate that is too low by half still ends in whole trials.
_WORTH_BEGINNING, _TOGETHER = 0.7, 0.5
# A fit that would get less than this share of its time is not made.
_WORTH_FITTING = 0.5
# A training that should have halted before its present epoch is cut inside it, once this share of what is kept is used up.
_GRACE = 0.25


class OutOfTimeError(Exception):
    """The budget is too small for trials."""


@dataclass
class Budget:
    """Seconds for trials and for the fit of the best settings.

    Parameters
    ----------
    ends : float
        When all has to be done, by `inna_tune.clock`.
    fit_rows : int
        Rows that the fit sees in an epoch, those of all its members; 0 where none follows.
    fit_epochs : int
        Epochs that the fit takes at most.
    trial_cost : float
        What a trial on all folds costs, in fits on all rows.
    begins_untuned : bool
        Whether the first trial has the settings of the untuned fit, so that no fit need follow if it stays alone.

    Attributes
    ----------
    begun : float
    overhead : float
        Seconds that the fit takes beside training, such as encoding.
    """

    ends: float
    fit_rows: int = 0
    fit_epochs: int = 1
    trial_cost: float = 1.0
    begins_untuned: bool = False
    overhead: float = 0.0
    begun: float = field(default_factory=lambda: clock.now())
    _seconds: float = 0.0
    _rows: int = 0
    _trial_seconds: list[float] = field(default_factory=list)
    _best: tuple[float, float, float] | None = None
    _fit: tuple[float, float] | None = None
    _prepares_from: float | None = None

    @classmethod
    def of(
        cls,
        search: Any,
        n_rows: int,
        fold_rows: Sequence[int],
        *,
        begun: float,
        trials_are_fits: bool = False,
    ) -> "Budget | None":
        """That of an `InnaSearchCV` whose ``fit`` began at a time of the clock; None where it has no ``timeout``.

        ``n_rows`` are those of the table, ``fold_rows`` those that each fold trains on; ``trials_are_fits`` says that the nets
        of a trial are those of the model.
        """
        if search.timeout is None:
            return None
        if not is_ours(search.estimator):
            # What trains by itself is timed by whole fits.
            return cls(begun + search.timeout, fit_rows=n_rows if search.refit else 0, begun=begun)

        net = net_of(search.estimator)

        def seen(rows: int) -> int:
            # Early stopping ends most trainings long before their last epoch, wherever that lies.
            return rows * int(net._plan_for(rows).n_members)

        plan = net._plan_for(n_rows)
        return cls(
            begun + search.timeout,
            # The nets of an ensemble's folds are there already, and those of a fit.
            fit_rows=n_rows * plan.n_members
            if search.refit and search.refit != ENSEMBLE and not trials_are_fits
            else 0,
            fit_epochs=usual_epochs(net.max_epochs, plan.max_epochs),
            trial_cost=sum(map(seen, fold_rows)) / seen(n_rows),
            # A worker beside others, or one that goes on, may draw another one first.
            begins_untuned=search.n_jobs in (None, 1) and not search.resume and _begins_untuned(search),
            begun=begun,
        )

    @property
    def left(self) -> float:
        """Seconds until the end of all."""
        return self.ends - clock.now()

    def __getstate__(self) -> dict[str, Any]:
        # The clock of another process begins elsewhere; the time of day is that of both.
        return self.__dict__ | {"at": (clock.now(), time.time())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        then, wall = state.pop("at")
        later = clock.now() - then - (time.time() - wall)
        self.__dict__.update(
            state, ends=state["ends"] + later, begun=state["begun"] + later, _prepares_from=None
        )

    @property
    def kept(self) -> float:
        """Seconds that trials must leave to the fit, by what is known so far."""
        if not self.fit_rows:
            return 0.0
        most = _MOST_KEPT * (self.ends - self.begun)
        if self._fit is not None:
            if self.begins_untuned and not self._trial_seconds:
                return 0.0
            seconds, epochs = self._fit
            if self._best is not None:
                _, longest, spent = self._best
                # Others than the untuned settings may take longer: more epochs, or a larger net.
                seconds = max(seconds, seconds * longest / epochs, spent / self.trial_cost)
            return min(most, _MARGIN * seconds)
        if not self._rows:
            return most
        epochs = self.fit_epochs if self._best is None else self._best[1]
        return min(most, _MARGIN * (self._seconds / self._rows * self.fit_rows * epochs + self.overhead))

    @property
    def trials_end(self) -> float:
        """When trials have to be done, by the clock."""
        return self.ends - self.kept

    @property
    def cut_at(self) -> float:
        """When an epoch that takes longer than expected is broken off."""
        return self.trials_end + _GRACE * self.kept

    @property
    def has_time_for_trials(self) -> bool:
        """Whether the first trial, which trains on all folds, ends in time, as far as is known.

        One without an end would buy nothing: there is none that it can be compared with.
        """
        cost = 0.0 if self._fit is None else self._fit[0] * self.trial_cost
        return clock.now() + cost <= self.trials_end

    @property
    def has_time_to_fit(self) -> bool:
        """Whether a fit on all rows would get far enough to be worth more than the untuned one, which is there."""
        return self._fit is None or self.left >= _WORTH_FITTING * self._fit[0]

    @property
    def fits_left(self) -> float:
        """Fits on all rows that surely end in time."""
        return 0.0 if self._fit is None else max(0.0, self.left / max(_MARGIN * self._fit[0], 1e-9))

    @property
    def is_late(self) -> bool:
        """Whether the trials' time is up."""
        return clock.now() >= self.trials_end

    def note_training(self, seconds: float, rows: int) -> None:
        """Learn from a training how long nets take to see rows."""
        self._seconds += seconds
        self._rows += rows

    def note_fit(self, seconds: float, epochs: float) -> None:
        """Learn how long the untuned fit on all rows took, whole."""
        self._fit = seconds, max(1.0, epochs)

    def note_trials(self, seconds: float, number: int) -> None:
        """Learn how long trials took that trained together."""
        self._trial_seconds += [seconds / number] * number

    def note_score(self, score: float, epochs: float, seconds: float = 0.0) -> None:
        """Learn how many epochs the best settings so far took, and seconds on all folds."""
        if self._best is None or score > self._best[0]:
            self._best = score, epochs, seconds

    def trials_to_draw(self, most: int) -> int:
        """How many trials to train together now: as many as surely end in time; 0 where not even one would."""
        if self.is_late:
            return 0
        if not self._trial_seconds:
            return 1
        recent = self._trial_seconds[-max(8, most) :]
        fit_in = (self.trials_end - clock.now()) / max(sum(recent) / len(recent), 1e-9)
        if fit_in < _WORTH_BEGINNING:
            return 0
        return int(max(1, min(most, _TOGETHER * fit_in)))

    def check_preparation(self, done: int, steps: int) -> None:
        """Raise OutOfTimeError where encoding the folds, ``done`` of ``steps`` so far, would take half of the time."""
        if not done:
            self._prepares_from = self.begun if self._fit is None else clock.now()
        begun = self.begun if self._prepares_from is None else self._prepares_from
        spent = clock.now() - begun
        if done and spent / done * steps > _MOST_KEPT * (self.ends - begun):
            raise OutOfTimeError
        self.overhead = spent / max(done, 1)


def _begins_untuned(search: Any) -> bool:
    """Whether the first trial of a new study has the settings that the estimator is set to."""
    if not isinstance(search.first, str):
        return False
    return search.first == "default" or not isinstance(search.space, SearchSpace)

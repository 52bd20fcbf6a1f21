"""A study as a sampler sees it through the priors."""

from bisect import insort
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import FloatDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from inna_tune.space.evidence import median_log_ratios, n_winners
from inna_tune.space.space import SearchSpace

UNIT = FloatDistribution(0.0, 1.0)


class StudyView:
    """A study as the base sampler sees it: the same, but parameters of the space are places in [0, 1].

    The places of a finished trial by prior and by flat law never change, so they are computed once; when the weight of
    the prior changes, only their mixture is made anew.

    Parameters
    ----------
    space : SearchSpace
    storage : optuna.storages.BaseStorage
    study_id : int

    Attributes
    ----------
    evidence : dict of str to float
        For and against each prior, of a study of one objective: `median_log_ratios` of the best tenth of its complete trials.
    looked_for : int, optional
        Identifier of the trial that it was last refreshed for.
    """

    def __init__(self, space: SearchSpace, storage: Any, study_id: int) -> None:
        self.space, self.storage, self.study_id = space, storage, study_id
        self.evidence: dict[str, float] = {}
        self.looked_for: int | None = None
        self._weights: dict[str, float] = {}
        self._study: Any = None
        self._finished: dict[int, FrozenTrial] = {}
        self._groups: dict[tuple[str, ...], _Group] = {}
        self._ratios: dict[int, dict[str, float]] = {}
        # Loss, number and trial of the complete ones, the best first.
        self._complete: list[tuple[float, int, FrozenTrial]] = []
        self._weighed = False
        self._stale = False
        # The places of the last trial under way: one parameter is added at a time.
        self._under_way: tuple[int, dict[str, tuple[float, float]]] = (-1, {})

    def refresh(self, study: Any, weight: Callable[[int, float], float]) -> None:
        """Take in what the storage holds now.

        Parameters
        ----------
        study : optuna.Study
        weight : callable
            Weight of a prior by the number of finished trials and its evidence.
        """
        self._study = study
        trials = study._get_trials(deepcopy=False, use_cache=True)
        known = self._finished
        fresh = [t for t in trials if t._trial_id not in known and t.state.is_finished()]
        if not fresh and self._weighed:
            return
        for trial in fresh:
            self._take_in(trial)
        self.evidence = self._weigh(fresh)
        self._weights = {name: weight(len(known), self.evidence.get(name, 0.0)) for name in self.space}
        self._weighed = self._stale = True

    def _mix(self) -> None:
        """Bring the places of the finished trials to the weights of now, once a sampler asks for them."""
        if self._stale:
            for group in self._groups.values():
                group.mix(self._weights)
            self._stale = False

    def weight(self, name: str) -> float:
        """Share of a parameter's prior in the mixture."""
        return self._weights[name]

    def _take_in(self, trial: FrozenTrial) -> None:
        places, others = self._placed(trial)
        seen = _copied(trial, places, others)
        self._finished[trial._trial_id] = seen
        self._groups.setdefault(tuple(places), _Group(tuple(places))).add(seen, places, others)

    def _weigh(self, fresh: list[FrozenTrial]) -> dict[str, float]:
        """The evidence, once these finished trials are taken into account."""
        if len(self._study.directions) != 1:
            return {}
        sign = -1.0 if self._study.directions[0] == StudyDirection.MAXIMIZE else 1.0
        for trial in fresh:
            if trial.state == TrialState.COMPLETE and trial.value is not None:
                insort(self._complete, (sign * trial.value, trial.number, trial))
        found = []
        for _, _, trial in self._complete[: n_winners(len(self._complete))]:
            if trial._trial_id not in self._ratios:
                self._ratios[trial._trial_id] = self.space.log_ratios(trial.params)
            found.append(self._ratios[trial._trial_id])
        return median_log_ratios(found)

    def _placed(self, trial: FrozenTrial) -> tuple[dict[str, tuple[float, float]], dict[str, Any]]:
        """The places of a trial's parameters of the space, and its other parameters."""
        if self._under_way[0] != trial._trial_id:
            self._under_way = trial._trial_id, {}
        known = self._under_way[1]
        # A copy, since of a trial under way another thread may take a further parameter in the meantime.
        params = dict(trial.params)
        others: dict[str, Any] = {}
        for name, value in params.items():
            if name not in self.space:
                others[name] = value
            elif name not in known and self.space.is_placeable(name, params):
                known[name] = self.space.places(name, value, params)
        return {name: known[name] for name in params if name in known}, others

    def trial(self, trial: FrozenTrial) -> FrozenTrial:
        """One trial as the base sampler sees it."""
        known = self._finished.get(trial._trial_id)
        if known is not None:
            self._mix()
            return known
        places, others = self._placed(trial)
        seen = _copied(trial, places, others)
        weights = self._weights
        seen.params = {
            name: weights[name] * prior + (1.0 - weights[name]) * flat
            for name, (prior, flat) in places.items()
        } | others
        return seen

    def _get_trials(
        self, deepcopy: bool = True, states: Any = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        trials = self._study._get_trials(deepcopy=False, states=states, use_cache=use_cache)
        finished = self._finished
        self._mix()
        return [finished.get(t._trial_id) or self.trial(t) for t in trials]

    def get_trials(self, deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:
        """The trials, parameters as places."""
        return self._get_trials(deepcopy, states)

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials, parameters as places."""
        return self._get_trials()

    @property
    def best_trial(self) -> FrozenTrial:
        """The best trial, parameters as places."""
        return self.trial(self._study.best_trial)

    @property
    def best_trials(self) -> list[FrozenTrial]:
        """The trials on the Pareto front, parameters as places."""
        return [self.trial(t) for t in self._study.best_trials]

    @property
    def best_params(self) -> dict[str, Any]:
        """Parameters of the best trial as places."""
        return self.best_trial.params

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_study" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self._study, name)


class _Group:
    """Finished trials that have the same parameters of the space, their places as arrays: mixed all at once."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._seen: list[FrozenTrial] = []
        self._others: list[dict[str, Any]] = []
        self._places: NDArray[np.float64] = np.empty((0, len(names), 2))

    def add(self, seen: FrozenTrial, places: dict[str, tuple[float, float]], others: dict[str, Any]) -> None:
        count = len(self._seen)
        if count == len(self._places):
            grown = np.empty((max(32, 2 * count), len(self._names), 2))
            grown[:count] = self._places
            self._places = grown
        if self._names:
            self._places[count] = list(places.values())
        self._seen.append(seen)
        self._others.append(others)

    def mix(self, weights: dict[str, float]) -> None:
        w = np.array([weights[name] for name in self._names])
        places = self._places[: len(self._seen)]
        mixed = (w * places[..., 0] + (1.0 - w) * places[..., 1]).tolist()
        for seen, row, others in zip(self._seen, mixed, self._others, strict=True):
            seen.params = dict(zip(self._names, row, strict=True)) | others


def _copied(
    trial: FrozenTrial, places: dict[str, tuple[float, float]], others: dict[str, Any]
) -> FrozenTrial:
    """A shallow copy whose parameters of the space are numbers in [0, 1]; those without a place are left out."""
    seen = object.__new__(FrozenTrial)
    seen.__dict__.update(trial.__dict__)
    known = dict(trial.distributions)
    seen.distributions = {n: UNIT if n in places else known[n] for n in known if n in places or n in others}
    return seen

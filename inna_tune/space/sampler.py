"""PriorSampler: any Optuna sampler, seeing a study through the priors of a space."""

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.samplers._lazy_random_state import LazyRandomState
from optuna.trial import FrozenTrial, TrialState

from inna_tune.space.space import SearchSpace

_UNIT = FloatDistribution(0.0, 1.0)


class PriorSampler(BaseSampler):
    """Let a sampler see the parameters of a space as numbers u in [0, 1], uniform where the prior is.

    Each parameter x of the space is shown to the base sampler as u = F(x), and what it suggests is mapped back by
    x = F⁻¹(u). F is the distribution function of w · prior + (1 − w) · flat, flat being (log-)uniform over the bounds, with
    w = k / (k + n) and n the finished trials of the study: evidence outweighs a prior that is wrong. The study stores
    natural values, so that every tool of Optuna reads it. Parameters that are not in the space pass unchanged.

    Parameters
    ----------
    base_sampler : optuna.samplers.BaseSampler or None
        TPE, GP, CMA-ES, QMC, random, …; None: ``TPESampler()``. Categorical parameters reach it as numbers too, each choice
        as a cell as wide as it is probable.
    space : SearchSpace
        The priors.
    k : float, default=10
        After k trials prior and flat law weigh the same; 0 ignores the priors, infinity never lets go of them.
    seed : int, optional
        With a seed, what is drawn for trial t depends on the seed, t and the stored trials only, so that a study resumed
        in another process goes on as if it had never stopped. (GPSampler keeps its last kernel in memory as a start for the
        next fit; after a restart its suggestions agree to the precision of that fit only.)

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, or ``k`` negative or not a number.

    Notes
    -----
    Optuna has no priors (its issues #1200, #5550, #5959). A fixed mixture is not enough: on a toy problem with a bad prior it
    still had a regret of 1.6 after 60 trials, where the decaying one had 0.03.
    """

    def __init__(
        self, base_sampler: BaseSampler | None, space: SearchSpace, k: float = 10, seed: int | None = None
    ) -> None:
        if base_sampler is not None and not isinstance(base_sampler, BaseSampler):
            raise TypeError(f"base_sampler={base_sampler!r} must be an Optuna sampler, or None for TPE")
        if isinstance(base_sampler, PriorSampler):
            raise TypeError("base_sampler is a PriorSampler already; give the sampler inside it")
        if not isinstance(space, SearchSpace):
            raise TypeError(f"space={space!r} must be a SearchSpace")
        if not k >= 0:
            raise ValueError(f"k={k!r} must be at least 0")
        self._base_sampler = TPESampler() if base_sampler is None else base_sampler
        self._space = space
        self._k = float(k)
        self._seed = seed
        self._view: _StudyView | None = None
        if seed is not None:
            _reseed(self._base_sampler, np.random.SeedSequence(seed))

    @property
    def space(self) -> SearchSpace:
        """The priors."""
        return self._space

    def weight(self, n_finished: int) -> float:
        """Share w of the prior in the mixture after a number of finished trials."""
        return 1.0 if self._k == float("inf") else self._k / max(self._k + n_finished, 1e-300)

    def __str__(self) -> str:
        return f"PriorSampler({type(self._base_sampler).__name__})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_view": None}

    # ------------------------------------------------------------------ what Optuna asks

    def reseed_rng(self) -> None:
        """Give the base sampler a fresh stream, as Optuna does in each of its threads; a seed of ours stays."""
        if self._seed is None:
            self._base_sampler.reseed_rng()

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Pass on, with the trial's own random stream."""
        self._start_stream(trial)
        view = self._look_at(study)
        self._base_sampler.before_trial(view, view.trial(trial))

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The base sampler's choice of parameters to sample together, with their natural distributions."""
        view = self._look_at(study)
        inferred = self._base_sampler.infer_relative_search_space(view, view.trial(trial))
        found = {n: self._space.distribution(n) if n in self._space else d for n, d in inferred.items()}
        # What a parameter depends on must be chosen with it, or it waits for its turn.
        return {n: d for n, d in found.items() if n not in self._space or self._space.is_placeable(n, found)}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Values for parameters sampled together, natural."""
        self._start_stream(trial)
        view = self._look_at(study)
        units = {n: _UNIT if n in self._space else d for n, d in search_space.items()}
        drawn = self._base_sampler.sample_relative(view, view.trial(trial), units)
        values = {n: v for n, v in drawn.items() if n not in self._space}
        known = dict(trial.params)
        for name in self._space:
            if name in drawn and self._space.is_placeable(name, known):
                known[name] = values[name] = self._space.value(name, float(drawn[name]), view.weight, known)
        return values

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A value for one parameter, natural."""
        self._start_stream(trial, param_name)
        view = self._look_at(study)
        if param_name not in self._space or param_distribution != self._space.distribution(param_name):
            return self._base_sampler.sample_independent(
                view, view.trial(trial), param_name, param_distribution
            )
        if not self._space.is_placeable(param_name, trial.params):
            raise ValueError(
                f"parameter {param_name!r} depends on others that have no value yet: suggest the space's parameters in "
                "its order, as SearchSpace.suggest does"
            )
        u = self._base_sampler.sample_independent(view, view.trial(trial), param_name, _UNIT)
        return self._space.value(param_name, float(u), view.weight, trial.params)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Pass on."""
        view = self._look_at(study)
        self._base_sampler.after_trial(view, view.trial(trial), state, values)

    # ------------------------------------------------------------------ streams and views

    def _start_stream(self, trial: FrozenTrial, name: str = "") -> None:
        # One stream a trial and parameter: a trial taken up again after a crash, some of its values stored, draws the
        # others as it would have.
        if self._seed is not None:
            words = [self._seed, trial.number, zlib.crc32(name.encode())]
            _reseed(self._base_sampler, np.random.SeedSequence(words))

    def _look_at(self, study: optuna.Study) -> Any:
        view = self._view
        if view is None or view.storage is not study._storage or view.study_id != study._study_id:
            view = self._view = _StudyView(self._space, study._storage, study._study_id)
        view.refresh(study, self)
        return view


def _reseed(sampler: Any, root: np.random.SeedSequence) -> None:
    """Restart every random stream of a sampler and of the samplers inside it.

    NOTE: Optuna's samplers take a seed only when they are made, and keep their streams in attributes of the private
    type LazyRandomState; tests/space/test_sampler.py holds this for every sampler that we name.
    """
    states: list[LazyRandomState] = []
    pending, seen = [sampler], set()
    while pending:
        current = pending.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        for name in sorted(vars(current)):
            attribute = vars(current)[name]
            if isinstance(attribute, LazyRandomState):
                states.append(attribute)
            elif isinstance(attribute, BaseSampler):
                pending.append(attribute)
    for state, child in zip(states, root.spawn(len(states)), strict=True):
        state.rng.seed(child.generate_state(4))


class _StudyView:
    """A study as the base sampler sees it: the same, but parameters of the space are places in [0, 1].

    The places of a finished trial by prior and by flat law never change, so they are computed once; when the weight of
    the prior changes, only their mixture is made anew.
    """

    def __init__(self, space: SearchSpace, storage: Any, study_id: int) -> None:
        self.space, self.storage, self.study_id = space, storage, study_id
        self.weight = 1.0
        self._study: Any = None
        self._finished: dict[int, tuple[FrozenTrial, dict[str, tuple[float, float]], dict[str, Any]]] = {}
        self._mixed_with: float | None = None

    def refresh(self, study: optuna.Study, sampler: PriorSampler) -> None:
        """Take in what the storage holds now."""
        self._study = study
        trials = study._get_trials(deepcopy=False, use_cache=True)
        done = [t for t in trials if t.state.is_finished()]
        self.weight = sampler.weight(len(done))
        fresh = [t for t in done if t._trial_id not in self._finished]
        for trial in fresh:
            places, others = self._placed(trial)
            self._finished[trial._trial_id] = (_copied(trial, places, others), places, others)
        if fresh or self._mixed_with != self.weight:
            for seen, places, others in self._finished.values():
                seen.params = self._mixed(places) | others
            self._mixed_with = self.weight

    def _placed(self, trial: FrozenTrial) -> tuple[dict[str, tuple[float, float]], dict[str, Any]]:
        """The places of a trial's parameters of the space, and its other parameters."""
        places: dict[str, tuple[float, float]] = {}
        others: dict[str, Any] = {}
        for name, value in trial.params.items():
            if name not in self.space:
                others[name] = value
            elif self.space.is_placeable(name, trial.params):
                places[name] = self.space.places(name, value, trial.params)
        return places, others

    def _mixed(self, places: dict[str, tuple[float, float]]) -> dict[str, float]:
        w = self.weight
        return {name: w * prior + (1.0 - w) * flat for name, (prior, flat) in places.items()}

    def trial(self, trial: FrozenTrial) -> FrozenTrial:
        """One trial as the base sampler sees it."""
        known = self._finished.get(trial._trial_id)
        if known is not None:
            return known[0]
        places, others = self._placed(trial)
        seen = _copied(trial, places, others)
        seen.params = self._mixed(places) | others
        return seen

    def _get_trials(
        self, deepcopy: bool = True, states: Any = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        trials = self._study._get_trials(deepcopy=False, states=states, use_cache=use_cache)
        return [self.trial(t) for t in trials]

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


def _copied(trial: FrozenTrial, places: dict[str, Any], others: dict[str, Any]) -> FrozenTrial:
    """A shallow copy whose parameters of the space are numbers in [0, 1]; those without a place are left out."""
    seen = object.__new__(FrozenTrial)
    seen.__dict__.update(trial.__dict__)
    known = trial.distributions
    seen.distributions = {n: _UNIT if n in places else known[n] for n in known if n in places or n in others}
    return seen

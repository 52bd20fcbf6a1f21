"""PriorSampler: any Optuna sampler, seeing a study through the priors of a space."""

import copy
import math
import threading
import zlib
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, BruteForceSampler, GridSampler, PartialFixedSampler, TPESampler
from optuna.samplers._lazy_random_state import LazyRandomState
from optuna.trial import FrozenTrial, TrialState

from inna_tune.space.evidence import MISLEADING, is_misleading
from inna_tune.space.space import SearchSpace
from inna_tune.space.view import UNIT, StudyView
from inna_tune.visible import get_logger

logger = get_logger(__name__)

# Studies that may share a sampler without its looking at them anew whenever it turns from one to another.
_MOST_VIEWS = 4


P = ParamSpec("P")
R = TypeVar("R")


def _one_at_a_time(
    method: Callable[Concatenate["PriorSampler", P], R],
) -> Callable[Concatenate["PriorSampler", P], R]:
    """Let one thread at a time into a sampler: views and random streams are in use from a call's first line to its last."""

    @wraps(method)
    def alone(self: "PriorSampler", /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._lock:
            return method(self, *args, **kwargs)

    return alone


class PriorSampler(BaseSampler):
    """Let a sampler see the parameters of a space as numbers u in [0, 1], uniform where the prior is.

    Each parameter x of the space is shown to the base sampler as u = F(x), and what it suggests is mapped back by
    x = F⁻¹(u). F is the distribution function of w · prior + (1 − w) · flat, flat being (log-)uniform over the bounds, with
    w = k / (k + n) and n the finished trials of the study: evidence outweighs a prior that is wrong. Where the best tenth of
    the trials lie where the prior of a parameter said they would not, that parameter's k shrinks by their likelihood against
    the flat law (`inna_tune.space.evidence`), the study says so in its user attribute ``inna_tune:misleading_priors``, and the
    log warns once. The study stores natural values, so that every tool of Optuna reads it. Parameters that are not in the
    space pass unchanged.

    Parameters
    ----------
    base_sampler : optuna.samplers.BaseSampler or None
        TPE, GP, CMA-ES, QMC, random, …; None: ``TPESampler()``. Categorical parameters reach it as numbers too, each choice
        as a cell as wide as it is probable. A ``constraints_func`` of its own is called with natural values.
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

    Threads may share it, as under ``study.optimize(n_jobs=4)``, and so may studies: one call at a time is let in.

    Examples
    --------
    >>> import optuna
    >>> from inna_tune.space import LogNormal, PriorSampler, SearchSpace
    >>> space = SearchSpace({"lr": LogNormal(0.1, 0.5, low=1e-4, high=10.0)})
    >>> study = optuna.create_study(sampler=PriorSampler(optuna.samplers.RandomSampler(), space, seed=0))
    >>> tried = [space.suggest(study.ask())["lr"] for _ in range(20)]
    >>> bool(0.03 < sorted(tried)[10] < 0.3)
    True
    """

    sees_priors = True
    """That a space which suggests need not warn of its priors being passed over."""

    def __init__(
        self, base_sampler: BaseSampler | None, space: SearchSpace, k: float = 10, seed: int | None = None
    ) -> None:
        if base_sampler is not None and not isinstance(base_sampler, BaseSampler):
            raise TypeError(f"base_sampler={base_sampler!r} must be an Optuna sampler, or None for TPE")
        if isinstance(base_sampler, PriorSampler):
            raise TypeError("base_sampler is a PriorSampler already; give the sampler inside it")
        if isinstance(base_sampler, PartialFixedSampler):
            raise TypeError(
                "base_sampler=PartialFixedSampler: its values are natural ones, so put it around: "
                "PartialFixedSampler(fixed, PriorSampler(base, space))"
            )
        if isinstance(base_sampler, GridSampler | BruteForceSampler):
            raise TypeError(
                f"base_sampler={type(base_sampler).__name__} goes through natural values of its own, for which no prior "
                "counts; use it without PriorSampler"
            )
        if not isinstance(space, SearchSpace):
            raise TypeError(f"space={space!r} must be a SearchSpace")
        if not k >= 0:
            raise ValueError(f"k={k!r} must be at least 0")
        self._base_sampler = TPESampler() if base_sampler is None else base_sampler
        self._space = space
        self._k = float(k)
        self._seed = seed
        # The last one is the last that was looked at.
        self._views: list[StudyView] = []
        # One that its holder may take again: a constraints_func may ask the study for another trial.
        self._lock = threading.RLock()
        if seed is not None:
            _reseed(self._base_sampler, np.random.SeedSequence(seed))

    @property
    def space(self) -> SearchSpace:
        """The priors."""
        return self._space

    def weight(self, n_finished: int, evidence: float = 0.0) -> float:
        """Share w of the prior in the mixture.

        Parameters
        ----------
        n_finished : int
            Finished trials.
        evidence : float, default=0.0
            Median log-likelihood of the best trials under the prior over that under the flat law; only what is below zero
            counts.
        """
        if self._k == math.inf:
            return 1.0
        k = self._k * math.exp(min(evidence, 0.0))
        return k / max(k + n_finished, 1e-300)

    def __str__(self) -> str:
        return f"PriorSampler({type(self._base_sampler).__name__})"

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            # A copy, since pickle goes through it only when the lock is given back.
            state = self.__dict__ | {"_base_sampler": copy.deepcopy(self._base_sampler), "_views": []}
        del state["_lock"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.RLock()

    # ------------------------------------------------------------------ what Optuna asks

    @_one_at_a_time
    def reseed_rng(self) -> None:
        """Give the base sampler a fresh stream, as Optuna does in each of its threads; a seed of ours stays."""
        if self._seed is None:
            self._base_sampler.reseed_rng()

    @_one_at_a_time
    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Pass on, with the trial's own random stream."""
        self._start_stream(trial)
        view = self._look_at(study)
        self._base_sampler.before_trial(view, view.trial(trial))

    @_one_at_a_time
    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The base sampler's choice of parameters to sample together, with their natural distributions."""
        view = self._look_at(study, trial=trial)
        inferred = self._base_sampler.infer_relative_search_space(view, view.trial(trial))
        found = {n: self._space.distribution(n) if n in self._space else d for n, d in inferred.items()}
        # What a parameter depends on must be chosen with it, or it waits for its turn.
        return {n: d for n, d in found.items() if n not in self._space or self._space.is_placeable(n, found)}

    @_one_at_a_time
    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Values for parameters sampled together, natural."""
        self._start_stream(trial)
        view = self._look_at(study, trial=trial)
        units = {n: UNIT if n in self._space else d for n, d in search_space.items()}
        drawn = self._base_sampler.sample_relative(view, view.trial(trial), units)
        values = {n: v for n, v in drawn.items() if n not in self._space}
        # An enqueued value replaces what is drawn for its name: the others are to be drawn given that one.
        fixed = {n: v for n, v in trial.system_attrs.get("fixed_params", {}).items() if n in self._space}
        known = trial.params | fixed
        for name in self._space:
            if name in drawn and name not in fixed and self._space.is_placeable(name, known):
                known[name] = values[name] = self._space.value(
                    name, float(drawn[name]), view.weight(name), known
                )
        return values

    @_one_at_a_time
    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A value for one parameter, natural."""
        self._start_stream(trial, param_name)
        view = self._look_at(study, trial=trial)
        if param_name not in self._space or param_distribution != self._space.distribution(param_name):
            return self._base_sampler.sample_independent(
                view, view.trial(trial), param_name, param_distribution
            )
        if not self._space.is_placeable(param_name, trial.params):
            raise ValueError(
                f"parameter {param_name!r} depends on others that have no value yet: suggest the space's parameters in "
                "its order, as SearchSpace.suggest does"
            )
        u = self._base_sampler.sample_independent(view, view.trial(trial), param_name, UNIT)
        return self._space.value(param_name, float(u), view.weight(param_name), trial.params)

    @_one_at_a_time
    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Pass on; say which priors mislead, where that has changed."""
        view = self._look_at(study)
        # Optuna's samplers look at the trial only to call constraints_func, whose author knows natural values.
        constrained = getattr(self._base_sampler, "_constraints_func", None) is not None
        self._base_sampler.after_trial(view, trial if constrained else view.trial(trial), state, values)
        misleading = {n: round(e, 3) for n, e in view.evidence.items() if is_misleading(e)}
        if self._k != math.inf and self._said_of(study) != misleading.keys():
            # NOTE: by the storage, since what Hyperband shows of a study has no user attributes.
            study._storage.set_study_user_attr(study._study_id, MISLEADING, misleading)
            if misleading:
                logger.warning(
                    "the best trials lie where the prior of %s said they would not; its weight is lowered",
                    ", ".join(misleading),
                )

    @staticmethod
    def _said_of(study: optuna.Study) -> Any:
        said = study._storage.get_study_user_attrs(study._study_id).get(MISLEADING)
        return said.keys() if isinstance(said, dict) else {}.keys()

    # ------------------------------------------------------------------ streams and views

    def _start_stream(self, trial: FrozenTrial, name: str = "") -> None:
        # One stream a trial and parameter: a trial taken up again after a crash, some of its values stored, draws the
        # others as it would have.
        if self._seed is not None:
            words = [self._seed, trial.number, zlib.crc32(name.encode())]
            _reseed(self._base_sampler, np.random.SeedSequence(words))

    def _look_at(self, study: optuna.Study, *, trial: FrozenTrial | None = None) -> Any:
        """The view of a study as it stands now, or as it stood when this trial began if no other began since."""
        views = self._views
        view = next((v for v in views if v.storage is study._storage and v.study_id == study._study_id), None)
        if view is None:
            view = StudyView(self._space, study._storage, study._study_id)
        else:
            views.remove(view)
        views[:] = [*views, view][-_MOST_VIEWS:]
        if trial is None or view.looked_for != trial._trial_id:
            view.refresh(study, self.weight)
            view.looked_for = None if trial is None else trial._trial_id
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

"""What InnaSearchCV is told, checked before anything is stored."""

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.pruners import BasePruner

from inna_tune.estimators.base import InnaEstimator
from inna_tune.space import Prior, PriorSampler, SearchSpace
from inna_tune.study.beginning import check_setting


def check_search(search: Any) -> None:
    """Raise an error that names the parameter of an InnaSearchCV, its value and the remedy."""
    estimator = search.estimator
    if not isinstance(estimator, InnaEstimator):
        raise TypeError(
            f"estimator={estimator!r} must be an InnaClassifier or an InnaRegressor; "
            "for other models use SearchSpace.suggest and PriorSampler in an Optuna objective."
        )
    estimator._check_parameters()
    if not _is_whole(search.n_trials) or search.n_trials < 1:
        raise ValueError(f"n_trials={search.n_trials!r} must be a whole number of at least 1.")
    if search.population != "auto" and (not _is_whole(search.population) or search.population < 1):
        raise ValueError(f"population={search.population!r} must be a whole number of at least 1, or 'auto'.")
    if search.n_jobs is not None and (not _is_whole(search.n_jobs) or search.n_jobs == 0):
        raise ValueError(
            f"n_jobs={search.n_jobs!r} must be a whole number of workers, -1 for one a core, or None for what "
            "joblib.parallel_config says."
        )
    check_timeout(search.timeout)
    if search.random_state is not None and not (_is_whole(search.random_state) and search.random_state >= 0):
        raise ValueError(
            f"random_state={search.random_state!r} must be a whole number of at least 0, or None; a generator's numbers "
            "could not be drawn again when the study is resumed."
        )
    if not (
        (isinstance(search.error_score, str) and search.error_score == "raise")
        or _is_number(search.error_score)
    ):
        raise ValueError(f"error_score={search.error_score!r} must be 'raise' or a number.")
    if not isinstance(search.pruner, BasePruner | None):
        raise TypeError(f"pruner={search.pruner!r} must be an Optuna pruner, or None for successive halving.")
    if not isinstance(search.sampler, PriorSampler):
        try:
            PriorSampler(search.sampler, SearchSpace.inna(curvature=1.0))
        except TypeError as error:
            raise TypeError(f"sampler: {error}") from None
    for callback in search.callbacks:
        if not callable(callback):
            raise TypeError(f"callbacks: {callback!r} cannot be called; give functions of (study, trial).")
    if isinstance(search.first, str):
        if search.first not in ("auto", "default"):
            raise ValueError(f"first={search.first!r} must be 'auto', 'default' or a sequence of settings.")
    elif not isinstance(search.first, Sequence) or not all(isinstance(s, Mapping) for s in search.first):
        raise TypeError(f"first={search.first!r} must hold mappings of parameters to values.")
    if search.space is not None:
        if not isinstance(search.space, SearchSpace | Prior):
            raise TypeError(
                f"space={search.space!r} must be a SearchSpace, e.g. SearchSpace.inna(), or a Prior."
            )
        names = search.space.space if isinstance(search.space, Prior) else search.space
        unknown = sorted(set(names) - set(estimator.get_params()))
        if unknown:
            remedy = ""
            if estimator.encoder is None and any(name.startswith("encoder__") for name in unknown):
                remedy = " Those of the encoder it has if it is given one, encoder=TableEncoder()."
            raise ValueError(
                f"space names parameters that {type(estimator).__name__} does not have: {unknown}.{remedy}"
            )
    if isinstance(search.space, SearchSpace) and not isinstance(search.first, str):
        for setting in search.first:
            check_setting(search.space, setting)


def check_timeout(timeout: Any) -> None:
    """Raise a ValueError where a budget is no positive number of seconds, nor None."""
    if timeout is not None and not (_is_number(timeout) and 0 < timeout < math.inf):
        raise ValueError(f"timeout={timeout!r} must be a positive number of seconds, or None.")


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)

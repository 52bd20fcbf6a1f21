"""What InnaSearchCV is told, checked before anything is stored."""

from collections.abc import Collection, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from optuna.pruners import BasePruner
from optuna.storages import BaseStorage
from sklearn.base import is_classifier, is_regressor
from sklearn.utils._param_validation import Interval, InvalidParameterError, StrOptions, make_constraint
from sqlalchemy.engine import URL

from inna_tune.optim.optimizers import PURE
from inna_tune.space import Prior, PriorSampler, SearchSpace
from inna_tune.store.store import LeftBehind
from inna_tune.study.beginning import check_setting
from inna_tune.study.metrics import ENSEMBLE, Metrics, is_several
from inna_tune.study.tuned import is_of_skorch, is_ours, net_of, own_name, prefix_of

_AT_LEAST_ONE = Interval(Integral, 1, None, closed="left")

# As scikit-learn declares them, but with words that name the remedy; and a truth value is a number to "verbose" alone.
_CONSTRAINTS: dict[str, tuple[list[Any], str]] = {
    "n_trials": ([_AT_LEAST_ONE], "a whole number of at least 1"),
    "population": ([_AT_LEAST_ONE, StrOptions({"auto"})], "a whole number of at least 1, or 'auto'"),
    "n_jobs": (
        [_AT_LEAST_ONE, Interval(Integral, None, -1, closed="right"), None],
        "a whole number of workers, -1 for one a core, or None for what joblib.parallel_config says",
    ),
    "timeout": (
        [Interval(Real, 0, None, closed="neither"), None],
        "a positive number of seconds, or None",
    ),
    "random_state": (
        [Interval(Integral, 0, None, closed="left"), None],
        "a whole number of at least 0, or None; a generator's numbers could not be drawn again when the study is resumed",
    ),
    "error_score": ([Real, StrOptions({"raise"})], "'raise' or a number"),
    "storage": (
        # What stayed behind when the search was copied is told of where it is opened.
        [str, URL, BaseStorage, LeftBehind, None],
        "a database's URL, such as 'sqlite:///studies.db', an Optuna storage, or None for memory",
    ),
    "study_name": ([str, None], "text of 1 to 512 characters, or None"),
    "pruner": ([BasePruner, None], "an Optuna pruner, or None for successive halving"),
    "resume": (["boolean"], "True or False"),
    "allow_mismatch": (["boolean"], "True or False"),
    "verbose": (["verbose"], "a whole number of at least 0, or True or False"),
    "space": ([SearchSpace, Prior, None], "a SearchSpace, e.g. SearchSpace.inna(), or a Prior"),
}


def check_option(name: str, value: Any) -> None:
    """Raise an error, of value and of type in one, that names a parameter, its value and the remedy."""
    constraints, words = _CONSTRAINTS[name]
    takes_truth = bool({"boolean", "verbose"}.intersection(c for c in constraints if isinstance(c, str)))
    is_truth = isinstance(value, bool | np.bool_)
    if (is_truth and not takes_truth) or not any(
        make_constraint(c).is_satisfied_by(value) for c in constraints
    ):
        raise InvalidParameterError(f"{name}={value!r} must be {words}.")


def check_estimator(estimator: Any) -> None:
    """Refuse what a search cannot tune, alone or at the end of a pipeline.

    Raises
    ------
    InvalidParameterError
        Naming what it may be.
    """
    if is_ours(estimator) or (
        is_of_skorch(estimator) and (is_classifier(estimator) or is_regressor(estimator))
    ):
        return
    raise InvalidParameterError(
        f"estimator={estimator!r} must be an InnaClassifier or an InnaRegressor, a classifier or regressor of skorch, or a "
        "pipeline that ends in one; for other models use SearchSpace.suggest and PriorSampler in an Optuna objective."
    )


def check_search(search: Any) -> None:
    """Check the parameters of an InnaSearchCV, each by itself and those that go together."""
    check_estimator(search.estimator)
    for name in _CONSTRAINTS:
        check_option(name, getattr(search, name))
    cv = search.cv
    if isinstance(cv, bool | np.bool_) or (isinstance(cv, Integral) and cv < 2):
        raise InvalidParameterError(
            f"cv={cv!r} must be a number of folds of at least 2, a splitter, folds as pairs of row numbers, or None."
        )
    refit = search.refit
    if is_several(search.scoring):
        Metrics.of(search.estimator, search.scoring, refit=refit)
    elif not (
        isinstance(refit, bool | np.bool_)
        or callable(refit)
        or (isinstance(refit, str) and refit == ENSEMBLE)
    ):
        raise InvalidParameterError(
            f"refit={refit!r} must be True, False or {ENSEMBLE!r}, or a function of cv_results_; names of metrics are for "
            "several of them, scoring=[…]."
        )
    estimator, space, first = search.estimator, search.space, search.first
    if is_ours(estimator):
        net_of(estimator)._check_parameters()
    if not isinstance(search.sampler, PriorSampler):
        try:
            PriorSampler(search.sampler, SearchSpace.inna(curvature=1.0))
        except TypeError as error:
            raise TypeError(f"sampler: {error}") from None
    callbacks = () if search.callbacks is None else search.callbacks
    if not isinstance(callbacks, Sequence) or isinstance(callbacks, str):
        raise InvalidParameterError(
            f"callbacks={callbacks!r} must be functions of (study, trial) in a list, or None."
        )
    for callback in callbacks:
        if not callable(callback):
            raise TypeError(f"callbacks: {callback!r} cannot be called; give functions of (study, trial).")
    if isinstance(first, str):
        if first not in ("auto", "default"):
            raise ValueError(f"first={first!r} must be 'auto', 'default' or a sequence of settings.")
    elif not isinstance(first, Sequence) or not all(isinstance(s, Mapping) for s in first):
        raise TypeError(f"first={first!r} must hold mappings of parameters to values.")
    if space is not None:
        names = space.space if isinstance(space, Prior) else space
        unknown = sorted(name for name in names if own_name(estimator, name) is None)
        if unknown:
            remedy = ""
            if getattr(net_of(estimator), "encoder", 0) is None and any(
                name.startswith("encoder__") for name in unknown
            ):
                remedy = " Those of the encoder it has if it is given one, encoder=TableEncoder()."
            raise ValueError(
                f"space names parameters that {type(estimator).__name__} does not have: {unknown}.{remedy}"
            )
        _check_numbers(estimator, names)
    if isinstance(space, SearchSpace) and not isinstance(first, str):
        for setting in first:
            check_setting(space, setting)


def _check_numbers(estimator: Any, names: Collection[str]) -> None:
    """Check that nothing is searched whose pure number, or natural counterpart, is set or searched, too."""
    if not is_ours(estimator):
        return
    net, prefix = net_of(estimator), prefix_of(estimator)
    names = {name.removeprefix(prefix) for name in names}
    for pure, natural in PURE.items():
        if pure in names and (natural in names or getattr(net, natural) != "auto"):
            where = (
                "the space" if natural in names else f"{natural}={getattr(net, natural)!r} of the estimator"
            )
            raise ValueError(
                f"space names {pure!r}, which sets {natural}, and so does {where}; leave one of them out."
            )
        value = getattr(net, pure)
        if natural in names and value is not None:
            raise ValueError(
                f"space names {natural!r}, and {pure}={value!r} of the estimator sets it, too; leave {pure} at None, or give "
                "space=None, which then searches the other pure numbers."
            )

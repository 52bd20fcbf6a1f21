"""What a study draws from and tries first: priors at the curvature of its data, the untuned setting, a portfolio."""

import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from sklearn.base import clone

from inna_tune.engine import Method
from inna_tune.engine.population import Population
from inna_tune.engine.rates import steps_of_epoch
from inna_tune.estimators.base import InnaEstimator
from inna_tune.estimators.checks import layer_sizes
from inna_tune.estimators.parameters import Parameters
from inna_tune.estimators.pure import pure_numbers_of, usual_numbers
from inna_tune.optim.decay import DECAY_LAWS
from inna_tune.optim.optimizers import DEFAULT, PURE, record_of
from inna_tune.records.attributes import CURVATURE, FINGERPRINT, HORIZON, PORTFOLIO, UNTUNED
from inna_tune.space import LogNormal, Prior, SearchSpace
from inna_tune.space.space import NET_PARAMETERS
from inna_tune.store.opening import store_of
from inna_tune.study.folding import FoldedTable
from inna_tune.study.job import Beginning
from inna_tune.study.tuned import as_ours, prefix_of, said_by

_STEPS = ("lr", "alpha", "beta")

# How far friction stays below twice the damping ratio, where one of them is fixed.
_MARGIN = 1.05


def begin(
    folded: FoldedTable,
    estimator: Any,
    study: optuna.Study,
    seed: int,
    *,
    given: SearchSpace | Prior | None,
    first: str | Sequence[Mapping[str, Any]],
) -> Beginning:
    """How a study of nets begins: its space in natural values, and what it tries before the sampler's own.

    Parameters
    ----------
    folded : FoldedTable
    estimator : InnaEstimator, or Pipeline that ends in one
    study : optuna.Study
    seed : int
        Of the initial weights at which the curvature is measured, on the first fold, unless the study knows it.
    given, first
        As `InnaSearchCV` takes its ``space`` and ``first``.
    """
    curvature = study.user_attrs.get(CURVATURE)
    portfolio: list[dict[str, Any]] = []
    if isinstance(given, SearchSpace):
        space = given
    else:
        if curvature is None:
            curvature = _measured(folded, estimator, seed, _method_of_inna(as_ours(estimator)))["curvature"]
        described = study.user_attrs.get(FINGERPRINT)
        if given is not None:
            space, portfolio = given.at(curvature)
        elif has_begun(study) and isinstance(described, dict) and described.get("space") is not None:
            # Whoever names no space goes on with that of the study.
            space = SearchSpace.from_json(described["space"])
        else:
            space = shipped(as_ours(estimator), curvature)

    if as_ours(estimator).max_epochs == "auto" and HORIZON not in study.user_attrs:
        study.set_user_attr(HORIZON, folded.plan_for(as_ours(estimator), 0).max_epochs)

    def settings() -> list[dict[str, Any]]:
        if not isinstance(first, str):
            for setting in first:
                check_setting(space, setting)
            return [dict(setting) for setting in first]
        if first == "auto" and isinstance(given, SearchSpace):
            return []
        own = untuned(folded, estimator, space, seed)
        if own is not None:
            study.set_user_attr(UNTUNED, _plain(own))
        return ([] if own is None else [own]) + (portfolio if first == "auto" else [])

    return Beginning(space, settings, curvature)


def shipped(estimator: InnaEstimator, curvature: float) -> SearchSpace:
    """The shipped priors for an estimator: over natural values at a curvature, and over the net where it is as it comes.

    Of a net that a person has chosen nothing is searched. Where the estimator is set to pure numbers, these stay, and the
    others are searched as pure numbers, too, since the natural values of one hang on those of the others.
    """
    fixed = {name: value for name, value in pure_numbers_of(estimator).items() if value is not None}
    as_it_comes = net_is_as_it_comes(estimator)
    if not fixed:
        return SearchSpace.inna(curvature=curvature, net=as_it_comes)
    natural = {pure for pure, name in PURE.items() if getattr(estimator, name) != "auto"}
    # A damping ratio is of friction and damping both.
    if "friction" in natural:
        natural.add("damping")
    known = record_of(estimator.optimizer).pure
    laws = {
        name: entry
        for name, entry in SearchSpace.inna(pure=True, net=as_it_comes).items()
        if name not in fixed and name not in natural and (name not in PURE or name in known)
    }
    if "friction" in natural and estimator.beta == "auto" and not {"damping", "friction"} & fixed.keys():
        laws = {"beta": SearchSpace.inna()["beta"], **laws}
    friction, damping = laws.get("friction"), laws.get("damping")
    if isinstance(friction, LogNormal) and "damping" in fixed:
        most = min(friction.high, 2 * fixed["damping"] / _MARGIN)
        laws["friction"] = replace(friction, high=most, low=min(friction.low, most / 4))
    if isinstance(damping, LogNormal) and "friction" in fixed:
        least = max(damping.low, _MARGIN * fixed["friction"] / 2)
        laws["damping"] = replace(damping, low=least, high=max(damping.high, 4 * least))
    return SearchSpace(laws)


def net_is_as_it_comes(estimator: InnaEstimator) -> bool:
    """Whether nobody has chosen the net of an estimator, so that a search may."""
    # Not of an instance: a class of a person's own may want arguments.
    return estimator.module is None and all(
        _plainly(getattr(estimator, name)) == _plainly(getattr(Parameters, name)) for name in NET_PARAMETERS
    )


def _plainly(value: Any) -> Any:
    """What a net is like as a space may hold it: several widths as "256-256"."""
    if isinstance(value, (str, numbers.Integral)):
        return value
    return "-".join(map(str, layer_sizes(value)))


def untuned(folded: FoldedTable, estimator: Any, space: SearchSpace, seed: int) -> dict[str, Any] | None:
    """What an estimator is set to, in a space's parameters, by numbers for what is "auto"; None if the space lacks it.

    Parameters
    ----------
    folded : FoldedTable
    estimator : InnaEstimator, or Pipeline that ends in one
    space : SearchSpace
        A number beyond its bounds is moved to them, such as no weight decay where it is drawn on a logarithmic scale.
    seed : int
        Of the initial weights, at which "auto" is found out, on the first fold.
    """
    net, prefix, said = as_ours(estimator), prefix_of(estimator), said_by(estimator)
    searches_pure = any(name in space or prefix + name in space for name in PURE)
    usual = usual_numbers(net, _steps_of(folded, estimator) if searches_pure else math.inf)
    said |= {name: usual[name] for name in PURE if said[name] is None and said[PURE[name]] == "auto"}
    if any(said[name] == "auto" for name in _STEPS if name in space or prefix + name in space):
        # INNA's are found as the curvature was, whatever else belongs to the method: once for both.
        method = _method_of_inna(net) if net.optimizer == DEFAULT else net._method()
        found_out = _measured(folded, estimator, seed, method)
        said |= {name: found_out[name] for name in _STEPS if said[name] == "auto"}
    if said["decay_power"] is None:
        law = DECAY_LAWS.get(said["decay"])
        said["decay_power"] = None if law is None else law.power
    said["hidden_layer_sizes"] = _plainly(net.hidden_layer_sizes)
    said |= {prefix + name: said[name] for name in (*_STEPS, *PURE, "decay_power", "hidden_layer_sizes")}
    return own_numbers(space, said)


def own_numbers(space: SearchSpace, said: Mapping[str, Any]) -> dict[str, Any] | None:
    """What an estimator is set to, by name, as a configuration of a space; None if the space lacks it."""
    found: dict[str, Any] = {}
    for name in space:
        if not space.is_active(name, found):
            continue
        value, distribution = said.get(name), space.distribution(name)
        if isinstance(distribution, FloatDistribution | IntDistribution):
            if isinstance(value, bool) or not isinstance(value, numbers.Real) or math.isnan(value):
                return None
            value = min(max(value, distribution.low), distribution.high)
        if not _lies_in(distribution, value):
            return None
        found[name] = value
    return found


def check_setting(space: SearchSpace, setting: Mapping[str, Any]) -> None:
    """Raise an error that names what of a setting does not lie in a space.

    Raises
    ------
    ValueError
        With the parameter, its value and what it may be.
    """
    for name, value in setting.items():
        if name not in space:
            raise ValueError(f"first: the space has no parameter {name!r}; it has {', '.join(space)}.")
        distribution = space.distribution(name)
        if not _lies_in(distribution, value):
            raise ValueError(f"first: {name}={value!r} lies outside of {distribution}.")


def _lies_in(distribution: BaseDistribution, value: Any) -> bool:
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except (TypeError, ValueError):  # no number, or no choice of a categorical parameter
        return False


def has_begun(study: optuna.Study) -> bool:
    """Whether a study has trials under way or done, or knows what it tries first."""
    return PORTFOLIO in study.user_attrs or any(
        t.state != TrialState.WAITING for t in study.get_trials(deepcopy=False)
    )


def try_first(study: optuna.Study, settings: Sequence[Mapping[str, Any]]) -> None:
    """Let a study that has not begun try these settings before the sampler's."""
    # Skipping what is there lets a worker that died in between, or another one that begins in this moment, go on.
    store_of(study).queue_once(study._study_id, [_plain(setting) for setting in settings], _key)
    study.set_user_attr(PORTFOLIO, len(settings))


def _plain(setting: Mapping[str, Any]) -> dict[str, Any]:
    return {n: v.item() if isinstance(v, np.generic) else v for n, v in setting.items()}


def _key(setting: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """What settings have in common that are one, their numbers to five digits: another machine may measure them anew."""
    words = ((n, f"{v:.5g}" if isinstance(v, float) else repr(v)) for n, v in setting.items())
    return tuple(sorted(words))


def _method_of_inna(estimator: InnaEstimator) -> Method:
    """What of an estimator's method INNA's curvature depends on."""
    return Method(scale_tensors=bool(estimator.scale_tensors))


def _steps_of(folded: FoldedTable, estimator: Any) -> float:
    """Steps of an epoch of an estimator's training, on the first fold."""
    net, table = as_ours(estimator), folded.encoded_for(estimator)
    stack = table.stacks(net)[0]
    _, members = next(table.members(net, stack))
    return steps_of_epoch(len(members[0].train_rows), int(net.batch_size), stack.net_for(net).minimum_rows)


def _measured(folded: FoldedTable, estimator: Any, seed: int, method: Method) -> dict[str, float]:
    """Curvature and automatic steps at an estimator's initial weights, on the first fold; measured once a table."""
    whole = clone(estimator)
    seeded = as_ours(whole).set_params(random_state=seed, **dict.fromkeys(_STEPS, "auto"))
    table = folded.encoded_for(whole)
    key = (seed, repr(method), seeded._population_key())
    if key not in table.measured:
        stack = table.stacks(seeded)[0]
        _, members = next(table.members(seeded, stack))
        population = Population(
            stack.net_for(seeded),
            stack.tensors,
            members[:1],
            seeded._loss,
            batch_size=seeded.batch_size,
            horizon=table.plan_for(seeded, 0).max_epochs,
            method=method,
        )
        table.measured[key] = population.settings_of(0)
    return table.measured[key]

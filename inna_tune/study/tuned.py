"""What a search tunes: a net, alone or as the last step of a pipeline, and what its parameters are called from outside."""

import inspect
import json
from collections.abc import Hashable, Mapping
from typing import Any, cast

from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.utils.metadata_routing import get_routing_for_object

from inna_tune.estimators.base import InnaEstimator
from inna_tune.records.describing import describe
from inna_tune.study.routing import routing_is_on

# Of a net of skorch, whose optimizer has parameters that are named by it.
_OPTIMIZER = "optimizer__"


def net_of(estimator: Any) -> Any:
    """The net itself: what a pipeline ends in."""
    while isinstance(estimator, Pipeline) and estimator.steps:
        estimator = estimator.steps[-1][1]
    return estimator


def is_ours(estimator: Any) -> bool:
    """Whether the net is an InnaClassifier or an InnaRegressor, so that folds and trials train together."""
    return isinstance(net_of(estimator), InnaEstimator)


def is_of_skorch(estimator: Any) -> bool:
    """Whether the net is one of skorch, which need not be there to ask this."""
    kinds = type(net_of(estimator)).__mro__
    return any(kind.__module__.startswith("skorch.") and kind.__name__ == "NeuralNet" for kind in kinds)


def steps_before(estimator: Any) -> Pipeline | None:
    """The transformers of a pipeline, not fitted, as a pipeline; None where there are none."""
    found: list[Any] = []
    memory = None
    while isinstance(estimator, Pipeline):
        memory = estimator.memory if memory is None else memory
        found += estimator.steps[:-1]
        estimator = estimator.steps[-1][1]
    kept = [step for _, step in found if step not in (None, "passthrough")]
    if not kept:
        return None
    return Pipeline([(f"step{i}", clone(step)) for i, step in enumerate(kept)], memory=memory)


def prefix_of(estimator: Any) -> str:
    """What stands before the names of the net's parameters, such as ``"innaclassifier__"``."""
    prefix = ""
    while isinstance(estimator, Pipeline):
        name, estimator = estimator.steps[-1]
        prefix += f"{name}__"
    return prefix


def own_name(estimator: Any, name: str) -> str | None:
    """What ``set_params`` of an estimator calls a parameter that a space names; None where there is none.

    It is the estimator's own, or else its net's, or else its net's optimizer's.
    """
    prefix, net = prefix_of(estimator), net_of(estimator)
    candidates = [name, prefix + name]
    if is_of_skorch(estimator):
        candidates.append(f"{prefix}{_OPTIMIZER}{name}")
    known = estimator.get_params()
    for candidate in candidates:
        if candidate in known or _is_of_optimizer(net, prefix, candidate):
            return candidate
    return None


def _is_of_optimizer(net: Any, prefix: str, name: str) -> bool:
    """Whether a name is that of a parameter which the optimizer of a skorch net has, and the net does not say."""
    own = name.removeprefix(prefix)
    if not is_of_skorch(net) or not own.startswith(_OPTIMIZER):
        return False
    return own.removeprefix(_OPTIMIZER) in inspect.signature(net.optimizer).parameters


def own_settings(estimator: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a space under the names that ``set_params`` of an estimator has for them."""
    return {own_name(estimator, name) or name: value for name, value in settings.items()}


def with_settings(estimator: Any, settings: Mapping[str, Any]) -> Any:
    """A clone of an estimator with settings of a space."""
    return clone(estimator).set_params(**own_settings(estimator, settings))


def said_by(estimator: Any) -> dict[str, Any]:
    """What an estimator is set to, under the names of its own and, of its net, those of the net too."""
    net, prefix = net_of(estimator), prefix_of(estimator)
    own: dict[str, Any] = net.get_params()
    return {**estimator.get_params(), **{prefix + name: value for name, value in own.items()}, **own}


def encoding_key(estimator: Any) -> Hashable:
    """Estimators whose keys are equal encode a table alike, transformers and all."""
    before = steps_before(estimator)
    own = net_of(estimator)._encoding_key()
    return own, "" if before is None else json.dumps([describe(step) for _, step in before.steps])


def fit_steps(before: Pipeline, X: Any, y: Any, weight: Any) -> Any:
    """Fit transformers to the training rows of a fold, and transform these.

    Weights go to the last step alone, unless metadata routing is on and transformers ask for them.
    """
    given = {}
    if weight is not None and routing_is_on():
        asked = get_routing_for_object(before).consumes("fit_transform", ["sample_weight"])
        given = dict.fromkeys(asked, weight)
    return before.fit_transform(X, y, **given)


def fit_whole(estimator: Any, X: Any, y: Any, weight: Any) -> Any:
    """Fit an estimator, where weights go as `fit_steps` says."""
    if weight is None:
        return estimator.fit(X, y)
    name = "sample_weight" if routing_is_on() else f"{prefix_of(estimator)}sample_weight"
    return estimator.fit(X, y, **{name: weight})


def as_ours(estimator: Any) -> InnaEstimator:
    """The net as what it is known to be."""
    return cast("InnaEstimator", net_of(estimator))

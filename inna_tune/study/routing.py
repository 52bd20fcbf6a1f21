"""scikit-learn's metadata routing: who gets the sample weights, the groups and whatever else comes with the rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn import get_config
from sklearn.utils import _safe_indexing
from sklearn.utils.metadata_routing import process_routing

from inna_tune.estimators.frames import check_weights


def routing_is_on() -> bool:
    """Whether ``sklearn.set_config(enable_metadata_routing=True)`` holds."""
    return bool(get_config()["enable_metadata_routing"])


@dataclass(frozen=True)
class Routed:
    """What came with the rows, by receiver.

    Attributes
    ----------
    weight : ndarray of float64 [n_samples] or None
        For training.
    split : dict
        For the splitter.
    score : dict
        For the scorer; what has an entry a row is cut into folds by `of_rows`.
    others : dict of str to dict
        Likewise for the metrics that are computed beside, by their names.
    """

    weight: npt.NDArray[np.float64] | None = None
    split: dict[str, Any] = field(default_factory=dict)
    score: dict[str, Any] = field(default_factory=dict)
    others: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def scored_by(self) -> dict[str, Any]:
        """What the scorer gets that training does not, by a name that says so."""
        return {
            f"{name} of the scorer": value for name, value in self.score.items() if value is not self.weight
        }


def route(
    search: Any,
    n_rows: int,
    given: Mapping[str, Any],
    *,
    takes_weights: Callable[[str], bool],
    objective: str,
    others: Sequence[str] = (),
) -> Routed:
    """Hand out what was given to ``fit``.

    Parameters
    ----------
    search : InnaSearchCV
    n_rows : int
    given : mapping
        By name; without routing "sample_weight" and "groups" alone.
    takes_weights : callable
        Whether the scorer of a metric, by its name, has a use for weights; asked without routing only, and only if there are
        weights.
    objective : str
    others : sequence of str
        Names of the metrics; of the others the search's router knows by `receiver`.

    Raises
    ------
    TypeError
        If there is more without routing, or nobody asked for it.
    ValueError
        If the weights make no sense, or (UnsetMetadataPassedError) somebody has not said whether they want them.
    """
    if routing_is_on():
        given = {name: value for name, value in given.items() if value is not None}
        routed = process_routing(search, "fit", **given)
        if foreign := sorted(set(routed.estimator.fit) - {"sample_weight"}):
            raise TypeError(
                f"the estimator asks for {foreign}, and a search fits it on folds, whose rows these do not belong to; fit the "
                "best settings on them yourself, with refit=False."
            )
        weight = check_weights(routed.estimator.fit.get("sample_weight"), n_rows)
        more = {name: dict(routed[receiver(name)].score) for name in others}
        return Routed(weight, dict(routed.splitter.split), dict(routed.scorer.score), more)
    if unknown := sorted(set(given) - {"sample_weight", "groups"}):
        raise TypeError(
            f"fit got {unknown}, which nobody here takes without metadata routing; switch it on by "
            "sklearn.set_config(enable_metadata_routing=True) and say who takes them."
        )
    weight, groups = check_weights(given.get("sample_weight"), n_rows), given.get("groups")

    def score(name: str) -> dict[str, Any]:
        return {} if weight is None or not takes_weights(name) else {"sample_weight": weight}

    split = {} if groups is None else {"groups": groups}
    return Routed(weight, split, score(objective), {name: score(name) for name in others})


def receiver(metric: str) -> str:
    """What the router of a search calls the scorer of a metric that is computed beside."""
    return f"scorer of {metric}"


def of_rows(params: dict[str, Any], rows: npt.NDArray[np.int64], n_rows: int) -> dict[str, Any]:
    """The same for some of the rows; what does not have an entry a row stays whole."""
    found = {}
    for name, value in params.items():
        has_rows = (
            hasattr(value, "__len__") and not isinstance(value, (str, dict, set)) and len(value) == n_rows
        )
        found[name] = _safe_indexing(value, rows) if has_rows else value
    return found

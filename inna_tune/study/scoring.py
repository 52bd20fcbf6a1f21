"""Scorers applied to predictions that are already there."""

import copy
import inspect
import warnings
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from sklearn.base import is_classifier
from sklearn.metrics import check_scoring, get_scorer, log_loss, make_scorer, root_mean_squared_error
from sklearn.utils.metadata_routing import get_routing_for_object

from inna_tune.estimators.predicted import PredictedClassifier as PredictedClassifier
from inna_tune.estimators.predicted import as_number as as_number
from inna_tune.estimators.predicted import sees_predictions_only as sees_predictions_only
from inna_tune.study.routing import routing_is_on
from inna_tune.study.tuned import net_of

Scorer = Callable[..., float]


class UnweightedScorerWarning(UserWarning):
    """The scorer has no use for the sample weights that were given: scores count all rows alike."""


class UndefinedScoreError(ValueError):
    """A scorer gave no finite number for predictions that are finite."""


def resolve_scorer(estimator: Any, scoring: Any, classes: npt.NDArray[Any] | None) -> Scorer:
    """The scorer of a search; higher is better.

    Parameters
    ----------
    estimator : estimator
        What is tuned. With metadata routing its own ``set_score_request`` decides whether the default scorer takes
        sample weights.
    scoring : str, callable or None
        As in scikit-learn, but None means what the net is trained on: negative log-loss for a classifier, negative root
        mean squared error for a regressor. Accuracy moves in steps of whole rows, too coarse to tell settings apart.
    classes : ndarray, optional
        All labels: where a fold lacks one, the log-loss still is that of all, and a class without training rows has no
        probability.

    Raises
    ------
    ValueError
        If scikit-learn has no scorer of that name, or several metrics are given.
    """
    if scoring is None:
        if is_classifier(estimator):
            scorer = make_scorer(
                log_loss, greater_is_better=False, response_method="predict_proba", labels=classes
            )
        else:
            scorer = make_scorer(root_mean_squared_error, greater_is_better=False)
        if routing_is_on():
            # It stands for the estimator's own ``score``, so it takes the weights if that would.
            asked = get_routing_for_object(net_of(estimator)).score.requests.get("sample_weight")
            scorer = scorer.set_score_request(sample_weight=asked)
        return cast("Scorer", scorer)
    if not (isinstance(scoring, str) or callable(scoring)):
        raise ValueError(
            f"scoring={scoring!r} must be one scorer, by name or callable: a study has one objective."
        )
    scorer = check_scoring(estimator, scoring)
    is_log_loss = quick_loss(scorer) == "log_loss" and sees_predictions_only(scorer)
    if is_log_loss and classes is not None and scorer._kwargs.get("labels") is None:
        # A copy, since the scorer given is the person's own.
        scorer = copy.copy(scorer)
        scorer._kwargs = {**scorer._kwargs, "labels": classes}
    return cast("Scorer", scorer)


def quick_loss(scorer: Scorer) -> str | None:
    """What `rung_score` may stand in for: "log_loss" or "rmse" for the scorers that None stands for, None for others."""
    function = getattr(scorer, "_score_func", None)
    if getattr(scorer, "_sign", None) != -1 or set(getattr(scorer, "_kwargs", {})) - {"labels"}:
        return None
    response = {log_loss: "predict_proba", root_mean_squared_error: "predict"}.get(function)
    if response is None or getattr(scorer, "_response_method", None) != response:
        return None
    return "log_loss" if function is log_loss else "rmse"


def rung_score(
    kind: str,
    predicted: npt.NDArray[np.float64],
    target: npt.NDArray[Any],
    weight: npt.NDArray[Any] | None,
) -> float:
    """Score at a rung, as scikit-learn's own scorer gives it up to rounding, and many times as quick on small folds.

    Parameters
    ----------
    kind : {"log_loss", "rmse"}
    predicted : ndarray of shape [n, n_classes] or [n, ...]
        Probabilities, or values.
    target : ndarray of shape [n] or [n, ...]
        Places of the classes, or values.
    weight : ndarray of shape [n], optional
    """
    if kind == "log_loss":
        chosen = predicted[np.arange(len(target)), target]
        eps = np.finfo(predicted.dtype).eps
        return float(np.average(np.log(np.clip(chosen, eps, 1 - eps)), weights=weight))
    squared = np.average((predicted - target) ** 2, axis=0, weights=weight)
    return -float(np.mean(np.sqrt(squared)))


def takes_weights(scorer: Scorer) -> bool:
    """Whether a scorer has a use for sample weights; an UnweightedScorerWarning says so if not."""
    own = getattr(scorer, "_accept_sample_weight", None)
    found = bool(own()) if own is not None else "sample_weight" in inspect.signature(scorer).parameters
    if not found:
        warnings.warn(
            f"The scorer {scorer} takes no sample_weight: all rows count alike in the scores.",
            UnweightedScorerWarning,
            stacklevel=3,
        )
    return found


def named_scorer(estimator: Any, scoring: Any) -> Scorer:
    """The scorer that a study is known by: what is given, or the one of scikit-learn that has the name."""
    by_name = scoring is None or isinstance(scoring, str)
    return cast("Scorer", get_scorer(scorer_name(estimator, scoring)) if by_name else scoring)


def scorer_name(estimator: Any, scoring: Any) -> str:
    """What a study calls its objective."""
    if scoring is None:
        return "neg_log_loss" if is_classifier(estimator) else "neg_root_mean_squared_error"
    if isinstance(scoring, str):
        return scoring
    return getattr(scoring, "__name__", None) or repr(scoring)


def describe_scorer(scorer: Any) -> str:
    """What a message calls a scorer."""
    function = getattr(scorer, "_score_func", scorer)
    return str(getattr(function, "__name__", None) or repr(function))


def of_all_classes(
    predicted: npt.NDArray[Any], own: npt.NDArray[Any], classes: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    """Probabilities with a column for every class; one that a fold was not trained on has none."""
    if len(own) == len(classes):
        return predicted
    found = np.zeros((len(predicted), len(classes)), predicted.dtype)
    found[:, np.searchsorted(classes, own)] = predicted
    return found

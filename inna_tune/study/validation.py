"""Cross-validation of an estimator, all folds trained as one population."""

import time
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone
from sklearn.exceptions import UndefinedMetricWarning

from inna_tune.engine import ordinary_tensors
from inna_tune.estimators.frames import check_weights
from inna_tune.study.evaluation import Cohort
from inna_tune.study.metrics import Metrics
from inna_tune.study.question import Question
from inna_tune.study.routing import Routed
from inna_tune.study.scoring import UndefinedScoreError, takes_weights
from inna_tune.study.tuned import as_ours, is_ours, net_of


def cross_validate(
    estimator: Any,
    X: Any,
    y: Any,
    cv: Any = None,
    *,
    scoring: Any = None,
    sample_weight: Any = None,
    groups: Any = None,
) -> dict[str, npt.NDArray[np.float64]]:
    """Score an estimator on every fold, as `sklearn.model_selection.cross_validate` does, in less time.

    The nets of all folds (times ``n_members``) are one stacked model. Each fold is encoded from its own training rows, so
    the scores are those of separate fits up to rounding.

    Parameters
    ----------
    estimator : InnaClassifier or InnaRegressor, or Pipeline that ends in one
        Stays unfitted.
    X : DataFrame or array of shape [n_samples, n_features]
    y : array of shape [n_samples]
    cv : int, splitter, iterable, "members" or None, default=None
        As in scikit-learn; None: five folds under 2,000 rows, three under 10,000, one held-out fifth above. "members": one fit
        on all rows, each of whose nets is scored on the rows that it was trained without, as by `InnaSearchCV`.
    scoring : str, callable, None, or several: list, tuple, set or dict, default=None
        As in scikit-learn, but None means negative log-loss or negative root mean squared error.
    sample_weight : array of shape [n_samples], optional
        Used in training and in scoring.
    groups : array of shape [n_samples], optional
        For the splitter.

    Returns
    -------
    dict of str to ndarray of shape [n_splits], or [n_nets]
        ``test_score``, or of several metrics ``test_NAME`` each, higher is better, NaN for a fold whose net diverged in the
        first epoch, or on which the scorer is not defined (with an UndefinedMetricWarning that names it); ``fit_time`` and
        ``score_time`` in seconds, each an equal share of the whole.

    Raises
    ------
    TypeError, ValueError
        If the estimator is another's, or a parameter, the table or the folds make no sense; where a fold can't be encoded,
        the message names it.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from inna_tune import InnaClassifier, cross_validate
    >>> X, y = load_iris(return_X_y=True, as_frame=True)
    >>> net = InnaClassifier(hidden_layer_sizes=(8,), max_epochs=20, random_state=0)
    >>> found = cross_validate(net, X, y, cv=3, scoring="accuracy")
    >>> bool(found["test_score"].mean() > 0.8)
    True
    """
    if not is_ours(estimator):
        raise TypeError(
            f"estimator={estimator!r} must be an InnaClassifier or an InnaRegressor, or a pipeline that ends in one; "
            "for other models use sklearn.model_selection.cross_validate."
        )
    model = clone(estimator)
    as_ours(model)._check_parameters()
    if y is None:
        raise ValueError("cross_validate requires y to be passed, but the target y is None.")

    def routed(n_rows: int, metrics: Metrics) -> Routed:
        # Here the weights come by name, and say so themselves: routing has nothing to decide.
        weight = check_weights(sample_weight, n_rows)
        score = {
            name: {} if weight is None or not takes_weights(scorer) else {"sample_weight": weight}
            for name, scorer in metrics.scorers.items()
        }
        others = {name: score[name] for name in metrics.others}
        return Routed(weight, {} if groups is None else {"groups": groups}, score[metrics.objective], others)

    question = Question.of(clone(net_of(model)), model, X, y, cv=cv, scoring=scoring, route=routed)
    metrics = question.metrics
    began = time.monotonic()
    with ordinary_tensors():
        cohort = Cohort(question.folded(), [as_ours(model)])
        cohort.run()
    trained = time.monotonic()
    scores = {
        name: cohort.scores(0, scorer, params=question.routed.others.get(name))
        for name, scorer in metrics.scorers.items()
    }
    ended, n_splits = time.monotonic(), len(scores[metrics.objective])
    for name, scorer in metrics.scorers.items():
        try:
            cohort.check(0, scorer, scores[name])
        except UndefinedScoreError as error:
            warnings.warn(str(error), UndefinedMetricWarning, stacklevel=2)
    return {
        "fit_time": np.full(n_splits, (trained - began) / n_splits),
        "score_time": np.full(n_splits, (ended - trained) / n_splits),
        **{f"test_{name}": np.array(of_folds) for name, of_folds in scores.items()},
    }

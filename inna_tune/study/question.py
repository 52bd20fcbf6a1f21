"""What is asked of a table: the rows and their target, the folds they are cut into, and the score of a fold."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import clone, is_classifier
from sklearn.exceptions import DataConversionWarning
from sklearn.utils.validation import check_consistent_length

from inna_tune.estimators import InnaClassifier, InnaRegressor
from inna_tune.estimators.base import InnaEstimator
from inna_tune.estimators.frames import as_frame
from inna_tune.estimators.splitting import Rows
from inna_tune.estimators.targets import read_labels
from inna_tune.records.fingerprint import fingerprint
from inna_tune.study.budget import Budget
from inna_tune.study.folding import FoldedTable, sliceable
from inna_tune.study.left_out import LeftOutTable
from inna_tune.study.metrics import Metrics
from inna_tune.study.routing import Routed
from inna_tune.study.scoring import Scorer, named_scorer, scorer_name
from inna_tune.study.splits import MEMBERS, NoRowsLeftOutError, resolve_splits
from inna_tune.study.tuned import is_ours, net_of


@dataclass(frozen=True)
class Question:
    """A table with its target, checked, and by which folds and score an estimator is judged on it.

    ``X`` is as it was given, if scikit-learn can cut it into rows; ``target`` as `read_target` gives it, ``labels`` the same
    of numpy's; ``metrics`` what a fold is scored by; ``splitter`` what the folds are made by. Where that is "members", a trial
    is one fit on all rows, which are those of the one split there is.
    """

    estimator: Any
    X: Any
    frame: pd.DataFrame
    target: Any
    labels: npt.NDArray[Any]
    routed: Routed
    metrics: Metrics
    splitter: Any
    splits: list[tuple[Rows, Rows]]

    @classmethod
    def of(
        cls,
        owner: Any,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        cv: Any = None,
        scoring: Any = None,
        refit: Any = False,
        route: Callable[[int, Metrics], Routed] = lambda n_rows, metrics: Routed(),
        stacklevel: int = 2,
    ) -> Self:
        """Check what was given, before anything is stored or trained.

        ``owner`` gets the names of the columns, and ``estimator`` stays unfitted; X, y, cv, scoring and refit
        are as for `InnaSearchCV`; ``route`` says by number of rows and metrics who gets what came with the rows;
        ``stacklevel`` counts the calls up to the person's, for warnings.

        Raises
        ------
        ValueError
            If table, target, scoring or folds make no sense.
        """
        frame = as_frame(owner, X, reset=True)
        check_consistent_length(frame, y)
        classifier = is_classifier(estimator)
        target = read_target(y, classifier=classifier, stacklevel=stacklevel + 1)
        reader = clone(net_of(estimator))
        if not is_ours(estimator):
            reader = InnaClassifier() if classifier else InnaRegressor()
        labels = reader._plain_target(target)
        # Learning the labels here lets a target that makes no sense fail before anything is stored.
        reader._fit_target(labels, None)
        metrics = Metrics.of(estimator, scoring, np.unique(labels) if classifier else None, refit=refit)
        routed = route(len(frame), metrics)
        if isinstance(cv, str) and cv == MEMBERS:
            _check_members(estimator, routed)
            everything = np.arange(len(frame), dtype=np.int64)
            splitter, splits = cv, [(everything, everything)]
        else:
            splitter, splits = resolve_splits(cv, frame, labels, routed.split, classifier=classifier)
        rows = sliceable(X, frame)
        return cls(estimator, rows, frame, target, labels, routed, metrics, splitter, splits)

    @property
    def scorer(self) -> Scorer:
        """Of the objective."""
        return self.metrics.scorer

    @property
    def others(self) -> dict[str, tuple[Scorer, dict[str, Any]]]:
        """Scorers of the metrics that are computed beside, each with what it gets beside rows and labels."""
        return {
            name: (scorer, self.routed.others.get(name, {})) for name, scorer in self.metrics.others.items()
        }

    @property
    def is_by_members(self) -> bool:
        """Whether a trial is one fit, whose nets are scored on the rows that they left out."""
        return isinstance(self.splitter, str)

    @property
    def n_scores(self) -> int:
        """Folds, or nets of a fit of the estimator as it is, each of which gives a score."""
        if not self.is_by_members:
            return len(self.splits)
        weight = self.routed.weight
        n_rows = len(self.frame) if weight is None else int((weight > 0).sum())
        return int(self.estimator._plan_for(n_rows).n_members)

    @property
    def task(self) -> str:
        if not is_classifier(self.estimator):
            return "regression"
        return "binary" if len(np.unique(self.labels)) == 2 else "multiclass"

    def folded(self, budget: Budget | None = None, known: FoldedTable | None = None) -> FoldedTable:
        """The table, encoded for every fold: the known one, where that is of this question.

        Raises
        ------
        OutOfTimeError
            Where that would take too much of a budget.
        NoRowsLeftOutError
            Where nets that are to be scored on the rows which they leave out leave out none.
        """
        before_fold = None
        if budget is not None:
            before_fold = partial(budget.check_preparation, steps=len(self.splits) + 1)
        weight, score = self.routed.weight, self.routed.score
        asked = self.estimator, self.X, self.target, weight, self.splits, score
        kind = LeftOutTable if self.is_by_members else FoldedTable
        found = known
        if not (isinstance(found, kind) and found.is_of(*asked)):
            found = kind(*asked, before_fold=before_fold)
        if isinstance(found, LeftOutTable):
            found.left_out(self.estimator)
        return found

    def fingerprint(self, space: dict[str, Any] | None) -> dict[str, Any]:
        """Describe the question, with a space as JSON."""
        return fingerprint(
            self.frame,
            self.target,
            task=self.task,
            space=space,
            cv=self.splitter,
            splits=self.splits,
            metric=scorer_name(self.estimator, self.metrics.given),
            scorer=named_scorer(self.estimator, self.metrics.given),
            estimator=self.estimator,
            split=self.routed.split,
            rows={"sample weights": self.routed.weight, **self.routed.scored_by},
        )


def _check_members(estimator: Any, routed: Routed) -> None:
    """Refuse what has no nets that each leave out rows of one fit, as far as can be seen before the table is encoded."""
    says = f"cv={MEMBERS!r}: a trial is one fit, whose nets are scored on the rows that each was trained without; "
    if not isinstance(estimator, InnaEstimator):
        why = (
            "its transformers would learn from all rows"
            if is_ours(estimator)
            else "it says not which those are"
        )
        raise ValueError(
            f"{says}estimator is a {type(estimator).__name__}, and {why}. Give folds, such as cv=5, or an InnaClassifier or "
            "InnaRegressor alone."
        )
    if not estimator.early_stopping:
        raise NoRowsLeftOutError(
            f"{says}with early_stopping=False they train on all rows. Set it to True, or give folds, such as cv=5."
        )
    if routed.split:
        raise ValueError(
            f"{says}which rows these are is drawn without regard to {', '.join(routed.split)}. Give a splitter that "
            "takes them, such as GroupKFold()."
        )


def read_target(y: Any, *, classifier: bool, stacklevel: int) -> Any:
    """A target as the folds are cut from it.

    Parameters
    ----------
    y : array, list, Series or DataFrame of shape [n_samples], [n_samples, 1] or [n_samples, n_targets]
    classifier : bool
        Labels in one column become one-dimensional, with a DataConversionWarning, as scikit-learn's classifiers make them;
        and objects that are all numbers, or all truth values, become those.
    stacklevel : int
        Calls up to the person's, for the warning.

    Returns
    -------
    ndarray, Series or DataFrame
    """
    target = y if hasattr(y, "iloc") else np.asarray(y)
    if classifier and target.ndim == 2 and target.shape[1] == 1:
        warnings.warn(
            "A column-vector y was passed when a 1d array was expected. Please change the shape of y to (n_samples,), for "
            "example using ravel().",
            DataConversionWarning,
            stacklevel=stacklevel + 1,
        )
        target = target.iloc[:, 0] if hasattr(target, "iloc") else target.ravel()
    if classifier and target.ndim == 1 and target.dtype == object:
        labels = read_labels(target)
        if labels.dtype != object:
            # Numbers and truth values as objects, which scikit-learn's metrics take for labels of no known kind.
            target = target.astype(labels.dtype) if isinstance(target, pd.Series) else labels
    return target

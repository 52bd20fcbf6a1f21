"""Models of scikit-learn that a net is compared with, tuned on the same folds by as many trials of a study of their own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
import pandas as pd
from optuna.trial import Trial, TrialState
from sklearn.base import clone

from inna_tune import clock
from inna_tune.records.fingerprint import fingerprint
from inna_tune.space import Integer, LogNormal, LogUniform, SearchSpace, Uniform
from inna_tune.study.budget import Budget
from inna_tune.study.callbacks import Callback
from inna_tune.study.job import Beginning
from inna_tune.study.run import StudyOptions, run_study
from inna_tune.study.running import TrialRunner
from inna_tune.study.scoring import (
    PredictedClassifier,
    named_scorer,
    of_all_classes,
    resolve_scorer,
    scorer_name,
)
from inna_tune.study.splits import resolve_splits

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


@dataclass(frozen=True)
class Baseline:
    """A model of scikit-learn with what is tuned of it.

    Attributes
    ----------
    words : str
    make : callable
        Gives the unfitted estimator, ``make(classifier=True)`` or ``make(classifier=False)``.
    spaces : dict of str to SearchSpace
        For "classification" and "regression", over the names of the estimator's parameters.
    first : dict of str to value
        Settings of the first trial: scikit-learn's own, as far as the space has them.
    """

    words: str
    make: Callable[..., Any]
    spaces: Mapping[str, SearchSpace]
    first: Mapping[str, Any]


# Imported on use, here and below: they take a second, which a process that compares nothing need not wait.
def _boosting(*, classifier: bool) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    kind = HistGradientBoostingClassifier if classifier else HistGradientBoostingRegressor
    return kind(categorical_features="from_dtype", early_stopping=False)


def _linear(*, classifier: bool) -> Any:
    from sklearn.linear_model import LogisticRegression, Ridge

    return LogisticRegression(max_iter=1000) if classifier else Ridge()


_TREES = SearchSpace(
    {
        "learning_rate": LogNormal(0.07, 0.9, low=0.005, high=0.5),
        "max_iter": Integer(LogUniform(25, 600)),
        "max_leaf_nodes": Integer(LogUniform(4, 128)),
        "min_samples_leaf": Integer(LogUniform(3, 100)),
        "l2_regularization": LogUniform(1e-8, 10.0),
        "max_features": Uniform(0.3, 1.0),
    }
)

BASELINES: dict[str, Baseline] = {
    "hgb": Baseline(
        "histogram gradient boosting",
        _boosting,
        {"classification": _TREES, "regression": _TREES},
        {
            "learning_rate": 0.1,
            "max_iter": 100,
            "max_leaf_nodes": 31,
            "min_samples_leaf": 20,
            "l2_regularization": 1e-8,
            "max_features": 1.0,
        },
    ),
    "linear": Baseline(
        "logistic or ridge regression",
        _linear,
        {
            "classification": SearchSpace({"C": LogUniform(1e-4, 1e4)}),
            "regression": SearchSpace({"alpha": LogUniform(1e-4, 1e4)}),
        },
        {"C": 1.0, "alpha": 1.0},
    ),
}


def tune_baseline(
    kind: str,
    X: pd.DataFrame,
    y: pd.Series,
    *,
    task: str,
    n_trials: int,
    storage: Any,
    study_name: str | None,
    resume: bool = False,
    timeout: float | None = None,
    cv: Any = None,
    seed: int = 0,
    callbacks: Sequence[Callback] = (),
    allow_mismatch: bool = False,
) -> optuna.Study:
    """Tune a model of scikit-learn as `InnaSearchCV` tunes a net: the same folds, the same score, as many trials.

    skrub's ``tabular_pipeline`` prepares the table for the model, from each fold's training rows. The first trial has
    scikit-learn's own settings. No trial is pruned.

    Parameters
    ----------
    kind : str
        One of `BASELINES`.
    X : DataFrame of shape [n_samples, n_features]
    y : Series of shape [n_samples]
    task : {"binary", "multiclass", "regression"}
    n_trials, storage, study_name, resume, timeout, cv, callbacks, allow_mismatch
        As in :class:`inna_tune.InnaSearchCV`.
    seed : int
        Of the sampler and of the models; a resumed study keeps its first one.

    Returns
    -------
    optuna.Study

    Raises
    ------
    ValueError
        If there is no such baseline.
    MismatchError, StorageError
        If the study is another's, or cannot be used.
    """
    baseline = _find(kind)
    classifier = task != "regression"
    budget = None if timeout is None else Budget(clock.now() + timeout)
    model = baseline.make(classifier=classifier)
    splitter, splits = resolve_splits(cv, X, y, {}, classifier=classifier)
    asked = partial(
        fingerprint,
        X,
        y,
        task=task,
        cv=splitter,
        splits=splits,
        metric=scorer_name(model, None),
        scorer=named_scorer(model, None),
        estimator=model,
    )
    space = baseline.spaces["classification" if classifier else "regression"]
    options = StudyOptions(
        n_trials=n_trials,
        storage=storage,
        study_name=study_name,
        resume=resume,
        seed=seed,
        seed_words=f"seed={seed}",
        population=1,
        callbacks=callbacks,
        allow_mismatch=allow_mismatch,
    )
    first = {name: value for name, value in baseline.first.items() if name in space}
    run = run_study(
        lambda: PipelineEvaluation(model, X, y, splits, space, first), asked, options, budget=budget
    )
    return run.study


def fit_baseline(
    kind: str, X: pd.DataFrame, y: pd.Series, params: Mapping[str, Any], *, task: str, seed: int
) -> Any:
    """A baseline with given settings, fitted; it predicts from tables as they come.

    Parameters
    ----------
    kind, task, seed
        As for `tune_baseline`.
    X : DataFrame of shape [n_samples, n_features]
    y : Series of shape [n_samples]
    params : mapping
        Of the estimator, such as a trial's.

    Returns
    -------
    sklearn.pipeline.Pipeline
    """
    baseline = _find(kind)
    model = baseline.make(classifier=task != "regression")
    return _pipeline(model, params, seed).fit(X, y)


def _find(kind: str) -> Baseline:
    if kind not in BASELINES:
        raise ValueError(f"baseline {kind!r} must be one of {', '.join(BASELINES)}")
    return BASELINES[kind]


def _pipeline(model: Any, params: Mapping[str, Any], seed: int) -> "Pipeline":
    from skrub import tabular_pipeline

    return tabular_pipeline(clone(model).set_params(**params, random_state=seed))


class PipelineEvaluation:
    """Scores settings of a model on folds, each prepared once, from its training rows: no setting that is tuned changes that.

    The model is unfitted; ``first`` are the settings of the first trial.
    """

    def __init__(
        self,
        model: Any,
        X: pd.DataFrame,
        y: pd.Series,
        splits: Sequence[Any],
        space: SearchSpace,
        first: dict[str, Any],
    ) -> None:
        from skrub import tabular_pipeline

        self.model, self._space, self._first = model, space, first
        self.classes = np.unique(y) if hasattr(model, "predict_proba") else None
        self.scorer = resolve_scorer(model, None, self.classes)
        self.parts = []
        for train, test in splits:
            prepare = tabular_pipeline(model)[:-1]
            known = prepare.fit_transform(X.iloc[train], y.iloc[train])
            self.parts.append((known, y.iloc[train], prepare.transform(X.iloc[test]), y.iloc[test]))

    def begin(self, study: optuna.Study, seed: int) -> Beginning:
        """The space, and the first trial."""
        return Beginning(self._space, lambda: [self._first])

    def prepare(self, runner: TrialRunner, trial: Trial, settings: dict[str, Any]) -> Any:
        """A trial and its settings."""
        return trial, settings

    def run(self, runner: TrialRunner, prepared: Sequence[tuple[Trial, dict[str, Any]]]) -> None:
        """Score and tell trials, one after the other."""
        for trial, settings in prepared:
            began = clock.now()
            notes: dict[str, Any] = {}
            error: Exception | None = None
            try:
                with runner.at_risk([trial]):
                    notes["scores"] = self.scores(settings, runner.job.seed)
            except Exception as raised:
                error = raised
            notes["seconds"] = round(clock.now() - began, 4)
            if error is None:
                runner.tell(trial, TrialState.COMPLETE, float(np.mean(notes["scores"])), notes)
            else:
                runner.fail(trial, error, notes)

    def scores(self, params: Mapping[str, Any], seed: int) -> list[float]:
        """Score of settings on every fold."""
        found = []
        for X, y, X_test, y_test in self.parts:
            fitted = _pipeline(self.model, params, seed)[-1].fit(X, y)
            if self.classes is not None:
                known = of_all_classes(fitted.predict_proba(X_test), fitted.classes_, self.classes)
                # Those of float32 sum to one in float32 only.
                known = known.astype(np.float64)
                fitted = PredictedClassifier(known / known.sum(1, keepdims=True), self.classes)
            found.append(float(self.scorer(fitted, X_test, y_test)))
        if not np.isfinite(found).all():
            raise ValueError(f"scores of the folds are not finite: {found}")
        return found

"""Models of scikit-learn that a net is compared with, tuned on the same folds by as many trials of a study of their own."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.trial import Trial, TrialState
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline
from skrub import tabular_pipeline

from inna_tune.records.attributes import PORTFOLIO, REASON, SEED
from inna_tune.records.fingerprint import check, fingerprint
from inna_tune.space import Integer, LogNormal, LogUniform, PriorSampler, SearchSpace, Uniform
from inna_tune.store.asking import ask, tell
from inna_tune.store.errors import StorageError
from inna_tune.store.opening import create_study, open_storage, storage_errors
from inna_tune.store.workers import Worker, resume_summary
from inna_tune.study.beginning import try_first
from inna_tune.study.callbacks import Callback, call_back, is_stopped
from inna_tune.study.scoring import (
    PredictedClassifier,
    PredictedRegressor,
    named_scorer,
    resolve_scorer,
    scorer_name,
)
from inna_tune.study.splits import resolve_splits

logger = logging.getLogger(__name__)

_LOOK_EVERY = 0.5  # seconds between looks at what other workers still run


@dataclass(frozen=True)
class Baseline:
    """A model of scikit-learn with what is tuned of it.

    Attributes
    ----------
    words : str
    classifier, regressor : estimator
        Unfitted.
    spaces : dict of str to SearchSpace
        For "classification" and "regression", over the names of the estimator's parameters.
    first : dict of str to value
        Settings of the first trial: scikit-learn's own, as far as the space has them.
    """

    words: str
    classifier: Any
    regressor: Any
    spaces: Mapping[str, SearchSpace]
    first: Mapping[str, Any]


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
        HistGradientBoostingClassifier(categorical_features="from_dtype", early_stopping=False),
        HistGradientBoostingRegressor(categorical_features="from_dtype", early_stopping=False),
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
        LogisticRegression(max_iter=1000),
        Ridge(),
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
    deadline = None if timeout is None else time.monotonic() + timeout
    model = baseline.classifier if classifier else baseline.regressor
    space = baseline.spaces["classification" if classifier else "regression"]
    splitter, splits = resolve_splits(cv, X, y, {}, classifier=classifier)
    opened = open_storage(storage)
    study = create_study(opened, study_name, "maximize", resume=resume)
    described = fingerprint(
        X,
        y,
        task=task,
        space=space.to_json(),
        cv=splitter,
        splits=splits,
        metric=scorer_name(model, None),
        scorer=named_scorer(model, None),
        estimator=model,
    )
    check(study, described, allow_mismatch=allow_mismatch)
    if SEED not in study.user_attrs:
        study.set_user_attr(SEED, seed)
    seed = study.user_attrs[SEED]
    study.sampler = PriorSampler(None, space, seed=seed)
    if PORTFOLIO not in study.user_attrs:
        try_first(study, [{name: value for name, value in baseline.first.items() if name in space}])
    folds = _Folds(model, X, y, splits)
    with Worker(opened) as worker:
        while not is_stopped(study) and (deadline is None or time.monotonic() < deadline):
            trial = ask(study, worker, n_trials)
            if trial is not None:
                _run(study, worker, trial, space, folds, seed, callbacks)
            elif resume_summary(study, n_trials).running:
                time.sleep(_LOOK_EVERY)
            else:
                break
    return study


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
    model = baseline.regressor if task == "regression" else baseline.classifier
    return _pipeline(model, params, seed).fit(X, y)


def _find(kind: str) -> Baseline:
    if kind not in BASELINES:
        raise ValueError(f"baseline {kind!r} must be one of {', '.join(BASELINES)}")
    return BASELINES[kind]


def _pipeline(model: Any, params: Mapping[str, Any], seed: int) -> Pipeline:
    return tabular_pipeline(clone(model).set_params(**params, random_state=seed))


class _Folds:
    """The folds, each prepared once, from its training rows: no setting that is tuned changes that."""

    def __init__(self, model: Any, X: pd.DataFrame, y: pd.Series, splits: Sequence[Any]) -> None:
        self.model = model
        self.classes = np.unique(y) if hasattr(model, "predict_proba") else None
        self.scorer = resolve_scorer(model, None, self.classes)
        self.parts = []
        for train, test in splits:
            prepare = tabular_pipeline(model)[:-1]
            known = prepare.fit_transform(X.iloc[train], y.iloc[train])
            self.parts.append((known, y.iloc[train], prepare.transform(X.iloc[test]), y.iloc[test]))

    def scores(self, params: Mapping[str, Any], seed: int) -> list[float]:
        """Score of settings on every fold."""
        found = []
        for X, y, X_test, y_test in self.parts:
            fitted = _pipeline(self.model, params, seed)[-1].fit(X, y)
            known: Any
            if self.classes is None:
                known = PredictedRegressor(fitted.predict(X_test))
            else:
                # A fold may lack a rare class.
                probabilities = np.zeros((len(X_test), len(self.classes)))
                probabilities[:, np.searchsorted(self.classes, fitted.classes_)] = fitted.predict_proba(
                    X_test
                )
                # Those of float32 sum to one in float32 only.
                known = PredictedClassifier(probabilities / probabilities.sum(1, keepdims=True), self.classes)
            found.append(float(self.scorer(known, X_test, y_test)))
        return found


def _run(
    study: optuna.Study,
    worker: Worker,
    trial: Trial,
    space: SearchSpace,
    folds: _Folds,
    seed: int,
    callbacks: Sequence[Callback],
) -> None:
    began = time.monotonic()
    state, value = TrialState.COMPLETE, None
    notes: dict[str, Any] = {}
    try:
        with storage_errors(study._storage):
            settings = space.suggest(trial)
        scores = folds.scores(settings, seed)
        if not np.isfinite(scores).all():
            raise ValueError(f"scores of the folds are not finite: {scores}")
        value, notes["scores"] = float(np.mean(scores)), scores
    except StorageError:
        raise  # the trial is not to blame
    except Exception as error:
        logger.warning("trial %d failed: %s: %s", trial.number, type(error).__name__, error)
        state, notes[REASON] = TrialState.FAIL, f"{type(error).__name__}: {error}"
    notes["seconds"] = round(time.monotonic() - began, 4)
    for name, content in notes.items():
        trial.set_user_attr(name, content)
    if tell(study, worker, trial, value, state):
        call_back(callbacks, study, trial._trial_id)

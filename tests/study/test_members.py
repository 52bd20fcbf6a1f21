"""cv="members": a trial is one fit, each of its nets scored on the rows that it was trained without."""

import copy

import numpy as np
import optuna
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.metrics import get_scorer, log_loss, make_scorer, mean_absolute_error
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from inna_tune import InnaClassifier, InnaRegressor, InnaSearchCV, SearchSpace, cross_validate
from inna_tune.engine.population import Population
from inna_tune.estimators import EnsembleClassifier, EnsembleRegressor
from inna_tune.estimators.member_plan import parts_left_out
from inna_tune.records.attributes import ENSEMBLE, FINGERPRINT
from inna_tune.records.fingerprint import MismatchError
from inna_tune.space import Categorical, LogUniform
from inna_tune.study import kept
from inna_tune.study.group import Group
from inna_tune.study.left_out import together
from inna_tune.study.signals import Stopped

IRIS = load_iris(return_X_y=True, as_frame=True)
NET = InnaClassifier(hidden_layer_sizes=(4,), numeric_embedding="none", max_epochs=4)
REGRESSOR = InnaRegressor(hidden_layer_sizes=(4,), numeric_embedding="none", max_epochs=4)
SPACE = SearchSpace({"lr": LogUniform(0.01, 2.0), "weight_decay": Categorical([0.0, 1e-3])})
NEAR = {"rtol": 1e-6, "atol": 1e-9}


def search(estimator=NET, space=SPACE, **changes):
    common = {"n_trials": 3, "cv": "members", "random_state": 0, "population": 3, "error_score": "raise"}
    return InnaSearchCV(estimator, space, **(common | changes))


def alone(model, i):
    """One net of a fitted model."""
    found = copy.copy(model)
    found.weights_ = model.weights_[[i]]
    return found


def rows_left_out(model, X, y, weight=None):
    """By a second way, the rows that each net of a fit on a table left out, by their places in the table."""
    present = np.arange(len(X)) if weight is None else np.flatnonzero(weight)
    fresh = clone(model)
    table = fresh._encode_for_fit(X, y, weight)
    plan = fresh._plan_for(len(present))
    seed, *_ = fresh._seeds(plan.n_members)
    parts = parts_left_out(plan, table.x, table.target, seed) or [fresh._split(table.target, seed)] * plan.n_members
    return [present[left_out] for _, left_out in parts]


def same_fit(found, trial, X, y, weight=None):
    """What a person gets who fits a trial's settings."""
    seed = trial.user_attrs["seed"]
    given = {} if weight is None else {"sample_weight": weight}
    return clone(found.estimator).set_params(**trial.params, random_state=seed).fit(X, y, **given)


def own_metric(model, X, y):
    """One that asks for more than predictions, and changes what it is given."""
    score = -mean_absolute_error(np.asarray(y), model.predict(X)) - model.weights_.shape[0]
    X.iloc[:, 0] = 0.0
    return score


TASKS = {
    "log-loss": (NET, None, lambda m, X, y, w: -log_loss(y, m.predict_proba(X), labels=[0, 1, 2], sample_weight=w)),
    "accuracy": (NET, "accuracy", lambda m, X, y, w: get_scorer("accuracy")(m, X, y, sample_weight=w)),
    "roc_auc": (NET, "roc_auc", lambda m, X, y, w: get_scorer("roc_auc")(m, X, y, sample_weight=w)),
    "RMSE": (REGRESSOR, None, lambda m, X, y, w: -np.sqrt(np.average((y - m.predict(X)) ** 2, weights=w))),
    "made": (
        REGRESSOR,
        make_scorer(mean_absolute_error, greater_is_better=False),
        lambda m, X, y, w: -mean_absolute_error(y, m.predict(X), sample_weight=w),
    ),
    "own": (REGRESSOR, own_metric, lambda m, X, y, w: own_metric(m, X.copy(), y)),
}


@settings(max_examples=6, deadline=None)
@given(
    task=st.sampled_from(sorted(TASKS)),
    n_rows=st.integers(60, 90),
    weighted=st.booleans(),
    n_members=st.sampled_from(["auto", "auto", 1, 2]),
    seed=st.integers(0, 99),
)
@pytest.mark.filterwarnings("ignore:The scorer:UserWarning")
def test_a_trials_value_is_the_mean_over_the_nets_of_that_fit(task, n_rows, weighted, n_members, seed):
    net, scoring, by_hand = TASKS[task]
    if n_members != "auto":
        n_rows += 150  # of fewer than 200 rows none are held out of nets that have the same
    rng = np.random.default_rng(seed)
    X = pd.DataFrame({"a": rng.normal(size=n_rows), "b": rng.normal(size=n_rows), "c": rng.choice(list("xyz"), n_rows)})
    signal = X["a"] + rng.normal(size=n_rows)
    y = signal if net is REGRESSOR else pd.cut(signal, [-9, 0, 9] if task == "roc_auc" else [-9, -0.5, 0.5, 9], labels=False)
    weight = rng.integers(0, 3, n_rows).astype(float) if weighted else None
    found = search(clone(net).set_params(n_members=n_members), scoring=scoring, n_trials=2)
    found.fit(X, y, sample_weight=weight)
    for row, trial in enumerate(found.study_.trials):
        if trial.state.name != "COMPLETE":
            continue
        model = same_fit(found, trial, X, y, weight)
        left_out = rows_left_out(model, X, y, weight)
        assert len(left_out) == len(model.weights_) == found.n_splits_ == (8 if n_members == "auto" else n_members)
        expected = [
            by_hand(alone(model, i), X.iloc[rows], y.iloc[rows], None if weight is None else weight[rows])
            for i, rows in enumerate(left_out)
        ]
        np.testing.assert_allclose(trial.user_attrs["scores"], expected, rtol=1e-5, atol=1e-7)
        assert trial.value == pytest.approx(np.mean(trial.user_attrs["scores"]))
        assert found.cv_results_["split0_test_score"][row] == trial.user_attrs["scores"][0]
    best = same_fit(found, found.study_.trials[found.cv_results_["number"][found.best_index_]], X, y, weight)
    if n_members != 1:
        assert best.weights_.numpy().tobytes() == found.best_estimator_.weights_.numpy().tobytes()
    np.testing.assert_allclose(best.predict(X), found.predict(X), rtol=1e-4)

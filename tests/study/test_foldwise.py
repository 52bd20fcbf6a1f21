"""Nets of skorch, trained by our INNA, fold by fold."""

import sqlite3

import numpy as np
import pytest
import torch
from optuna.pruners import MedianPruner
from optuna.trial import TrialState
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import log_loss, root_mean_squared_error
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNet, NeuralNetClassifier, NeuralNetRegressor

from inna_tune import INNA, InnaSearchCV, SearchSpace
from inna_tune.records.attributes import CURVATURE
from inna_tune.space import LogNormal, LogUniform, Uniform
from inna_tune.store.workers import Worker
from inna_tune.study import MismatchError

ROWS, Y = load_breast_cancer(return_X_y=True)
X, Y = StandardScaler().fit_transform(ROWS[:100, :5]).astype("float32"), Y[:100]
CV = KFold(2, shuffle=True, random_state=0)


class Net(torch.nn.Module):
    def __init__(self, width=4, out=2):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(5, width), torch.nn.ReLU(), torch.nn.Linear(width, out)
        )

    def forward(self, X):
        return self.layers(X)


def net(**changes):
    given = {"criterion": torch.nn.CrossEntropyLoss, "optimizer": INNA, "max_epochs": 3, "verbose": 0}
    return NeuralNetClassifier(Net, **(given | changes))


def search(estimator=None, space=None, **changes):
    estimator = net() if estimator is None else estimator
    options = {"n_trials": 3, "cv": CV, "random_state": 0, "scoring": "neg_log_loss"}
    return InnaSearchCV(estimator, space, **(options | changes))


def score(model, trial):
    scores = []
    for train, test in CV.split(X):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(trial.user_attrs["seed"])
            own = clone(model).fit(X[train], Y[train])
        scores.append(-log_loss(Y[test], own.predict_proba(X[test])))
    return scores


def test_its_priors_stand_at_the_curvature_of_the_net():
    found = search().fit(X, Y)
    assert found.study_.user_attrs[CURVATURE] > 0
    assert set(found.study_.trials[0].params) == {"alpha", "beta", "lr", "weight_decay"}
    assert set(found.best_params_) == {
        "optimizer__alpha",
        "optimizer__beta",
        "lr",
        "optimizer__weight_decay",
    }
    best = found.best_estimator_
    assert isinstance(best, NeuralNetClassifier)
    group = best.optimizer_.param_groups[0]
    assert group["alpha"] == found.best_params_["optimizer__alpha"]
    assert group["lr"] == found.best_params_["lr"]
    assert found.predict_proba(X).shape == (100, 2)


def test_a_trial_is_separate_fits_of_its_settings():
    before = torch.random.get_rng_state()
    space = SearchSpace(
        {"lr": LogUniform(0.01, 0.2), "optimizer__alpha": LogNormal(0.3, 0.5, low=0.01, high=3.0)}
    )
    found = search(space=space).fit(X, Y)
    assert torch.equal(before, torch.random.get_rng_state())
    for trial in found.study_.trials:
        if trial.state == TrialState.COMPLETE:
            expected = score(net(**trial.params), trial)
            assert trial.user_attrs["scores"] == pytest.approx(expected)
            assert trial.value == pytest.approx(np.mean(expected))
    again = search(space=space).fit(X, Y)
    assert [t.values for t in again.study_.trials] == [t.values for t in found.study_.trials]
    assert np.array_equal(again.predict_proba(X), found.predict_proba(X))


def test_what_the_net_is_set_to_comes_first():
    space = SearchSpace({"lr": LogUniform(0.01, 0.2), "optimizer__alpha": LogUniform(0.01, 2.0)})
    own = net(lr=0.05, optimizer__alpha=0.7)
    found = search(own, space, n_trials=1, first="default").fit(X, Y)
    assert found.study_.trials[0].params == {"lr": 0.05, "optimizer__alpha": 0.7}


def test_a_pipeline_around_it_is_fitted_per_fold():
    space = SearchSpace({"lr": LogUniform(0.01, 0.2), "beta": Uniform(0.05, 0.2)})
    whole = make_pipeline(StandardScaler(), net())
    found = search(whole, space, n_trials=2).fit(X, Y)
    assert set(found.best_params_) == {"neuralnetclassifier__lr", "neuralnetclassifier__optimizer__beta"}
    expected = score(clone(whole).set_params(**found.best_params_), found.study_.best_trial)
    assert found.best_score_ == pytest.approx(np.mean(expected))
    assert search(whole, n_trials=1).fit(X, Y).study_.user_attrs[CURVATURE] > 0


def test_a_regression_with_several_metrics():
    target = X[:, :1] * 2 + 1
    own = NeuralNetRegressor(Net, module__out=1, optimizer=INNA, max_epochs=3, verbose=0)
    metrics = ["r2", "neg_root_mean_squared_error"]
    found = search(own, n_trials=2, scoring=metrics, refit="r2").fit(X, target)
    assert np.isfinite(found.cv_results_["mean_test_neg_root_mean_squared_error"]).any()
    assert found.best_score_ == found.cv_results_["mean_test_r2"][found.best_index_]
    assert root_mean_squared_error(target, found.predict(X)) < 5


def test_it_resumes_its_own_study(tmp_path):
    options = {"storage": f"sqlite:///{tmp_path}/s.db", "study_name": "s", "population": 1}
    search(n_trials=1, **options).fit(X, Y)
    found = search(n_trials=3, resume=True, **options).fit(X, Y)
    straight = search(n_trials=3, population=1).fit(X, Y)
    assert [t.params for t in found.study_.trials] == [t.params for t in straight.study_.trials]
    assert [t.values for t in found.study_.trials] == [t.values for t in straight.study_.trials]
    with pytest.raises(MismatchError, match="max_epochs"):
        search(net(max_epochs=4), n_trials=4, resume=True, **options).fit(X, Y)


def test_what_trains_is_noted_lest_the_process_die_of_it(monkeypatch):
    noted, note = [], Worker.note_training

    def noting(self, trial_ids):
        noted.append(list(trial_ids))
        note(self, noted[-1])

    def scored(model, X, y):
        training.append(noted[-1])
        return -log_loss(y, model.predict_proba(X))

    training = []
    monkeypatch.setattr(Worker, "note_training", noting)
    trials = search(scoring=scored).fit(X, Y).study_.trials
    assert {*map(tuple, training)} == {(t._trial_id,) for t in trials}
    assert noted[-1] == []


def test_a_scorers_own_database_fails_its_trial_and_nothing_else():
    calls = []

    def broken(model, X, y):
        calls.append(len(calls))
        if len(calls) == 1:
            raise sqlite3.OperationalError("no such table: prices")
        return -log_loss(y, model.predict_proba(X))

    found = search(scoring=broken).fit(X, Y)
    states = [t.state for t in found.study_.trials]
    assert states.count(TrialState.FAIL) == 1
    assert "no such table" in found.study_.trials[0].user_attrs["reason"]


def test_settings_that_diverge_are_pruned():
    own = NeuralNetRegressor(Net, module__out=1, optimizer=INNA, max_epochs=9, train_split=None, verbose=0)
    space = SearchSpace({"lr": LogUniform(1e6, 1e7)})
    with pytest.raises(ValueError, match="diverged"):
        search(own, space, n_trials=2, scoring="r2").fit(X, X[:, :1])


def test_the_weak_end_after_their_first_fold():
    space = SearchSpace({"lr": LogUniform(1e-6, 0.2)})
    found = search(space=space, n_trials=8).fit(X, Y)
    pruned = [t for t in found.study_.trials if t.state == TrialState.PRUNED]
    assert pruned
    assert all(list(t.intermediate_values) == [1] for t in pruned)
    own = search(space=space, n_trials=4, pruner=MedianPruner(n_startup_trials=1)).fit(X, Y)
    assert len(own.study_.trials) == 4


def test_a_budget_ends_it_with_a_model(monkeypatch):
    found = search(n_trials=1000, timeout=3.0, space=SearchSpace({"lr": LogUniform(0.01, 0.1)})).fit(X, Y)
    assert 1 <= len([t for t in found.study_.trials if t.state.is_finished()]) < 1000
    assert found.predict(X).shape == (100,)


@pytest.mark.parametrize(
    ("estimator", "changes", "message"),
    [
        (net(optimizer=torch.optim.SGD), {}, "Give a space"),
        (net(), {"space": SearchSpace({"nonsense": LogUniform(0.1, 1.0)})}, "nonsense"),
        (net(), {"refit": "ensemble"}, "estimator is a NeuralNetClassifier"),
        (NeuralNet(Net, torch.nn.CrossEntropyLoss), {}, "a classifier or regressor of skorch"),
    ],
)
def test_what_makes_no_sense_is_refused_before_training(estimator, changes, message):
    with pytest.raises(ValueError, match=message):
        search(estimator, **changes).fit(X, Y)

"""MLflow's autologging of our estimators, by the real MLflow."""

import numpy as np
import pandas as pd
import pytest
import sklearn.utils
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from sklearn.utils import all_estimators

from inna_tune import InnaClassifier, InnaSearchCV, cross_validate
from inna_tune.loggers import MLflowLogger, autolog

X, Y = load_iris(return_X_y=True, as_frame=True)
# Texts are encoded by an estimator of scikit-learn's, which is part of the fit.
TEXTS = X.assign(text=[f"row {k} of {k % 7} and {'many' * (k % 5)} more words" for k in range(len(X))])


def net(**settings):
    return InnaClassifier(hidden_layer_sizes=(4,), max_epochs=2, n_members=1, random_state=0, **settings)


@pytest.fixture(autouse=True)
def _as_it_was(mlflow):
    kinds = (InnaClassifier, InnaSearchCV)
    fits = [kind.__dict__.get("fit") for kind in kinds]
    yield
    autolog(disable=True)
    assert fits == [kind.__dict__.get("fit") for kind in kinds]


def runs(mlflow):
    return mlflow.search_runs()


def test_a_fit_is_a_run_with_parameters_metrics_and_epochs(mlflow):
    autolog(log_models=False)
    model = net(callbacks=[MLflowLogger()]).fit(TEXTS, Y)
    found = runs(mlflow)
    assert found["tags.estimator_name"].tolist() == ["InnaClassifier"]
    assert found["tags.estimator_class"][0] == "inna_tune.estimators.classifier.InnaClassifier"
    told = model.get_params(deep=False)
    assert {name: found[f"params.{name}"][0] for name in told} == {n: str(v) for n, v in told.items()}
    assert found["metrics.training_score"][0] == model.score(TEXTS, Y)
    assert found["metrics.training_accuracy_score"][0] == np.mean(model.predict(TEXTS) == Y)
    history = mlflow.MlflowClient().get_metric_history(found["run_id"][0], "train_loss")
    assert [each.value for each in history] == model.history_["train_loss"].tolist()
    score = model.score(X=TEXTS, y=Y)
    assert score in mlflow.get_run(found["run_id"][0]).data.metrics.values()


def test_the_models_that_nets_begin_as_are_no_runs(mlflow):
    autolog(log_models=False)
    InnaClassifier(hidden_layer_sizes=(4,), max_epochs=2, random_state=0).fit(X[::3], Y[::3])
    assert runs(mlflow)["tags.estimator_name"].tolist() == ["InnaClassifier"]


def test_a_search_is_one_run_with_its_best_trials(mlflow):
    autolog(log_models=False)
    search = InnaSearchCV(net(), n_trials=2, cv=2, random_state=0).fit(X, Y)
    found = runs(mlflow)
    [whole] = found.index[found["tags.estimator_name"] == "InnaSearchCV"]
    assert found["metrics.best_cv_score"][whole] == search.best_score_
    best = {name: found[f"params.best_{name}"][whole] for name in search.best_params_}
    assert best == {name: str(value) for name, value in search.best_params_.items()}
    trials = found[found["tags.mlflow.parentRunId"] == found["run_id"][whole]]
    assert len(trials) == len(found) - 1 == len(search.cv_results_["params"])
    assert sorted(trials["metrics.mean_test_score"]) == sorted(search.cv_results_["mean_test_score"])


def test_what_is_fitted_inside_makes_no_run(mlflow):
    autolog(log_models=False)
    GridSearchCV(net(), {"step_ratio": [1.0]}, cv=2).fit(X, Y)
    assert sorted(runs(mlflow)["tags.estimator_name"]) == ["GridSearchCV", "InnaClassifier"]
    cross_validate(net(), X, Y, cv=2)
    assert len(runs(mlflow)) == 2


def test_it_goes_into_the_active_run_and_ends(mlflow):
    autolog(log_models=False)
    with mlflow.start_run() as run:
        net().fit(X, Y)
    assert mlflow.get_run(run.info.run_id).data.params["max_epochs"] == "2"
    autolog(disable=True)
    net().fit(X, Y)
    assert len(runs(mlflow)) == 1


def test_scikit_learns_list_is_as_it_was(mlflow):
    autolog(log_models=False)
    assert sklearn.utils.all_estimators is all_estimators


def test_a_mlflow_that_finds_its_estimators_otherwise_is_told_of(mlflow, monkeypatch):
    monkeypatch.setattr("mlflow.sklearn.autolog", lambda **options: None)
    with pytest.raises(RuntimeError, match=r"does not ask .*all_estimators.*MLflowLogger"):
        autolog(log_models=False)


@pytest.mark.slow
def test_the_model_is_kept(mlflow):
    autolog()
    model = net().fit(X, Y)
    [kept] = mlflow.search_logged_models(output_format="list")
    again = mlflow.sklearn.load_model(kept.model_uri)
    pd.testing.assert_frame_equal(
        pd.DataFrame(again.predict_proba(X)), pd.DataFrame(model.predict_proba(X)), check_exact=True
    )

"""InnaLearner inside the real FLAML."""

import pickle

import numpy as np
import pandas as pd
import pytest
from optuna.distributions import FloatDistribution
from sklearn.base import is_classifier, is_regressor
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine

from inna_tune import InnaClassifier, InnaRegressor
from inna_tune.plugins.ranges import ranges
from tests.plugins.frameworks import need

need("flaml", whole_file=True)

TINY = {"hidden_layer_sizes": {"domain": "4"}, "n_members": {"domain": 1}}
LOADERS = {"binary": load_breast_cancer, "multiclass": load_wine, "regression": load_diabetes}


@pytest.fixture(scope="module", autouse=True)
def _loaded():
    """Not while tests are collected, which every process does: FLAML loads mlflow, Lightning and others for over a second."""
    global AutoML, BaseEstimator, InnaLearner, task_factory
    from flaml import AutoML
    from flaml.automl.model import BaseEstimator
    from flaml.automl.task.factory import task_factory

    from inna_tune.plugins.flaml import InnaLearner


def table(task):
    X, y = LOADERS[task](return_X_y=True, as_frame=True)
    rows = X.sample(120, random_state=0).index
    X, y = X.loc[rows].iloc[:, :5].reset_index(drop=True), y.loc[rows].reset_index(drop=True)
    X.insert(
        0, "word", pd.Categorical.from_codes((X.iloc[:, 0] > X.iloc[:, 0].median()).astype(int), ["lo", "hi"])
    )
    X.iloc[::7, 2] = np.nan
    return X, y if task == "regression" else y.map(lambda label: f"class {label}")


def fit(task, X, y, **settings):
    automl = AutoML()
    automl.add_learner("inna", InnaLearner)
    words = {
        "estimator_list": ["inna"],
        "max_iter": 2,
        "n_jobs": 1,
        "verbose": 0,
        "n_splits": 2,
        "eval_method": "cv",
    }
    words["custom_hp"] = {"inna": TINY}
    automl.fit(X_train=X, y_train=y, task=task, **words | settings)
    return automl


@pytest.mark.parametrize("task", LOADERS)
def test_it_is_trained_tuned_and_predicts(task):
    X, y = table(task)
    automl = fit("classification" if task != "regression" else task, X, y)
    assert automl.best_estimator == "inna"
    kind = InnaRegressor if task == "regression" else InnaClassifier
    assert type(automl.model.estimator) is kind
    assert {
        "step_ratio",
        "friction",
        "damping",
        "dropout",
        "weight_decay",
        "max_epochs",
    } < automl.best_config.keys()
    assert automl.model.estimator.step_ratio == automl.best_config["step_ratio"]
    predicted = automl.predict(X)
    if task == "regression":
        assert is_regressor(automl.model)
        assert np.isfinite(predicted).all()
    else:
        assert is_classifier(automl.model)
        assert set(predicted) <= set(y)
        assert automl.predict_proba(X).shape == (len(X), y.nunique())
    assert (pickle.loads(pickle.dumps(automl)).predict(X) == predicted).all()


def test_it_learns():
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    automl = fit("classification", X, y, metric="accuracy", eval_method="holdout")
    assert isinstance(automl.model, BaseEstimator)
    assert automl.best_loss < 0.1


def test_a_trial_begins_cheaply_and_from_the_untuned_setting():
    space = InnaLearner.search_space((100, 5), task_factory("multiclass"))
    untuned = {name: entry.default for name, entry in ranges(InnaClassifier, n_rows=100).items()}
    assert untuned["friction"] == 0.24
    assert {name: entry["init_value"] for name, entry in space.items() if name != "max_epochs"} == untuned
    epochs = space["max_epochs"]
    assert epochs["low_cost_init_value"] < epochs["init_value"] < 100
    large = InnaLearner.search_space((20_000, 5), task_factory("multiclass"))["max_epochs"]
    # What is above is not drawn.
    assert (epochs["domain"].upper, large["domain"].upper) == (301, 101)
    assert InnaLearner.search_space(task="regression")["max_epochs"]["domain"].upper == 101
    for name, entry in space.items():
        assert entry["domain"].is_valid(entry["init_value"]), name


@pytest.mark.parametrize("kind", [InnaClassifier, InnaRegressor])
def test_any_corner_of_the_ranges_is_a_setting(kind):
    X, y = table("regression" if kind is InnaRegressor else "multiclass")
    X = X.iloc[:40]
    for end in ("low", "high"):
        setting = {name: getattr(entry.distribution, end) for name, entry in ranges(kind).items()}
        assert all(isinstance(entry.distribution, FloatDistribution) for entry in ranges(kind).values())
        kind(hidden_layer_sizes=(4,), n_members=1, max_epochs=1, **setting).fit(X, y.iloc[:40])


@pytest.fixture
def trained(monkeypatch):
    """Numbers of nets of each fit."""
    found = []
    as_it_is = InnaClassifier.fit

    def fit(self, *args, **words):
        as_it_is(self, *args, **words)
        found.append(len(self.members_))
        return self

    monkeypatch.setattr(InnaClassifier, "fit", fit)
    return found


# As many nets as by default, though small ones of few epochs.
BRIEF = {"hidden_layer_sizes": {"domain": "4"}, "max_epochs": {"domain": 3}}


def test_a_person_says_how_many_nets_are_trained(trained):
    X, y = table("multiclass")
    # Of the usual number those count that predict best what they have not seen.
    for more, counts in (({}, {4, 8}), ({"n_members": {"domain": 3}}, {3})):
        fit("classification", X, y, custom_hp={"inna": BRIEF | more})
        assert set(trained) <= counts
        trained.clear()


def wrong(X_val, y_val, estimator, labels, *_, **__):
    """A metric of a person's own: the share of wrong answers."""
    found = float((estimator.predict(X_val) != y_val).mean())
    return found, {"wrong": found}


SETTINGS = {
    "a metric of one's own": {"metric": wrong},
    "beside others": {"estimator_list": ["inna", "rf"], "max_iter": 4},
    "rows in groups": {"split_type": "group", "groups": np.arange(120) % 6},
    "several trials at once": {"n_concurrent_trials": 2},
    "rows to judge by": {"X_val": table("binary")[0], "y_val": table("binary")[1], "eval_method": "holdout"},
    "no last fit": {"retrain_full": False, "eval_method": "holdout"},
    "a share of memory": {"free_mem_ratio": 0.5},
    "from FLAML's own data": {"starting_points": "data"},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_other_settings_of_flamls(name):
    X, y = table("binary")
    automl = fit("classification", X, y, **SETTINGS[name])
    assert set(automl.predict(X)) <= set(y)
    assert np.isfinite(automl.best_loss)


def test_rows_in_the_order_of_time():
    X, y = table("regression")
    automl = fit("regression", X, y, split_type="time", metric="mae")
    assert np.isfinite(automl.predict(X)).all()


def test_it_goes_on_from_an_earlier_search_and_from_its_log(tmp_path):
    X, y = table("multiclass")
    log = str(tmp_path / "search.log")
    first = fit("classification", X, y, log_file_name=log, log_type="all")
    again = fit("classification", X, y, starting_points=first.best_config_per_estimator)
    assert again.best_loss <= first.best_loss + 1e-6
    from_log = AutoML()
    from_log.add_learner("inna", InnaLearner)
    from_log.retrain_from_log(
        log, X_train=X, y_train=y, task="classification", train_best=True, n_jobs=1, record_id=-1
    )
    assert from_log.model.estimator.step_ratio == pytest.approx(first.best_config["step_ratio"])


def test_a_budget_bounds_a_fit_and_the_last_fit_is_as_long():
    X, y = table("multiclass")
    learner = InnaLearner(
        task_factory("multiclass"), hidden_layer_sizes="4", n_members=1, max_epochs=50, n_jobs=1
    )
    learner.fit(X, y, budget=1e-9)
    assert learner.model.history_["stopped"].iloc[-1] == "time"
    assert learner.params[InnaLearner.ITER_HP] == 1
    # What FLAML reads of a learner to make the last fit as long.
    assert learner.get_params()["max_epochs"] == 1


def test_time_that_is_up_still_gives_a_model():
    X, y = table("multiclass")
    learner = InnaLearner(task_factory("multiclass"), hidden_layer_sizes="4", n_members=1)
    learner.fit(X, y, budget=-5.0)
    assert len(learner.predict(X)) == len(X)


def test_weights_of_rows_count():
    X, y = table("binary")
    weight = np.where(y == y.iloc[0], 1.0, 1e-9)
    automl = fit("classification", X, y, sample_weight=weight, max_iter=1, metric="accuracy")
    assert set(automl.predict(X)) == {y.iloc[0]}


def test_threads_are_those_that_flaml_gives():
    learner = InnaLearner(task_factory("regression"), n_jobs=1, **{n: d["domain"] for n, d in TINY.items()})
    X, y = table("regression")
    learner.fit(X, y)
    assert learner.model.n_jobs == 1


def test_settings_that_diverge_are_a_bad_trial():
    X, y = table("regression")
    learner = InnaLearner(
        task_factory("regression"), lr=1e9, alpha=0.0, beta=1e-3, hidden_layer_sizes="4", n_members=1
    )
    learner.fit(X, y)
    assert np.ptp(learner.predict(X)) == 0


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("rank", {"groups": [12] * 10, "eval_method": "holdout", "split_ratio": 0.2}),
        ("ts_forecast", {"period": 5}),
    ],
)
def test_a_task_that_it_can_not_do_is_refused_before_training(task, words, monkeypatch):
    X, y = table("regression")
    if task == "rank":
        y = (y > y.median()).astype(int)
    if task == "ts_forecast":
        X = pd.DataFrame({"when": pd.date_range("2020-01-01", periods=len(y))})
    monkeypatch.setattr(InnaLearner, "fit", lambda *_, **__: pytest.fail("it was trained"))
    with pytest.raises(ValueError, match=f"task='{task}' is none that InnaLearner can do; it does binary"):
        fit(task, X, y, time_budget=5, **words)


@pytest.mark.parametrize(
    "task", ["rank", "seq-regression", "summarization", "ts_forecast_panel", "ts_forecast_classification"]
)
def test_no_other_task_of_flamls_is_taken(task):
    with pytest.raises(ValueError, match=f"task='{task}' is none that InnaLearner can do"):
        InnaLearner.search_space(data_size=(100, 5), task=task_factory(task))
    with pytest.raises(ValueError, match="leave it out of estimator_list"):
        InnaLearner(task)


def test_targets_of_several_columns_flaml_refuses_itself():
    X, y = table("regression")
    with pytest.raises(AssertionError, match="rows in X_train must match length of y_train"):
        fit("regression", X.drop(columns="word").to_numpy(), np.column_stack([y, y]))


def test_a_parameter_that_is_none_is_named():
    X, y = table("binary")
    with pytest.raises(TypeError, match="nonsense"):
        fit("classification", X, y, custom_hp={"inna": TINY | {"nonsense": {"domain": 1}}})

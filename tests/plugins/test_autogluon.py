"""InnaModel inside the real AutoGluon."""

import logging

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine

from inna_tune import InnaClassifier, InnaRegressor, load
from inna_tune.plugins.ranges import ranges
from tests.plugins.frameworks import need

need("autogluon", whole_file=True)

from autogluon.common import space  # noqa: E402
from autogluon.core.metrics import get_metric, make_scorer  # noqa: E402
from autogluon.core.utils.exceptions import ConstraintViolationError  # noqa: E402
from autogluon.tabular import TabularPredictor  # noqa: E402
from autogluon.tabular.registry import ag_model_registry  # noqa: E402

from inna_tune.plugins.autogluon import InnaModel, StoppingMetric  # noqa: E402

TINY = {"hidden_layer_sizes": "4", "n_members": 1, "max_epochs": 4}
LOADERS = {"binary": load_breast_cancer, "multiclass": load_wine, "regression": load_diabetes}
# Folds one after the other, in this process.
HERE = {"ag_args_ensemble": {"fold_fitting_strategy": "sequential_local"}, "num_cpus": 1, "verbosity": 2}


def table(task, n_rows=120):
    X, y = LOADERS[task](return_X_y=True, as_frame=True)
    X = X.iloc[:, :5].assign(word=np.where(X.iloc[:, 0] > X.iloc[:, 0].median(), "lo", "hi"))
    X.iloc[::7, 2] = np.nan
    X["y"] = y if task == "regression" else y.map(lambda label: f"class {label}")
    return X.sample(n_rows, random_state=0).reset_index(drop=True)


@pytest.fixture
def fit(tmp_path):
    def fit(
        rows, hyperparameters=None, *, problem_type=None, eval_metric=None, sample_weight=None, **settings
    ):
        predictor = TabularPredictor(
            "y",
            path=tmp_path / "models",
            problem_type=problem_type,
            eval_metric=eval_metric,
            sample_weight=sample_weight,
        )
        return predictor.fit(rows, hyperparameters={InnaModel: hyperparameters or TINY}, **HERE | settings)

    return fit


def model_of(predictor, name):
    return predictor._trainer.load_model(name)


@pytest.mark.parametrize("task", LOADERS)
def test_it_is_on_the_leaderboard_and_a_saved_predictor_loads(task, fit, tmp_path):
    rows = table(task)
    predictor = fit(rows, num_bag_folds=2, time_limit=3600)
    board = predictor.leaderboard(silent=True)
    assert "INNA_BAG_L1" in set(board["model"])
    assert predictor.problem_type == task
    before = predictor.predict(rows, model="INNA_BAG_L1")
    again = TabularPredictor.load(tmp_path / "models")
    assert (again.predict(rows, model="INNA_BAG_L1") == before).all()
    files = sorted((tmp_path / "models").rglob("model.inna"))
    assert len(files) == 2
    for file in files:
        # The net is in a file of ours, which loads without a pickle, and not in AutoGluon's as well.
        assert type(load(file)) is (InnaRegressor if task == "regression" else InnaClassifier)
        assert b"inna_tune.estimators" not in file.with_name("model.pkl").read_bytes()
    if task != "regression":
        assert predictor.predict_proba(rows, model="INNA_BAG_L1").shape == (len(rows), rows["y"].nunique())


def test_it_is_bagged_and_stacked(fit):
    predictor = fit(table("binary"), num_bag_folds=2, num_stack_levels=1)
    board = predictor.leaderboard(silent=True).set_index("model")
    assert board.loc["INNA_BAG_L2", "stack_level"] == 2
    assert any("INNA_BAG_L1" in name for name in model_of(predictor, "INNA_BAG_L2").features)


def test_a_search_is_over_numbers_that_mean_the_same_on_every_table(fit):
    tune = {"num_trials": 3, "searcher": "random", "scheduler": "local"}
    settings = TINY | {"dropout": 0.125, "patience": space.Int(2, 9)}
    predictor = fit(table("regression"), settings, hyperparameter_tune_kwargs=tune)
    names = [n for n in predictor.model_names() if n.startswith("INNA")]
    assert len(names) == 3
    tried = [model_of(predictor, name).params for name in names]
    for name in ("step_ratio", "friction", "damping", "weight_decay"):
        entry = ranges(InnaRegressor)[name]
        assert tried[0][name] == entry.default
        assert all(entry.distribution.low <= t[name] <= entry.distribution.high for t in tried)
        assert len({t[name] for t in tried}) == 3
    assert {t["dropout"] for t in tried} == {0.125}
    assert all(2 <= t["patience"] <= 9 for t in tried)
    assert [model_of(predictor, n).model.step_ratio for n in names] == [t["step_ratio"] for t in tried]


def test_natural_settings_that_are_given_are_not_searched_by_their_pure_numbers(fit):
    tune = {"num_trials": 2, "searcher": "random", "scheduler": "local"}
    predictor = fit(table("binary"), TINY | {"lr": 0.01}, hyperparameter_tune_kwargs=tune)
    tried = [model_of(predictor, name) for name in predictor.model_names() if name.startswith("INNA")]
    assert len(tried) == 2
    assert {model.model.lr for model in tried} == {0.01}
    assert all("step_ratio" not in model.params and "friction" in model.params for model in tried)


# As many nets as by default, though small ones.
BRIEF = {name: value for name, value in TINY.items() if name != "n_members"}


def test_a_fold_of_a_bag_has_few_nets_and_its_refit_as_many_as_a_fit_by_itself(fit):
    predictor = fit(table("binary"), BRIEF, num_bag_folds=2)
    bag = model_of(predictor, "INNA_BAG_L1")
    assert [len(bag.load_child(child).model.members_) for child in bag.models] == [2, 2]
    predictor.refit_full()
    bag = model_of(predictor, "INNA_BAG_L1_FULL")
    [child] = [bag.load_child(child) for child in bag.models]
    assert (len(child.model.members_), child.model.n_members) == (8, "auto")
    # What a person says goes.
    bag = model_of(fit(table("binary"), BRIEF | {"n_members": 3}, num_bag_folds=2), "INNA_BAG_L1")
    assert [len(bag.load_child(child).model.members_) for child in bag.models] == [3, 3]


def test_a_setting_that_is_tried_has_few_nets_and_a_fit_by_itself_those_of_the_default(fit):
    assert len(model_of(fit(table("binary"), BRIEF), "INNA").model.members_) in (4, 8)
    tune = {"num_trials": 2, "searcher": "random", "scheduler": "local"}
    predictor = fit(table("binary"), BRIEF, hyperparameter_tune_kwargs=tune)
    tried = [model_of(predictor, name) for name in predictor.model_names() if name.startswith("INNA")]
    assert [len(model.model.members_) for model in tried] == [2, 2]
    predictor.refit_full(tried[0].name)
    assert len(model_of(predictor, f"{tried[0].name}_FULL").model.members_) in (4, 8)


def test_it_is_refitted_on_all_rows_for_the_epochs_that_were_best(fit):
    rows = table("multiclass")
    predictor = fit(rows, TINY | {"max_epochs": 12})
    first = model_of(predictor, "INNA")
    predictor.refit_full()
    full = model_of(predictor, "INNA_FULL")
    assert full.model.max_epochs == first.model.best_epoch_
    assert full.model.n_iter_ == first.model.best_epoch_
    assert not full.model.early_stopping
    assert full.model.history_["validation_loss"].isna().all()
    # All rows, those that were validated on too.
    assert len(predictor.predict(rows, model="INNA_FULL")) == len(rows)


def test_a_bag_is_refitted_as_one_net(fit):
    predictor = fit(table("binary"), num_bag_folds=2)
    predictor.refit_full()
    [child] = model_of(predictor, "INNA_BAG_L1_FULL").models
    model = model_of(predictor, "INNA_BAG_L1_FULL").load_child(child)
    assert not model.model.early_stopping
    assert 1 <= model.model.max_epochs <= TINY["max_epochs"]


def odd(y_true, y_pred):
    """A metric that likes early epochs: the fewer predictions are right the better."""
    return float((y_true != y_pred).mean())


@pytest.mark.parametrize("name", ["accuracy", "roc_auc_ovr", "f1_macro", "log_loss"])
def test_early_stopping_is_by_autogluons_metric(name, fit):
    predictor = fit(table("multiclass"), eval_metric=name)
    model = model_of(predictor, "INNA")
    metric = get_metric(name, "multiclass")
    X_val, y_val = predictor._trainer.load_X_val(), predictor._trainer.load_y_val()
    score = model.score(X_val, y_val, metric=metric)
    assert model.stopping_metric.name == name
    history = model.model.history_
    watched = history.get("validation_score", -history["validation_loss"])
    assert watched.max() == pytest.approx(score, abs=1e-5)
    assert watched.idxmax() + 1 == model.model.best_epoch_


def test_early_stopping_is_by_a_persons_own_metric(fit):
    wrong = make_scorer("wrong", odd, optimum=1, greater_is_better=True)
    rows = table("multiclass")
    by_odd = model_of(fit(rows, TINY | {"max_epochs": 10}, eval_metric=wrong), "INNA").model
    assert by_odd.best_epoch_ == by_odd.history_["validation_score"].idxmax() + 1
    assert by_odd.best_epoch_ < by_odd.history_["validation_loss"].idxmin() + 1


def test_sample_weights_count(fit):
    rows = table("binary").assign(weight=lambda t: np.where(t["y"] == "class 0", 1.0, 1e-6))
    # Without early stopping, which AutoGluon's metric, not weighted, would be for.
    predictor = fit(rows, TINY | {"max_epochs": 60, "early_stopping": False}, sample_weight="weight")
    assert set(predictor.predict(rows.drop(columns="y"), model="INNA")) == {"class 0"}


def test_a_time_limit_bounds_a_fit():
    rows = table("binary")
    X, y = rows.drop(columns=["y", "word"]), (rows["y"] == "class 1").astype(int)
    model = InnaModel(
        path="unused", name="INNA", problem_type="binary", hyperparameters=TINY | {"max_epochs": 10_000}
    )
    model.fit(X=X, y=y, time_limit=1.0, num_cpus=1, num_gpus=0)
    assert model.model.max_time < 1.0


def test_threads_are_those_that_autogluon_gives_and_are_put_back(monkeypatch):
    seen = []
    fit_as_it_is = InnaClassifier.fit
    monkeypatch.setattr(
        InnaClassifier, "fit", lambda self, *a, **k: seen.append(self.n_jobs) or fit_as_it_is(self, *a, **k)
    )
    rows = table("binary")
    before = torch.get_num_threads()
    model = InnaModel(path="unused", name="INNA", problem_type="binary", hyperparameters=TINY)
    model.fit(
        X=rows.drop(columns=["y", "word"]), y=(rows["y"] == "class 1").astype(int), num_cpus=1, num_gpus=0
    )
    assert seen == [1]
    assert torch.get_num_threads() == before


def test_memory_is_estimated_by_rows_and_settings():
    rows = table("regression").drop(columns="y")
    words = {"problem_type": "regression", "num_classes": None}

    def estimate(n_rows, **hyperparameters):
        many = pd.concat([rows] * (n_rows // len(rows)), ignore_index=True)
        return InnaModel.estimate_memory_usage_static(X=many, hyperparameters=hyperparameters, **words)

    assert 0 < estimate(1_200, n_members=1) < estimate(120_000, n_members=1)
    assert estimate(120, hidden_layer_sizes=(8,), n_members=1) < estimate(
        120, hidden_layer_sizes=(4096, 4096), n_members=1
    )
    assert isinstance(estimate(120), int)
    # As many nets as few rows get by default.
    assert estimate(120) > estimate(120, n_members=1)


@pytest.fixture
def estimated(monkeypatch):
    """Numbers of nets that memory is estimated for."""
    found = []
    as_it_is = InnaModel._estimate_memory_usage_static.__func__

    def noted(cls, *, hyperparameters=None, **words):
        found.append(hyperparameters["n_members"])
        return as_it_is(cls, hyperparameters=hyperparameters, **words)

    monkeypatch.setattr(InnaModel, "_estimate_memory_usage_static", classmethod(noted))
    return found


def test_memory_is_estimated_for_the_nets_that_are_trained(fit, estimated):
    """AutoGluon puts as many folds side by side as the estimate says."""
    predictor = fit(table("binary"), BRIEF, num_bag_folds=2)
    assert estimated == ["few", "few"]
    estimated.clear()
    predictor.refit_full()
    assert estimated == ["auto"]
    estimated.clear()
    fit(table("binary"), BRIEF)
    assert estimated == ["auto"]
    estimated.clear()
    fit(table("binary"), BRIEF | {"n_members": 3}, num_bag_folds=2)
    assert estimated == [3, 3]


def test_memory_of_folds_side_by_side_is_estimated_for_those_of_a_fold(estimated):
    rows = table("binary").drop(columns=["y", "word"])
    # Of nets whose weights are what counts.
    # What a bag makes its folds of, as AutoGluon names it there, before it has chosen how many are trained at once.
    model = InnaModel(path="", name="", problem_type="binary", hyperparameters={})
    y = pd.Series(np.tile([0, 1], len(rows) // 2))
    model.initialize(X=rows, y=y)
    few = model.estimate_memory_usage(X=rows, y=y)
    alone = InnaModel(path="", name="INNA", problem_type="binary", hyperparameters={})
    alone.initialize(X=rows, y=y)
    assert estimated == ["few"]
    assert few < alone.estimate_memory_usage(X=rows, y=y)


def test_a_fold_without_a_class_has_a_column_for_it():
    X = pd.DataFrame({"a": np.linspace(0, 1, 60), "b": np.tile([0.0, 1.0], 30)})
    y = pd.Series(np.repeat([0, 2, 3], 20))
    model = InnaModel(path="unused", name="INNA", problem_type="multiclass", hyperparameters=TINY)
    model.fit(
        X=X, y=y, X_val=X, y_val=pd.Series(np.tile([0, 1, 2, 3], 15)), num_classes=4, num_cpus=1, num_gpus=0
    )
    found = model.predict_proba(X)
    assert found.shape == (60, 4)
    assert (found[:, 1] < 1e-6).all()
    assert np.allclose(found.sum(1), 1, atol=1e-5)


def test_a_problem_that_it_can_not_do_is_said_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(InnaModel, "_fit", lambda *_, **__: pytest.fail("it was trained"))
    # Values that are no labels: what AutoGluon asks before it looks at its constraints has to take them.
    rows = table("regression").drop(columns="word").assign(y=lambda t: t["y"] + 0.25)
    model = InnaModel(path=str(tmp_path), name="INNA", problem_type="quantile", hyperparameters=TINY)
    with pytest.raises(ConstraintViolationError, match="ag.problem_types=.*but found 'quantile'"):
        model.fit(X=rows.drop(columns="y"), y=rows["y"], num_cpus=1, num_gpus=0)


def test_a_predictor_says_why_it_is_left_out(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(InnaModel, "_fit", lambda *_, **__: pytest.fail("it was trained"))
    predictor = TabularPredictor("y", path=tmp_path, problem_type="quantile", quantile_levels=[0.1, 0.9])
    monkeypatch.setattr(logging.getLogger("autogluon"), "propagate", True)
    with caplog.at_level(logging.INFO):
        rows = table("regression").assign(y=lambda t: t["y"] + 0.25)
        predictor.fit(rows, hyperparameters={InnaModel: {}, "DUMMY": {}}, **HERE)
    assert "Skipping INNA because a fit constraint is not satisfied" in caplog.text
    assert not [name for name in predictor.model_names() if name.startswith("INNA")]


@pytest.mark.parametrize(
    ("hyperparameters", "said"),
    [
        ({"nonsense": 1}, r"InnaClassifier has no parameter \['nonsense'\]; it has activation"),
        ({"dropout": 2.0}, "dropout"),
        ({"decay": "linear"}, "decay"),
    ],
)
def test_hyperparameters_that_make_no_sense_are_said_before_training(
    hyperparameters, said, monkeypatch, tmp_path
):
    monkeypatch.setattr(InnaModel, "_fit", lambda *_, **__: pytest.fail("it was trained"))
    rows = table("binary")
    model = InnaModel(path=str(tmp_path), name="INNA", problem_type="binary", hyperparameters=hyperparameters)
    with pytest.raises(ValueError, match=said):
        model.fit(
            X=rows.drop(columns=["y", "word"]), y=(rows["y"] == "class 1").astype(int), num_cpus=1, num_gpus=0
        )


def test_a_metric_that_autogluon_does_not_know_it_refuses_itself(fit):
    with pytest.raises(ValueError, match="no_such_metric"):
        fit(table("binary"), eval_metric="no_such_metric")


def test_targets_of_several_columns_have_no_place_in_autogluon(tmp_path):
    with pytest.raises((AssertionError, TypeError, ValueError)):
        TabularPredictor(["y", "z"], path=tmp_path).fit(
            table("binary").assign(z=1), hyperparameters={InnaModel: TINY}, **HERE
        )


def test_it_can_be_registered_under_its_key(fit, tmp_path):
    ag_model_registry.add(InnaModel)
    try:
        predictor = TabularPredictor("y", path=tmp_path / "by_key").fit(
            table("binary"), hyperparameters={"INNA": TINY}, **HERE
        )
    finally:
        ag_model_registry.remove(InnaModel)
    assert "INNA" in predictor.model_names()


def test_a_metric_is_shown_by_its_name():
    assert repr(StoppingMetric(get_metric("f1", "binary"), "binary")) == "AutoGluon's f1"


def test_the_ranges_are_those_of_the_shipped_priors():
    model = InnaModel(path="unused", name="INNA", problem_type="binary")
    model.initialize(y=pd.Series([0, 1] * 10), X=pd.DataFrame({"a": range(20)}))
    found = model._get_default_searchspace()
    assert found.pop("n_members") == "few"
    assert found.keys() == ranges(InnaClassifier).keys()
    for name, entry in ranges(InnaClassifier).items():
        real = found[name]
        assert (real.lower, real.upper, real.log) == (
            entry.distribution.low,
            entry.distribution.high,
            entry.distribution.log,
        )
        assert real.default == entry.default

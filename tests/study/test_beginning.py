"""What a study tries first: what the estimator is set to, a portfolio, or settings that somebody gives."""

import math

import numpy as np
import optuna
import pytest
import torch
from optuna.trial import TrialState
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.model_selection import KFold, ShuffleSplit, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from inna_tune import InnaClassifier, InnaRegressor, InnaSearchCV, SearchSpace
from inna_tune.optim.dynamics import settings_from_curvature
from inna_tune.records.attributes import CURVATURE
from inna_tune.records.record import StudyRecord
from inna_tune.space import Categorical, LogUniform, Prior, Uniform
from inna_tune.space.space import NET_PARAMETERS
from inna_tune.study.beginning import net_is_as_it_comes, shipped

IRIS = load_iris(return_X_y=True, as_frame=True)
DIABETES = load_diabetes(return_X_y=True, as_frame=True)
NET = {"hidden_layer_sizes": (12,), "n_members": 1, "max_epochs": 6}


def search(estimator=None, space=None, **changes):
    estimator = InnaClassifier(**NET) if estimator is None else estimator
    return InnaSearchCV(
        estimator,
        space,
        **({"n_trials": 2, "cv": 3, "random_state": 0, "pruner": optuna.pruners.NopPruner()} | changes),
    )


@pytest.mark.parametrize(
    ("kind", "data", "scaled_alpha", "dropout"),
    [(InnaClassifier, IRIS, 0.24, 0.25), (InnaRegressor, DIABETES, 0.06, 0.05)],
)
def test_the_first_trial_is_the_untuned_setting(kind, data, scaled_alpha, dropout):
    study = search(kind(**NET)).fit(*data).study_
    first = study.trials[0].params
    expected = settings_from_curvature(study.user_attrs[CURVATURE], scaled_alpha=scaled_alpha)
    for name in ("lr", "alpha", "beta"):
        assert first[name] == pytest.approx(getattr(expected, name), rel=1e-5)
    assert (first["decay"], first["dropout"], first["weight_decay"]) == ("cosine", dropout, 1e-7)
    assert study.trials[1].params != first


@pytest.mark.parametrize(("max_epochs", "expected"), [("auto", 300), (3, 3)])
def test_a_study_says_over_how_many_epochs_the_step_falls(max_epochs, expected):
    net = InnaClassifier(hidden_layer_sizes=(2,), n_members=1, patience=1, max_epochs=max_epochs)
    study = search(net, n_trials=1, refit=False).fit(*IRIS).study_
    assert StudyRecord(study).horizon == expected


@pytest.mark.parametrize("first", [True, False])
def test_trials_that_stop_early_and_others_have_each_their_own_epochs(first):
    net = InnaRegressor(
        hidden_layer_sizes=(2,), n_members=1, lr=0.01, numeric_embedding="none", random_state=0
    )
    X, y = DIABETES[0].iloc[:100], DIABETES[1].iloc[:100]
    space = SearchSpace({"early_stopping": Categorical([True, False])})
    tried = [{"early_stopping": first}, {"early_stopping": not first}]
    study = search(net, space, first=tried, population=2, cv=2, refit=False).fit(X, y).study_
    for trial in study.trials:
        alone = cross_val_score(
            clone(net).set_params(**trial.params), X, y, cv=KFold(2), scoring="neg_root_mean_squared_error"
        )
        assert trial.value == pytest.approx(alone.mean(), rel=1e-6), trial.params


@pytest.mark.parametrize(("max_epochs", "expected"), [("auto", [3, 12, 50]), (300, [9, 38, 150])])
def test_trials_report_as_early_wherever_their_end_would_be(max_epochs, expected):
    net = InnaClassifier(hidden_layer_sizes=(2,), n_members=1, max_epochs=max_epochs, lr=1e-3, random_state=0)
    split = ShuffleSplit(1, random_state=0)
    study = search(net, n_trials=1, cv=split, refit=False).fit(*IRIS).study_
    reported = sorted(study.trials[0].intermediate_values)
    assert reported[: len(expected)] == expected


def test_the_first_trial_scores_about_what_the_untuned_estimator_does():
    X, y = IRIS
    folds = KFold(3, shuffle=True, random_state=0)
    estimator = InnaClassifier(
        hidden_layer_sizes=(12,), n_members=1, max_epochs=40, early_stopping=False, random_state=0
    )
    study = search(estimator, n_trials=1, cv=folds, refit=False).fit(X, y).study_
    alone = cross_val_score(estimator, X, y, cv=folds, scoring="neg_log_loss").mean()
    assert study.best_value == pytest.approx(alone, rel=0.2)


def test_numbers_that_the_estimator_is_set_to_are_tried_first():
    estimator = InnaClassifier(lr=0.2, alpha=0.3, beta=0.4, decay="power", dropout=0.9, **NET)
    first = search(estimator, n_trials=1).fit(*IRIS).study_.trials[0]
    assert (first.params["decay"], first.params["decay_power"]) == ("power", 0.5)
    # As far as the space goes.
    assert first.params["dropout"] == 0.6
    for name, value in (("lr", 0.2), ("alpha", 0.3), ("beta", 0.4)):
        bounds = first.distributions[name]
        assert first.params[name] == min(max(value, bounds.low), bounds.high)


@pytest.mark.parametrize(
    ("settings", "is_searched"),
    [
        ({}, True),
        ({"hidden_layer_sizes": [256, 256]}, True),
        ({"hidden_layer_sizes": "256-256", "dropout": 0.1, "lr": 0.1}, True),
        ({"hidden_layer_sizes": (256,)}, False),
        ({"hidden_layer_sizes": 256}, False),
        ({"block": "residual"}, False),
        ({"module": torch.nn.Linear}, False),
    ],
)
@pytest.mark.parametrize("pure", [{}, {"friction": 0.2}], ids=["natural", "pure"])
@pytest.mark.parametrize("kind", [InnaClassifier, InnaRegressor])
def test_a_net_that_nobody_chose_is_searched(kind, pure, settings, is_searched):
    space = shipped(kind(**settings, **pure), 10.0)
    assert {"block", "hidden_layer_sizes"} & set(space) == (set(NET_PARAMETERS) if is_searched else set())
    assert ("alpha" in space) == (not pure)


def test_a_class_of_ones_own_that_wants_arguments_is_searched():
    class Own(InnaClassifier):
        def __init__(self, own, hidden_layer_sizes=(256, 256)):
            super().__init__(hidden_layer_sizes=hidden_layer_sizes)
            self.own = own

    assert net_is_as_it_comes(Own(1))
    assert not net_is_as_it_comes(Own(1, (8,)))


def test_a_search_of_nets_begins_with_the_one_there_is():
    estimator = InnaClassifier(n_members=1, max_epochs=1)
    model = search(estimator, n_trials=3).fit(*IRIS)
    first, *others = model.study_.trials
    assert (first.params["block"], first.params["hidden_layer_sizes"]) == ("plain", "256-256")
    assert all(set(NET_PARAMETERS) <= set(t.params) for t in others)
    assert model.best_estimator_.hidden_layer_sizes == model.best_params_["hidden_layer_sizes"]


def test_a_pipelines_net_is_searched_as_one_alone():
    estimator = make_pipeline(StandardScaler(), InnaClassifier(n_members=1, max_epochs=1))
    first = search(estimator).fit(*IRIS).study_.trials[0]
    assert (first.params["block"], first.params["hidden_layer_sizes"]) == ("plain", "256-256")


@pytest.mark.parametrize(("optimizer", "lr"), [("adamw", 1e-3), ("sgd", None)])
def test_other_optimizers_begin_with_what_is_usual_for_them(optimizer, lr):
    space = SearchSpace({"lr": LogUniform(1e-6, 1e3), "dropout": Uniform(0.0, 0.5)})
    estimator = InnaClassifier(optimizer=optimizer, **NET)
    first = search(estimator, space, first="default").fit(*IRIS).study_.trials[0].params
    assert first["dropout"] == 0.25
    assert 0 < first["lr"] < math.inf
    assert lr is None or first["lr"] == pytest.approx(lr)


def test_a_portfolio_comes_after_the_untuned_setting():
    prior = Prior.shipped("classification")
    study = search(space=prior, n_trials=3, refit=False).fit(*IRIS).study_
    _, portfolio = prior.at(study.user_attrs[CURVATURE])
    assert study.trials[0].params["decay"] == "cosine"
    for trial, setting in zip(study.trials[1:], portfolio, strict=False):
        if trial.state != TrialState.WAITING:
            assert trial.params == pytest.approx(setting)
    begun = search(space=prior, n_trials=2, first="default", refit=False).fit(*IRIS).study_
    assert len(begun.trials) == 2
    assert begun.trials[0].params == study.trials[0].params
    assert begun.trials[1].params != study.trials[1].params


def test_a_search_space_of_ones_own_begins_with_the_sampler():
    space = SearchSpace({"lr": LogUniform(1e-3, 1e-1)})
    first = search(space=space).fit(*IRIS).study_.trials[0]
    assert "fixed_params" not in first.system_attrs


def test_an_untuned_setting_that_the_space_lacks_is_not_tried():
    space = SearchSpace({"activation": Categorical(["relu", "gelu"])})
    first = search(space=space, first="default").fit(*IRIS).study_.trials[0]
    assert "fixed_params" not in first.system_attrs


def test_given_settings_are_tried_first_and_once(tmp_path):
    given = [{"lr": np.float64(0.01), "dropout": np.float32(0.5)}, {"lr": 0.02}]
    space = SearchSpace({"lr": LogUniform(1e-3, 1e-1), "dropout": Uniform(0.0, 0.5)})
    where = {"storage": f"sqlite:///{tmp_path}/s.db", "study_name": "s", "first": given}
    study = search(space=space, **where).fit(*IRIS).study_
    assert study.trials[0].params == given[0]
    assert study.trials[1].params["lr"] == 0.02
    more = search(space=space, n_trials=4, resume=True, **where).fit(*IRIS).study_
    assert len(more.trials) == 4
    assert all(t.params["lr"] not in (given[0]["lr"], 0.02) for t in more.trials[2:])


@pytest.mark.parametrize(
    ("first", "error", "words"),
    [
        ("best", ValueError, "first='best' must be"),
        (None, TypeError, "first=None must"),
        ([0.1], TypeError, "must hold mappings"),
        ([{"momentum": 0.9}], ValueError, "no parameter 'momentum'; it has lr"),
        ([{"lr": 5.0}], ValueError, "lr=5.0 lies outside"),
        ([{"lr": "much"}], ValueError, "lr='much' lies outside"),
    ],
)
def test_settings_that_make_no_sense_are_refused_before_anything_is_stored(first, error, words, tmp_path):
    space = SearchSpace({"lr": LogUniform(1e-3, 1e-1)})
    with pytest.raises(error, match=words):
        search(space=space, first=first, storage=f"sqlite:///{tmp_path}/s.db", study_name="s").fit(*IRIS)
    assert not list(tmp_path.iterdir())


def test_given_settings_are_held_against_the_space_that_the_curvature_gives():
    with pytest.raises(ValueError, match=r"dropout=0\.9 lies outside"):
        search(first=[{"dropout": 0.9}]).fit(*IRIS)


def test_who_names_no_space_goes_on_with_that_of_the_study(tmp_path):
    where = {"storage": f"sqlite:///{tmp_path}/s.db", "study_name": "s"}
    space = SearchSpace({"lr": LogUniform(1e-3, 1e-1)})
    search(space=space, **where).fit(*IRIS)
    more = search(n_trials=3, resume=True, **where).fit(*IRIS).study_
    assert [set(t.params) for t in more.trials] == [{"lr"}] * 3

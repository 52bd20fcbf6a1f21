import math
import warnings
from dataclasses import replace
from typing import get_args

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, cross_val_score

from inna_tune import InnaClassifier, InnaRegressor
from inna_tune.engine.members import MemberResult, StopReason, who_counts
from inna_tune.estimators import DivergenceError

QUICK = {"hidden_layer_sizes": (16,), "n_members": 1, "max_epochs": 15, "random_state": 0}


def titanic_like(n=300, seed=0):
    """A table with everything people have: numbers, text, booleans, dates, gaps, a rare level."""
    rng = np.random.default_rng(seed)
    age = rng.normal(40, 12, n)
    ticket = rng.choice(["first", "second", "third"], n)
    frame = pd.DataFrame(
        {
            "age": np.where(rng.random(n) < 0.1, np.nan, age),
            "class": pd.Series(ticket).where(rng.random(n) > 0.05),
            "alone": rng.random(n) < 0.5,
            "boarded": pd.Timestamp("1912-04-10") + pd.to_timedelta(rng.integers(0, 5, n), unit="D"),
        }
    )
    score = (40 - age) / 10 + 2.0 * (ticket == "first") - 1.5 * (ticket == "third") + rng.normal(0, 0.5, n)
    return frame, score


def test_classifier_learns_text_labels_from_a_mixed_table():
    X, score = titanic_like()
    y = np.where(score > 0, "survived", "died")
    model = InnaClassifier(hidden_layer_sizes=(32,), max_epochs=60, random_state=0).fit(X[:200], y[:200])
    assert list(model.classes_) == ["died", "survived"]
    assert model.score(X[200:], y[200:]) > 0.8
    probabilities = model.predict_proba(X[200:])
    np.testing.assert_allclose(probabilities.sum(1), 1.0)
    prior = np.tile(np.mean(y[:200][:, None] == model.classes_, axis=0), (100, 1))
    assert log_loss(y[200:], probabilities) < 0.7 * log_loss(y[200:], prior)
    strange = X[200:].assign(**{"class": "steerage"})
    assert np.isfinite(model.predict_proba(strange)).all(), "an unseen category"


def test_regressor_works_in_the_units_of_the_target():
    X, score = titanic_like()
    y = 1e6 + 1e4 * score
    model = InnaRegressor(hidden_layer_sizes=(32,), max_epochs=60, random_state=0).fit(X[:200], y[:200])
    assert model.score(X[200:], y[200:]) > 0.7


def test_regression_of_several_targets():
    X, y = load_diabetes(return_X_y=True)
    both = np.column_stack([y, -3 * y + 5])
    model = InnaRegressor(**QUICK).fit(X, both)
    assert model.predict(X).shape == both.shape
    assert model.score(X, both) > 0.3


@pytest.mark.parametrize("n_members", [1, 3])
def test_same_seed_same_bits_whatever_ran_before(n_members):
    X, y = load_breast_cancer(return_X_y=True)
    model = InnaClassifier(dropout=0.2, **QUICK | {"n_members": n_members})
    first = clone(model).fit(X, y).predict_proba(X)
    np.random.rand(7)  # noqa: NPY002
    torch.rand(3)
    clone(model).set_params(random_state=5).fit(X, y)
    assert np.array_equal(clone(model).fit(X, y).predict_proba(X), first)


def test_global_random_state_is_not_touched():
    X, y = load_iris(return_X_y=True)
    numpy_before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    for random_state in (0, None, np.random.RandomState(3)):
        InnaClassifier(dropout=0.1, **{**QUICK, "random_state": random_state}).fit(X, y).predict(X)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_before)


def test_members_average_and_each_is_the_net_it_would_be_alone():
    X, y = load_iris(return_X_y=True)
    three = InnaClassifier(**QUICK | {"n_members": 3}).fit(X, y)
    one = InnaClassifier(**QUICK).fit(X, y)
    torch.testing.assert_close(three.weights_[:1], one.weights_, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(three.weights_[0], three.weights_[1])
    separate = []
    for k in range(3):
        single = clone(one)
        single.weights_, single.net_, single.classes_ = three.weights_[k : k + 1], three.net_, three.classes_
        single.encoder_, single.n_features_in_ = three.encoder_, three.n_features_in_
        separate.append(single.predict_proba(X))
    np.testing.assert_allclose(three.predict_proba(X), np.mean(separate, axis=0), rtol=1e-9)


def test_history_has_a_row_an_epoch_and_a_member():
    X, y = load_breast_cancer(return_X_y=True)
    model = InnaClassifier(**QUICK | {"n_members": 2}).fit(X, y)
    assert list(model.history_.columns) == [
        "epoch",
        "train_loss",
        "validation_loss",
        "lr",
        "seconds",
        "member",
        "stopped",
    ]
    assert set(model.history_["member"]) == {0, 1}
    own = model.history_[model.history_["member"] == 0]
    assert list(own["epoch"]) == list(range(1, len(own) + 1))
    assert model.members_[0]["best_epoch"] == own["validation_loss"].to_numpy().argmin() + 1
    assert own["train_loss"].iloc[-1] < own["train_loss"].iloc[0]


def test_class_weight_balanced_lifts_the_rare_class():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 2))
    y = (X[:, 0] + rng.normal(size=600) > 1.8).astype(int)
    # Of seed 0 the balanced fit diverges, and how good the weights are that it has by then is luck.
    chosen = QUICK | {"random_state": 1}
    plain = InnaClassifier(**chosen).fit(X, y)
    balanced = InnaClassifier(class_weight="balanced", **chosen).fit(X, y)
    assert balanced.predict(X).mean() > 2 * max(plain.predict(X).mean(), 0.01)


def test_weights_are_repetitions_in_full_batch():
    X, y = load_iris(return_X_y=True)
    weight = np.random.default_rng(0).integers(0, 3, len(X))
    order = np.repeat(np.arange(len(X)), weight)
    settings = QUICK | {"early_stopping": False, "batch_size": 1000, "alpha": 0.5, "beta": 0.1, "lr": 0.1}
    weighted = InnaClassifier(**settings).fit(X, y, sample_weight=weight)
    repeated = InnaClassifier(**settings).fit(X[order], y[order])
    np.testing.assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), atol=1e-4)


def test_scores_as_scikit_learn_sees_them():
    X, y = load_iris(return_X_y=True)
    assert cross_val_score(InnaClassifier(**{**QUICK, "max_epochs": 60}), X, y, cv=3).mean() > 0.85


def test_settings_that_diverge_are_an_error_that_names_them():
    X, y = load_iris(return_X_y=True)
    with pytest.raises(DivergenceError, match=r"lr=1e\+06.*Lower lr"):
        InnaClassifier(lr=1e6, alpha=0.1, beta=1e6, **QUICK).fit(X, y)


def test_an_automatic_step_that_diverges_is_tried_smaller():
    """A damping far too large for the curvature makes the calibrated step unstable; a quarter or a sixteenth is not."""
    X, y = load_breast_cancer(return_X_y=True)
    model = InnaClassifier(beta=40.0, longest_step=None, **QUICK)
    with pytest.warns(ConvergenceWarning, match="trying a quarter"):
        model.fit(X, y)
    assert model.score(X, y) > 0.8
    assert model.members_[0]["lr"] < 0.2


def test_divergence_later_on_keeps_the_best_and_warns():
    X, y = load_breast_cancer(return_X_y=True)
    model = InnaClassifier(
        **{**QUICK, "lr": 1.9, "alpha": 0.0, "beta": 0.95, "max_epochs": 200, "decay": "constant"}
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model.fit(X, y)
        except DivergenceError:
            return
    reasons = {m["stop_reason"] for m in model.members_}
    assert np.isfinite(model.predict_proba(X)).all()
    assert ("diverged" in reasons) == any(issubclass(w.category, ConvergenceWarning) for w in caught)


@pytest.mark.parametrize("n_members", ["auto", 3])
def test_a_net_that_diverges_beside_others_is_in_no_mean(monkeypatch, n_members):
    """Its best weights may be those of its first epoch, of a loss a hundred times that of the others."""
    X, y = load_diabetes(return_X_y=True)
    model = InnaRegressor(
        **QUICK | {"n_members": n_members, "lr": 0.05, "alpha": 0.3, "beta": 0.3, "max_epochs": 20},
        linear_path=False,
        longest_step=None,
    )
    members_for = InnaRegressor._members_for

    def one_too_fast(self, *args, **kwargs):
        first, *others = members_for(self, *args, **kwargs)
        return [replace(first, lr=0.35), *others]

    monkeypatch.setattr(InnaRegressor, "_members_for", one_too_fast)
    with pytest.warns(ConvergenceWarning, match=r"1 of \d nets diverged and are left out"):
        model.fit(X, y)
    assert {m["stop_reason"] for m in model.members_} <= {"early_stopping", "max_epochs"}
    assert len(model.weights_) == len(model.members_) == (7 if n_members == "auto" else 2)
    assert model.score(X, y) > 0.4


def result(reason, jury=0, loss=1.0):
    return MemberResult(None, 1, loss, 1, reason, 0.1, 0.1, 0.1, None, jury=jury)


@given(st.lists(st.tuples(st.sampled_from(get_args(StopReason)), st.booleans()), min_size=1))
def test_of_several_nets_those_count_that_lasted_or_where_none_did_those_that_are_trained(nets):
    counts = who_counts((result(reason) for reason, _ in nets), (trained for _, trained in nets))
    lasted = [trained and reason != "diverged" for reason, trained in nets]
    assert counts == (lasted if any(lasted) else [trained for _, trained in nets])


@pytest.mark.parametrize(
    ("losses", "which"),
    [
        ((1.0, 1.0), {0, 1}),
        ((1.0, 1.009), {0, 1}),
        ((1.0, 1.02), {0}),
        ((0.5, 0.2), {1}),
        ((-0.9, -0.895), {0, 1}),  # a score that is higher where better, with its sign turned
        ((-0.5, -0.9), {1}),
        ((-math.inf, 1.0), {0}),
        ((math.inf, math.inf), {0, 1}),
    ],
)
def test_of_two_juries_the_better_one_counts_or_both_where_they_are_level(losses, which):
    nets = [result("max_epochs", jury, losses[jury]) for jury in (0, 1, 0, 1)]
    assert who_counts(nets, [True] * 4) == [jury in which for jury in (0, 1, 0, 1)]
    # What has diverged speaks for no jury, whatever its first epochs were.
    gone = [replace(net, stop_reason="diverged", best_loss=-9.0) for net in nets[:2]]
    assert who_counts([*gone, *nets[2:]], [True] * 4)[:2] == [False, False]
    alone = [replace(net, stop_reason="diverged") if net.jury == 0 else net for net in nets]
    assert who_counts(alone, [True] * 4) == [False, True, False, True]


def test_bad_targets_are_refused():
    X, y = load_iris(return_X_y=True)
    with pytest.raises(ValueError, match="1 class"):
        InnaClassifier(**QUICK).fit(X, np.zeros(len(X)))
    with pytest.raises(ValueError, match="2 missing labels"):
        InnaClassifier(**QUICK).fit(X, pd.Series([None, None, *["a", "b"] * 74], dtype=object))
    with pytest.raises(ValueError, match="inconsistent numbers"):
        InnaClassifier(**QUICK).fit(X, y[:-1])
    with pytest.raises(ValueError, match="NaN"):
        InnaRegressor(**QUICK).fit(X, np.full(len(X), np.nan))
    with pytest.raises(ValueError, match="infinity"):
        InnaRegressor(**QUICK).fit(X, np.full(len(X), np.inf))


def test_nothing_is_done_in_the_constructor_and_predicting_first_is_an_error():
    model = InnaClassifier(lr="nonsense")
    assert model.get_params()["lr"] == "nonsense"
    with pytest.raises(NotFittedError):
        InnaClassifier().predict([[1.0]])


def test_a_table_with_other_columns_is_refused():
    X, score = titanic_like(100)
    model = InnaRegressor(**QUICK).fit(X, score)
    with pytest.raises(ValueError, match="age"):
        model.predict(X.drop(columns="age"))


@pytest.mark.parametrize(
    ("sizes", "widths"), [((8, 4), (8, 4)), ([8], (8,)), (8, (8,)), ("8-4", (8, 4)), ("8", (8,)), ((), ())]
)
def test_layer_sizes_may_be_written_in_several_ways(sizes, widths):
    X, y = load_iris(return_X_y=True)
    model = InnaClassifier(hidden_layer_sizes=sizes, max_epochs=1).fit(X, y)
    assert model.net_.hidden_layer_sizes == widths


def test_options_of_the_optimizer_are_parameters():
    net = InnaClassifier(optimizer="sgd", optimizer_params={"momentum": 0.8})
    assert net.get_params()["optimizer__momentum"] == 0.8
    assert "optimizer__momentum" not in net.get_params(deep=False)
    changed = clone(net).set_params(optimizer__momentum=0.5, lr=0.1)
    assert (changed.optimizer_params, changed.lr) == ({"momentum": 0.5}, 0.1)
    assert net.optimizer_params == {"momentum": 0.8}
    assert InnaClassifier().set_params(optimizer__sigma=0.9).optimizer_params == {"sigma": 0.9}
    with pytest.raises(ValueError, match="momentun is none of the options"):
        changed.set_params(optimizer__momentun=0.9)._check_parameters()


def test_the_momentum_of_sgd_is_searched_over():
    X, y = load_iris(return_X_y=True)
    net = InnaClassifier(
        optimizer="sgd",
        optimizer_params={"momentum": 0.9},
        hidden_layer_sizes=(8,),
        max_epochs=3,
        n_members=1,
    )
    search = GridSearchCV(net, {"optimizer__momentum": [0.0, 0.99], "lr": [0.05]}, cv=2).fit(X, y)
    first, second = search.cv_results_["mean_test_score"]
    assert first != second
    assert search.best_estimator_.optimizer_params == {"momentum": search.best_params_["optimizer__momentum"]}


def test_a_model_trained_in_float32_tells_each_row_alone():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((400, 3))
    model = InnaRegressor(hidden_layer_sizes=(16,), max_epochs=2, random_state=0).fit(X, X[:, 0])
    assert model.weights_.dtype == torch.float32
    whole = model.predict(X)
    for rows in ([7], [399, 0], range(130, 300)):
        np.testing.assert_array_equal(model.predict(X[list(rows)]), whole[list(rows)])

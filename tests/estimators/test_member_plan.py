"""The default number of nets: how many, on which rows, stopped by whom."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from sklearn.datasets import load_breast_cancer, load_diabetes

import inna_tune
from inna_tune import InnaClassifier, InnaRegressor
from inna_tune.engine import Training
from inna_tune.estimators.member_plan import cross_fitted, plan_members
from inna_tune.estimators.splitting import draw_seeds

QUICK = {"hidden_layer_sizes": (4,), "numeric_embedding": "none", "max_epochs": 3, "random_state": 0}
USUAL = {"batch_size": 128, "max_epochs": 100, "early_stopping": True}


def plan(n_rows, n_members="auto", **changes):
    return plan_members(n_members, n_rows, **USUAL | changes)


@given(n_rows=st.integers(1, 5000), n_members=st.integers(1, 20), stops=st.booleans())
def test_a_number_of_members_is_that_of_nets_on_the_same_rows(n_rows, n_members, stops):
    found = plan(n_rows, n_members, early_stopping=stops)
    assert (found.n_members, found.n_folds, found.max_epochs) == (n_members, 0, 100)


@given(n_rows=st.integers(1, 50000), batch_size=st.integers(1, 600), most=st.integers(1, 300))
def test_auto_is_several_nets_on_few_rows_and_never_longer_than_asked(n_rows, batch_size, most):
    found = plan(n_rows, batch_size=batch_size, max_epochs=most)
    assert found.max_epochs <= most
    if n_rows >= 4000:
        assert found.n_members == (max(2, 16000 // n_rows) if n_rows < 25000 else 1)
        assert (found.n_folds, found.max_epochs) == (10 if found.n_members > 1 else 0, most)
    else:
        assert found.n_members == 8
        assert found.n_folds == found.n_linear == (4 if n_rows >= 40 else 0)
        steps = found.max_epochs * -(-n_rows // batch_size)
        assert found.max_epochs == most or (n_rows < 40 and found.max_epochs >= 30 and steps >= 50)


@given(
    n_rows=st.integers(1, 50000), batch_size=st.integers(1, 600), n_members=st.sampled_from(["auto", 1, 3])
)
def test_epochs_are_more_where_they_are_short_and_something_stops_them(n_rows, batch_size, n_members):
    def auto(stops):
        return plan(n_rows, n_members, batch_size=batch_size, max_epochs="auto", early_stopping=stops)

    most = 300 if n_rows < 4000 else 100
    assert auto(True) == plan(n_rows, n_members, batch_size=batch_size, max_epochs=most)
    assert auto(False) == plan(n_rows, n_members, batch_size=batch_size, max_epochs=100, early_stopping=False)


@pytest.mark.parametrize("settings", [{}, {"early_stopping": False}, {"n_members": 2}, {"optimizer": "sgd"}])
def test_the_step_falls_over_the_epochs_that_the_rows_come_to(settings):
    X, y = load_breast_cancer(return_X_y=True)
    own = {"hidden_layer_sizes": (2,), "numeric_embedding": "none", "patience": 1, "lr": 0.01}
    if "early_stopping" in settings:
        X, y = X[:60], y[:60]
    model = InnaClassifier(random_state=0, **own | settings).fit(X, y)
    most = 100 if "early_stopping" in settings else 300
    history = model.history_[model.history_["member"] == 0]
    expected = [inna_tune.optim.decay_factor("cosine", k, horizon=most) for k in range(len(history))]
    np.testing.assert_allclose(history["lr"] / history["lr"].iloc[0], expected, rtol=1e-6)
    assert len(history) > 1
    assert InnaClassifier(max_epochs="auto").get_params() == InnaClassifier().get_params()


@given(n_rows=st.integers(4000, 24999), share=st.floats(0.01, 0.9))
def test_each_net_of_a_larger_table_leaves_out_another_part_of_the_size_that_is_asked_for(n_rows, share):
    parts = plan(n_rows, validation_fraction=share).n_folds
    assert parts == 2 or abs(1 / parts - share) <= share / (2 * parts - 1) + 1e-9


def test_two_nets_of_a_larger_table_stop_together_by_rows_that_neither_shares():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(4100, 2))
    y = X[:, 0] + rng.normal(size=len(X))
    model = InnaRegressor(**QUICK | {"max_epochs": 2, "batch_size": 1024}).fit(X, y)
    assert len(model.members_) == 3
    assert len({m["best_epoch"] for m in model.members_}) == 1
    assert len({m["best_loss"] for m in model.members_}) == 1, "of what they predict together"


def test_without_early_stopping_no_row_is_left_out_and_every_epoch_is_trained():
    found = plan(500, early_stopping=False)
    assert (found.n_members, found.n_folds, found.max_epochs) == (8, 0, 100)
    X, y = load_diabetes(return_X_y=True)
    model = InnaRegressor(early_stopping=False, **QUICK).fit(X, y)
    assert plan(9000, early_stopping=False) == plan(9000, 2, early_stopping=False)
    assert len(model.members_) == 8
    assert model.history_["validation_loss"].isna().all()
    assert set(model.history_.groupby("member")["epoch"].max()) == {3}


def rows_of(classes, repeats, seed):
    """Rows, some of them equal, in a mixed order, with their classes."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(len(classes), 2)).astype(np.float32)
    order = rng.permutation(np.repeat(np.arange(len(classes)), repeats))
    return x[order], np.array(classes, dtype=np.int64)[order]


TABLES = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4)), min_size=1, max_size=40)


@given(rows=TABLES, seed=st.integers(0, 2**31), n_folds=st.integers(2, 5), rounds=st.integers(1, 3))
def test_each_row_is_left_out_once_a_round_and_equal_rows_together(rows, seed, n_folds, rounds):
    x, target = rows_of([c for c, _ in rows], [n for _, n in rows], seed)
    found = cross_fitted(x, target, n_folds * rounds, n_folds, seed)
    alone = [c for c in np.unique(target) if len(np.unique(x[target == c], axis=0)) == 1]
    for begin in range(0, len(found), n_folds):
        out = np.concatenate([validation for _, validation in found[begin : begin + n_folds]])
        assert sorted(out) == np.flatnonzero(~np.isin(target, alone)).tolist()
    for train, validation in found:
        assert sorted([*train, *validation]) == list(range(len(x)))
        both = {tuple(r) for r in x[train].tolist()} & {tuple(r) for r in x[validation].tolist()}
        assert not both
        assert set(target[validation]) <= set(target[train]), "no class is one that the net has never seen"


@given(rows=TABLES, seed=st.integers(0, 2**31))
def test_the_parts_know_nothing_of_how_often_a_row_comes_and_where(rows, seed):
    classes = [c for c, _ in rows]
    once, target = rows_of(classes, 1, seed)
    often, targets = rows_of(classes, [n for _, n in rows], seed)
    for (_, a), (_, b) in zip(
        cross_fitted(once, target, 4, 4, seed), cross_fitted(often, targets, 4, 4, seed), strict=True
    ):
        assert {tuple(r) for r in once[a].tolist()} == {tuple(r) for r in often[b].tolist()}


@given(counts=st.lists(st.integers(2, 30), min_size=1, max_size=4), seed=st.integers(0, 1000))
def test_every_class_is_dealt_out_evenly(counts, seed):
    x, target = rows_of(np.repeat(np.arange(len(counts)), counts), 1, seed)
    for _, validation in cross_fitted(x, target, 4, 4, seed):
        for label, count in enumerate(counts):
            assert abs((target[validation] == label).sum() - count / 4) < 1
        assert abs(len(validation) - len(x) / 4) < 1


def test_the_members_of_a_small_table_keep_one_epoch_of_the_least_loss_together():
    """By hand: every epoch's weights, what they say of the rows that were left out, and the loss of the mean."""
    X, y = load_breast_cancer(return_X_y=True)
    X, y = X[:150], y[:150]
    own = {"hidden_layer_sizes": (8,), "random_state": 3, "averaging": None, "decay": "constant"}
    own["linear_path"] = False
    model = InnaClassifier(max_epochs=12, lr=0.4, alpha=0.5, beta=0.4, **own).fit(X, y)
    seed, *_ = draw_seeds(3, 9)
    table = model.encoder_.encode(model._read(X, y, None, reset=False)[0], np.float64)
    parts = cross_fitted(table, y, 8, 4, seed)
    losses = []
    for epochs in range(1, 13):
        # A law without horizon: so many epochs are the first of the longer training.
        short = InnaClassifier(max_epochs=epochs, lr=0.4, alpha=0.5, beta=0.4, **own)
        plan = short._plan_for(len(y))
        short.fit(X, y)
        raw = np.zeros((2, len(y), 2))
        last = torch.stack([s.weights for s in short._states])
        short.weights_ = last
        for i, (_, validation) in enumerate(parts):
            raw[i // 4, validation] = short._outputs(X[validation])[i]
        mean = log_softmax(log_softmax(raw, -1).mean(0), -1)
        losses.append(-mean[np.arange(len(y)), y].mean())
        assert plan.n_folds == 4
    assert {m["best_epoch"] for m in model.members_} == {int(np.argmin(losses)) + 1}
    for member in model.members_:
        assert member["best_loss"] == pytest.approx(min(losses), rel=1e-6)


def test_members_of_auto_pool_the_logarithms_of_their_probabilities():
    X, y = load_breast_cancer(return_X_y=True)
    model = InnaClassifier(**QUICK).fit(X[:100], y[:100])
    raw = model._outputs(X)
    expected = softmax(log_softmax(raw, -1).mean(0), -1)
    np.testing.assert_allclose(model.predict_proba(X), expected)
    model.n_members = 8
    np.testing.assert_allclose(model.predict_proba(X), softmax(raw, -1).mean(0))


@pytest.mark.parametrize("regression", [False, True])
def test_a_row_of_weight_two_is_two_rows(regression):
    """In one batch, with rows left out and watched."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 3))
    y = X[:, 0] + rng.normal(size=50)
    kind = InnaRegressor if regression else InnaClassifier
    y = y if regression else (y > 0).astype(int)
    weight = rng.integers(1, 3, 50)
    order = rng.permutation(weight.sum())
    weighted = kind(**QUICK).fit(X, y, sample_weight=weight)
    doubled = kind(**QUICK).fit(np.repeat(X, weight, 0)[order], np.repeat(y, weight)[order])
    assert [m["best_epoch"] for m in weighted.members_] == [m["best_epoch"] for m in doubled.members_]
    predict = "predict" if regression else "predict_proba"
    np.testing.assert_allclose(getattr(weighted, predict)(X), getattr(doubled, predict)(X), atol=1e-5)


def test_patience_stops_all_members_together():
    X, y = load_breast_cancer(return_X_y=True)
    own = QUICK | {"max_epochs": 100, "batch_size": 2, "patience": 1, "lr": 1e-9, "alpha": 1.0, "beta": 1e-3}
    X, y = X[:200], y[:200]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = InnaClassifier(**own | {"averaging": None, "dropout": 0.0}).fit(X, y)
    assert len({m["epochs"] for m in model.members_}) == 1
    assert len({m["best_epoch"] for m in model.members_}) == 1


@pytest.mark.parametrize(
    ("settings", "n_rows", "expected"),
    [
        ({}, 2000, 8),
        ({}, 300, 30),
        ({}, 5000, 8),
        ({"n_members": 3}, 2000, 15),
        ({"n_members": 3}, 300, 30),
        ({"eval_metric": "accuracy"}, 2000, 15),
        ({"patience": 3}, 2000, 8),
        ({"patience": 3}, 5000, 3),
        ({"patience": 40}, 2000, 40),
        ({"early_stopping": False}, 2000, None),
    ],
)
def test_nets_that_stop_by_a_smooth_loss_have_less_patience(settings, n_rows, expected, monkeypatch):
    class FoundError(Exception):
        pass

    def stop(self, net, tensors, members, *args, **words):
        raise FoundError([member.patience for member in members])

    monkeypatch.setattr(Training, "__init__", stop)
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(n_rows, 2)), rng.integers(2, size=n_rows)
    with pytest.raises(FoundError) as found:
        InnaClassifier(hidden_layer_sizes=(2,), random_state=0, **settings).fit(X, y)
    assert set(found.value.args[0]) == {expected}


def test_who_goes_on_with_few_rows_has_the_epochs_that_are_asked_for():
    X, y = load_diabetes(return_X_y=True)
    model = InnaRegressor(warm_start=True, **QUICK | {"max_epochs": 60, "patience": 100, "lr": 1e-3})
    model.partial_fit(X, y).fit(X[:30], y[:30])
    assert set(model.history_.groupby("member")["epoch"].max()) == {60}


def test_who_goes_on_keeps_the_members_that_there_are():
    X, y = load_diabetes(return_X_y=True)
    model = InnaRegressor(warm_start=True, **QUICK).fit(X, y)
    n_members = len(model.members_)
    assert len(model.fit(X, y).members_) == n_members
    assert len(model.partial_fit(X, y).members_) == n_members
    began = InnaRegressor(warm_start=True, **QUICK).partial_fit(X, y)
    assert len(began.members_) == 1
    assert len(began.fit(X, y).members_) == 1


def test_a_model_file_knows_how_its_members_predict(tmp_path):
    X, y = load_breast_cancer(return_X_y=True)
    model = InnaClassifier(**QUICK).fit(X[:100], y[:100])
    model.save(tmp_path / "m.inna")
    again = inna_tune.load(tmp_path / "m.inna")
    assert again.n_members == "auto"
    assert np.array_equal(again.predict_proba(X), model.predict_proba(X))


def test_other_words_for_the_number_are_refused():
    with pytest.raises(ValueError, match="n_members='many': must be"):
        InnaClassifier(n_members="many").fit([[0.0], [1.0]], [0, 1])

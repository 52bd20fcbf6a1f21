"""Rows to stop early by that a person gives: fit(X, y, X_val=..., y_val=...)."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone, is_classifier
from sklearn.metrics import get_scorer, log_loss, roc_auc_score

from inna_tune import InnaClassifier, InnaRegressor, InnaSearchCV
from inna_tune.engine import Training

OWN = {"hidden_layer_sizes": (4,), "max_epochs": 4, "random_state": 0}
NETS = [InnaClassifier(**OWN), InnaRegressor(**OWN)]
both = pytest.mark.parametrize("net", NETS, ids=lambda net: type(net).__name__)


def table(n, seed):
    """A mixed table with missing values, and a target of each kind."""
    rng = np.random.default_rng(seed)
    number = rng.normal(size=n)
    words = np.array(["fine day", "rain, much rain", "some snow fell", "a storm", "the wind is cold"])
    frame = pd.DataFrame(
        {
            "number": np.where(rng.random(n) < 0.1, np.nan, number),
            "when": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 900, n), unit="D"),
            "kind": pd.Categorical(rng.choice(["a", "b", "c"], n), categories=["a", "b", "c"]),
            "note": [f"{w} {i}" for i, w in enumerate(rng.choice(words, n))],
        }
    )
    frame.loc[rng.random(n) < 0.1, "kind"] = np.nan
    return frame, number + (frame["kind"] == "a").to_numpy() + 0.3 * rng.normal(size=n)


def target(net, values):
    return np.where(values > 0.3, "yes", "no") if is_classifier(net) else values


X, VALUES = table(120, 0)
X_VAL, VALUES_VAL = table(50, 1)


def given_to(net):
    return {"X_val": X_VAL, "y_val": target(net, VALUES_VAL)}


@pytest.fixture
def told(monkeypatch):
    """The members of every training."""
    found = []
    init = Training.__init__

    def note(self, net, tensors, members, *args, **kwargs):
        found.append((tensors, members))
        init(self, net, tensors, members, *args, **kwargs)

    monkeypatch.setattr(Training, "__init__", note)
    return found


@both
@pytest.mark.parametrize("n_members", ["auto", 1, 3])
def test_all_rows_are_trained_on_and_the_given_ones_watched(net, n_members, told):
    model = clone(net).set_params(n_members=n_members).fit(X, target(net, VALUES), **given_to(net))
    ((tensors, members),) = told
    assert len(tensors.x) == len(X) + len(X_VAL)
    for member in members:
        np.testing.assert_array_equal(member.train_rows, np.arange(len(X)))
        np.testing.assert_array_equal(member.validation_rows, len(X) + np.arange(len(X_VAL)))
        assert member.patience is not None
    assert (
        len({member.seed for member in members}) == len(members) == (8 if n_members == "auto" else n_members)
    )
    assert model.history_["validation_loss"].notna().all()


@both
def test_the_validation_loss_is_that_of_the_rows_given(net):
    """Checked against what the fitted model says of them, of the single epoch that it has trained."""
    own = clone(net).set_params(n_members=1, max_epochs=1)
    y_val, weight = target(net, VALUES_VAL), np.linspace(0, 2, len(X_VAL))
    model = own.fit(X, target(net, VALUES), **given_to(net), sample_weight_val=weight)
    if is_classifier(net):
        expected = log_loss(y_val, model.predict_proba(X_VAL), sample_weight=weight)
    else:
        error = (model.predict(X_VAL) - y_val) / model.target_scale_
        expected = np.average(error**2, weights=weight)
    assert model.history_["validation_loss"].item() == pytest.approx(expected, rel=1e-4)


@both
def test_they_stop_the_training_and_nothing_else(net):
    """Without a better epoch the weights are those that the rows given chose; they have no part in training or encoding."""
    y = target(net, VALUES)
    model = clone(net).set_params(n_members=1, max_epochs=30, patience=15, batch_size=16, averaging=None)
    stopped = clone(model).fit(X, y, **given_to(net))
    kept = stopped.best_epoch_
    straight = clone(model).set_params(early_stopping=False).fit(X, y)
    losses = stopped.history_["validation_loss"]
    assert kept == losses.idxmin() + 1
    np.testing.assert_allclose(
        stopped.history_["train_loss"], straight.history_["train_loss"][: len(losses)], rtol=1e-5
    )


@both
def test_weights_of_zero_are_rows_that_are_not_there(net):
    y, y_val = target(net, VALUES), target(net, VALUES_VAL)
    strange = y_val.copy()
    strange[:5] = "never seen" if is_classifier(net) else 1e9
    weight = np.r_[np.zeros(5), np.ones(len(y_val) - 5)]
    model = clone(net).set_params(n_members=1)
    left_out = clone(model).fit(X, y, X_val=X_VAL[5:], y_val=y_val[5:])
    weighted = clone(model).fit(
        X, y, X_val=X_VAL, y_val=strange.astype(y_val.dtype), sample_weight_val=weight
    )
    pd.testing.assert_frame_equal(
        left_out.history_.drop(columns="seconds"), weighted.history_.drop(columns="seconds")
    )


def test_class_weights_are_those_of_the_training_rows():
    y, y_val = target(NETS[0], VALUES), target(NETS[0], VALUES_VAL)
    model = clone(NETS[0]).set_params(n_members=1, max_epochs=1, class_weight="balanced")
    model.fit(X, y, X_val=X_VAL, y_val=y_val)
    share = {label: len(y) / (2 * (y == label).sum()) for label in ("yes", "no")}
    weight = [share[label] for label in y_val]
    expected = log_loss(y_val, model.predict_proba(X_VAL), sample_weight=weight)
    assert model.history_["validation_loss"].item() == pytest.approx(expected, rel=1e-4)


@both
@pytest.mark.parametrize(
    ("given_", "error", "words"),
    [
        ({"y_val": None}, ValueError, "X_val is given without y_val; give both"),
        ({"X_val": None}, ValueError, "y_val is given without X_val; give both"),
        (
            {"X_val": None, "y_val": None, "sample_weight_val": [1]},
            ValueError,
            "sample_weight_val is given without",
        ),
        (
            {"X_val": X_VAL[["number", "when"]]},
            ValueError,
            r"\(X_val, y_val\): The feature names should match",
        ),
        ({"X_val": X_VAL.iloc[:3]}, ValueError, r"\(X_val, y_val\): Found input variables with inconsistent"),
        ({"X_val": X_VAL.iloc[:0], "y_val": []}, ValueError, r"\(X_val, y_val\): Found array with 0 sample"),
        ({"sample_weight_val": np.zeros(50)}, ValueError, r"\(X_val, y_val\): sample_weight is zero"),
        ({"sample_weight_val": -np.ones(50)}, ValueError, r"\(X_val, y_val\): sample_weight holds negative"),
        ({"X_val": X_VAL.to_numpy()[:, 0]}, ValueError, r"\(X_val, y_val\): Expected 2D array"),
        ({"y_val": [None] * 50}, ValueError, r"\(X_val, y_val\): "),
    ],
)
def test_what_makes_no_sense_is_refused_before_training(net, given_, error, words, told):
    with pytest.raises(error, match=words):
        clone(net).fit(X, target(net, VALUES), **{**given_to(net), **given_})
    assert told == []


def test_labels_and_targets_that_training_does_not_have(told):
    with pytest.raises(ValueError, match=r"y_val holds labels that y does not: \['maybe'\]"):
        clone(NETS[0]).fit(X, target(NETS[0], VALUES), X_val=X_VAL, y_val=["yes", "maybe"] * 25)
    with pytest.raises(ValueError, match=r"\(X_val, y_val\): y has 2 targets"):
        clone(NETS[1]).fit(X, VALUES, X_val=X_VAL, y_val=np.column_stack([VALUES_VAL, VALUES_VAL]))
    assert told == []


@both
def test_without_early_stopping_they_are_refused(net, told):
    with pytest.raises(ValueError, match="early_stopping=False; set it to True"):
        clone(net).set_params(early_stopping=False).fit(X, target(net, VALUES), **given_to(net))
    assert told == []


@both
def test_a_warm_start_takes_them_too(net, told):
    model = clone(net).set_params(warm_start=True, n_members=2)
    model.fit(X, target(net, VALUES)).fit(X, target(net, VALUES), **given_to(net))
    assert len(told[-1][1][0].validation_rows) == len(X_VAL)
    assert model.history_["validation_loss"].notna().all()


def test_a_search_says_that_it_has_no_use_for_them():
    with sklearn.config_context(enable_metadata_routing=True):
        net = InnaClassifier(**OWN).set_fit_request(X_val=True, y_val=True)
        with pytest.raises(TypeError, match=r"asks for \['X_val', 'y_val'\]"):
            InnaSearchCV(net, n_trials=1, cv=2).fit(X, target(net, VALUES), **given_to(net))


# ---------------------------------------------------------------------- eval_metric


def own_scorer(estimator, X, y):
    """One that looks at the rows, too."""
    assert list(X.columns) == ["number", "when", "kind", "note"]
    assert len(X) == len(y)
    return float(np.mean(estimator.predict(X) == y)) - 1e-9 * X["number"].notna().sum()


def last_epoch_score(model, metric, X, y, **kwargs):
    scorer = get_scorer(metric) if isinstance(metric, str) else metric
    return scorer(model, X, y, **kwargs)


METRICS = [
    (NETS[0], "roc_auc"),
    (NETS[0], "accuracy"),
    (NETS[0], "neg_log_loss"),
    (NETS[0], own_scorer),
    (NETS[1], "r2"),
    (NETS[1], "neg_mean_absolute_error"),
]


@pytest.mark.parametrize(("net", "metric"), METRICS)
@pytest.mark.parametrize("n_members", ["auto", 1])
def test_the_kept_epoch_is_the_best_by_the_metric_on_the_rows_given(net, metric, n_members):
    model = clone(net).set_params(eval_metric=metric, n_members=n_members)
    model.fit(X, target(net, VALUES), **given_to(net))
    best = model.history_["validation_score"].max()
    y_val = target(net, VALUES_VAL)
    assert last_epoch_score(model, metric, X_VAL, y_val) == pytest.approx(best, rel=1e-4)
    assert model.members_[0]["best_loss"] == -best
    first = model.history_.groupby("member")["validation_score"].idxmax()
    assert model.history_.loc[first, "epoch"].max() == model.best_epoch_


@pytest.mark.parametrize(("net", "metric"), METRICS)
@pytest.mark.parametrize("size", [120, 400])
def test_it_judges_rows_that_are_held_out_too(net, metric, size):
    frame, values = table(size, 2)
    y = target(net, values)
    model = clone(net).set_params(eval_metric=metric).fit(frame, y)
    assert model.history_["validation_score"].notna().all()
    assert "validation_score" not in clone(net).fit(frame, y).history_


def test_weights_are_those_of_the_rows():
    weight = np.linspace(0.1, 2, len(X_VAL))
    model = InnaClassifier(**OWN, n_members=1, eval_metric="roc_auc", class_weight="balanced")
    model.fit(X, target(model, VALUES), **given_to(model), sample_weight_val=weight)
    best = model.history_["validation_score"].max()
    found = roc_auc_score(target(model, VALUES_VAL), model.predict_proba(X_VAL)[:, 1], sample_weight=weight)
    assert found == pytest.approx(best)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_true_values_are_scored_to_the_last_bit(data):
    """Scaled to train on and back, a zero would be 1e-17, which some metrics refuse."""
    values = np.array(data.draw(st.lists(st.floats(0, 1e6), min_size=12, max_size=12)))
    if np.ptp(values) == 0:
        values[0] += 1.0
    seen = []

    def note(estimator, X, y):
        seen.append(np.array(y))
        return 0.0

    frame = pd.DataFrame({"a": np.arange(12.0)})
    net = InnaRegressor(hidden_layer_sizes=(2,), max_epochs=1, n_members=1, eval_metric=note)
    net.fit(frame, values, X_val=frame, y_val=values)
    assert len(seen) == 2  # once to see that it can be, once for the epoch
    for each in seen:
        np.testing.assert_array_equal(each, values)


def broken(estimator, X, y):
    raise RuntimeError("no luck")


@pytest.mark.parametrize(
    ("net", "metric", "y_val", "words"),
    [
        (
            NETS[0],
            "roc_auc",
            ["yes"] * 50,
            r"eval_metric='roc_auc' can't score the 50 validation rows.*not a number",
        ),
        (NETS[1], "neg_mean_squared_log_error", -np.ones(50), r"can't score .*ValueError: "),
        (NETS[0], broken, None, r"eval_metric=<function broken .*RuntimeError: no luck"),
        (NETS[1], lambda e, X, y: "high", None, r"scoring must return a number"),
        (NETS[1], "roc_auc", None, r"eval_metric='roc_auc' can't score"),
    ],
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
def test_a_metric_that_can_not_score_the_rows_is_refused_before_training(net, metric, y_val, words, told):
    own = given_to(net) if y_val is None else {**given_to(net), "y_val": y_val}
    with pytest.raises(ValueError, match=words):
        clone(net).set_params(eval_metric=metric).fit(X, target(net, VALUES), **own)
    assert told == []


def test_an_epoch_that_can_not_be_scored_is_no_better_than_others():
    judged = InnaRegressor(**OWN, n_members=1, eval_metric="neg_mean_squared_log_error")
    values = np.abs(VALUES) * 1e-3
    model = judged.fit(X, values, X_val=X_VAL, y_val=np.abs(VALUES_VAL) * 1e-3)
    scores = model.history_["validation_score"]
    assert model.best_epoch_ == 0 or np.isfinite(scores[model.best_epoch_ - 1])


def test_a_search_stops_its_folds_by_the_metric():
    from sklearn.model_selection import cross_val_score

    frame, values = table(130, 3)
    net = InnaClassifier(**OWN, eval_metric="roc_auc", lr=0.1)
    y = target(net, values)
    search = InnaSearchCV(net, first="default", n_trials=2, cv=2, random_state=0).fit(frame, y)
    assert "validation_score" in search.best_estimator_.history_
    for params, value in zip(
        search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True
    ):
        if not np.isnan(value):
            own = cross_val_score(clone(net).set_params(**params), frame, y, cv=2, scoring="neg_log_loss")
            assert own.mean() == pytest.approx(value, rel=1e-5)

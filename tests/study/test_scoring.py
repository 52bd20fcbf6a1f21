"""Scores at rungs are those of scikit-learn's scorers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import get_scorer, log_loss, make_scorer, root_mean_squared_error

from inna_tune import InnaClassifier, InnaRegressor
from inna_tune.study.evaluation import Cohort, FoldedTable
from inna_tune.study.scoring import quick_loss, resolve_scorer, rung_score


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 1000),
    n_classes=st.integers(2, 5),
    weighted=st.booleans(),
    extreme=st.booleans(),
)
def test_log_loss_is_scikit_learns(seed, n_classes, weighted, extreme):
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, 300 if extreme else 1, (30, n_classes))
    predicted = np.exp(scores - scores.max(1, keepdims=True))
    predicted /= predicted.sum(1, keepdims=True)
    target = rng.integers(n_classes, size=30)
    weight = rng.random(30) + 0.1 if weighted else None
    expected = -log_loss(target, predicted, sample_weight=weight, labels=np.arange(n_classes))
    assert rung_score("log_loss", predicted, target, weight) == pytest.approx(expected, rel=1e-9)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 1000), outputs=st.sampled_from([(), (1,), (3,)]), weighted=st.booleans())
def test_rmse_is_scikit_learns(seed, outputs, weighted):
    rng = np.random.default_rng(seed)
    predicted, target = rng.normal(size=(2, 20, *outputs))
    weight = rng.random(20) + 0.1 if weighted else None
    expected = -root_mean_squared_error(target, predicted, sample_weight=weight)
    assert rung_score("rmse", predicted, target, weight) == pytest.approx(expected, rel=1e-12)


def test_only_the_losses_themselves_are_stood_in_for():
    assert quick_loss(resolve_scorer(InnaClassifier(), None, np.array([0, 1]))) == "log_loss"
    assert quick_loss(resolve_scorer(InnaRegressor(), None, None)) == "rmse"
    assert quick_loss(get_scorer("neg_log_loss")) == "log_loss"
    assert quick_loss(get_scorer("neg_root_mean_squared_error")) == "rmse"
    for other in (
        get_scorer("accuracy"),
        get_scorer("neg_mean_squared_error"),
        make_scorer(log_loss, response_method="predict_proba"),
        make_scorer(log_loss, greater_is_better=False, response_method="predict_proba", normalize=False),
        lambda model, X, y: 0.0,
    ):
        assert quick_loss(other) is None


@pytest.mark.parametrize(
    "labels", [np.array(["b", "a", "c"]), np.array([10, 3, 7]), np.array([True, False, True])]
)
def test_a_trial_has_the_same_score_at_a_rung_whatever_its_labels(labels):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 3)), labels[rng.integers(len(labels), size=60)]
    rows = np.arange(60)
    estimator = InnaClassifier(hidden_layer_sizes=(4,), n_members=1, max_epochs=2, random_state=0)
    weight = rng.random(60) + 0.5
    for params in (None, {"sample_weight": weight}):
        folded = FoldedTable(estimator, _frame(X), y, None, [(rows[::2], rows[1::2])], params)
        cohort = Cohort(folded, [estimator])
        cohort.run(1)
        scorer = resolve_scorer(estimator, None, np.unique(y))
        at_rung, [final] = cohort.scores(0, scorer, final=False), cohort.scores(0, scorer)
        assert at_rung == [pytest.approx(final, rel=1e-5)]


def _frame(X):
    import pandas as pd

    return pd.DataFrame(X, columns=[f"x{i}" for i in range(X.shape[1])])

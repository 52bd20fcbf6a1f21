"""Quantiles of a regression, and what scikit-learn makes of our probabilities."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer
from sklearn.inspection import permutation_importance
from sklearn.metrics import mean_pinball_loss
from sklearn.model_selection import TunedThresholdClassifierCV, cross_val_score

from inna_tune import InnaClassifier, InnaRegressor, InnaSearchCV, cross_validate, load
from inna_tune.engine import Pinball
from inna_tune.estimators import exported_inputs, to_module

RNG = np.random.default_rng(0)
X = RNG.normal(size=(400, 2))
# The spread of the target grows with the second column.
Y = 3 * X[:, 0] + np.exp(0.7 * X[:, 1]) * RNG.normal(size=400) + 50
QUANTILES = (0.1, 0.5, 0.9)
NET = InnaRegressor(quantiles=QUANTILES, hidden_layer_sizes=(16,), n_members=1, max_epochs=40, random_state=0)


@pytest.fixture(scope="module")
def model():
    return clone(NET).fit(X[:300], Y[:300])


def test_they_do_not_cross_and_predict_gives_the_median(model):
    found = model.predict_quantiles(X)
    assert found.shape == (400, 3)
    assert (np.diff(found, axis=1) >= 0).all()
    assert np.array_equal(model.predict(X), found[:, 1])


def test_they_are_better_than_constants_and_widen_with_the_spread(model):
    found = model.predict_quantiles(X[300:])
    for i, q in enumerate(QUANTILES):
        constant = np.full(100, np.quantile(Y[:300], q))
        assert mean_pinball_loss(Y[300:], found[:, i], alpha=q) < 0.7 * mean_pinball_loss(
            Y[300:], constant, alpha=q
        )
    width = found[:, 2] - found[:, 0]
    assert np.corrcoef(width, X[300:, 1])[0, 1] > 0.5
    held = ((found[:, 0] <= Y[300:]) & (Y[300:] <= found[:, 2])).mean()
    assert 0.6 < held < 0.95


def test_crossing_outputs_are_put_in_order(model):
    raw = np.array([[[0.3, -0.2, 0.1]]])
    assert (np.diff(model._quantiles_from(raw)) > 0).all()


def test_the_median_lies_between_its_neighbours():
    model = clone(NET).set_params(quantiles=(0.25, 0.75), max_epochs=2, early_stopping=False).fit(X, Y)
    assert model.quantile_factors_.tolist() == [1.0, 1.0]
    assert model.predict(X) == pytest.approx(model.predict_quantiles(X).mean(1))
    one = clone(NET).set_params(quantiles=[0.9], max_epochs=2).fit(X, Y)
    assert one.predict(X) == pytest.approx(one.predict_quantiles(X)[:, 0])


def test_a_file_keeps_them_and_a_module_tells_them(model, tmp_path):
    model.save(tmp_path / "net.inna")
    again = load(tmp_path / "net.inna")
    assert np.array_equal(again.predict_quantiles(X), model.predict_quantiles(X))
    module = to_module(model)
    assert module.output_names == ("quantiles",)
    told = module(*(torch.from_numpy(a) for a in exported_inputs(model, X).values())).numpy()
    assert told == pytest.approx(model.predict_quantiles(X), rel=1e-5)


def test_searches_and_folds_train_them():
    net = clone(NET).set_params(max_epochs=3)
    own = cross_validate(net, X, Y, cv=2, scoring="neg_mean_absolute_error")["test_score"]
    assert own == pytest.approx(cross_val_score(net, X, Y, cv=2, scoring="neg_mean_absolute_error"), rel=1e-6)
    found = InnaSearchCV(net, n_trials=2, cv=2, random_state=0).fit(X, Y)
    assert found.best_estimator_.predict_quantiles(X).shape == (400, 3)


def test_its_slope_is_that_of_the_loss():
    loss = Pinball(QUANTILES)
    output = torch.randn(2, 7, 3, dtype=torch.float64, requires_grad=True)
    target = torch.randn(2, 7, 1, dtype=torch.float64)
    coefficient = torch.rand(2, 7, dtype=torch.float64)
    total = (loss.per_row(output, target) * coefficient).sum(1)
    (slope,) = torch.autograd.grad(total.sum(), output)
    found, own = loss.with_slope(output.detach(), target, coefficient)
    assert torch.allclose(found, total.detach())
    assert torch.allclose(own, slope)
    for q, column in enumerate(QUANTILES):
        theirs = mean_pinball_loss(target[0, :, 0], output.detach()[0, :, q], alpha=column)
        each = Pinball((column,)).per_row(output.detach()[:1, :, q : q + 1], target[:1])
        assert each.mean().item() == pytest.approx(theirs)


@pytest.mark.parametrize("quantiles", [(), (0.5, 0.1), (0.0, 0.5), (0.5, 0.5), (0.5, 1.0), "median", 0.5])
def test_what_are_no_quantiles_is_refused_before_training(quantiles):
    with pytest.raises(ValueError, match="quantiles"):
        clone(NET).set_params(quantiles=quantiles).fit(X, Y)


def test_what_has_none_says_so():
    with pytest.raises(ValueError, match="of one target"):
        clone(NET).fit(X, np.column_stack([Y, Y]))
    with pytest.raises(ValueError, match="fit it with quantiles"):
        clone(NET).set_params(quantiles=None, max_epochs=1).fit(X, Y).predict_quantiles(X)


@pytest.mark.parametrize("searched", [False, True])
def test_a_threshold_is_tuned_by_a_metric(searched):
    rows, target = load_breast_cancer(return_X_y=True, as_frame=True)
    rows, target = rows.iloc[:160, :5], 1 - target.iloc[:160]
    net = InnaClassifier(hidden_layer_sizes=(4,), n_members=1, max_epochs=4, random_state=0)
    inner = InnaSearchCV(net, n_trials=1, cv=2, random_state=0) if searched else net
    tuned = TunedThresholdClassifierCV(inner, scoring="balanced_accuracy", cv=2).fit(rows, target)
    assert 0 < tuned.best_threshold_ < 1
    positive = tuned.estimator_.predict_proba(rows)[:, 1] >= tuned.best_threshold_
    assert np.array_equal(tuned.predict(rows), positive.astype(int))


def test_importance_by_permutation_knows_the_column_that_counts(model):
    found = permutation_importance(model, X[300:], Y[300:], n_repeats=3, random_state=0)
    assert found.importances_mean[0] > found.importances_mean[1]

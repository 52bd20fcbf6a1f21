"""Quantiles hold what they name on rows that were not trained on, whatever the nets made of them."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone

from inna_tune import InnaRegressor, InnaSearchCV, cross_validate, load
from inna_tune.estimators import EnsembleRegressor, exported_inputs, to_module
from inna_tune.estimators.recalibration import factors_of, median_weights, scaled

QUANTILES = (0.1, 0.5, 0.9)
NET = InnaRegressor(quantiles=QUANTILES, hidden_layer_sizes=(8,), n_members=1, max_epochs=5, random_state=0)


def heteroscedastic(n_rows, seed=0):
    """A target whose spread grows with the second column."""
    random = np.random.default_rng(seed)
    X = random.normal(size=(n_rows, 2))
    return X, 3 * X[:, 0] + np.exp(0.7 * X[:, 1]) * random.normal(size=n_rows) + 50


def held(found, y):
    return ((found[:, 0] <= y) & (y <= found[:, -1])).mean()


@given(
    st.floats(0.05, 20),
    st.floats(0.05, 20),
    st.sampled_from([(0.1, 0.5, 0.9), (0.05, 0.25, 0.5, 0.75, 0.9), (0.02, 0.1, 0.5), (0.5, 0.8)]),
    st.integers(0, 2**16),
)
def test_whatever_widths_are_told_as_many_rows_lie_beyond_as_should(below, above, quantiles, seed):
    random = np.random.default_rng(seed)
    spread = np.exp(random.normal(size=4000))
    y = random.normal(size=4000) * spread
    widths = [(q - 0.5) * (below if q < 0.5 else above) for q in quantiles]
    told = spread[:, None] * np.array(widths)
    factors = factors_of(told[:2000], quantiles, y[:2000])
    found = scaled(told[2000:], quantiles, factors)
    assert (np.diff(found, axis=1) >= 0).all()
    for k, share in enumerate(quantiles):
        assert abs((y[2000:] < found[:, k]).mean() - share) < 0.05


@given(st.sampled_from([(0.05, 0.25, 0.75, 0.9), (0.2, 0.6), (0.6, 0.9), (0.1,)]), st.integers(0, 2**16))
def test_the_median_stays_and_none_cross_though_no_quantile_is_the_median(quantiles, seed):
    random = np.random.default_rng(seed)
    told = np.sort(random.normal(size=(300, len(quantiles))), axis=1)
    factors = factors_of(told, quantiles, random.normal(size=300))
    found = scaled(told, quantiles, factors)
    assert (np.diff(found, axis=1) >= 0).all()
    median = told @ median_weights(quantiles)
    shares = np.array(quantiles)
    assert (found[:, shares < 0.5] <= median[:, None] + 1e-12).all() or not (shares > 0.5).any()
    assert (found[:, shares > 0.5] >= median[:, None] - 1e-12).all() or not (shares < 0.5).any()


def test_a_row_of_weight_two_is_two_rows():
    random = np.random.default_rng(0)
    told = np.sort(random.normal(size=(300, 3)), axis=1)
    y, weight = random.normal(size=300), random.integers(1, 4, size=300)
    assert factors_of(told, QUANTILES, y, weight.astype(float)) == pytest.approx(
        factors_of(np.repeat(told, weight, axis=0), QUANTILES, np.repeat(y, weight))
    )


def test_what_can_not_be_known_is_left_alone():
    random = np.random.default_rng(0)
    told, y = np.sort(random.normal(size=(200, 4)), axis=1), random.normal(size=200)
    # Two of 200 rows lie beyond 1%: the factor is that of 10%.
    factors = factors_of(told, (0.01, 0.1, 0.5, 0.9), y)
    assert factors[0] == factors[1] != 1
    assert factors[2] == 1
    assert factors_of(told[:20], (0.01, 0.1, 0.5, 0.9), y[:20]).tolist() == [1, 1, 1, 1]
    assert factors_of(told[:, :1], (0.9,), y).tolist() == [1]
    same = np.repeat(told[:, :1], 3, axis=1)
    assert factors_of(same, QUANTILES, y).tolist() == [1, 1, 1]


@pytest.mark.parametrize("n_members", [1, 3, "auto"])
def test_nets_that_are_too_wide_or_too_narrow_hold_what_they_name(n_members):
    X, y = heteroscedastic(900)
    # After two epochs a net knows neither.
    net = clone(NET).set_params(n_members=n_members, validation_fraction=0.4, max_epochs=2, lr=0.01)
    model = net.fit(X[:600], y[:600])
    found = model.predict_quantiles(X[600:])
    assert (model.quantile_factors_ != 1).tolist() == [True, False, True]
    assert 0.72 < held(found, y[600:]) < 0.88
    assert (np.diff(found, axis=1) >= 0).all()
    assert np.array_equal(model.predict(X), model.predict_quantiles(X)[:, 1])


def test_given_rows_and_their_weights_count():
    X, y = heteroscedastic(400)
    small = abs(X[200:, 1]) < 0.5
    only = clone(NET).fit(X[:200], y[:200], X_val=X[200:][small], y_val=y[200:][small])
    weighted = clone(NET).fit(
        X[:200], y[:200], X_val=X[200:], y_val=y[200:], sample_weight_val=small.astype(float)
    )
    assert weighted.quantile_factors_ == pytest.approx(only.quantile_factors_)
    assert (only.quantile_factors_[[0, 2]] != 1).all()


def test_without_rows_left_out_they_stay_as_trained():
    X, y = heteroscedastic(300)
    model = clone(NET).set_params(early_stopping=False).fit(X, y)
    assert model.quantile_factors_.tolist() == [1, 1, 1]
    begun = clone(NET).partial_fit(X, y)
    assert begun.quantile_factors_.tolist() == [1, 1, 1]
    assert begun.predict_quantiles(X).shape == (300, 3)
    assert not hasattr(begun.set_params(quantiles=None, warm_start=False).fit(X, y), "quantile_factors_")


@pytest.fixture(scope="module")
def model():
    X, y = heteroscedastic(400)
    return clone(NET).set_params(validation_fraction=0.4).fit(X, y)


def test_a_file_keeps_the_factors_and_a_module_has_them(model, tmp_path):
    X, _ = heteroscedastic(50, seed=1)
    model.save(tmp_path / "net.inna")
    again = load(tmp_path / "net.inna")
    assert np.array_equal(again.quantile_factors_, model.quantile_factors_)
    assert np.array_equal(again.predict_quantiles(X), model.predict_quantiles(X))
    told = to_module(model)(*(torch.tensor(a) for a in exported_inputs(model, X).values())).numpy()
    assert told == pytest.approx(model.predict_quantiles(X), rel=1e-5)


@pytest.mark.parametrize("factors", [[1.0], [1.0, 1.0, -1.0], [1.0, 1.0, None], "wide", [[1.0, 1.0, 1.0]]])
def test_factors_that_make_no_sense_are_refused(model, factors):
    plain = json.loads(json.dumps(model._target_to_plain()))
    assert np.array_equal(model.quantile_factors_, plain["quantile_factors"])
    again = clone(model)
    again._restore_target({k: v for k, v in plain.items() if k != "quantile_factors"})
    assert again.quantile_factors_.tolist() == [1, 1, 1]
    with pytest.raises((ValueError, TypeError)):
        again._restore_target(plain | {"quantile_factors": factors})


def widths(model, X, y):
    found = model.predict_quantiles(X)
    return float((found[:, 2] - found[:, 0]).mean())


def test_folds_that_train_together_scale_as_a_fit_does():
    X, y = heteroscedastic(500)
    net = clone(NET).set_params(validation_fraction=0.4, max_epochs=3)
    together = cross_validate(net, X, y, cv=2, scoring=widths)["test_score"]
    apart = [
        widths(clone(net).fit(X[a], y[a]), X[b], None)
        for b, a in ((slice(250), slice(250, None)), (slice(250, None), slice(250)))
    ]
    assert together == pytest.approx(apart, rel=1e-6)


def test_the_ensemble_of_a_search_holds_what_it_names(tmp_path):
    X, y = heteroscedastic(800)
    search = InnaSearchCV(
        clone(NET).set_params(max_epochs=3), n_trials=2, cv=5, refit="ensemble", random_state=0
    ).fit(X[:500], y[:500])
    model = search.best_estimator_
    assert isinstance(model, EnsembleRegressor)
    found = model.predict_quantiles(X[500:])
    assert found.shape == (300, 3)
    assert (np.diff(found, axis=1) >= 0).all()
    assert found[:, 1] == pytest.approx(model.predict(X[500:]))
    assert (model.quantile_factors_ != 1).tolist() == [True, False, True]
    assert 0.72 < held(found, y[500:]) < 0.88
    model.save(tmp_path / "ensemble.inna")
    again = load(tmp_path / "ensemble.inna")
    assert np.array_equal(again.predict_quantiles(X), model.predict_quantiles(X))
    told = to_module(model)(*(torch.tensor(a) for a in exported_inputs(model, X).values())).numpy()
    assert told == pytest.approx(model.predict_quantiles(X), rel=1e-5)


def test_an_ensemble_averages_what_its_models_tell():
    X, y = heteroscedastic(250)
    nets = [clone(NET).set_params(max_epochs=e) for e in (2, 3)]
    model = EnsembleRegressor(nets, weights=[1, 3], random_state=0).fit(X, y)
    first, second = (each.predict_quantiles(X) for each in model.models_)
    assert model.predict_quantiles(X) == pytest.approx(0.25 * first + 0.75 * second)
    mixed = EnsembleRegressor([nets[0], clone(NET).set_params(quantiles=None, max_epochs=2)]).fit(X, y)
    with pytest.raises(ValueError, match="or not the same"):
        mixed.predict_quantiles(X)

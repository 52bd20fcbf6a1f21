"""What a model predicts without some of its nets, beside models that were made without them."""

import copy

import numpy as np
import pandas as pd
import pytest

from inna_tune import InnaClassifier, InnaRegressor
from inna_tune.estimators import EnsembleClassifier, EnsembleRegressor
from inna_tune.estimators.jackknife import told_without

RNG = np.random.default_rng(0)
X = pd.DataFrame({"a": RNG.normal(size=60), "b": RNG.choice(["x", "y"], 60)})
LABELS, VALUES = np.where(X["a"] > 0, "high", "low"), X["a"] * 2.0
OWN = {"hidden_layer_sizes": (4,), "max_epochs": 2, "random_state": 0}


def told(model):
    return model.predict_proba(X) if hasattr(model, "predict_proba") else model.predict(X)


@pytest.mark.parametrize(("kind", "y"), [(InnaClassifier, LABELS), (InnaRegressor, VALUES)])
@pytest.mark.parametrize("n_members", [2, 3, "auto"])
def test_each_net_of_a_fit_is_left_out_once(kind, y, n_members):
    model = kind(n_members=n_members, **OWN).fit(X, y)
    found = told_without(model, X)
    assert len(found) == len(model.members_)
    for k, predicted in enumerate(found):
        less = copy.deepcopy(model)
        less.weights_ = less.weights_[[i for i in range(len(model.members_)) if i != k]]
        np.testing.assert_allclose(predicted, told(less), rtol=1e-12)


def test_one_net_alone_tells_nothing():
    model = InnaRegressor(n_members=1, **OWN)
    assert told_without(model.fit(X, VALUES), X) == []
    assert told_without(EnsembleRegressor([model, model]).fit(X, VALUES), X) == []


@pytest.mark.parametrize(
    ("ensemble", "kind", "y"),
    [(EnsembleClassifier, InnaClassifier, LABELS), (EnsembleRegressor, InnaRegressor, VALUES)],
)
def test_of_an_ensemble_the_nets_at_a_place_go_together(ensemble, kind, y):
    nets = [kind(n_members=n, **OWN) for n in (2, 4, 1)]
    model = ensemble(nets, weights=[1, 2, 1]).fit(X, y)
    two, four, one = model.models_
    first, second = told_without(model, X)
    four_less = [copy.deepcopy(four), copy.deepcopy(four)]
    for part, less in enumerate(four_less):
        less.weights_ = four.weights_[[1, 3] if part == 0 else [0, 2]]
    two_less = [copy.deepcopy(two), copy.deepcopy(two)]
    for part, less in enumerate(two_less):
        less.weights_ = two.weights_[[1 - part]]
    # A model of one net has none left, and the others its share.
    np.testing.assert_allclose(first, (told(two_less[0]) + 2 * told(four_less[0])) / 3, rtol=1e-12)
    expected = (told(two_less[1]) + 2 * told(four_less[1]) + told(one)) / 4
    np.testing.assert_allclose(second, expected, rtol=1e-12)


def test_a_light_model_of_few_nets_does_not_decide_how_many_are_left_out():
    nets = [InnaRegressor(n_members=n, **OWN) for n in (4, 2, 4)]
    model = EnsembleRegressor(nets, weights=[1, 1, 2]).fit(X, VALUES)
    found = told_without(model, X)
    assert len(found) == 4
    less = copy.deepcopy(model)
    for own in (less.models_[0], less.models_[2]):
        own.weights_ = own.weights_[:3]
    np.testing.assert_allclose(found[3], told(less), rtol=1e-12)  # the light one has no fourth

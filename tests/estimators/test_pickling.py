"""A pickled estimator needs no device but the CPU."""

import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris

from inna_tune import InnaClassifier
from inna_tune.engine.members import state_at_rest

X, Y = load_iris(return_X_y=True)
METHODS = [{}, {"optimizer": "innaprop"}, {"optimizer": "muon"}, {"optimizer": torch.optim.NAdam}]


class Elsewhere(torch.Tensor):
    """Stands for a tensor of another device."""

    def cpu(self):
        return self.as_subclass(torch.Tensor)


def elsewhere(*values):
    return torch.tensor(values).as_subclass(Elsewhere)


def places(value):
    """Types of all tensors in a state."""
    if isinstance(value, torch.Tensor):
        return {type(value)}
    each = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return set().union(*map(places, each))


def fitted(**settings):
    return InnaClassifier(
        hidden_layer_sizes=(4,),
        max_epochs=2,
        early_stopping=False,
        random_state=0,
        n_members=1,
        warm_start=True,
        **settings,
    ).fit(X, Y)


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_all_that_a_copy_holds_is_on_the_cpu(copier):
    model = fitted()
    model.weights_ = model.weights_.as_subclass(Elsewhere)
    (state,) = model._states
    state.weights = elsewhere(*state.weights.tolist())
    state.updates = [{"momentum": elsewhere(1.0), "scale": 1.0, "deep": [elsewhere(2.0)]}]
    state.averages, state.count = [elsewhere(1.0)], elsewhere(3.0)
    twin = copier(model)
    assert places([twin.weights_, *(vars(s) for s in twin._states)]) == {torch.Tensor}
    assert places([model.weights_, vars(state)]) >= {Elsewhere}, "what was copied stays as it was"
    assert twin._states[0].updates[0]["scale"] == 1.0
    assert twin._states[0].settings == state.settings


def test_a_state_at_rest_too():
    state = copy.copy(state_at_rest(elsewhere(1.0), 1, {}))
    assert places(vars(state)) == {torch.Tensor}


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_copy_goes_on_as_the_original(method):
    model = fitted(**method)
    twin = pickle.loads(pickle.dumps(model))
    kept = pickle.dumps(twin._states)
    for _ in range(2):
        again = pickle.loads(pickle.dumps(twin)).fit(X, Y)
        assert np.array_equal(again.weights_, copy.deepcopy(model).fit(X, Y).weights_)
    assert pickle.dumps(twin._states) == kept


@pytest.mark.gpu
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_model_of_a_gpu_is_pickled_on_the_cpu_and_goes_on_there(method):
    model = fitted(device="cuda", **method)
    twin = pickle.loads(pickle.dumps(model))
    assert (model.weights_.device.type, twin.weights_.device.type) == ("cuda", "cpu")
    np.testing.assert_allclose(twin.predict_proba(X), model.predict_proba(X), rtol=1e-6)
    twin.fit(X, Y)
    twin.set_params(device="cpu").fit(X, Y)
    assert twin.weights_.device.type == "cpu"

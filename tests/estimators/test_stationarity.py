"""The certificate of a fitted net against autograd written out, and where it must be small or large."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes, load_iris
from sklearn.exceptions import NotFittedError

from inna_tune import InnaClassifier, InnaRegressor
from inna_tune.engine.forward import stacked_views

IRIS = load_iris(return_X_y=True, as_frame=True)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("batch_size", [7, 1000])
def test_it_is_the_norm_of_the_gradient_of_the_mean_loss(weighted, batch_size):
    X, y = IRIS
    weight = np.random.default_rng(0).random(len(y)) + 0.2 if weighted else None
    net = InnaClassifier(
        hidden_layer_sizes=(6,),
        activation="silu",
        max_epochs=3,
        n_members=2,
        batch_size=batch_size,
        random_state=0,
    ).fit(X, y, sample_weight=weight)
    found = net.stationarity(X, y, sample_weight=weight)
    assert found.shape == (2,)
    table = net._encode_more(X, y, weight).tensors(torch.device("cpu"))
    share = torch.ones(len(y)) if weight is None else torch.as_tensor(weight)
    for member in range(2):
        flat = net.weights_[member : member + 1].double().requires_grad_()
        output = net.net_(stacked_views(net.net_, flat), table.x.double()[None])[0]
        losses = torch.nn.functional.cross_entropy(output, table.target, reduction="none")
        ((losses * share).sum() / share.sum()).backward()
        slopes = stacked_views(net.net_, flat.grad)
        trained = torch.cat([slopes[name].flatten() for name in slopes if name not in net.net_.buffers])
        assert found[member] == pytest.approx(trained.norm().item(), rel=1e-4)


def test_training_to_the_end_brings_it_down():
    X, y = load_diabetes(return_X_y=True, as_frame=True)
    settings = {"hidden_layer_sizes": (8,), "early_stopping": False, "dropout": 0.0, "random_state": 0}
    values = [
        InnaRegressor(max_epochs=epochs, **settings).fit(X, y).stationarity(X, y)[0] for epochs in (1, 200)
    ]
    assert values[1] < 0.3 * values[0]


def test_it_asks_for_a_fitted_estimator():
    with pytest.raises(NotFittedError):
        InnaClassifier().stationarity(*IRIS)

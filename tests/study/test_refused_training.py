"""What can't train is told by its parameter and the remedy, wherever it is given, before anything is stored."""

import optuna
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris

from inna_tune import InnaClassifier, InnaRegressor, InnaSearchCV, SearchSpace, cross_validate
from inna_tune.space import Categorical

SMALL = {"hidden_layer_sizes": (4,), "n_members": 1, "max_epochs": 2}
TABLES = {InnaClassifier: load_iris(return_X_y=True), InnaRegressor: load_diabetes(return_X_y=True)}
REFUSED = {
    "LBFGS": ({"optimizer": torch.optim.LBFGS}, r"optimizer=<class.*LBFGS.*choose one of inna, innaprop"),
    "SparseAdam": (
        {"optimizer": torch.optim.SparseAdam},
        r"optimizer=<class.*SparseAdam.*choose one of inna",
    ),
    "no class": ({"optimizer": "lion"}, r"optimizer='lion': must be one of inna.*muon"),
    "option": (
        {"optimizer": "muon", "optimizer_params": {"adjust_lr_fn": "x"}},
        r"optimizer='muon' with optimizer_params=.*adjust_lr_fn='x' must be one of original, match_rms_adamw",
    ),
    "no such device": ({"device": "cuda:99"}, r"device='cuda:99': torch cannot compute on it here"),
    "no numbers": ({"device": "meta"}, r"device='meta'.*holds no numbers.*device='auto' or 'cpu'"),
    "device object": ({"device": torch.device("meta")}, r"device=device\(type='meta'\).*holds no numbers"),
}
if not torch.cuda.is_available():
    REFUSED["no device"] = {"device": "cuda"}, r"device='cuda': torch cannot .* device='auto' or 'cpu'"


def fit(net, X, y):
    net.fit(X, y)


def partial_fit(net, X, y):
    net.partial_fit(X, y)


def search(net, X, y):
    storage = optuna.storages.InMemoryStorage()
    try:
        InnaSearchCV(net, n_trials=1, storage=storage).fit(X, y)
    finally:
        assert storage.get_all_studies() == []


def folds(net, X, y):
    cross_validate(net, X, y, cv=2)


@pytest.mark.parametrize("way", [fit, partial_fit, search, folds])
@pytest.mark.parametrize("kind", [InnaClassifier, InnaRegressor])
@pytest.mark.parametrize("refused", REFUSED)
def test_it_is_refused_by_name(refused, kind, way):
    settings, message = REFUSED[refused]
    with pytest.raises(ValueError, match=message):
        way(kind(**SMALL, **settings), *TABLES[kind])


@pytest.mark.parametrize("kind", [InnaClassifier, InnaRegressor])
@pytest.mark.parametrize("optimizer", ["muon", torch.optim.Muon])
def test_muon_trains_in_every_way(kind, optimizer):
    X, y = TABLES[kind]
    net = kind(**SMALL, optimizer=optimizer, optimizer_params={"momentum": 0.9}, random_state=0)
    fitted = clone(net).fit(X, y)
    assert fitted.members_[0]["lr"] == pytest.approx(3e-3)
    clone(net).partial_fit(X, y).partial_fit(X, y)
    by_name = clone(net).set_params(optimizer="muon").fit(X, y)
    assert (fitted.predict(X) == by_name.predict(X)).all()
    space = SearchSpace({"optimizer__momentum": Categorical((0.8, 0.95))})
    found = InnaSearchCV(net, space, n_trials=2, cv=2, random_state=0).fit(X, y)
    assert [t.state.name for t in found.study_.trials] == ["COMPLETE"] * 2


def test_where_a_space_names_what_cannot_train_the_trial_says_so():
    space = SearchSpace({"device": Categorical(("meta",))})
    with pytest.raises(ValueError, match="device='meta'"):
        InnaSearchCV(InnaClassifier(**SMALL), space, n_trials=1, cv=2).fit(*TABLES[InnaClassifier])

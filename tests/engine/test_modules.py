"""Nets made of a user's own modules, trained by the engine and the estimators."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.model_selection import KFold, cross_val_score
from torch import nn

from inna_tune import InnaClassifier, InnaRegressor, InnaSearchCV, SearchSpace, cross_validate
from inna_tune.engine import CrossEntropy, Member, Training
from inna_tune.nets import ModuleNet
from inna_tune.optim import INNA
from inna_tune.space import LogUniform
from tests.engine import tables

N_ROWS = 120
SETTINGS = {"lr": 0.1, "alpha": 0.5, "beta": 0.1, "batch_size": 32, "max_epochs": 20, "random_state": 0}
SETTINGS |= {"n_members": 1}


def plain(in_features, out_features):
    return nn.Sequential(nn.Linear(in_features, 8), nn.Tanh(), nn.Linear(8, out_features))


def normalized(in_features, out_features):
    return nn.Sequential(nn.Linear(in_features, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, out_features))


def noisy(in_features, out_features):
    return nn.Sequential(nn.Linear(in_features, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, out_features))


def make_table():
    return tables.make_table(N_ROWS, 5)


def make_members(n):
    order = np.random.default_rng(0).permutation(N_ROWS)
    # Rows of unequal number, one of them one more than a whole number of batches.
    return [
        Member(order[: 65 - 7 * i], order[80:], i, lr=0.05 * (i + 1), alpha=0.5, beta=0.1, patience=3)
        for i in range(n)
    ]


def train(net, members, **options):
    training = Training(net, make_table(), members, CrossEntropy(), batch_size=16, max_epochs=6, **options)
    training.run()
    return training.results


@pytest.mark.parametrize("factory", [plain, normalized])
@pytest.mark.parametrize("width", [1, 2, 4])
def test_a_member_does_not_depend_on_its_company(factory, width):
    net, members = ModuleNet(factory, 5, 3), make_members(4)
    together = train(net, members, width=width)
    for member, result in zip(members, together, strict=True):
        (alone,) = train(net, [member])
        torch.testing.assert_close(result.weights, alone.weights, rtol=1e-10, atol=1e-12)
        assert (result.best_epoch, result.epochs) == (alone.best_epoch, alone.epochs)


def test_batch_normalization_trains_as_in_a_plain_loop():
    """Written out with the module itself; batches as the engine draws them, a last one of a single row left out."""
    net, (member, *_) = ModuleNet(normalized, 5, 3), make_members(1)
    table = make_table()
    (result,) = train(net, [member])
    seeds = [int(s >> np.uint64(1)) for s in np.random.SeedSequence(0).generate_state(4, np.uint64)]
    start = net.initialize(torch.Generator().manual_seed(seeds[0]), dtype=torch.float64)
    module = normalized(5, 3).double()
    module.load_state_dict(start)
    optimizer = INNA(module.parameters(), lr=0.05, alpha=0.5, beta=0.1)
    stream, rows = torch.Generator().manual_seed(seeds[1]), torch.from_numpy(member.train_rows)
    for _ in range(result.best_epoch):
        module.train()
        for batch in rows[torch.randperm(len(rows), generator=stream)].split(16):
            if len(batch) > 1:
                optimizer.zero_grad()
                nn.functional.cross_entropy(module(table.x[batch]), table.target[batch]).backward()
                optimizer.step()
    own = torch.cat([module.state_dict()[name].double().reshape(-1) for name in net.parameter_shapes])
    torch.testing.assert_close(result.weights, own, rtol=1e-9, atol=1e-11)


def test_random_layers_leave_the_global_stream_alone_and_repeat():
    before = torch.get_rng_state()
    # The width is given: what is quickest is found by timing, and with random layers company makes a difference.
    first, again = (train(ModuleNet(noisy, 5, 3), make_members(3), width=3) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.weights, other.weights)


@pytest.mark.parametrize("factory", [plain, normalized, noisy])
def test_an_estimator_trains_an_own_module(factory):
    X, y = load_breast_cancer(return_X_y=True)
    model = InnaClassifier(module=factory, **SETTINGS | {"n_members": 2}).fit(X[:400], y[:400])
    assert model.score(X[400:], y[400:]) > 0.9
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    single = InnaRegressor(module=factory, **SETTINGS).fit(X[:400, 1:], X[:400, 0])
    assert single.score(X[400:, 1:], X[400:, 0]) > 0.8


def test_folds_of_an_own_module_train_together():
    X, y = load_iris(return_X_y=True)
    model = InnaClassifier(module=plain, **SETTINGS)
    folds = KFold(3, shuffle=True, random_state=0)
    scores = cross_validate(model, X, y, cv=folds, scoring="neg_log_loss")["test_score"]
    np.testing.assert_allclose(
        scores, cross_val_score(model, X, y, cv=folds, scoring="neg_log_loss"), rtol=1e-3
    )
    search = InnaSearchCV(
        model, SearchSpace({"lr": LogUniform(0.02, 0.2)}), n_trials=4, population=4, cv=folds
    )
    assert search.fit(X, y).score(X, y) > -1


def test_automatic_settings_measure_the_loss_that_is_trained():
    X, y = load_breast_cancer(return_X_y=True)
    for factory in (plain, normalized, noisy):
        model = InnaClassifier(module=factory, max_epochs=8, n_members=1, random_state=0).fit(
            X[:400], y[:400]
        )
        assert model.members_[0]["curvature"] > 0
        assert model.score(X[400:], y[400:]) > 0.9


SHARED = nn.Linear(4, 3)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (lambda i, o: SHARED, "factory.*share|factory.*same"),
        (lambda i, o: nn.Linear(i, o + 1), "outputs|shape"),
        (lambda i, o: 3, "nn.Module|torch.nn.Module"),
        (nn.Linear(4, 3), "factory"),
    ],
)
def test_bad_factories_are_refused_before_training(factory, message):
    X, y = load_iris(return_X_y=True)
    with pytest.raises((ValueError, TypeError), match=message):
        InnaClassifier(module=factory, **SETTINGS).fit(X, y)


def test_an_own_module_is_not_written_to_a_model_file(tmp_path):
    X, y = load_iris(return_X_y=True)
    model = InnaClassifier(module=plain, **SETTINGS).fit(X, y)
    with pytest.raises(TypeError, match=r"is code, .* joblib.dump"):
        model.save(tmp_path / "model.inna")
    assert not list(tmp_path.iterdir())

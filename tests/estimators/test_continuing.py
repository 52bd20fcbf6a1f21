"""Training that goes on, ends early, or is done by another optimizer or on another net."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.exceptions import ConvergenceWarning

import inna_tune
from inna_tune import InnaClassifier, InnaRegressor
from inna_tune.engine import Training

# Without a horizon, so that a law knows nothing of where a fit will end.
SETTINGS = {
    "hidden_layer_sizes": (8,),
    "batch_size": 32,
    "early_stopping": False,
    "random_state": 0,
    "decay": "power",
    "n_members": 1,
}
METHODS = [
    {},
    {"averaging": 0.9, "gradient_clip": 1.0},
    {"optimizer": "innaprop"},
    {"optimizer": "sgd"},
    {"optimizer": "adamw", "lr": 0.01},
    {"optimizer": "muon", "lr": 0.01},
    {"optimizer": torch.optim.RMSprop, "lr": 0.01},
    {"decay": "log", "dropout": 0.2, "n_members": 2},
    # Where steps are held often, and are shorter from then on.
    {"longest_step": 0.003},
    {"longest_step": 0.003, "step_ratio": 1.5},
    {"longest_step": 0.003, "lr": 0.3, "alpha": 0.1, "beta": 0.4},
]


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_warm_start_goes_on_as_if_it_had_never_stopped(method):
    X, y = load_iris(return_X_y=True)
    straight = InnaClassifier(max_epochs=12, **SETTINGS | method).fit(X, y)
    halved = InnaClassifier(max_epochs=5, warm_start=True, **SETTINGS | method).fit(X, y)
    first = halved.weights_.clone()
    halved.set_params(max_epochs=7).fit(X, y)
    assert not torch.equal(first, halved.weights_)
    torch.testing.assert_close(halved.weights_, straight.weights_, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_partial_fit_is_an_epoch_at_a_time(method):
    X, y = load_diabetes(return_X_y=True)
    whole = InnaRegressor(max_epochs=6, **SETTINGS | method).fit(X, y)
    parts = InnaRegressor(max_epochs=6, **SETTINGS | method)
    for _ in range(6):
        parts.partial_fit(X, y)
    torch.testing.assert_close(parts.weights_, whole.weights_, rtol=1e-4, atol=1e-5)
    is_shorter = parts.history_["lr"].iloc[-1] < 0.95 * parts.members_[0]["lr"] / np.sqrt(6)
    assert not method.get("longest_step") or is_shorter
    assert parts.history_["epoch"].max() == parts.n_iter_ == 6
    assert len(parts.history_) == 6 * parts.n_members


def test_the_cosine_law_begins_anew_and_goes_on_in_partial_fit():
    X, y = load_iris(return_X_y=True)
    # Where steps are held often, they are shorter ever after.
    settings = SETTINGS | {"decay": "cosine", "longest_step": None, "warm_start": True}
    model = InnaClassifier(**settings, max_epochs=4).fit(X, y)
    first = model.history_["lr"].tolist()
    assert first == sorted(first, reverse=True)
    assert model.fit(X, y).history_["lr"].tolist() == pytest.approx(first)
    for _ in range(6):
        model.partial_fit(X, y)
    assert model.history_["lr"].tolist()[-6:] == pytest.approx([first[0]] * 6)


def test_partial_fit_takes_rows_as_they_come():
    X, y = load_breast_cancer(return_X_y=True)
    model = InnaClassifier(**SETTINGS)
    for _ in range(10):
        for start in range(0, 500, 125):
            model.partial_fit(X[start : start + 125], y[start : start + 125], classes=[0, 1])
    assert model.score(X[500:], y[500:]) > 0.9
    fitted = clone(model).set_params(max_epochs=5).fit(X[:500], y[:500])
    before = fitted.weights_.clone()
    fitted.partial_fit(X[500:], y[500:])
    assert not torch.equal(fitted.weights_, before)
    assert torch.linalg.norm(fitted.weights_ - before) < torch.linalg.norm(before)


def test_labels_that_partial_fit_does_not_know():
    X, y = load_iris(return_X_y=True)
    model = InnaClassifier(**SETTINGS).partial_fit(X[:100], y[:100])
    with pytest.raises(ValueError, match=r"labels that the first fit did not see: \[2\]"):
        model.partial_fit(X, y)
    with pytest.raises(ValueError, match="are not those of the first call"):
        model.partial_fit(X[:100], y[:100], classes=[0, 1, 2])
    all_three = InnaClassifier(**SETTINGS).partial_fit(X[:100], y[:100], classes=[0, 1, 2])
    assert all_three.predict_proba(X).shape == (150, 3)
    all_three.partial_fit(X, y)
    targets = InnaRegressor(**SETTINGS).partial_fit(X[:, :2], X[:, 2:])
    with pytest.raises(ValueError, match="y has 1 targets, and the first fit had 2"):
        targets.partial_fit(X[:, :2], X[:, 3])


def test_a_warm_start_with_other_members_is_refused():
    X, y = load_iris(return_X_y=True)
    model = InnaClassifier(max_epochs=2, warm_start=True, **SETTINGS).fit(X, y)
    with pytest.raises(ValueError, match="n_members=3: a warm start goes on with the 1 members"):
        model.set_params(n_members=3).fit(X, y)


def test_time_is_up_within_an_epoch():
    X, y = load_breast_cancer(return_X_y=True)
    model = InnaClassifier(max_epochs=10**6, max_time=0.3, batch_size=1, early_stopping=False, random_state=0)
    model.fit(X, y)
    assert model.history_["stopped"].iloc[-1] == "time"
    assert model.predict(X).shape == (569,)


def test_ctrl_c_keeps_the_best_so_far(monkeypatch):
    X, y = load_breast_cancer(return_X_y=True)
    advance, calls = Training._advance, []

    def interrupted(self, *args):
        calls.append(1)
        if len(calls) == 8:
            raise KeyboardInterrupt
        advance(self, *args)

    monkeypatch.setattr(Training, "_advance", interrupted)
    with pytest.warns(ConvergenceWarning, match="interrupted; the best weights so far are kept"):
        model = InnaClassifier(random_state=0, hidden_layer_sizes=8, n_members=1).fit(X, y)
    assert model.history_["stopped"].tolist() == [""] * 6 + ["interrupted"]
    assert model.score(X, y) > 0.8
    calls[:] = [1] * 7
    with pytest.raises(KeyboardInterrupt):
        InnaClassifier(random_state=0).fit(X, y)


def mixed_table(n=300):
    rng = np.random.default_rng(0)
    town = rng.integers(0, 120, n)
    frame = pd.DataFrame(
        {
            "size": rng.normal(size=n),
            "age": np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n)),
            "town": [f"town {t}" for t in town],
            "grade": rng.choice(["low", "high"], n),
        }
    )
    return frame, frame["size"] + np.sin(town) + (frame["grade"] == "low")


@pytest.mark.parametrize(
    "options",
    [
        {"numeric_embedding": "periodic"},
        {"numeric_embedding": "pbld", "activation": "mish"},
        {"numeric_embedding": "piecewise", "block": "residual"},
        {"optimizer": torch.optim.Adam, "optimizer_params": {"betas": [0.9, 0.99]}, "lr": 0.01},
        {"optimizer": "sgd", "optimizer_params": {"momentum": 0.8}, "averaging": 0.9, "lr": 0.01},
        {"optimizer": torch.optim.Muon, "optimizer_params": {"ns_coefficients": [2.0, -1.5, 0.5]}},
        {"precision": "bf16", "gradient_clip": 2.0},
    ],
    ids=str,
)
def test_nets_and_optimizers_train_and_are_saved(options, tmp_path):
    X, y = mixed_table()
    model = InnaRegressor(hidden_layer_sizes=(16, 8), max_epochs=30, batch_size=32, random_state=0, **options)
    model.fit(X, y)
    assert model.score(X, y) > 0.35
    assert model.encoder_.categories_, "the example must have a column of codes"
    model.save(tmp_path / "model.inna")
    again = inna_tune.load(tmp_path / "model.inna")
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    assert again.get_params() == model.get_params()


def test_an_optimizer_of_ones_own_is_not_written_to_a_file(tmp_path):
    class Own(torch.optim.SGD):
        pass

    X, y = load_iris(return_X_y=True)
    model = InnaClassifier(optimizer=Own, lr=0.01, max_epochs=2, **SETTINGS).fit(X, y)
    with pytest.raises(TypeError, match=r"not of torch.optim, and a model file holds no code"):
        model.save(tmp_path / "model.inna")


@pytest.mark.parametrize(
    "method", [{}, {"n_members": 2, "averaging": 0.9}, {"optimizer": "adamw", "lr": 0.01}], ids=str
)
def test_a_loaded_model_trains_on_from_its_weights_at_rest(method, tmp_path):
    """The file holds no velocity: one epoch from there is one epoch from new members with these weights."""
    X, y = load_iris(return_X_y=True, as_frame=True)
    model = InnaClassifier(max_epochs=5, **SETTINGS | method).fit(X, y)
    model.save(tmp_path / "m.inna")
    loaded, again = inna_tune.load(tmp_path / "m.inna"), inna_tune.load(tmp_path / "m.inna")
    before = loaded.weights_.clone()
    loaded.partial_fit(X, y)
    assert not torch.equal(loaded.weights_, before)
    assert loaded.history_["epoch"].max() == model.history_["epoch"].max() + 1
    again.set_params(warm_start=True, max_epochs=3).fit(X, y)
    assert not torch.equal(again.weights_, before)
    log_loss = [float(m.history_["train_loss"].iloc[-1]) for m in (model, again)]
    assert log_loss[1] < 1.2 * log_loss[0]

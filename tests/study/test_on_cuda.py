"""What the product does on a CUDA device, from a table to the model's file, beside what it does on a CPU."""

import json

import numpy as np
import optuna
import pandas as pd
import pytest
import torch
from sklearn.metrics import log_loss, root_mean_squared_error
from typer.testing import CliRunner

from inna_tune import INNA, InnaClassifier, InnaRegressor, InnaSearchCV, load
from inna_tune.cli import app
from inna_tune.optim import calibrate

pytestmark = pytest.mark.gpu

DEVICE = "cuda"
SMALL = {"hidden_layer_sizes": (32, 32), "random_state": 0}


def table(n_rows):
    """Numbers, gaps and levels, and what is to be told from them."""
    rng = np.random.default_rng(n_rows)
    X = pd.DataFrame(rng.normal(size=(n_rows, 4)), columns=list("abcd"))
    X["level"] = rng.choice(["low", "middle", "high"], n_rows)
    X["place"] = rng.choice([f"place {i}" for i in range(60)], n_rows)
    X.loc[rng.random(n_rows) < 0.1, "a"] = np.nan
    score = np.sin(2 * X.b) + X.c * (X.level == "high") - X.d.abs() + 0.2 * rng.normal(size=n_rows)
    return X, score


def estimator(kind, **settings):
    made = InnaClassifier if kind == "classes" else InnaRegressor
    return made(**SMALL | settings)


def target(kind, score):
    return np.where(score > score.median(), "yes", "no") if kind == "classes" else 30 + 5 * score.to_numpy()


def loss(model, X, y):
    if hasattr(model, "predict_proba"):
        return log_loss(y, model.predict_proba(X), labels=model.classes_)
    return root_mean_squared_error(y, model.predict(X))


# By rows: members of two kinds, of which one begins as linear models; some members; one net; a few rows in float64.
@pytest.mark.parametrize("n_rows", [90, 600, 5000, 30_000])
@pytest.mark.parametrize("kind", ["classes", "numbers"])
def test_the_default_learns_there_what_it_learns_on_a_cpu(kind, n_rows, tmp_path):
    X, score = table(n_rows)
    y, cut = target(kind, score), n_rows * 3 // 4
    # A device draws masks of dropout of its own.
    settings = {"dropout": 0.0} | ({"max_epochs": 10} if n_rows > 4000 else {})
    there, here = (
        estimator(kind, device=device, **settings).fit(X[:cut], y[:cut]) for device in (DEVICE, "cpu")
    )
    assert there.weights_.device.type == DEVICE
    assert loss(there, X[cut:], y[cut:]) == pytest.approx(loss(here, X[cut:], y[cut:]), rel=0.1)

    there.save(tmp_path / "model.inna")
    again = load(tmp_path / "model.inna")
    told, told_again = (
        model.predict_proba(X) if kind == "classes" else model.predict(X) for model in (there, again)
    )
    assert again.weights_.device.type == "cpu"
    np.testing.assert_allclose(told, told_again, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "innaprop"},
        {"optimizer": "adamw", "lr": 1e-3},
        {"optimizer": "muon", "lr": 1e-2},
        {"optimizer": "sgd"},
        {"optimizer": torch.optim.NAdam, "lr": 1e-3},
        {"precision": "bf16"},
        {"precision": "tf32"},
        {"gradient_clip": 1.0, "averaging": None},
        {"early_stopping": False, "n_members": 2},
        {"dropout": 0.3},
        {"decay": "power", "decay_power": 0.5},
        {"max_time": 2.0},
        {
            "module": lambda n, m: torch.nn.Sequential(
                torch.nn.Linear(n, 8), torch.nn.ReLU(), torch.nn.Linear(8, m)
            )
        },
        {
            "module": lambda n, m: torch.nn.Sequential(
                torch.nn.Linear(n, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Linear(8, m)
            )
        },
    ],
    ids=lambda settings: "-".join(settings),
)
def test_every_setting_trains_there(settings):
    X, score = table(700)
    y = target("classes", score)
    model = estimator("classes", device=DEVICE, max_epochs=8, **settings).fit(
        X, y, sample_weight=np.ones(700)
    )
    assert model.weights_.device.type == DEVICE
    assert loss(model, X, y) < 0.67


def test_a_warm_start_a_partial_fit_and_what_comes_after_a_fit():
    X, score = table(500)
    y = target("classes", score)
    model = estimator("classes", device=DEVICE, max_epochs=5, warm_start=True).fit(X, y).fit(X, y)
    model.partial_fit(X, y)
    assert np.isfinite(model.predict_proba(X)).all()
    assert np.isfinite(model.stationarity(X, y)).all()


@pytest.mark.parametrize("settings", [{}, {"cv": 3}, {"refit": True}, {"n_jobs": 2}], ids=str)
@pytest.mark.parametrize("kind", ["classes", "numbers"])
def test_a_search_there_goes_on_from_its_storage(kind, settings, tmp_path):
    X, score = table(400)
    y, storage = target(kind, score), f"sqlite:///{tmp_path}/studies.db"
    options = {"n_trials": 5, "random_state": 0, "storage": storage, "study_name": "there"} | settings
    for trials in (3, 5):
        of_now = options | {"n_trials": trials, "resume": trials == 5}
        search = InnaSearchCV(estimator(kind, device=DEVICE, max_epochs=6), **of_now).fit(X, y)
    assert len(optuna.load_study(study_name="there", storage=storage).trials) >= 5
    told = search.predict(X)
    search.best_estimator_.save(tmp_path / "best.inna")
    again = load(tmp_path / "best.inna").predict(X)
    if kind == "classes":
        assert np.mean(told == again) > 0.99
    else:
        np.testing.assert_allclose(told, again, rtol=1e-3)


def test_the_command_line_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    X, score = table(500)
    X.assign(y=target("classes", score)).to_csv("people.csv", index=False)
    words = ["fit", "people.csv", "--target", "y", "--trials", "4", "--json", "--set", "max_epochs=6"]
    done = CliRunner().invoke(app, [*words, "--set", f"device={DEVICE}"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["model"]
    for more in (
        ["predict", "people.inna", "people.csv", "-o", "told.csv"],
        ["report", "people"],
        ["show", "people"],
    ):
        done = CliRunner().invoke(app, more)
        assert done.exit_code == 0, done.output


def test_a_loop_of_ones_own_there():
    stream = torch.Generator().manual_seed(0)
    x = torch.randn(512, 10, generator=stream).to(DEVICE)
    y = x.abs().sum(1, keepdim=True)
    net = torch.nn.Sequential(torch.nn.Linear(10, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1)).to(DEVICE)

    def closure():
        return torch.nn.functional.mse_loss(net(x), y)

    before = closure().item()
    found = calibrate(closure, list(net.parameters()))
    optimizer = INNA(
        net.parameters(), lr=float(found.lr) / 4, alpha=float(found.alpha), beta=float(found.beta)
    )
    for _ in range(100):
        optimizer.zero_grad()
        closure().backward()
        optimizer.step()
    assert closure().item() < before / 2

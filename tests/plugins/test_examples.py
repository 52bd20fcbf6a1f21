"""The examples of other frameworks run, each where its framework is installed."""

import importlib.util
from pathlib import Path

import pytest

from tests.plugins.frameworks import need

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def example(monkeypatch, tmp_path):
    """Load an example in an empty folder."""
    # Ray keeps a token there, and leaves it behind.
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def load(name):
        spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    yield load
    assert not list(folder.iterdir()), "an example leaves nothing behind"


def test_autogluon_model(example):
    need("autogluon")
    board = example("autogluon_model").main(
        {"hidden_layer_sizes": (8,), "n_members": 1, "max_epochs": 16}, 3600
    )
    assert board.loc["INNA_BAG_L1", "accuracy"] > 0.9


def test_flaml_learner(example):
    need("flaml")
    # By a number of trials, not by time, so that what is chosen is the same however busy the machine.
    tiny = {"inna": {"hidden_layer_sizes": {"domain": "8"}, "n_members": {"domain": 1}}}
    settings = {"estimator_list": ["inna"], "max_iter": 3, "n_splits": 2, "custom_hp": tiny}
    assert example("flaml_learner").main(seconds=3600, **settings) > 0.85


def test_optunahub_sampler(example):
    need("optunahub")
    assert example("optunahub_sampler").main(n_trials=8) > 0.95


def test_ray_tune(example):
    need("ray")
    best = example("ray_tune").main(n_trials=2)
    assert {"step_ratio", "friction", "damping"} < best.config.keys()
    assert -0.7 < best.metrics["score"] < 0
    import ray

    assert not ray.is_initialized()

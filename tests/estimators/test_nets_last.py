"""By default no net of a fit is lost, whatever its table does to the curvature."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning

from inna_tune import InnaClassifier, InnaRegressor, InnaSearchCV


def table(n_rows, seed, n_names=60):
    """A sine, a fold, a product with a level, and a column of names that tells nothing: the curvature rises in training."""
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(rng.normal(size=(n_rows, 4)), columns=list("abcd"))
    X["level"] = rng.choice(["low", "middle", "high"], n_rows)
    X["place"] = rng.choice([f"place {i}" for i in range(n_names)], n_rows)
    score = np.sin(2 * X.b) + X.c * (X.level == "high") - X.d.abs() + 0.2 * rng.normal(size=n_rows)
    return X, score.to_numpy(), np.where(score > score.median(), "yes", "no")


@pytest.fixture(autouse=True)
def none_is_lost():
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        yield


# Without a limit each of these loses nets, or begins anew.
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("n_rows", [1500, 4500])
@pytest.mark.parametrize("optimizer", ["inna", "sgd"])
def test_of_rows_and_classes(optimizer, n_rows, seed):
    X, numbers, classes = table(n_rows, seed)
    small = {"hidden_layer_sizes": (32, 32), "max_epochs": 6, "random_state": seed, "optimizer": optimizer}
    model = InnaClassifier(**small).fit(X, classes)
    assert model.score(X, classes) > 0.75
    InnaRegressor(**small).fit(X, numbers)


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n_names=st.sampled_from([2, 30, 300]),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
)
def test_of_names_and_units(seed, n_names, scale):
    X, numbers, _ = table(2000, seed, n_names)
    X["d"] *= scale
    InnaRegressor(hidden_layer_sizes=(24, 24), max_epochs=4, random_state=seed).fit(X, scale * numbers)


def test_of_a_search_and_what_it_refits():
    X, _, classes = table(1200, 3)
    small = InnaClassifier(hidden_layer_sizes=(16, 16), max_epochs=5, random_state=0)
    search = InnaSearchCV(small, n_trials=4, random_state=0, cv=3).fit(X, classes)
    assert [trial.state.name for trial in search.study_.trials].count("FAIL") == 0

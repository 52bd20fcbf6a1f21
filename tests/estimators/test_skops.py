"""skops keeps fitted estimators: what it asks to be trusted is what we name, whatever the table's columns, and no more."""

import io
import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from inna_tune import InnaClassifier, InnaRegressor, InnaSearchCV
from inna_tune.estimators import SKOPS_TYPES, EnsembleRegressor


def skops_io():
    """Loaded by those who use it, not by every process that collects tests: it takes a second."""
    return pytest.importorskip("skops.io", reason="skops is not installed")


RNG = np.random.default_rng(0)
N = 120
TABLE = pd.DataFrame(
    {
        "number": RNG.normal(size=N),
        "gaps": np.where(RNG.random(N) < 0.3, np.nan, RNG.normal(size=N)),
        "mostly zero": np.where(RNG.random(N) < 0.8, 0.0, RNG.lognormal(size=N)),
        "flag": RNG.random(N) < 0.5,
        "few": pd.Categorical(RNG.choice(["a", "b"], N)),
        "many": RNG.choice([f"level {i}" for i in range(30)], N),
        "date": pd.Timestamp("2020-01-01") + pd.to_timedelta(RNG.integers(0, 999, N), unit="D"),
        "text": [
            " ".join(RNG.choice(["red", "green", "tall", "small", "old"], 8)) + f" {i}" for i in range(N)
        ],
        "constant": 1.0,
    }
)
NUMBERS = TABLE[["number", "gaps"]]
Y = np.where(TABLE["number"] > 0, "yes", "no")
NET = InnaClassifier(hidden_layer_sizes=(4,), n_members=2, max_epochs=2, random_state=0)


def through(model, trusted=SKOPS_TYPES):
    sio = skops_io()
    return sio.loads(sio.dumps(model), trusted=trusted)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"numeric_embedding": "periodic", "block": "residual", "hidden_layer_sizes": (4, 4, 4)},
        {"numeric_embedding": "pbld", "averaging": 0.9, "optimizer": "adamw"},
        {"numeric_embedding": "none", "precision": "bf16", "optimizer": "muon"},
        {"random_state": np.random.default_rng(0), "class_weight": "balanced"},
    ],
    ids=lambda settings: "-".join(settings),
)
def test_an_estimator_comes_back_whole(settings):
    model = clone(NET).set_params(**settings).fit(TABLE, Y)
    again = through(model)
    assert np.array_equal(again.predict_proba(TABLE), model.predict_proba(TABLE))
    assert again.weights_.dtype == model.weights_.dtype
    pd.testing.assert_frame_equal(again.history_, model.history_)
    np.testing.assert_equal(again.members_, model.members_)
    assert again.schema_ == model.schema_
    going_on, other = through(model).set_params(random_state=0), pickle.loads(pickle.dumps(model))
    going_on.set_params(warm_start=True).fit(TABLE, Y)
    other.set_params(random_state=0, warm_start=True).fit(TABLE, Y)
    assert np.array_equal(going_on.predict_proba(TABLE), other.predict_proba(TABLE))


def test_all_that_it_asks_to_be_trusted_is_ours():
    assert all(name.startswith("inna_tune.") for name in SKOPS_TYPES)
    assert len(set(SKOPS_TYPES)) == len(SKOPS_TYPES)
    sio = skops_io()
    asked = sio.get_untrusted_types(data=sio.dumps(clone(NET).fit(TABLE, Y)))
    assert set(asked) <= set(SKOPS_TYPES)


def test_ensembles_regressions_and_quantiles():
    y = TABLE["number"].to_numpy()
    net = InnaRegressor(
        quantiles=(0.1, 0.5, 0.9), hidden_layer_sizes=(4,), n_members=1, max_epochs=2, random_state=0
    )
    model = EnsembleRegressor([net, net], random_state=0).fit(NUMBERS, y)
    assert np.array_equal(through(model).predict_quantiles(NUMBERS), model.predict_quantiles(NUMBERS))
    assert np.array_equal(through(model.models_[0]).predict(NUMBERS), model.models_[0].predict(NUMBERS))


def test_a_tuned_pipeline_is_kept_in_two_lines():
    numbers = NUMBERS.fillna(0.0)
    search = InnaSearchCV(make_pipeline(StandardScaler(), clone(NET)), n_trials=1, cv=2, random_state=0)
    search.fit(numbers, Y)
    again = through(search.best_estimator_)
    assert np.array_equal(again.predict_proba(numbers), search.predict_proba(numbers))


def test_what_is_not_trusted_is_refused():
    model = clone(NET).fit(NUMBERS, Y)
    with pytest.raises(Exception, match="InnaClassifier"):
        through(model, trusted=[])


def test_pickles_of_before_are_read():
    model = clone(NET).fit(NUMBERS, Y)
    state = model.__getstate__()
    old = state | {"weights_": model.weights_, "history_": model.history_, "_states": model._states}
    again = InnaClassifier.__new__(InnaClassifier)
    again.__setstate__(old)
    assert np.array_equal(again.predict_proba(NUMBERS), model.predict_proba(NUMBERS))
    buffer = io.BytesIO()
    pickle.dump(again, buffer)
    assert np.array_equal(pickle.loads(buffer.getvalue()).predict(NUMBERS), model.predict(NUMBERS))

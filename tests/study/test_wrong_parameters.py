"""Each parameter of each constructor refuses what it cannot be, before anything is trained or stored, and says its name."""

import inspect

import numpy as np
import pytest
from sklearn.base import clone

from inna_tune import InnaClassifier, InnaRegressor, InnaSearchCV
from inna_tune.estimators import TableEncoder

X = np.random.default_rng(0).normal(size=(40, 2))
Y = np.arange(40) % 2
NET = {"hidden_layer_sizes": (4,), "max_epochs": 1, "n_members": 1}
MADE = {
    InnaClassifier: lambda **more: InnaClassifier(**(NET | more)),
    InnaRegressor: lambda **more: InnaRegressor(**(NET | more)),
    TableEncoder: TableEncoder,
    InnaSearchCV: lambda **more: InnaSearchCV(
        **({"estimator": InnaClassifier(**NET), "n_trials": 1, "cv": 2} | more)
    ),
}
# Of a type that one might mistake for the right one.
NEAR = {
    "n_trials": [2.0, "3", True, 0, None],
    "population": [True, 2.5, "many"],
    "timeout": ["60", True, -1.0, float("nan")],
    "n_jobs": [0, 1.5, "2", True],
    "error_score": ["nan", None, True, [0.0]],
    "resume": [1, 0, "yes", None],
    "allow_mismatch": [1, "no", None],
    "verbose": [-1, 1.5, "yes", None],
    "refit": [1, None, "best"],
    "random_state": [-1, 1.5, "0"],
    "storage": [3, b"sqlite:///s.db", True],
    "study_name": [3, "", b"s", True],
    "cv": [True, 2.5, "five", 1],
    "scoring": [3, "acuracy", b"accuracy"],
    "first": ["best", 3, [3]],
    "callbacks": ["print", [3], 3],
    "sampler": ["tpe", 3],
    "pruner": ["median", 3],
    "space": [{"lr": 0.1}, 3],
    "estimator": [3, "net", None],
    "hidden_layer_sizes": [0, 2.5, (4, 0), "wide"],
    "early_stopping": ["yes", None],
    "warm_start": [None, "no"],
    "embed": [None, "no"],
    "n_members": [0, True, "two", 1.5],
    "device": [3.5, "gpu7"],
    "dropout": [1.0, -0.1, "half", True],
    "class_weight": ["even", 3, {0: -1.0}],
    "optimizer": [3, "adamant"],
    "optimizer_params": [3, "lr=1"],
    "eval_metric": [3, "acuracy"],
    "text": [3, "always"],
    "module": [3, "net"],
}
CASES = [
    pytest.param(kind, name, value, id=f"{kind.__name__}-{name}-{value!r}".replace(repr(object)[:7], ""))
    for kind in MADE
    for name in inspect.signature(kind).parameters
    for value in ("an object", *NEAR.get(name, []))
]


@pytest.mark.parametrize(("kind", "name", "value"), CASES)
def test_a_wrong_value_is_refused_by_name(kind, name, value):
    value = object() if value == "an object" else value
    made = MADE[kind](**{name: value})
    target = Y.astype(float) if kind is InnaRegressor else Y
    with pytest.raises((ValueError, TypeError), match=rf"\b{name.replace('_', '[_ ]')}\b") as caught:
        made.fit(X, target)
    assert not hasattr(made, "study_")
    assert not hasattr(made, "weights_")
    assert "\n" not in str(caught.value).strip()


@pytest.mark.parametrize("kind", MADE)
def test_every_parameter_is_checked_by_a_rule_of_its_own(kind):
    """Whoever adds one without a rule hears of it by the test above, which takes its name from the signature."""
    assert {param.values[1] for param in CASES if param.values[0] is kind} == set(
        clone(MADE[kind]()).get_params(deep=False)
    )


@pytest.mark.parametrize("verbose", [True, False, np.int64(2)])
@pytest.mark.parametrize("name", ["verbose"])
def test_truth_values_and_numbers_of_numpy_are_taken(name, verbose):
    InnaSearchCV(InnaClassifier(**NET), n_trials=1, cv=2, resume=np.False_, **{name: verbose}).fit(X, Y)

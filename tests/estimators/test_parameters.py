"""Every parameter: what is taken, what is refused, and that a refusal says which, what, and what it must be."""

import inspect
import re

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.utils._param_validation import make_constraint

from inna_tune import InnaClassifier, InnaRegressor
from inna_tune.estimators import TableEncoder

NO_NUMBERS = [None, "1", True, np.nan, np.inf, [1.0], 1j]
NO_STEPS = ["fast", "", True, False, None, np.nan, np.inf, -np.inf, -1.0, [0.1], b"auto"]
COUNTS = ([1, 7, np.int64(3), np.uint8(4)], [0, -1, 1.0, 1.5, True, "1", None, np.nan, np.float64(2), [1]])
FLAGS = ([True, False, np.True_, np.False_], [1, 0, "yes", None, 1.0])
NO_CHOICES = ["", "none such", None, True, 1, [], b"plain", object()]


def choices(*names):
    return [*names, np.str_(names[0])], NO_CHOICES


# Of each parameter what is taken, and what is refused.
BOTH = {
    "lr": (["auto", 0.1, 1, np.float32(0.1), np.int64(1), np.str_("auto"), 5e-324], [0, 0.0, *NO_STEPS]),
    "alpha": (["auto", 0, 0.0, 0.5, np.float16(2.0)], NO_STEPS),
    "beta": (["auto", 0.1, 1], [0, 0.0, *NO_STEPS]),
    "step_ratio": (
        [None, 0.5, 2, np.float32(1.5), 1e-9, 1e9],
        [0, 0.0, "auto", *NO_STEPS[:4], *NO_STEPS[5:]],
    ),
    "friction": ([None, 0.1, 1, np.float16(0.5)], [0, 0.0, "auto", *NO_STEPS[:4], *NO_STEPS[5:]]),
    "damping": ([None, 0.75, 3, np.float64(1)], [0, 0.0, "auto", *NO_STEPS[:4], *NO_STEPS[5:]]),
    "decay": choices("constant", "power", "log", "cosine"),
    "decay_power": ([None, 0.5, 1, np.float64(2)], [0, -1, *NO_NUMBERS[1:]]),
    "weight_decay": ([0, 0.0, 1e-4, 3], [-0.1, *NO_NUMBERS]),
    "hidden_layer_sizes": (
        [(8,), [8, 4], (), [], 8, "8", "256-256", np.array([4, 3]), np.int64(4), (np.int8(4),)],
        [
            0,
            (0,),
            True,
            (True,),
            "8-",
            "",
            "a",
            (8.0,),
            (8, None),
            np.array([4.0]),
            np.array(3),
            8.0,
            None,
            {8},
            b"8",
        ],
    ),
    "block": choices("plain", "residual"),
    "activation": choices("relu", "gelu", "silu", "mish", "selu"),
    "numeric_embedding": choices("none", "periodic", "pbld", "piecewise"),
    "linear_path": FLAGS,
    "dropout": ([0, 0.0, 0.99, np.float32(0.5)], [1, 1.0, -0.1, *NO_NUMBERS]),
    "optimizer": (
        ["inna", "innaprop", "sgd", "adamw", "muon", torch.optim.SGD, torch.optim.Adam],
        ["adam", "", None, 3, int, object()],
    ),
    "optimizer_params": ([None, {}], [3, True, {"strange": 1}, [("eps", 1)]]),
    "scale_tensors": FLAGS,
    "longest_step": ([None, 0.5, 1, np.float32(2)], [0, -1.0, np.nan, np.inf, "1", [1.0]]),
    "gradient_clip": ([None, 0.5, 1, np.float32(2)], [0, -1.0, np.nan, np.inf, "1", [1.0]]),
    "averaging": ([None, 0, 0.0, 0.999, np.float16(0.5)], [1, 1.5, -0.1, np.nan, "0.9", [0.5]]),
    "batch_size": COUNTS,
    "max_epochs": COUNTS,
    "max_time": ([None, 0.5, 60, np.float32(1)], [0, -1, *NO_NUMBERS[1:]]),
    "early_stopping": FLAGS,
    "eval_metric": ([None, "roc_auc", "r2", lambda e, X, y: 0.0], ["", "none such", True, 3, ["r2"], b"r2"]),
    "patience": COUNTS,
    "validation_fraction": ([0.1, np.float32(0.5), 0.999], [0, 0.0, 1, 1.0, *NO_NUMBERS]),
    "n_members": COUNTS,
    "warm_start": FLAGS,
    "encoder": ([None, TableEncoder()], [TableEncoder, "quantile", {}, 3]),
    "module": ([None, torch.nn.Linear, lambda a, b: torch.nn.Linear(a, b)], ["net", 3, torch.zeros(2)]),
    "precision": choices("float32", "tf32", "bf16"),
    "device": (["auto", "cpu", torch.device("cpu")], ["abacus", "", 1.5, []]),
    "callbacks": ([None, [], [print], (print, repr)], [print, "print", [3], 3, {}]),
    "n_jobs": ([None, 1, 4, -1, -2, np.int64(2)], [0, 1.0, True, "1", np.nan, [1]]),
    "random_state": (
        [None, 0, np.int64(3), np.random.RandomState(0), np.random.default_rng(0)],
        ["today", 1.0, [1], np.random.SeedSequence(0)],
    ),
}
CLASSIFIER = {
    "label_smoothing": ([0, 0.0, 0.1], [1, 1.0, -0.1, *NO_NUMBERS]),
    "class_weight": ([None, "balanced", {"a": 1.0}, {}], []),
}
REGRESSOR = {
    "quantiles": (
        [None, (0.5,), [0.1, 0.9], np.array([0.25, 0.75])],
        [(), 0.5, "ab", (0, 0.5), (0.5, 0.1), (0.5, 1)],
    ),
}
# A whole number of a float type is none here as elsewhere: what counts by it can't be cut there.
SIZES = [0, 0.5, -1, 5.0, 5.5, True, "5", np.nan]
ENCODER = {
    "numeric": (["scale", "quantile"], ["log", "", None, 1, []]),
    "max_levels": ([1, 64, np.int64(5), np.inf], SIZES),
    "min_count": ([0, 10, 2.5], [-1, -0.5]),
    "embed": ([True, False, np.False_, 0, 1], [2, 1.0, "no", None, []]),
    "max_codes": ([3, 4096, np.inf], [2, *SIZES]),
    "text": (
        ["auto", "never", [], ["note"], ("note",), {"note"}, np.array(["note"]), pd.Index(["note"])],
        ["always", "note", ""],
    ),
    "n_components": ([1, 30, np.int8(3)], SIZES),
}
TABLES = {InnaClassifier: BOTH | CLASSIFIER, InnaRegressor: BOTH | REGRESSOR, TableEncoder: ENCODER}
# The regressor's other constraints are the classifier's: a test below.
NAMES = [(kind, name) for kind in (InnaClassifier, TableEncoder) for name in TABLES[kind]]
NAMES += [(InnaRegressor, name) for name in REGRESSOR]


@pytest.mark.parametrize("kind", TABLES, ids=lambda kind: kind.__name__)
def test_every_parameter_is_tried_and_has_a_constraint(kind):
    names = set(inspect.signature(kind).parameters)
    assert names == set(kind().get_params(deep=False)) == set(TABLES[kind])
    assert names == set(kind._parameter_constraints)
    for name, declared in kind._parameter_constraints.items():
        # What others check.
        assert name == "optimizer" if declared == "no_validation" else [*map(make_constraint, declared)]


def test_the_regressor_declares_what_the_classifier_does():
    declared = InnaClassifier._parameter_constraints
    own = {n: c for n, c in InnaRegressor._parameter_constraints.items() if n not in REGRESSOR}
    assert own == {n: c for n, c in declared.items() if n not in CLASSIFIER}


@pytest.mark.parametrize(("kind", "name"), NAMES, ids=lambda each: getattr(each, "__name__", each))
def test_what_makes_sense_is_taken_and_all_else_refused_in_words(kind, name):
    """By the parameter's name, its value and what it must be."""
    taken, refused = TABLES[kind][name]
    for value in taken:
        kind(**{name: value})._check_parameters()
    for value in refused:
        # Of the optimizer's further arguments it is the options that are named.
        words = "none of the options" if value == {"strange": 1} else re.escape(f"{name}={value!r}: must ")
        with pytest.raises(ValueError, match=words):
            kind(**{name: value})._check_parameters()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("lr", "fast", "a float in the range (0.0, inf), or a str among {'auto'}"),
        ("decay", "linear", "a str among {'constant', 'power', 'log', 'cosine'}"),
        ("batch_size", 0, "an int in the range [1, 2147483647]"),
        ("warm_start", "yes", "True or False"),
        ("hidden_layer_sizes", "64-", "whole numbers from 1 to 2147483647, such as (256, 256) or '256-256'"),
        ("module", "net", "a function of (in_features, out_features) that builds a torch.nn.Module, or None"),
        ("device", "abacus", "a str among {'auto'}, or 'cpu', 'cuda' or another torch device"),
    ],
)
def test_the_remedy_is_in_words(name, value, words):
    with pytest.raises(ValueError, match=re.escape(f"{name}={value!r}: must be {words}.") + "$"):
        InnaRegressor(**{name: value}).fit(np.zeros((4, 1)), np.arange(4.0))


@pytest.mark.parametrize("kind", TABLES, ids=lambda kind: kind.__name__)
def test_estimators_are_compared_copied_and_shown_as_such(kind):
    """They are dataclasses in how their parameters are listed only."""
    name, (values, _) = next(iter(TABLES[kind].items()))
    own = kind(**{name: values[1]})
    assert own != kind(**{name: values[1]})
    assert hash(own) == hash(own)
    assert repr(own) == f"{kind.__name__}({name}={values[1]!r})"
    assert repr(clone(own)) == repr(own)
    with pytest.raises(TypeError):
        kind(values[0])

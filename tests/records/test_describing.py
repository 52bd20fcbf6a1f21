"""What can be known of scorers, modules and settings: alike in every process, and never alike for what does otherwise."""

import copy
import functools
import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import accuracy_score, fbeta_score, get_scorer, make_scorer
from sklearn.preprocessing import StandardScaler

from inna_tune import InnaClassifier, InnaRegressor
from inna_tune.estimators import TableEncoder
from inna_tune.records.describing import changes, describe, describe_settings, setting_changes
from tests.warm import HASH_SEED, RUN_FILE, Program

ROOT = Path(__file__).parents[2]


def run(source: str, **around: Any) -> dict[str, Any]:
    """What a notebook or a script holds after these lines."""
    names = {"__name__": "__main__", "np": np, "functools": functools, "torch": torch} | around
    exec(compile(source, "<cell>", "exec"), names)
    return names


def thing(source: str, **around: Any) -> Any:
    return run(source, **around)["thing"]


def scorer_class(body: str = "return 1.0") -> str:
    return (
        "class Scorer:\n"
        "    def __init__(self, k=1, costs=None):\n        self.k, self.costs, self.calls, self.seen = k, costs, 0, []\n"
        "    def __call__(self, estimator, X, y):\n        self.calls += 1\n        self.seen.append(X)\n"
        f"        {body}\n"
    )


NET = (
    "class Net(torch.nn.Module):\n"
    "    def __init__(self, i, o, width={width}):\n"
    "        super().__init__()\n"
    "        self.a, self.b = torch.nn.Linear(i, width), torch.nn.Linear(width, o)\n"
    "    def forward(self, x):\n"
    "        return self.b({f}(self.a(x)))\n"
)
FACTORY = (
    "def thing(i, o):\n"
    "    class Net(torch.nn.Linear):\n"
    "        scale = {scale}\n"
    "        def forward(self, x):\n"
    "            return super().forward(x) * self.scale\n"
    "    return Net(i, o)\n"
)
CLOSURE = "def make(k):\n    def score(e, X, y):\n        return k\n    return score\n"

# Pairs of lines that define a ``thing`` each: they do otherwise.
OTHERS = {
    "another lambda": ("thing = lambda e, X, y: 1.0", "thing = lambda e, X, y: -1.0"),
    "another operation": ("thing = lambda e, X, y: y + 1", "thing = lambda e, X, y: y - 1"),
    "another function called": ("thing = lambda e, X, y: min(y)", "thing = lambda e, X, y: max(y)"),
    "another name": ("def thing(): return 1\n", "def other(): return 1\nthing = other"),
    "a default": ("def thing(e, X, y, k=1): return k", "def thing(e, X, y, k=2): return k"),
    "a keyword's default": ("def thing(e, X, y, *, k=1): return k", "def thing(e, X, y, *, k=2): return k"),
    "a closure's number": (CLOSURE + "thing = make(1)", CLOSURE + "thing = make(2)"),
    "a closure's list": (CLOSURE + "thing = make([1, 2])", CLOSURE + "thing = make([2, 1])"),
    "a closure's table": (CLOSURE + "thing = make(np.eye(30))", CLOSURE + "thing = make(np.ones((30, 30)))"),
    "a closure's function": (CLOSURE + "thing = make(lambda: 1)", CLOSURE + "thing = make(lambda: 2)"),
    "a number of the notebook": ("K = 1\nthing = lambda e, X, y: K", "K = 2\nthing = lambda e, X, y: K"),
    "a number that an inner lambda reads": (
        "K = 1\nthing = lambda e, X, y: sorted(y, key=lambda v: v * K)",
        "K = 2\nthing = lambda e, X, y: sorted(y, key=lambda v: v * K)",
    ),
    "a helper that is defined anew": (
        "def cost(y): return 1\nthing = lambda e, X, y: cost(y)",
        "def cost(y): return 2\nthing = lambda e, X, y: cost(y)",
    ),
    "a partial's keyword": (
        "def score(e, X, y, k): return k\nthing = functools.partial(score, k=1)",
        "def score(e, X, y, k): return k\nthing = functools.partial(score, k=2)",
    ),
    "a partial's argument": (
        "def score(k, e, X, y): return k\nthing = functools.partial(score, 1)",
        "def score(k, e, X, y): return k\nthing = functools.partial(score, 2)",
    ),
    "an object's state": (scorer_class() + "thing = Scorer(1)", scorer_class() + "thing = Scorer(2)"),
    "an object's table": (
        scorer_class() + "thing = Scorer(costs=np.eye(20))",
        scorer_class() + "thing = Scorer(costs=2 * np.eye(20))",
    ),
    "an object's method": (
        scorer_class() + "thing = Scorer()",
        scorer_class("return 2.0") + "thing = Scorer()",
    ),
    "a bound method": (
        scorer_class() + "thing = Scorer(1).__call__",
        scorer_class() + "thing = Scorer(2).__call__",
    ),
    "a module's code": (
        NET.format(width=8, f="torch.relu") + "thing = Net",
        NET.format(width=8, f="torch.tanh") + "thing = Net",
    ),
    "a module's default": (
        NET.format(width=8, f="torch.relu") + "thing = Net",
        NET.format(width=9, f="torch.relu") + "thing = Net",
    ),
    "a module of a factory": (FACTORY.format(scale=1.0), FACTORY.format(scale=2.0)),
    "a base class": (
        "class Base:\n    k = 1\nclass thing(Base): pass",
        "class Base:\n    k = 2\nclass thing(Base): pass",
    ),
    "a static method": (
        "class thing:\n    @staticmethod\n    def f(): return 1",
        "class thing:\n    @staticmethod\n    def f(): return 2",
    ),
    "a property": (
        "class thing:\n    @property\n    def f(self): return 1",
        "class thing:\n    @property\n    def f(self): return 2",
    ),
    "a decorated function": (
        "@functools.lru_cache\ndef thing(): return 1",
        "@functools.lru_cache\ndef thing(): return 2",
    ),
    "a wrapped function": (
        "def plain(f):\n    @functools.wraps(f)\n    def g(*a): return f(*a)\n    return g\n@plain\ndef thing(): return 1",
        "def plain(f):\n    @functools.wraps(f)\n    def g(*a): return f(*a)\n    return g\n@plain\ndef thing(): return 2",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_does_otherwise_is_told_apart(name: str) -> None:
    before, after = (describe(thing(source)) for source in OTHERS[name])
    found = changes(before, after, "the scorer")
    assert found
    assert all(sentence.startswith("the scorer") for sentence in found)
    assert "0x" not in json.dumps([before, after])


@pytest.mark.parametrize("name", OTHERS)
def test_the_same_lines_run_anew_are_the_same(name: str) -> None:
    for source in OTHERS[name]:
        lower = "import os\n\n\n" + source
        assert describe(thing(source)) == describe(thing(source)) == describe(thing(lower))
        assert describe(thing(source)) == describe(thing("import functools, numpy as np, torch\n" + source))
        assert json.loads(json.dumps(describe(thing(source)))) == describe(thing(source))


def test_the_same_lines_are_the_same_in_every_process(tmp_path: Path) -> None:
    lines = [
        "import functools, json, numpy as np, torch",
        "from inna_tune.records.describing import describe",
    ]
    for number, name in enumerate(OTHERS):
        lines += [OTHERS[name][0], f"found_{number} = describe(thing)"]
    lines += [
        "thing = lambda x: x in {'a', 'b', 'c'}",
        "held = {'x', 'y', 'z'}",
        "def within(x): return x in held",
    ]
    lines += [
        f"print(json.dumps([{', '.join(f'found_{n}' for n in range(len(OTHERS)))}, describe(thing), describe(within)]))"
    ]
    scripts = [tmp_path / name / "script.py" for name in ("one", "two")]
    for above, script in enumerate(scripts):
        script.parent.mkdir()
        script.write_text("\n" * above + "\n".join(lines))
    assert HASH_SEED != "2"
    environment = os.environ | {"PYTHONHASHSEED": "2", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, scripts[0]], env=environment, capture_output=True, text=True, check=True
    )
    with Program(RUN_FILE, scripts[1]) as program:
        printed, said = program.communicate()
    assert program.returncode == 0, said
    found = [json.loads(text) for text in (done.stdout, printed)]
    assert found[0] == found[1]
    assert found[0][: len(OTHERS)] == [describe(thing(before)) for before, _ in OTHERS.values()]


# Lines that define a ``thing``, lines that use it, as a search does: what it was is not to be told from what it is.
USED = {
    "a counter of the notebook": "n = 0\ndef thing(e, X, y):\n    global n\n    n += 1\n    return y",
    "a counter around it": (
        "def make():\n    n = 0\n    def score(e, X, y):\n        nonlocal n\n        n += 1\n        return y\n"
        "    return score\nthing = make()"
    ),
    "a list of the notebook": "seen = []\ndef thing(e, X, y):\n    seen.append(X)\n    return y",
    "a mapping of the notebook": "seen = {}\ndef thing(e, X, y):\n    seen[len(seen)] = X\n    return y",
    "an object that counts": scorer_class() + "thing = Scorer()",
    "a function with an object that counts": (
        scorer_class() + "inner = Scorer()\ndef thing(e, X, y):\n    inner.k += 1\n    return inner(e, X, y)"
    ),
    "a cache": "@functools.lru_cache\ndef thing(e, X, y): return y",
    "a stream of random numbers": "rng = np.random.default_rng(0)\nthing = lambda e, X, y: rng.random()",
}


@pytest.mark.parametrize("name", USED)
def test_what_counts_its_calls_stays_the_same(name: str) -> None:
    used = thing(USED[name])
    before = describe(used)
    for k in range(3):
        used(None, k, k)
    assert changes(before, describe(used), "the scorer") == []


def test_only_what_can_be_known_is_told() -> None:
    logger = logging.getLogger("inna_tune.test")
    source = "thing = lambda e, X, y: (logger, lock, path, X)"
    before = describe(thing(source, logger=logger, lock=threading.Lock(), path=Path("here")))
    logger.setLevel("ERROR")
    after = describe(thing(source, logger=logger, lock=threading.Lock(), path=Path("there")))
    assert before == after


def test_documentation_and_annotations_do_not_count() -> None:
    plain = "def thing(e, X, y):\n    'One.'\n    return y"
    assert describe(thing(plain)) == describe(thing(plain.replace("One.", "Two.").replace("y)", "y: int)")))


def test_another_version_of_python_is_no_difference() -> None:
    here = describe(thing("thing = lambda e, X, y: 1"))
    there = json.loads(json.dumps(here).replace("cpython 3.", "cpython 9."))
    there["compiled code"] = dict.fromkeys(there["compiled code"], "blake2b:00")
    assert here != there
    assert changes(here, there, "the scorer") == []


def test_things_of_a_library_are_known_by_their_names() -> None:
    assert describe(accuracy_score) == "sklearn.accuracy_score"
    assert describe(torch.nn.Linear) == "torch.Linear"
    assert describe(np.exp) == "exp"
    assert describe(StandardScaler(with_mean=False))["settings"] == {
        "copy": True,
        "with_mean": False,
        "with_std": True,
    }


def test_a_scorer_is_known_by_its_function_and_keywords() -> None:
    assert describe(get_scorer("accuracy")) == describe(make_scorer(accuracy_score))
    two = [make_scorer(fbeta_score, beta=beta) for beta in (1, 2)]
    [sentence] = changes(*map(describe, two), "the scorer")
    assert "beta" in sentence
    assert sentence.endswith("was 1, now it is 2")
    assert changes(describe(get_scorer("r2")), describe(get_scorer("neg_mean_squared_error")), "the scorer")


def test_values_that_json_lacks() -> None:
    for value in (
        np.nan,
        np.inf,
        {0: np.float32(1), (1, 2): None},
        {1, "a"},
        b"x",
        1j,
        pd.Series([1, None]),
        np.arange(99),
    ):
        assert json.loads(json.dumps(describe(value), allow_nan=False)) == describe(value) == describe(value)
    assert describe(np.int64(3)) == 3
    long = [list(range(1000)), [*range(999), 0]]
    assert len(json.dumps(describe(long))) < 200
    assert describe(long[0]) != describe(long[1])
    assert describe({np.int64(0): 1}) == describe({0: np.float64(1)})
    assert describe(torch.eye(20)) != describe(2 * torch.eye(20))


def test_what_holds_itself_is_told_once() -> None:
    ring: list[Any] = [1]
    ring.append(ring)
    assert json.dumps(describe(ring))
    source = (
        "def even(n): return n == 0 or odd(n - 1)\ndef odd(n): return n != 0 and even(n - 1)\nthing = even"
    )
    assert describe(thing(source)) == describe(thing(source))
    assert describe(thing(source)) != describe(thing(source.replace("!= 0", "> 0")))


SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "epochs": ({"max_epochs": 12}, {"max_epochs": 3}, "max_epochs was 12, now it is 3"),
    "optimizer": ({"optimizer": "inna"}, {"optimizer": "adamw"}, "optimizer was 'inna', now it is 'adamw'"),
    "its parameters": (
        {"optimizer": "sgd", "optimizer_params": {"momentum": 0.9}},
        {"optimizer": "sgd", "optimizer_params": {"momentum": 0.8}},
        "optimizer_params (momentum) was 0.9, now it is 0.8",
    ),
    "widths": ({"hidden_layer_sizes": (8,)}, {"hidden_layer_sizes": (8, 8)}, "hidden_layer_sizes was [8], now it is [8, 8]"),
    "encoder": ({"encoder": None}, {"encoder": TableEncoder(max_levels=2)}, "encoder__max_levels was 64, now it is 2"),
    "class weights": ({"class_weight": None}, {"class_weight": "balanced"}, "class_weight was None"),
    "weights of classes": ({"class_weight": {0: 1, 1: 2}}, {"class_weight": {0: 1, 1: 3}}, "class_weight (1) was 2"),
    "module": (
        {"module": thing(FACTORY.format(scale=1.0))},
        {"module": thing(FACTORY.format(scale=2.0))},
        "module (compiled code) differs",
    ),
    "seed": ({"random_state": None}, {"random_state": 1}, "random_state was None, now it is 1"),
    "stream": (
        {"random_state": np.random.RandomState(1)},
        {"random_state": np.random.RandomState(2)},
        "random_state differs",
    ),
    "precision": ({"precision": "float32"}, {"precision": "bf16"}, "precision was 'float32', now it is 'bf16'"),
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_each_setting_of_an_estimator_that_differs_is_named(name: str) -> None:
    before, after, sentence = SETTINGS[name]
    estimators = [InnaClassifier(**each) for each in (before, after)]
    [found] = setting_changes(*map(describe_settings, estimators))
    assert sentence in found
    for each in estimators:
        assert setting_changes(describe_settings(each), json.loads(json.dumps(describe_settings(each)))) == []


def test_every_setting_counts_but_those_that_training_does_not_see() -> None:
    for kind in (InnaClassifier, InnaRegressor):
        stored = describe_settings(kind())
        for name in kind().get_params(deep=False):
            other = {**stored, "parameters": {**stored["parameters"], name: "another"}}
            assert bool(setting_changes(stored, other)) == (
                name not in {"device", "warm_start", "n_jobs", "callbacks"}
            )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"hidden_layer_sizes": (8,)}, {"hidden_layer_sizes": "8"}),
        ({"hidden_layer_sizes": 8}, {"hidden_layer_sizes": np.array([8])}),
        ({"max_epochs": 3}, {"max_epochs": np.int64(3)}),
        ({"encoder": None}, {"encoder": TableEncoder()}),
        ({"optimizer_params": None}, {"optimizer_params": {}}),
        ({"class_weight": {0: 1, 1: 2}}, {"class_weight": {np.int64(1): 2.0, np.int64(0): 1.0}}),
        ({"device": "auto"}, {"device": "cpu"}),
        ({"warm_start": False}, {"warm_start": True}),
        ({"random_state": np.random.RandomState(1)}, {"random_state": np.random.RandomState(1)}),
    ],
)
def test_other_words_for_the_same_settings_are_the_same(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    assert setting_changes(*(describe_settings(InnaClassifier(**each)) for each in (before, after))) == []


def test_what_a_space_tunes_is_its_own_matter() -> None:
    before = InnaClassifier(lr=0.1, dropout=0.1, optimizer="sgd", optimizer_params={"momentum": 0.9})
    after = InnaClassifier(lr=0.2, dropout=0.2, optimizer="sgd")
    tuned = ("lr", "optimizer__momentum")
    [sentence] = setting_changes(describe_settings(before, tuned), describe_settings(after, tuned))
    assert "dropout" in sentence
    # A space that now names it, or no longer does, is no other estimator.
    assert (
        setting_changes(describe_settings(before, tuned), describe_settings(after, (*tuned, "dropout"))) == []
    )
    encoders = [InnaClassifier(encoder=TableEncoder(min_count=n)) for n in (2, 3)]
    tuned = ("encoder__min_count",)
    assert setting_changes(*(describe_settings(each, tuned) for each in encoders)) == []
    assert setting_changes(describe_settings(encoders[0]), describe_settings(encoders[1], tuned)) == []
    assert setting_changes(*map(describe_settings, encoders))


def test_a_class_is_the_same_once_an_instance_was_copied() -> None:
    class Own(InnaClassifier):
        pass

    before = describe_settings(Own())
    copy.deepcopy(Own())
    assert "__slotnames__" in vars(Own)
    assert describe_settings(Own()) == before


def test_an_estimator_of_another_class_or_code_is_another() -> None:
    [sentence] = setting_changes(describe_settings(InnaClassifier()), describe_settings(InnaRegressor()))
    assert sentence == "the estimator was InnaClassifier, now it is InnaRegressor"
    source = "class Own(Base):\n    _retries = {}\nthing = Own()"
    before, after = (describe_settings(thing(source.format(n), Base=InnaClassifier)) for n in (1, 2))
    assert setting_changes(before, before) == []
    [sentence] = setting_changes(before, after)
    assert "_retries" in sentence

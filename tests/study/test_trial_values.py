"""A trial's value is what `cross_val_score` of its settings gives, for every setting that a space may hold."""

import pickle
import sys
import warnings

import joblib
import numpy as np
import optuna
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.metrics import get_scorer
from sklearn.model_selection import ShuffleSplit, StratifiedKFold, cross_val_score

from inna_tune import InnaClassifier, InnaRegressor, InnaSearchCV, SearchSpace, cross_validate
from inna_tune.estimators import TableEncoder
from inna_tune.optim.optimizers import PURE
from inna_tune.space import Categorical
from inna_tune.study import folding
from inna_tune.study.evaluation import Cohort
from inna_tune.study.folding import FoldedTable

# Two values or more of every parameter, so that a new one without an entry fails.
SAMPLES = {
    "lr": ("auto", 0.05),
    "alpha": ("auto", 0.4),
    "beta": ("auto", 0.2),
    "step_ratio": (None, 0.5, 8.0),
    "friction": (None, 0.5),
    "damping": (None, 0.4),
    "decay": ("cosine", "power"),
    "decay_power": (None, 0.3),
    "weight_decay": (0.0, 0.05),
    "hidden_layer_sizes": ("4", "6-4"),
    "block": ("plain", "residual"),
    "activation": ("relu", "mish"),
    "numeric_embedding": ("none", "pbld", "periodic"),
    "linear_path": (True, False),
    "dropout": (0.0, 0.3),
    "label_smoothing": (0.0, 0.2),
    "optimizer": ("inna", "sgd", "adamw"),
    "optimizer_params": (None,),
    "scale_tensors": (True, False),
    "longest_step": (None, 0.003),
    "gradient_clip": (None, 0.1),
    "averaging": (None, 0.9),
    "batch_size": (16, 50),
    "max_epochs": (2, 5),
    "max_time": (None, 600.0),
    "early_stopping": (True, False),
    "eval_metric": (None, "accuracy"),
    "patience": (1, 30),
    "validation_fraction": (0.1, 0.4),
    "n_members": ("auto", 2),
    "warm_start": (False, True),
    "class_weight": (None, "balanced"),
    "module": (None,),
    "precision": ("float32", "bf16"),
    "device": ("auto", "cpu"),
    "n_jobs": (None, 1),
    "callbacks": (None,),
    "quantiles": (None,),
    "random_state": (0, 7),
    "encoder": (None,),
    "encoder__numeric": ("scale", "quantile"),
    "encoder__max_levels": (3, 64),
    "encoder__min_count": (1, 100),
    "encoder__embed": (True, False),
    "encoder__max_codes": (4, 4096),
    "encoder__text": ("auto", "never"),
    "encoder__n_components": (2, 5),
    "optimizer__momentum": (0.3, 0.9),
}

# As near as two ways to sum the same numbers.
NEAR = {"rtol": 1e-6, "atol": 1e-9}


def table(n=240, seed=0):
    """Columns of all kinds, levels that only some folds have, gaps."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, n))
    town = rng.choice([f"t{i}" for i in range(30)], n, p=[0.3, 0.2, 0.1, *[0.4 / 27] * 27])
    words = ["quick red fox", "lazy old dog", "small white cat", "tall green tree", "deep blue sea"]
    note = [f"{rng.choice(words)} and {rng.choice(words)} near {rng.integers(n)}" for _ in range(n)]
    gaps = np.where(np.arange(n) == 5, np.nan, rng.normal(size=n))
    X = pd.DataFrame({"a": a, "b": b, "gaps": gaps, "town": town})
    signal = a + 0.5 * b + (town == "t0") + rng.normal(size=n)
    return X, signal, note


X, SIGNAL, NOTE = table()
LABELS = np.array(["low", "mid", "top"])[np.digitize(SIGNAL, [0.0, 2.2])]
LARGE, LARGE_SIGNAL, _ = table(330, seed=1)
# As many training rows as early stopping needs, and no more.
FOLDS = ShuffleSplit(2, test_size=35, random_state=0)
CLASSIFIER = InnaClassifier(
    hidden_layer_sizes=(4,),
    numeric_embedding="none",
    max_epochs=4,
    encoder=TableEncoder(n_components=3),
    random_state=3,
)
REGRESSOR = InnaRegressor(
    **{
        k: v
        for k, v in CLASSIFIER.get_params(deep=False).items()
        if k != "class_weight" and k != "label_smoothing"
    }
)


def values(net, name, choices, X, y, cv=FOLDS, scoring=None):
    """Values of trials, and what separate fits give."""
    if name == "validation_fraction":
        # Several nets of a small table leave out other rows.
        net = clone(net).set_params(n_members=1)
    search = InnaSearchCV(
        net,
        SearchSpace({name: Categorical(choices)}),
        n_trials=len(choices),
        first=[{name: choice} for choice in choices],
        cv=cv,
        scoring=scoring,
        pruner=optuna.pruners.NopPruner(),
        population=len(choices),
        refit=False,
        error_score="raise",
        random_state=0,
    ).fit(X, y)
    assert [t.params for t in search.study_.trials] == [{name: choice} for choice in choices]
    alone = [value_alone(clone(net).set_params(**{name: c}), X, y, cv, scoring) for c in choices]
    return [t.value for t in search.study_.trials], alone


# By all that it follows from: most parameters' samples have the usual settings among them.
_VALUES = {}


def value_alone(net, X, y, cv, scoring):
    key = joblib.hash(
        (type(net).__name__, sorted(net.get_params().items(), key=lambda item: item[0]), X, y, cv, scoring)
    )
    if key not in _VALUES:
        _VALUES[key] = cross_val_score(net, X, y, cv=cv, scoring=scoring, error_score="raise").mean()
    return _VALUES[key]


WITHOUT_EFFECT = {
    "optimizer_params",
    "max_time",
    "warm_start",
    "module",
    "device",
    "n_jobs",
    "callbacks",
    "quantiles",
    "encoder",
    "patience",
    "decay_power",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", sorted(InnaClassifier(encoder=TableEncoder(), optimizer_params={"momentum": 0.5}).get_params())
)
def test_of_a_classifier(name):
    net = CLASSIFIER
    if name == "optimizer__momentum":
        net = clone(net).set_params(optimizer="sgd", optimizer_params={"momentum": 0.5})
    if name in ("encoder__max_codes", "encoder__embed"):
        net = clone(net).set_params(encoder__max_levels=3)
    if name == "block":
        net = clone(net).set_params(hidden_layer_sizes=(4, 4))
    if name == "scale_tensors":
        net = clone(net).set_params(hidden_layer_sizes=(16, 16))
    if name == "validation_fraction":
        net = clone(net).set_params(n_members=1)
    if name == "decay_power":
        net = clone(net).set_params(decay="power")
    rows = X.assign(note=NOTE) if name in ("encoder__text", "encoder__n_components") else X
    found, expected = values(net, name, SAMPLES[name], rows, LABELS, scoring="neg_log_loss")
    np.testing.assert_allclose(found, expected, **NEAR)
    if name not in WITHOUT_EFFECT - {"decay_power"}:
        assert len(set(np.round(expected, 9))) == len(expected), "the samples must make a difference"


def test_the_regressor_has_no_other_parameters():
    own = InnaRegressor(encoder=TableEncoder(), optimizer_params={"momentum": 0.5}).get_params()
    assert set(own) == set(SAMPLES) - {"class_weight", "label_smoothing"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("targets", [1, 2])
def test_of_a_regressor_and_settings_drawn_at_random(targets):
    y = SIGNAL if targets == 1 else np.column_stack([SIGNAL, -3 * SIGNAL + X.a])
    names = sorted(set(REGRESSOR.get_params()) - {"encoder", "optimizer", "lr", "alpha", "beta", *PURE})
    samples = SAMPLES | {"eval_metric": (None, "neg_mean_absolute_error")}
    space = SearchSpace({name: Categorical(samples[name]) for name in names})
    rng = np.random.default_rng(0)
    settings = [space.sample(rng) for _ in range(5)]
    net = clone(REGRESSOR).set_params(lr=0.02, alpha=0.4, beta=0.2)
    search = InnaSearchCV(
        net, space, n_trials=5, first=settings, cv=FOLDS, population=5, refit=False, error_score="raise",
        pruner=optuna.pruners.NopPruner(), random_state=0,
    ).fit(X, y)  # fmt: skip
    for trial in search.study_.trials:
        alone = clone(net).set_params(**trial.params)
        expected = cross_val_score(alone, X, y, cv=FOLDS, scoring="neg_root_mean_squared_error")
        # Where the last digits decide how a number is rounded to the few of bf16, more differ after some steps.
        near = {"rtol": 1e-4} if trial.params["precision"] == "bf16" else NEAR
        np.testing.assert_allclose(trial.user_attrs["scores"], expected, **near)


class Recording(InnaClassifier):
    """Says which of its parameters are read."""

    def __getattribute__(self, name):
        value = super().__getattribute__(name)
        read = object.__getattribute__(self, "__dict__").get("_read_names")
        if read is not None:
            read.add(name)
        return value


def test_encoding_reads_no_parameter_that_only_training_may_read():
    net = Recording(encoder=TableEncoder(), class_weight="balanced")
    names = set(net.get_params(deep=False))
    net._read_names = set()
    net._encode_for_fit(X, LABELS, np.ones(len(X)))
    read = names & net._read_names
    assert "encoder" in read, "the recorder must record"
    assert not read & net._training_parameters
    assert net._training_parameters <= names


def test_a_table_is_encoded_once_for_settings_that_encode_alike():
    rows = np.arange(len(X))
    table = FoldedTable(CLASSIFIER, X, LABELS, None, [(rows[::2], rows[1::2])])
    assert table.encoded_for(clone(CLASSIFIER).set_params(max_epochs=9, lr=0.3, n_members=3)) is table
    other = clone(CLASSIFIER).set_params(encoder__numeric="quantile")
    found = table.encoded_for(other)
    assert found is not table
    assert table.encoded_for(clone(other).set_params(dropout=0.4)) is found
    assert found.digest != table.digest


class Wide(torch.nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.line = torch.nn.Linear(inputs, outputs)

    def forward(self, x):
        return self.line(x)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"lr": 0.05, "alpha": 0.4, "beta": 0.2},
        {"lr": 0.05, "optimizer": torch.optim.Adafactor},
        {"module": Wide, "lr": 0.05, "alpha": 0.4, "beta": 0.2},
        {"encoder__max_levels": 3},
        {"random_state": np.random.RandomState(5)},
        {"random_state": np.random.default_rng(5)},
    ],
    ids=["auto", "numbers", "Adafactor", "module", "codes", "RandomState", "Generator"],
)
def test_of_folds_whose_tables_differ_in_width(changes):
    net = clone(CLASSIFIER).set_params(**changes)
    ends = [
        f.estimator.encoder_.sections for f in FoldedTable(net, X, LABELS, None, list(FOLDS.split(X))).folds
    ]
    assert len(set(ends)) > 1, "the example must have folds of several widths"
    found = cross_validate(net, X, LABELS, FOLDS, scoring="neg_log_loss")["test_score"]
    expected = cross_val_score(net, X, LABELS, cv=FOLDS, scoring="neg_log_loss")
    tolerance = {"rtol": 2e-3} if "module" in changes else NEAR  # modules train in float32
    np.testing.assert_allclose(found, expected, **tolerance)


@pytest.mark.filterwarnings("ignore")
def test_of_folds_that_train_in_other_precisions():
    """A fold of up to 256 training rows trains in float64, one of more in float32."""
    rows = np.arange(len(LARGE))
    cv = [(rows[:250], rows[250:]), (rows[20:280], rows[300:])]
    net = clone(REGRESSOR).set_params(lr=0.02, alpha=0.4, beta=0.2)
    found = cross_validate(net, LARGE, LARGE_SIGNAL, cv, scoring="r2")["test_score"]
    expected = cross_val_score(net, LARGE, LARGE_SIGNAL, cv=cv, scoring="r2")
    np.testing.assert_allclose(found[0], expected[0], **NEAR)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-3)


@pytest.mark.filterwarnings("ignore")
def test_of_folds_that_lack_a_class():
    y = np.where(np.arange(len(X)) < 3, "rare", LABELS)
    rows = np.arange(len(X))
    cv = [(rows[70:], rows[:70]), (rows[:170], rows[170:]), (np.r_[rows[:70], rows[140:]], rows[70:140])]
    found, expected = values(CLASSIFIER, "class_weight", (None, "balanced"), X, y, cv, "accuracy")
    np.testing.assert_allclose(found, expected, **NEAR)
    by_default, by_name = (
        cross_validate(CLASSIFIER, X, y, cv, scoring=s)["test_score"] for s in (None, "neg_log_loss")
    )
    assert np.isfinite(by_default).all()
    np.testing.assert_array_equal(by_default, by_name)
    # The class without training rows has no probability.
    alone = clone(CLASSIFIER).fit(X.iloc[70:], y[70:])
    known = pd.DataFrame(alone.predict_proba(X.iloc[:70]), columns=alone.classes_).reindex(
        columns=np.unique(y), fill_value=0.0
    )
    chosen = np.clip(
        known.to_numpy()[rows[:70], np.searchsorted(np.unique(y), y[:70])], np.finfo(float).eps, 1
    )
    assert by_default[0] == pytest.approx(np.log(chosen).mean())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("scoring", [None, "neg_log_loss"])
def test_at_rungs_a_fold_that_lacks_a_class_scores_as_at_the_end(scoring):
    y = np.where(np.arange(len(X)) < 3, "rare", LABELS)
    rows = np.arange(len(X))
    net = clone(CLASSIFIER).set_params(
        max_epochs=2, early_stopping=False, averaging=None, lr=1e-9, alpha=0.4, beta=0.2
    )
    search = InnaSearchCV(
        net, SearchSpace({"dropout": Categorical((0.0, 0.1))}), n_trials=1, refit=False, random_state=0,
        cv=[(rows[70:], rows[:70])], scoring=scoring, error_score="raise",
    ).fit(X, y)  # fmt: skip
    [trial] = search.study_.trials
    assert trial.value < -1.0
    assert trial.intermediate_values[1] == pytest.approx(trial.value, rel=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_a_step_size_that_diverges_is_tried_again_smaller_as_in_a_fit(monkeypatch):
    def too_large(curvature, **kwargs):
        found = original(curvature, **kwargs)
        return found._replace(lr=found.lr * 30)

    module = sys.modules["inna_tune.engine.calibrating"]
    original = module.settings_from_curvature
    monkeypatch.setattr(module, "settings_from_curvature", too_large)
    net = clone(CLASSIFIER).set_params(max_epochs=8, random_state=1, longest_step=None)
    folds = StratifiedKFold(2, shuffle=True, random_state=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        expected = cross_val_score(net, X, LABELS, cv=folds, scoring="neg_log_loss", error_score="raise")
    assert any("trying a quarter" in str(w.message) for w in caught), "the example must diverge"
    found = cross_validate(net, X, LABELS, folds, scoring="neg_log_loss")["test_score"]
    np.testing.assert_allclose(found, expected, **NEAR)


def as_list(y):
    return list(y)


def as_column(y):
    return y[:, None]


SHAPES = {
    "list": as_list,
    "column": as_column,
    "Series": pd.Series,
    "DataFrame": lambda y: pd.DataFrame({"t": y}),
    "categories": lambda y: pd.Series(y, dtype="category"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "shape"),
    [(k, s) for k in ("labels", "numbers") for s in SHAPES if (k, s) != ("numbers", "categories")],
)
def test_of_targets_in_any_container(kind, shape):
    net, y = (CLASSIFIER, LABELS) if kind == "labels" else (REGRESSOR, SIGNAL)

    def study(y):
        found = InnaSearchCV(
            net, SearchSpace({"dropout": Categorical((0.0, 0.3))}), n_trials=1, cv=FOLDS, refit=False, random_state=0,
        ).fit(X, y)  # fmt: skip
        return [(t.params, t.value, t.intermediate_values) for t in found.study_.trials]

    assert study(SHAPES[shape](y)) == study(y)


def test_a_column_of_labels_is_told():
    from sklearn.exceptions import DataConversionWarning

    net = InnaClassifier(hidden_layer_sizes=(4,), n_members=1, max_epochs=1)
    labels = (X.a > 0).to_numpy()[:, None]
    with pytest.warns(DataConversionWarning, match="column-vector"):
        cross_validate(net, X[["a"]], labels, 2)
    with pytest.warns(DataConversionWarning, match="column-vector"):
        InnaSearchCV(net, n_trials=1, cv=2).fit(X[["a"]], labels)


@pytest.mark.filterwarnings("ignore")
def test_of_rows_in_any_container():
    numbers = X[["a", "b"]].to_numpy()
    expected = cross_validate(CLASSIFIER, numbers, LABELS, FOLDS, scoring="accuracy")["test_score"]
    import scipy.sparse

    for given in (
        numbers.tolist(),
        scipy.sparse.coo_array(numbers),
        pd.DataFrame(numbers),
        numbers.astype(object),
    ):
        found = cross_validate(CLASSIFIER, given, LABELS, FOLDS, scoring="accuracy")["test_score"]
        np.testing.assert_array_equal(found, expected)


@pytest.mark.filterwarnings("ignore")
def test_of_masks_and_places_from_the_end():
    n = len(X)
    splits = list(ShuffleSplit(2, test_size=40, random_state=0).split(X))
    masks = [tuple(np.isin(np.arange(n), rows) for rows in pair) for pair in splits]
    places = [(np.sort(train), np.sort(test) - n) for train, test in splits]
    want = cross_validate(
        CLASSIFIER, X, LABELS, [tuple(map(np.sort, pair)) for pair in splits], scoring="accuracy"
    )
    for cv in (masks, places):
        found = cross_validate(CLASSIFIER, X, LABELS, cv, scoring="accuracy")
        np.testing.assert_array_equal(found["test_score"], want["test_score"])


def test_of_encodings_that_were_used_longest_ago_the_memory_is_freed(monkeypatch):
    monkeypatch.setattr(folding, "_KEPT_BYTES", 0)
    table = FoldedTable(CLASSIFIER, X, LABELS, None, list(FOLDS.split(X)))
    one, other = (clone(CLASSIFIER).set_params(encoder__max_levels=n) for n in (3, 4))
    first = table.encoded_for(one)
    assert table.encoded_for(one) is first, "the last one is kept whatever it takes"
    table.encoded_for(other)
    again = table.encoded_for(one)
    assert again is not first
    assert again.digest == first.digest


def test_a_table_goes_to_other_processes():
    table = FoldedTable(
        CLASSIFIER, X, LABELS, np.ones(len(X)), list(FOLDS.split(X)), {"sample_weight": np.ones(len(X))}
    )
    table.stacks(CLASSIFIER)
    copy = pickle.loads(pickle.dumps(table))
    assert copy.digest == table.digest
    found = [Cohort(t, [CLASSIFIER]) for t in (table, copy)]
    for cohort in found:
        cohort.run(1)
    scorer = get_scorer("accuracy")
    assert found[0].scores(0, scorer) == found[1].scores(0, scorer)

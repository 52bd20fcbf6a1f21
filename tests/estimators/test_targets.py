"""Labels keep their type and spelling, and several targets come through every door."""

from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.base import clone

from inna_tune import InnaClassifier, InnaRegressor, InnaSearchCV, load
from inna_tune.estimators.targets import read_labels
from inna_tune.study import cross_validate

RNG = np.random.default_rng(0)
X = pd.DataFrame({"a": RNG.normal(size=80), "b": RNG.normal(size=80)})
CODES = (X["a"] > 0).to_numpy().astype(int)
WORDS = np.array(["no", "yes"])[CODES]
NET = InnaClassifier(hidden_layer_sizes=(4,), n_members=1, max_epochs=2, random_state=0)
REGRESSOR = InnaRegressor(hidden_layer_sizes=(4,), n_members=1, max_epochs=2, random_state=0)

LABELS = {
    "int64": CODES,
    "int8": CODES.astype("int8"),
    "float64": CODES.astype(float),
    "bool": CODES.astype(bool),
    "<U3": WORDS,
    "objects of str": WORDS.astype(object),
    "objects of int": CODES.astype(object),
    "objects of bool": CODES.astype(bool).astype(object),
    "Int64": pd.Series(CODES, dtype="Int64"),
    "boolean": pd.Series(CODES.astype(bool), dtype="boolean"),
    "Float64": pd.Series(CODES, dtype="Float64"),
    "string": pd.Series(WORDS, dtype="string"),
    "str": pd.Series(WORDS, dtype="str"),
    "category": pd.Series(WORDS).astype("category"),
    "category of int": pd.Series(CODES, dtype="Int64").astype("category"),
    "category beyond": pd.Series(pd.Categorical(WORDS, ["zero", "yes", "no"])),
    "arrow int": pd.Series(CODES).astype("int64[pyarrow]"),
    "arrow bool": pd.Series(CODES.astype(bool)).astype("bool[pyarrow]"),
    "arrow str": pd.Series(WORDS).astype(pd.ArrowDtype(pa.string())),
    "frame": pd.DataFrame({"y": CODES}),
    "list": WORDS.tolist(),
}


@pytest.mark.filterwarnings("ignore:A column-vector y")
@pytest.mark.parametrize("labels", LABELS)
def test_labels_keep_their_type(labels, tmp_path):
    y = LABELS[labels]
    model = clone(NET).fit(X, y)
    kind = (
        bool
        if "bool" in labels
        else float
        if "loat" in labels
        else int
        if "nt" in labels or labels == "frame"
        else str
    )
    values = {bool: [False, True], float: [0.0, 1.0], int: [0, 1], str: ["no", "yes"]}[kind]
    assert model.classes_.tolist() == values
    assert {type(label) for label in model.classes_.tolist()} == {kind}
    if isinstance(y, np.ndarray) and y.dtype != object:
        assert model.classes_.dtype == y.dtype
    assert 0.5 <= model.score(X, y) <= 1.0
    model.save(tmp_path / "m.inna")
    again = load(tmp_path / "m.inna")
    assert again.classes_.dtype == model.classes_.dtype
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    assert model.predict(X).dtype == model.classes_.dtype


@pytest.mark.parametrize("labels", ["objects of int", "Int64", "boolean", "category", "arrow str"])
def test_a_search_and_its_scores_know_labels_of_every_type(labels):
    y = LABELS[labels]
    search = InnaSearchCV(clone(NET), n_trials=1, cv=2, random_state=0).fit(X, y)
    plain = InnaSearchCV(clone(NET), n_trials=1, cv=2, random_state=0).fit(X, read_labels(y))
    assert search.best_score_ == plain.best_score_
    assert search.classes_.tolist() == sorted(set(read_labels(y).tolist()))
    np.testing.assert_array_equal(
        cross_validate(clone(NET), X, y, cv=2)["test_score"],
        cross_validate(clone(NET), X, read_labels(y), cv=2)["test_score"],
    )


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (
            pd.Series([None, *CODES[1:]], dtype="Int64", name="outcome"),
            r"1 missing labels in 'outcome'\)\. Drop",
        ),
        (pd.Series([None, *WORDS[1:]], name="outcome").astype("category"), "1 missing labels in 'outcome'"),
        (np.array([None, *WORDS[1:]], dtype=object), "1 missing labels"),
        (np.array([1, *WORDS[1:]], dtype=object), r"different types: int, str.*astype\(str\)"),
        (pd.Series([True, *WORDS[1:]], dtype=object), "different types: bool, str"),
        (pd.Series([Decimal(int(c)) for c in CODES]), "Unknown label type"),
    ],
)
def test_labels_that_make_no_sense_are_named(y, message):
    with pytest.raises(ValueError, match=message):
        clone(NET).fit(X, y)


def test_labels_go_on_as_any_type_that_writes_the_same():
    model = clone(NET).set_params(warm_start=True).fit(X, pd.Series(CODES, dtype="Int64"))
    model.fit(X, CODES.astype(object))
    assert model.classes_.dtype == np.int64
    part = clone(NET).partial_fit(X, pd.Series(WORDS).astype("category"), classes=pd.Series(["yes", "no"]))
    assert part.classes_.tolist() == ["no", "yes"]


# ---------------------------------------------------------------------- several targets

VALUES = np.column_stack([X["a"], X["a"] - X["b"]])
SEVERAL = {
    "array": VALUES,
    "frame": pd.DataFrame(VALUES, columns=["one", "two"]),
    "nullable": pd.DataFrame(VALUES, columns=["one", "two"]).astype("Float64"),
    "arrow": pd.DataFrame(VALUES, columns=["one", "two"]).astype("double[pyarrow]"),
    "list": VALUES.tolist(),
}


@pytest.mark.parametrize("form", SEVERAL)
def test_several_targets_come_through_every_door(form, tmp_path):
    y = SEVERAL[form]
    model = clone(REGRESSOR).fit(X, y)
    expected = clone(REGRESSOR).fit(X, VALUES).predict(X)
    np.testing.assert_array_equal(model.predict(X), expected)
    assert expected.shape == (80, 2)
    model.save(tmp_path / "m.inna")
    np.testing.assert_array_equal(load(tmp_path / "m.inna").predict(X), expected)
    assert clone(REGRESSOR).partial_fit(X, y).predict(X).shape == (80, 2)
    found = cross_validate(clone(REGRESSOR), X, y, cv=2)["test_score"]
    np.testing.assert_array_equal(found, cross_validate(clone(REGRESSOR), X, VALUES, cv=2)["test_score"])
    search = InnaSearchCV(clone(REGRESSOR), n_trials=1, cv=2, random_state=0).fit(X, y)
    assert np.isfinite(search.best_score_)
    assert search.predict(X).shape == (80, 2)


def test_missing_values_of_a_target_are_named():
    y = SEVERAL["nullable"].copy()
    y.loc[3:5, "two"] = pd.NA
    with pytest.raises(ValueError, match=r"Input y contains NaN \(3 missing values in 'two'\)"):
        clone(REGRESSOR).fit(X, y)
    with pytest.raises(ValueError, match=r"1 missing values in 'price'"):
        clone(REGRESSOR).fit(X, pd.Series([np.nan, *VALUES[1:, 0]], name="price"))

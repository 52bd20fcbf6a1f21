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
        (pd.Series([Decimal(int(c)) for c in CODES]), r"Decimal: 1.*astype\(str\)"),
        (pd.cut(X["a"], 3), r"Interval: .*astype\(str\)"),
        (pd.PeriodIndex(np.where(CODES, "2020", "2021"), freq="Y"), r"Period: 202.*astype\(str\)"),
        (pd.Series([(1, 2), (3, 4)] * 40), r"tuple: \(1, 2\).*astype\(str\)"),
        (np.array([10**30, 10**31] * 40, dtype=object), r"int: 1000000.*astype\(str\)"),
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


# ---------------------------------------------------------------------- values of any size


@pytest.mark.parametrize("exponent", [-1000, -600, 40, 600, 1020])
def test_a_unit_of_the_target_changes_nothing(exponent):
    y = X["a"].to_numpy()
    expected = clone(REGRESSOR).fit(X, y).predict(X)
    weight = np.linspace(1, 2, len(X))
    weighted = clone(REGRESSOR).fit(X, y, sample_weight=weight).predict(X)
    np.testing.assert_array_equal(
        clone(REGRESSOR).fit(X, np.ldexp(y, exponent)).predict(X), np.ldexp(expected, exponent)
    )
    np.testing.assert_array_equal(
        clone(REGRESSOR).fit(X, np.ldexp(y, exponent), sample_weight=weight).predict(X),
        np.ldexp(weighted, exponent),
    )


@pytest.mark.parametrize("exponent", [-1070, -600, 600, 1015])
@pytest.mark.parametrize("net", [NET, REGRESSOR], ids=["labels", "values"])
def test_a_unit_of_the_weights_changes_nothing(net, exponent):
    weight = 8.0 + np.arange(len(X)) % 9
    expected = clone(net).fit(X, CODES, sample_weight=weight).predict(X)
    found = clone(net).fit(X, CODES, sample_weight=np.ldexp(weight, exponent))
    np.testing.assert_array_equal(found.predict(X), expected)


@pytest.mark.parametrize("value", [0.0, 5.0, 0.1, -1e-300, 1e300])
def test_one_value_is_predicted_as_it_is(value, tmp_path):
    several = np.column_stack([X["a"], np.full(len(X), value)])
    for y in (np.full(len(X), value), several):
        model = clone(REGRESSOR).fit(X, y)
        model.save(tmp_path / "m.inna")
        for each in (model, load(tmp_path / "m.inna")):
            found = each.predict(X)
            assert (found.reshape(len(X), -1)[:, -1] == value).all()
    median = clone(REGRESSOR).set_params(quantiles=(0.1, 0.5, 0.9)).fit(X, np.full(len(X), value))
    assert (median.predict_quantiles(X) == value).all()


def test_what_began_with_one_value_goes_on_with_others():
    model = clone(REGRESSOR).partial_fit(X, np.zeros(len(X)))
    for _ in range(30):
        model.partial_fit(X, 1e6 * X["a"])
    assert model.score(X, 1e6 * X["a"]) > 0.5
    again = clone(REGRESSOR).set_params(warm_start=True, max_epochs=30).fit(X, np.zeros(len(X)))
    assert again.fit(X, 1e6 * X["a"]).score(X, 1e6 * X["a"]) > 0.5


@pytest.mark.parametrize("weight", [-1, np.nan, np.inf, 0])
def test_weights_that_make_no_sense_are_refused_as_numbers_and_of_classes(weight):
    with pytest.raises(ValueError, match="sample_weight"):
        clone(NET).fit(X, CODES, sample_weight=weight)
    with pytest.raises(ValueError, match="class_weight"):
        clone(NET).set_params(class_weight={0: weight, 1: weight}).fit(X, CODES)


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


DAYS = pd.Series(pd.date_range("2024-01-01", periods=2).repeat(40), name="day")
TIMES = {
    "datetime64": DAYS,
    "array": DAYS.to_numpy(),
    "seconds": DAYS.to_numpy().astype("datetime64[s]"),
    "zone": DAYS.dt.tz_localize("UTC"),
    "dates": pd.Series(DAYS.dt.date.tolist(), dtype=object),
    "list": DAYS.dt.date.tolist(),
    "stamps": pd.Series(DAYS.tolist(), dtype=object),
    "durations": DAYS - DAYS[0],
    "array of durations": (DAYS - DAYS[0]).to_numpy(),
    "category": DAYS.astype("category"),
    "arrow": DAYS.astype(pd.ArrowDtype(pa.timestamp("ns"))),
}


@pytest.mark.parametrize("times", TIMES)
def test_dates_and_durations_are_refused_before_training_with_the_remedy(times):
    """As labels a model of them could not be saved; as values they would be nanoseconds."""
    with pytest.raises(ValueError, match=r"y holds dates or durations .* no labels.* y\.astype\(str\)"):
        clone(NET).fit(X, TIMES[times])
    if times != "category":
        with pytest.raises(ValueError, match=r"y holds dates or durations .* no numbers.*total_seconds"):
            clone(REGRESSOR).fit(X, TIMES[times])
    with pytest.raises(ValueError, match="y holds dates or durations"):
        InnaSearchCV(clone(NET), n_trials=1, cv=2).fit(X, TIMES[times])


def test_one_target_of_several_may_hold_no_dates():
    with pytest.raises(ValueError, match="in 'day'"):
        clone(REGRESSOR).fit(X, pd.DataFrame({"a": X["a"], "day": DAYS}))


@pytest.mark.parametrize("y", [WORDS.astype("S"), WORDS.astype("S").astype(object)], ids=["array", "objects"])
def test_bytes_are_no_labels(y):
    with pytest.raises(ValueError, match=r"bytes .*decode\(\)"):
        clone(NET).fit(X, y)

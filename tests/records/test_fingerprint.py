"""A study refuses other data, and says in what they differ."""

import json
import logging
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse
from sklearn.metrics import get_scorer, log_loss
from sklearn.model_selection import KFold

from inna_tune import InnaClassifier
from inna_tune.records.fingerprint import (
    ALLOWED_MISMATCH,
    FINGERPRINT,
    MismatchError,
    check,
    differences,
    fingerprint,
    notes,
)
from inna_tune.space import Categorical, LogNormal, LogUniform, SearchSpace, Uniform
from inna_tune.store.opening import open_storage
from tests.warm import Program

SPACE = SearchSpace({"lr": LogUniform(1e-4, 1.0), "decay": Categorical(["power", "log"])}).to_json()


def table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "age": [31, 42, 53, 64],
            "fare": [7.5, np.nan, 9.25, 1.0],
            "name": pd.Series(["a", "b", None, "d"], dtype="str"),
            "mixed": pd.Series([1, "one", None, (2, 3)], dtype=object),
            "lists": pd.Series([[1], [2, 3], None, {}], dtype=object),
            "city": pd.Categorical(["x", "y", "x", None]),
            "when": pd.to_datetime(["2020-01-01", None, "2021-02-03", "2022-03-04"]),
            "member": [True, False, True, True],
        }
    )


def question() -> dict[str, Any]:
    return {
        "task": "binary",
        "space": SPACE,
        "cv": KFold(3),
        "splits": list(KFold(3).split(np.zeros(4))),
        "metric": "accuracy",
        "scorer": get_scorer("accuracy"),
        "estimator": InnaClassifier(max_epochs=3),
    }


def described(X: Any = None, y: Any = None, **changes: Any) -> dict[str, Any]:
    X = table() if X is None else X
    y = pd.Series([0, 1, 1, 0], name="survived") if y is None else y
    return fingerprint(X, y, **(question() | changes))


def test_it_is_json_and_equal_to_itself() -> None:
    assert json.loads(json.dumps(described())) == described()
    assert differences(described(), described()) == []
    assert notes(described(), described()) == []


def test_it_is_the_same_in_every_process(tmp_path: Path) -> None:
    code = (
        "import json, pickle, sys; from inna_tune.records.fingerprint import fingerprint\n"
        "print(json.dumps(fingerprint(**pickle.load(open(sys.argv[1], 'rb')))))"
    )
    y = pd.Series(["no", "yes", "yes", "no"], name="survived")
    given = {"X": table(), "y": y, **question()}
    path = tmp_path / "given.pickle"
    path.write_bytes(pickle.dumps(given))
    # Its sets have another order there.
    with Program(code, path) as program:
        printed, said = program.communicate()
    assert program.returncode == 0, said
    assert json.loads(printed) == fingerprint(**given)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda X: X.drop(columns=["age", "city"]), "columns missing from the data: 'age', 'city'"),
        (lambda X: X.assign(new=1), "columns the study doesn't have: 'new'"),
        (lambda X: X.astype({"age": "float64"}), "column 'age' was int64, now it is float64"),
        (lambda X: X.assign(age=[31, 42, 53, 65]), "the values differ in columns 'age'"),
        (lambda X: X.assign(fare=[7.5, 0.0, 9.25, 1.0]), "the values differ in columns 'fare'"),
        (lambda X: X.assign(mixed=[1, "one", None, (2, 4)]), "the values differ in columns 'mixed'"),
        (
            lambda X: X.assign(city=pd.Categorical(["y", "y", "x", None])),
            "the values differ in columns 'city'",
        ),
        (lambda X: X.iloc[::-1], "the values differ in columns 'age'"),
        (lambda X: X[X.columns[::-1]], "the columns come in another order"),
        (lambda X: X.to_numpy(), "the study has 8 named columns, the data have 8 columns of object"),
    ],
)
def test_each_difference_of_the_data_is_named(change: Any, sentence: str) -> None:
    found = differences(described(), described(change(table())))
    assert any(sentence in each for each in found), found


def test_each_difference_of_the_question_is_named() -> None:
    y = pd.Series([0, 1, 1, 1], name="survived")
    stored = described()
    assert differences(stored, described(table().iloc[:3], y.iloc[:3])) == [
        "the study has 4 rows, the data have 3"
    ]
    assert differences(stored, described(y=y)) == ["the values of the target differ"]
    assert differences(stored, described(target="fare")) == [
        "the study's target is 'survived', now it is 'fare'"
    ]
    assert differences(stored, described(task="regression")) == [
        "the study's task is binary, now it is regression"
    ]
    assert differences(stored, described(metric="roc_auc", scorer=get_scorer("roc_auc"))) == [
        "the study's metric is accuracy, now it is roc_auc"
    ]
    folds = KFold(3, shuffle=True, random_state=1)
    [sentence] = differences(stored, described(cv=folds, splits=list(folds.split(np.zeros(4)))))
    assert sentence.endswith("now it is KFold(n_splits=3, random_state=1, shuffle=True)")


def test_many_columns_are_counted_rather_than_listed() -> None:
    wide = pd.DataFrame(np.zeros((4, 20)), columns=[f"c{i}" for i in range(20)])
    [sentence] = differences(described(wide), described(wide[["c0"]]))
    assert sentence == "columns missing from the data: 'c1', 'c2', 'c3', 'c4', 'c5' and 14 more"


def test_index_memory_order_and_sparse_format_do_not_count() -> None:
    X = np.arange(12.0).reshape(4, 3) % 5
    assert described(X) == described(np.asfortranarray(X)) == described(X.tolist())
    assert described(table()) == described(table().set_index(pd.Index([9, 8, 7, 6])))
    forms = [kind(X) for kind in (sparse.csr_array, sparse.csc_matrix, sparse.coo_array, sparse.lil_matrix)]
    assert all(described(form) == described(forms[0]) for form in forms)
    explicit_zero = sparse.csr_array(
        (
            np.array([0.0, *forms[0].data]),
            np.array([0, *forms[0].indices]),
            forms[0].indptr + np.array([0, 1, 1, 1, 1]),
        ),
        shape=X.shape,
    )
    assert described(explicit_zero) == described(forms[0])


@settings(max_examples=25, deadline=None)
@given(arrays(np.float32, (3, 2)), st.integers(0, 2), st.integers(0, 1))
def test_any_changed_number_is_seen(X: np.ndarray, row: int, column: int) -> None:
    changed = X.copy()
    changed[row, column] = 1.0 if X[row, column] != 1.0 else 2.0
    y = np.zeros(3)
    for kind in (np.asarray, pd.DataFrame, sparse.csr_array):
        assert differences(described(kind(X), y), described(kind(X), y)) == []
        assert differences(described(kind(X), y), described(kind(changed), y))


def test_descriptions_hold_no_addresses() -> None:
    for thing in (
        log_loss,
        get_scorer("accuracy"),
        KFold(2, shuffle=True, random_state=np.random.RandomState(0)),
        partial(lambda x: object(), object(), x=logging.getLogger()),
    ):
        text = json.dumps(described(cv=thing, metric=repr(thing), scorer=thing))
        assert " at 0x" not in text


@pytest.mark.parametrize(
    ("law", "allowed"),
    [
        ({"lr": LogUniform(1e-5, 10.0)}, True),
        ({"lr": LogNormal(0.1, 1.0, low=1e-4, high=1.0)}, True),
        ({"lr": Uniform(1e-4, 1.0)}, False),
        ({"decay": Categorical(["power", "log"], weights=[1, 3])}, True),
        ({"decay": Categorical(["power", "log", "cosine"])}, False),
        ({"dropout": Uniform(0.0, 0.5)}, True),
    ],
)
def test_a_space_may_change_as_far_as_optuna_lets_it(law: Any, allowed: bool) -> None:
    laws = {"lr": LogUniform(1e-4, 1.0), "decay": Categorical(["power", "log"])}
    stored, current = described(), described(space=SearchSpace(laws | law).to_json())
    assert (differences(stored, current) == []) == allowed
    assert (notes(stored, current) == []) != allowed
    # Optuna itself is the judge.
    study = optuna.create_study()
    for space in (SearchSpace(laws), SearchSpace(laws | law)):
        trial = study.ask()
        if space.to_json() == SPACE or allowed:
            space.suggest(trial)
        else:
            with pytest.raises(ValueError, match="not support dynamic|different"):
                space.suggest(trial)


def test_other_versions_are_noted() -> None:
    stored = described()
    stored["versions"]["torch"] = "1.0"
    assert differences(stored, described()) == []
    [note] = notes(stored, described())
    assert note.startswith("the study was begun with torch 1.0, now it is ")


def test_check_writes_refuses_and_records(caplog: pytest.LogCaptureFixture) -> None:
    study = optuna.create_study(study_name="titanic")
    check(study, described())
    check(study, described())
    assert study.user_attrs == {FINGERPRINT: described()}
    other = described(table().drop(columns="age"), task="regression")
    with pytest.raises(MismatchError) as raised:
        check(study, other)
    message = str(raised.value)
    assert "\n" not in message
    for words in ("titanic", "'age'", "task is binary, now it is regression", "--allow-mismatch"):
        assert words in message
    assert study.user_attrs == {FINGERPRINT: described()}
    for _ in range(2):
        check(study, other, allow_mismatch=True)
        assert study.user_attrs[FINGERPRINT] == described()
        assert study.user_attrs[ALLOWED_MISMATCH] == differences(described(), other)
    assert "missing from the data: 'age'" in caplog.text


@pytest.mark.parametrize("stored", ["text", {"columns": []}, 1])
def test_a_fingerprint_of_another_form_is_refused(stored: Any) -> None:
    study = optuna.create_study(study_name="titanic")
    study.set_user_attr(FINGERPRINT, stored)
    with pytest.raises(MismatchError, match="doesn't know"):
        check(study, described(), allow_mismatch=True)


@pytest.mark.parametrize("in_memory", [True, False])
def test_of_two_that_begin_a_study_at_once_one_question_counts(in_memory, tmp_path, monkeypatch) -> None:
    storage = open_storage(None if in_memory else f"sqlite:///{tmp_path}/s.db")
    study = optuna.create_study(storage=storage)
    # Both have looked before the other wrote.
    monkeypatch.setattr(optuna.Study, "user_attrs", property(lambda _: {}))
    check(study, described())
    check(study, described())
    with pytest.raises(MismatchError, match="task is binary, now it is regression"):
        check(study, described() | {"task": "regression"})
    stored = storage.get_study_user_attrs(study._study_id)
    assert stored[FINGERPRINT] == json.loads(json.dumps(described()))

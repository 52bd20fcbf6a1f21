import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from sklearn.base import clone
from sklearn.datasets import load_iris

import inna_tune
from inna_tune import InnaClassifier, InnaRegressor
from inna_tune.estimators import ModelFileError, TableEncoder, save
from inna_tune.estimators.number_forms import NumberForm
from inna_tune.estimators.saving import FORMAT_VERSION, digest
from inna_tune.estimators.schema import TableSchema
from tests.estimators.fixtures.make import read_rows, table
from tests.estimators.test_estimators import QUICK, titanic_like

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture
def classifier():
    X, score = titanic_like(120)
    y = np.where(score > 0, "yes", "no")
    model = InnaClassifier(class_weight={"yes": 2.0, "no": 1.0}, **QUICK | {"n_members": 2})
    return model.fit(X, y), X


def rewrite(path, *, tensors=None, metadata=None, **content):
    """The same file with something changed in it, and a digest that fits."""
    with safe_open(str(path), framework="pt") as file:
        old, had = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    model = json.dumps(json.loads(old["model"]) | content)
    kept = {name: tensor for name, tensor in (had | (tensors or {})).items() if tensor is not None}
    new = {**old, "model": model, "digest": digest(model, kept), **(metadata or {})}
    save_file(kept, str(path), metadata=new)


def test_a_loaded_classifier_is_the_one_saved(classifier, tmp_path):
    model, X = classifier
    model.save(tmp_path / "m.inna")
    again = inna_tune.load(tmp_path / "m.inna")
    assert np.array_equal(again.predict_proba(X), model.predict_proba(X))
    assert np.array_equal(again.predict(X), model.predict(X))
    assert again.get_params() == model.get_params()
    assert list(again.feature_names_in_) == list(model.feature_names_in_)
    assert again.members_ == model.members_
    pd.testing.assert_frame_equal(again.history_, model.history_)


@pytest.mark.parametrize(
    "settings",
    [
        {"encoder__max_levels": np.int64(5)},
        {"encoder__embed": np.bool_(False)},
        {"optimizer__momentum": np.float64(0.8), "optimizer__nesterov": np.True_},
        {"optimizer": "adamw", "optimizer_params": {"betas": np.array([0.8, 0.9]), "eps": np.float32(1e-6)}},
        {
            "optimizer": "muon",
            "optimizer_params": {"ns_steps": np.int32(3), "adjust_lr_fn": np.str_("original")},
        },
        {
            "optimizer": torch.optim.Muon,
            "optimizer_params": {"ns_coefficients": np.array([3.0, -4.0, 2.0])},
            "n_members": 1,
        },
        {"lr": np.float32(0.01), "random_state": np.int64(3), "hidden_layer_sizes": np.array([4, 3])},
        {"activation": np.str_("relu"), "early_stopping": np.False_, "averaging": np.float16(0.5)},
        {"class_weight": {np.str_("yes"): np.float64(2.0), "no": np.int64(1)}},
        {"device": torch.device("cpu")},
    ],
    ids=str,
)
def test_settings_that_are_numpys_come_back(settings, tmp_path):
    """As a search over numpy's arrays sets them."""
    X, score = titanic_like(60)
    base = InnaClassifier(
        optimizer="sgd", optimizer_params={"momentum": 0.9}, encoder=TableEncoder(), **QUICK
    )
    model = base.set_params(**settings).fit(X, np.where(score > 0, "yes", "no"))
    notes = {"n": np.int64(3), "scores": np.arange(2.0), "best": {"a": np.float32(0.5), "bad": np.nan}}
    save(model, tmp_path / "m.inna", extra=notes)
    again = inna_tune.load(tmp_path / "m.inna")
    assert np.array_equal(again.predict_proba(X), model.predict_proba(X))
    assert again.extra_ == {"n": 3, "scores": [0.0, 1.0], "best": {"a": 0.5, "bad": None}}
    assert np.array_equal(clone(again).fit(X, model.predict(X)).classes_, model.classes_)


def test_a_model_from_a_device_that_is_not_here_is_loaded(classifier, tmp_path, monkeypatch):
    model, X = classifier
    model.set_params(device="cuda:99").save(tmp_path / "m.inna")
    again = inna_tune.load(tmp_path / "m.inna")
    assert np.array_equal(again.predict_proba(X), model.predict_proba(X))
    with pytest.raises(ValueError, match="device='cuda:99': torch cannot compute on it here"):
        again.fit(X, np.arange(len(X)) % 2)


def test_text_dates_and_all_else_come_back(tmp_path):
    """Without code: vocabularies are JSON, the matrices tensors."""
    X = table().drop(columns="same")
    model = InnaClassifier(**QUICK).fit(X, X["new"].map({True: "yes", False: "no"}))
    kinds = {plan.kind for plan in model.encoder_.plan_}
    assert kinds == {"numeric", "blended", "categorical", "coded", "date", "text"}
    model.save(tmp_path / "m.inna")
    again = inna_tune.load(tmp_path / "m.inna")
    strange = X.assign(note=X["note"].where(X["new"]), town="elsewhere", seen="2031-12-24")
    for rows in (X, strange):
        assert np.array_equal(again.predict_proba(rows), model.predict_proba(rows))


@pytest.mark.parametrize("several", [False, True])
def test_a_loaded_regressor_is_the_one_saved(several, tmp_path):
    X, score = titanic_like(120)
    y = np.column_stack([score, 2 * score]) if several else score
    model = InnaRegressor(**QUICK).fit(X, y)
    model.save(tmp_path / "m.inna")
    assert np.array_equal(inna_tune.load(tmp_path / "m.inna").predict(X), model.predict(X))


@pytest.mark.parametrize("labels", [[0, 1, 2], [0.0, 1.0, 2.0], ["a", "b", "c"], [False, True, True]])
def test_labels_keep_their_types(labels, tmp_path):
    X, y = load_iris(return_X_y=True)
    model = InnaClassifier(**QUICK).fit(X, np.array(labels)[y])
    model.save(tmp_path / "m.inna")
    again = inna_tune.load(tmp_path / "m.inna")
    assert again.classes_.dtype == model.classes_.dtype
    assert np.array_equal(again.classes_, model.classes_)


def test_extra_notes_come_back(classifier, tmp_path):
    save(classifier[0], tmp_path / "m.inna", extra={"target": "y"})
    assert inna_tune.load(tmp_path / "m.inna").extra_ == {"target": "y"}


def test_a_pickle_is_not_run(tmp_path):
    flag = tmp_path / "ran"

    class Malicious:
        def __reduce__(self):
            return (Path.touch, (flag,))

    for write in (
        lambda f: f.write(pickle.dumps(Malicious())),
        lambda f: torch.save(Malicious(), f),
    ):
        with (tmp_path / "m.inna").open("wb") as file:
            write(file)
        with pytest.raises(ModelFileError, match="not a model file"):
            inna_tune.load(tmp_path / "m.inna")
    assert not flag.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metadata": {"version": "99"}}, "format '99'.*reads format 4"),
        ({"metadata": {"version": "3"}}, "format '3'.*reads format 4.*fit again"),
        ({"schema": []}, "damaged.*schema"),
        ({"schema": [{"name": "a", "kind": "os.system"}]}, "damaged.*os.system"),
        ({"schema": [{"name": "a", "kind": "number"}] * 2}, "damaged.*one name"),
        ({"metadata": {"digest": "0"}}, "damaged.*changed after it was written"),
        ({"metadata": {"format": "other"}}, "not a model file"),
        ({"metadata": {"model": "{"}}, "damaged"),
        ({"class": "os.system"}, "class os.system, which this process does not know"),
        ({"tensors": {"weights": torch.zeros(2, 3)}}, "damaged.*shape"),
        ({"tensors": {"weights": None}}, "not a model file"),
        ({"encoder": []}, "damaged"),
        ({"encoder": {"parameters": {}, "columns": []}}, "damaged.*encoder"),
        ({"encoder": {"parameters": {"strange": 1}, "columns": []}}, "damaged.*strange"),
        ({"encoder": {"parameters": {}, "columns": [{"kind": "os.system", "name": "x"}]}}, "damaged"),
        ({"parameters": {"hidden_layer_sizes": [16], "__class__": "x"}}, "damaged"),
        ({"parameters": {"hidden_layer_sizes": [16], "lr": -1}}, "damaged.*lr=-1"),
        ({"target": {"classes": [["str", "a"]], "dtype": "<U1"}}, "damaged.*target"),
    ],
)
def test_a_tampered_file_is_refused(classifier, tmp_path, change, message):
    path = tmp_path / "m.inna"
    classifier[0].save(path)
    rewrite(path, **change)
    with pytest.raises(ModelFileError, match=message):
        inna_tune.load(path)


class OwnRegressor(InnaRegressor):
    """With a parameter, and something learned of the target."""

    def __init__(self, *, offset=0.0, max_epochs=2, hidden_layer_sizes=(4,)):
        super().__init__(max_epochs=max_epochs, hidden_layer_sizes=hidden_layer_sizes, random_state=0)
        self.offset = offset

    def _fit_target(self, y, weight):
        self.top_ = float(np.max(y))
        return super()._fit_target(y, weight)

    def _target_to_plain(self):
        return super()._target_to_plain() | {"top": self.top_}

    def _restore_target(self, plain):
        super()._restore_target(plain)
        self.top_ = plain["top"]


def test_a_class_of_ones_own_comes_back_where_it_is_defined(tmp_path):
    X, score = titanic_like(60)
    model = OwnRegressor(offset=2.5).fit(X, score)
    model.save(tmp_path / "m.inna")
    again = inna_tune.load(tmp_path / "m.inna")
    assert type(again) is OwnRegressor
    assert (again.offset, again.top_) == (2.5, model.top_)
    assert np.array_equal(again.predict(X), model.predict(X))


def test_a_class_that_this_process_does_not_know_is_named_and_not_imported(classifier, tmp_path):
    path = tmp_path / "m.inna"
    classifier[0].save(path)
    (tmp_path / "somebodys.py").write_text("raise SystemExit('it ran')")
    for name in (
        "somebodys.Net",
        "inna_tune.estimators.base.InnaEstimator",
        "InnaEstimator",
        ["InnaClassifier"],
    ):
        rewrite(path, **{"class": name})
        with pytest.raises(ModelFileError, match=r"which this process does not know.*import"):
            inna_tune.load(path)


def test_no_class_of_ones_own_takes_the_place_of_ours(classifier, tmp_path):
    model, _ = classifier
    ours = type(model)
    type("InnaClassifier", (ours,), {"__module__": "somebodys"})
    model.save(tmp_path / "m.inna")
    assert type(inna_tune.load(tmp_path / "m.inna")) is ours


def test_a_file_with_a_bit_turned_is_refused(classifier, tmp_path):
    path = tmp_path / "m.inna"
    classifier[0].save(path)
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match="damaged.*changed after it was written"):
        inna_tune.load(path)


def test_text_vectors_that_do_not_fit_are_refused(tmp_path):
    X = table().drop(columns="same")
    path = tmp_path / "m.inna"
    InnaClassifier(**QUICK).fit(X, X["new"]).save(path)
    with safe_open(str(path), framework="pt") as file:
        name = next(n for n in file.keys() if n.endswith("components"))  # noqa: SIM118
    rewrite(path, tensors={name: torch.zeros(2, 3)})
    with pytest.raises(ModelFileError, match="damaged.*'note'.*vocabulary"):
        inna_tune.load(path)


def test_a_truncated_file_is_refused(classifier, tmp_path):
    path = tmp_path / "m.inna"
    classifier[0].save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelFileError):
        inna_tune.load(path)


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="No such model file"):
        inna_tune.load(tmp_path / "m.inna")


def test_a_failed_save_leaves_the_old_file_and_no_litter(classifier, tmp_path, monkeypatch):
    path = tmp_path / "m.inna"
    path.write_text("old")
    monkeypatch.setattr("inna_tune.estimators.saving.serialize", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        classifier[0].save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["m.inna"]
    assert path.read_text() == "old"


def test_pickle_works_as_for_any_estimator(classifier):
    model, X = classifier
    assert np.array_equal(pickle.loads(pickle.dumps(model)).predict_proba(X), model.predict_proba(X))


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*.inna")), ids=lambda p: p.stem)
def test_files_of_the_format_keep_loading(path):
    content = json.loads(path.with_suffix(".json").read_text())
    model, rows = inna_tune.load(path), read_rows(content)
    predicted = model.predict_proba(rows) if "classifier" in path.stem else model.predict(rows)
    np.testing.assert_allclose(predicted, content["predictions"], rtol=1e-9)


def test_the_format_has_its_fixtures():
    kept = {p.stem for p in FIXTURES.glob("*.inna")}
    wanted = {f"{c}-v{FORMAT_VERSION}" for c in ("classifier", "regressor")}
    assert kept == wanted, "run python -m tests.estimators.fixtures.make"


def test_the_schema_comes_back_and_another_may_be_kept(classifier, tmp_path):
    model, _ = classifier
    model.save(tmp_path / "m.inna")
    assert inna_tune.load(tmp_path / "m.inna").schema_ == model.schema_
    first, *rest = model.schema_.columns
    own = TableSchema((replace(first, form=NumberForm(",", ".", "€"), missing=("?",), kept=("NA",)), *rest))
    save(model, tmp_path / "m.inna", schema=own)
    assert inna_tune.load(tmp_path / "m.inna").schema_ == own
    with pytest.raises(ValueError, match="fitted on"):
        save(model, tmp_path / "m.inna", schema=TableSchema(tuple(rest)))


def test_an_encoder_of_ones_own_is_used_and_saved(tmp_path):
    X, score = titanic_like(120)
    own = TableEncoder(numeric="quantile", max_levels=2)
    model = InnaRegressor(encoder=own, **QUICK).fit(X, score)
    assert not hasattr(own, "plan_")
    expected = TableEncoder(numeric="quantile", max_levels=2).fit(X).transform(X)
    np.testing.assert_array_equal(model.encoder_.transform(X), expected)
    model.save(tmp_path / "model.inna")
    loaded = inna_tune.load(tmp_path / "model.inna")
    assert loaded.encoder.get_params() == own.get_params()
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))


@pytest.mark.parametrize("encoder", [3, ["numeric"], {"numeric__x": 1}, {"colour": "red"}])
def test_an_encoder_that_is_none_is_refused(classifier, tmp_path, encoder):
    model, _ = classifier
    model.save(tmp_path / "model.inna")
    with safe_open(str(tmp_path / "model.inna"), framework="pt") as file:
        parameters = json.loads(file.metadata()["model"])["parameters"]
    rewrite(tmp_path / "model.inna", parameters=parameters | {"encoder": encoder})
    with pytest.raises(ModelFileError):
        inna_tune.load(tmp_path / "model.inna")

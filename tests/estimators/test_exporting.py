"""What leaves Python says the same: torch modules, programs of torch.export, ONNX in onnxruntime."""

import json

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtri
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer

from inna_tune import InnaClassifier, InnaRegressor, SearchSpace
from inna_tune.estimators import (
    EnsembleClassifier,
    TableEncoder,
    exported_inputs,
    load,
    to_module,
    to_onnx,
    to_program,
)
from inna_tune.estimators.exporting import _interpolated, _normal_quantile, _NumberEncoder
from tests.test_cli import SMALL, folder, run  # noqa: F401

X, Y = load_breast_cancer(return_X_y=True)
X = X[:, :6].copy()
X[::7, 3] = np.nan
X[:400, 5] = 0.0  # most rows have it: a spike
BATCHES = (1, 2, 569)
SMALL_NET = {"hidden_layer_sizes": (4, 4), "max_epochs": 3, "random_state": 0, "n_members": 1}


def told_by_torch(model, rows, **options):
    inputs = [torch.from_numpy(a) for a in exported_inputs(model, rows, **options).values()]
    with torch.no_grad():
        return to_module(model, **options)(*inputs)


def session(model, path, **options):
    to_onnx(model, path, **options)
    return onnxruntime.InferenceSession(path)


def mixed(n=120):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "number": rng.normal(size=n),
            "word": rng.choice(list("abc"), n),
            "town": [f"t{i}" for i in rng.integers(0, 30, n)],
            "day": pd.date_range("2024-01-01", periods=n),
        }
    )


def test_onnxruntime_says_what_a_classifier_says_of_any_number_of_rows(tmp_path):
    labels = np.where(Y == 1, "benign", "malignant")
    model = InnaClassifier(**SMALL_NET | {"n_members": "auto"}).fit(X, labels)
    assert len(model.weights_) > 1
    run = session(model, tmp_path / "net.onnx")
    classes = json.loads(run.get_modelmeta().custom_metadata_map["classes"])
    for n in BATCHES:
        probabilities, place = run.run(None, exported_inputs(model, X[:n]))
        assert np.abs(probabilities - model.predict_proba(X[:n])).max() < 1e-5
        assert [classes[i] for i in place] == model.predict(X[:n]).tolist()
    assert [(i.name, i.shape[1]) for i in run.get_inputs()] == [("X", 6)]
    onnx.checker.check_model(tmp_path / "net.onnx", full_check=True)


def test_onnxruntime_says_what_a_regressor_says_of_encoded_rows(tmp_path):
    frame = mixed(569)
    target = np.column_stack([frame["number"] * 1000 + 5, frame["word"] == "a"]).astype(float)
    model = InnaRegressor(**SMALL_NET, encoder=TableEncoder(max_levels=8)).fit(frame, target)
    assert model.encoder_.categories_
    run = session(model, tmp_path / "net.onnx")
    assert json.loads(run.get_modelmeta().custom_metadata_map["columns"]) == list(frame.columns)
    for n in BATCHES:
        (found,) = run.run(None, exported_inputs(model, frame.iloc[:n]))
        scale = np.abs(model.target_scale_)
        assert (np.abs(found - model.predict(frame.iloc[:n])) / scale).max() < 1e-5


def test_onnxruntime_says_what_an_ensemble_says(tmp_path):
    nets = [InnaClassifier(**SMALL_NET), InnaClassifier(**SMALL_NET | {"n_members": 2})]
    model = EnsembleClassifier(nets, weights=[1, 3]).fit(X, Y)
    run = session(model, tmp_path / "net.onnx")
    for n in BATCHES:
        probabilities, place = run.run(None, exported_inputs(model, X[:n]))
        assert np.abs(probabilities - model.predict_proba(X[:n])).max() < 1e-5
        assert (model.classes_[place] == model.predict(X[:n])).all()


def test_a_program_of_torch_says_it_too_and_can_be_kept(tmp_path):
    model = InnaClassifier(**SMALL_NET).fit(X, Y)
    torch.export.save(to_program(model), tmp_path / "net.pt2")
    program = torch.export.load(tmp_path / "net.pt2").module()
    for n in BATCHES:
        probabilities, _ = program(torch.from_numpy(X[:n]))
        assert np.abs(probabilities.numpy() - model.predict_proba(X[:n])).max() < 1e-5


@pytest.mark.parametrize(
    "settings",
    [
        {"numeric_embedding": "none", "activation": "relu"},
        {"numeric_embedding": "periodic", "activation": "gelu"},
        {"numeric_embedding": "pbld", "activation": "selu", "block": "residual"},
        {"numeric_embedding": "piecewise", "activation": "silu", "n_members": 3},
        {"hidden_layer_sizes": (4, 6), "block": "residual"},
        {"encoder": TableEncoder(numeric="quantile")},
        {
            "module": lambda i, o: torch.nn.Sequential(
                torch.nn.Linear(i, 3), torch.nn.Tanh(), torch.nn.Linear(3, o)
            )
        },
        {"precision": "float32", "n_members": 2},
    ],
    ids=lambda settings: "-".join(settings),
)
def test_every_net_is_the_same_as_a_module(settings):
    model = InnaClassifier(**SMALL_NET | settings).fit(X, Y)
    probabilities, place = told_by_torch(model, X)
    assert np.abs(probabilities.numpy() - model.predict_proba(X)).max() < 1e-5
    assert (model.classes_[place] == model.predict(X)).all()
    encoded, _ = told_by_torch(model, X, encoded=True)
    assert np.abs(encoded.numpy() - model.predict_proba(X)).max() < 1e-5


def nets_of_the_default_space():
    """Settings of nets, each choice of the searched space and what no search makes."""
    space = SearchSpace.inna(net=True)
    blocks = space.distribution("block").choices
    sizes = space.distribution("hidden_layer_sizes").choices
    for block in blocks:
        for size in sizes:
            # As many layers as it has, and narrow ones.
            yield {"block": block, "hidden_layer_sizes": (4,) * len(str(size).split("-"))}
    yield {"block": "residual", "hidden_layer_sizes": (4, 4, 6)}
    yield {"hidden_layer_sizes": (5, 4, 3)}
    yield {"hidden_layer_sizes": ()}


NETS = {str(sorted(net.items())): net for net in nets_of_the_default_space()}


@pytest.mark.slow  # each file takes seconds to write
@pytest.mark.parametrize("name", NETS)
def test_onnxruntime_says_what_any_net_says(name, tmp_path):
    model = InnaClassifier(**SMALL_NET | {"max_epochs": 2} | NETS[name]).fit(X, Y)
    probabilities, place = session(model, tmp_path / "net.onnx").run(None, exported_inputs(model, X))
    assert np.abs(probabilities - model.predict_proba(X)).max() < 1e-5
    assert (model.classes_[place] == model.predict(X)).all()


WORDS = pd.DataFrame({"word": np.tile(["lo", "hi", None, "mid"], 30), "n": np.arange(120.0)})
ODD = {
    "quantiles": (InnaRegressor(quantiles=(0.1, 0.5, 0.9)), X, X[:, 0]),
    "one column": (InnaClassifier(), X[:, :1], Y),
    "many classes": (InnaClassifier(), X, np.arange(len(X)) % 30),
    "float32": (InnaClassifier(), X.astype(np.float32), Y),
    "words": (InnaClassifier(), WORDS, WORDS["word"] == "lo"),
    "several targets": (InnaRegressor(), X, X[:, :2]),
    "one row of each of few kinds": (
        InnaClassifier(),
        np.repeat(np.eye(3), 20, axis=0),
        np.repeat([0, 1, 2], 20),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ODD)
def test_onnxruntime_says_what_a_net_of_an_odd_table_says(name, tmp_path):
    model, rows, target = ODD[name]
    model = clone(model).set_params(**SMALL_NET | {"max_epochs": 2}).fit(rows, target)
    found = session(model, tmp_path / "net.onnx").run(None, exported_inputs(model, rows))[0]
    if isinstance(model, InnaClassifier):
        assert np.abs(found - model.predict_proba(rows)).max() < 1e-5
        return
    expected = model.predict(rows)
    assert found.shape == expected.shape
    assert (np.abs(found - expected) / np.abs(model.target_scale_).max()).max() < 1e-5


def test_columns_of_all_kinds_are_encoded_before():
    frame = mixed()
    model = InnaClassifier(**SMALL_NET).fit(frame, frame["word"])
    probabilities, _ = told_by_torch(model, frame)
    assert np.abs(probabilities.numpy() - model.predict_proba(frame)).max() < 1e-5
    with pytest.raises(ValueError, match="encoded=False.*word, town, day"):
        to_module(model, encoded=False)


def test_frames_of_numbers_and_truth_values_are_read_raw():
    frame = pd.DataFrame({"a": X[:, 0], "b": X[:, 1] > 15, "c": pd.array(X[:, 3]).astype("Float64")})
    model = InnaClassifier(**SMALL_NET).fit(frame, Y)
    assert to_module(model).input_names == ("X",)
    probabilities, _ = told_by_torch(model, frame)
    assert np.abs(probabilities.numpy() - model.predict_proba(frame)).max() < 1e-5


def test_an_ensemble_whose_models_know_other_classes():
    rare = np.where(np.arange(len(Y)) < 40, 2, Y)
    nets = [InnaClassifier(**SMALL_NET)]
    model = EnsembleClassifier(nets).fit(X, rare)
    model.models_ = [model.models_[0], InnaClassifier(**SMALL_NET).fit(X, Y)]
    model.weights_ = np.array([0.4, 0.6])
    probabilities, _ = told_by_torch(model, X)
    assert np.abs(probabilities.numpy() - model.predict_proba(X)).max() < 1e-5
    assert to_module(model, encoded=True).input_names == ("encoded_0", "encoded_1")
    encoded, _ = told_by_torch(model, X, encoded=True)
    assert np.abs(encoded.numpy() - model.predict_proba(X)).max() < 1e-5


def test_what_cannot_leave_is_refused(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="not fitted"):
        to_module(InnaClassifier())
    with pytest.raises(TypeError, match="last step"):
        to_module(TableEncoder())
    monkeypatch.setattr("inna_tune.estimators.onnx_files.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"inna-tune\[onnx\]"):
        to_onnx(InnaClassifier(**SMALL_NET).fit(X, Y), tmp_path / "net.onnx")


def test_the_command_line_writes_both(folder):  # noqa: F811
    frame = pd.read_csv(folder / "people.csv").drop(columns="job").assign(more=np.arange(90.0))
    InnaClassifier(**SMALL_NET).fit(frame[["age", "more"]], frame["label"]).save(folder / "net.inna")
    done = run(folder, "export", "net.inna", "-o", "net.onnx", "--json")
    assert done.stderr == "", "nothing of torch's insides"
    said = json.loads(done.stdout)
    assert said == {"output": "net.onnx", "inputs": ["X"], "outputs": ["probabilities", "place"]}
    rows = frame[["age", "more"]].to_numpy()
    model = load(folder / "net.inna")
    probabilities, _ = onnxruntime.InferenceSession(folder / "net.onnx").run(None, {"X": rows})
    assert np.abs(probabilities - model.predict_proba(frame[["age", "more"]])).max() < 1e-5
    assert "encoded in" in run(folder, "export", "net.inna", "-o", "net.pt2", "--encoded").stdout
    assert torch.export.load(folder / "net.pt2")
    assert "must end in .onnx or .pt2" in run(folder, "export", "net.inna", "-o", "net.txt", code=2).stderr


@given(
    st.lists(st.integers(-9, 9), min_size=2, max_size=12),
    st.lists(st.floats(-12, 12), min_size=1, max_size=9),
)
def test_it_interpolates_as_numpy_does(knots, values):
    xs, ys = np.sort(np.array(knots, float)), np.linspace(0, 1, len(knots))
    several = np.array([values, np.array(values) / 2]).T
    twice = [torch.from_numpy(np.stack([a, a])) for a in (xs, ys)]
    found = _interpolated(torch.from_numpy(several), *twice)
    assert found.numpy() == pytest.approx(np.interp(several, xs, ys), abs=1e-12)


def odd_columns(n=600):
    rng = np.random.default_rng(0)
    spiked = np.where(rng.random(n) < 0.8, 0.0, rng.lognormal(3, 2, n))
    return {
        "tails": rng.standard_cauchy(n),
        "few": rng.integers(0, 4, n).astype(float),
        "spiked": spiked,
        "places": np.r_[rng.normal(0, 1, n // 2), rng.normal(1e6, 1, n - n // 2)],
        "counts": rng.poisson(60, n).astype(float),
        "underflow": np.exp(-rng.gamma(4, 180, n)),
        "subnormal": np.r_[np.arange(n - 100) * 5e-324, np.arange(100)],
        "huge": np.r_[np.linspace(-1.7e308, -1.6e308, n // 2), np.linspace(1.6e308, 1.7e308, n - n // 2)],
    }


@pytest.mark.parametrize("numeric", ["blend", "scale", "quantile"])
def test_numbers_are_encoded_as_predict_does_whatever_their_law(numeric):
    table = pd.DataFrame(odd_columns())
    table.iloc[::9, [0, 3]] = np.nan
    encoder = TableEncoder(numeric=numeric).fit(table)
    kinds = {name: plan.kind for name, plan in zip(table, encoder.plan_, strict=True)}
    assert kinds["spiked"] == "spiked"
    if numeric == "blend":
        assert {n for n, kind in kinds.items() if kind == "blended"} >= {"tails", "places", "counts", "huge"}
        assert kinds["few"] == "numeric"
    new = pd.concat([table, table * 1.01, table - 1, table * np.nan, table * 0, table / 3])
    new = new.mask(np.isinf(new))
    found = _NumberEncoder(encoder.plan_)(torch.from_numpy(new.to_numpy()))
    # Of ranks alone half of one differs where the gap between two numbers overflows.
    np.testing.assert_allclose(
        found.numpy(), encoder.transform(new), atol=0.01 if numeric == "quantile" else 1e-5
    )


def test_many_columns_are_no_more_nodes_than_few(tmp_path):
    def n_nodes(n_columns):
        table = np.random.default_rng(0).normal(size=(100, n_columns))
        to_onnx(InnaRegressor(**SMALL_NET).fit(table, table[:, 0]), tmp_path / "net.onnx")
        return len(onnx.load(tmp_path / "net.onnx").graph.node)

    assert abs(n_nodes(40) - n_nodes(20)) < 5


@given(st.floats(1e-9, 1 - 1e-9))
def test_its_quantiles_of_the_normal_law_are_scipys(p):
    found = _normal_quantile(torch.tensor([p], dtype=torch.float64)).item()
    assert found == pytest.approx(ndtri(p), abs=1e-12, rel=1e-12)

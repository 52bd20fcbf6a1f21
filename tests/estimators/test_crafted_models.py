"""Model files that nobody wrote by this program: refused in one line, whatever is in them."""

import copy
import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save as serialize

from inna_tune import InnaClassifier, InnaRegressor, load
from inna_tune.estimators import saving
from inna_tune.estimators.saving import ModelFileError
from tests.space.test_crafted_priors import paths


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"a": rng.normal(size=60), "b": rng.choice(["x", "y"], 60)})
    path = tmp_path_factory.mktemp("made") / "m.inna"
    InnaClassifier(hidden_layer_sizes=(4,), max_epochs=2, n_members=1, random_state=0).fit(X, X["b"]).save(
        path
    )
    with safe_open(str(path), framework="pt") as file:
        return dict(file.metadata()), {name: file.get_tensor(name) for name in file.keys()}, X  # noqa: SIM118


def write(path, metadata, tensors, text=None, **changes):
    text = metadata["model"] if text is None else text
    metadata = metadata | {"model": text, "digest": saving.digest(text, tensors)} | changes
    path.write_bytes(serialize(tensors, metadata=metadata))
    return path


@pytest.mark.parametrize("value", [10**300, -1, [], "x"])
def test_a_changed_value_is_refused_or_the_model_predicts(value, model, tmp_path):
    metadata, tensors, X = model
    content = json.loads(metadata["model"])
    del content["extra"], content["history"]
    refused = 0
    for k, path in enumerate(paths(content)):
        changed = copy.deepcopy(json.loads(metadata["model"]))
        *above, last = path
        place = changed
        for step in above:
            place = place[step]
        place[last] = value
        file = write(tmp_path / f"{k}.inna", metadata, tensors, json.dumps(changed))
        try:
            found = load(file)
        except ModelFileError:
            refused += 1
            continue
        assert found.predict_proba(X.iloc[:3]).shape == (3, 2)
    assert refused > 10


@pytest.mark.parametrize(
    "text", ["[" * 200_000, '{"a":' * 200 + "1" + "}" * 200, f'{{"class": {"9" * 5000}}}', "nul"]
)
def test_json_without_an_end_is_refused(text, model, tmp_path):
    metadata, tensors, _ = model
    with pytest.raises(ModelFileError, match="is damaged") as told:
        load(write(tmp_path / "m.inna", metadata, tensors, text))
    assert len(str(told.value)) < 500


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_no_numbers_are_refused(value, model, tmp_path):
    metadata, tensors, _ = model
    weights = tensors["weights"].clone()
    weights[0, 3] = value
    with pytest.raises(ModelFileError, match="no finite numbers"):
        load(write(tmp_path / "m.inna", metadata, tensors | {"weights": weights}))


def test_a_file_of_a_newer_version_is_told_by_its_number(model, tmp_path):
    metadata, tensors, _ = model
    with pytest.raises(ModelFileError, match=r"has model format '7'; .* Install the version"):
        load(write(tmp_path / "m.inna", metadata, tensors, version="7"))
    content = json.loads(metadata["model"])
    content["parameters"]["quantum"] = True
    with pytest.raises(ModelFileError, match="quantum"):
        load(write(tmp_path / "m.inna", metadata, tensors, json.dumps(content)))


def test_what_is_too_long_for_the_header_of_the_file_is_kept_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "_MOST_IN_HEADER", 1000)
    X = pd.DataFrame({"a": ["long " * 300, "other " * 300] * 20, "b": np.arange(40.0)})
    net = InnaRegressor(hidden_layer_sizes=(4,), max_epochs=2, n_members=1, random_state=0).fit(X, X["b"])
    net.save(tmp_path / "m.inna")
    again = load(tmp_path / "m.inna")
    assert (again.predict(X) == net.predict(X)).all()
    assert (tmp_path / "m.inna").read_bytes().find(b"__metadata__") >= 0
    with safe_open(str(tmp_path / "m.inna"), framework="pt") as file:
        assert all(len(text) < 1000 for text in file.metadata().values())
    again.save(tmp_path / "again.inna")
    assert (load(tmp_path / "again.inna").predict(X) == net.predict(X)).all()
    tensors = {"weights": torch.zeros(1, 1), "model": torch.full((4,), 255, dtype=torch.uint8)}
    file = tmp_path / "odd.inna"
    file.write_bytes(
        serialize(tensors, metadata={"format": "inna-tune", "version": "4", "digest": "", "model": ""})
    )
    with pytest.raises(ModelFileError, match="is damaged"):
        load(file)

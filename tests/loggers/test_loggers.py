"""Adapters to loggers, each by the real library."""

import io
import json
import struct

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer

from inna_tune import InnaClassifier
from inna_tune.estimators import SKOPS_TYPES
from inna_tune.loggers import MLflowLogger, ProgressBar, TensorBoardLogger, WandbLogger, log_model, save_model

X, Y = load_breast_cancer(return_X_y=True, as_frame=True)
X, Y = X.iloc[:240, :5], Y.iloc[:240].map({0: "no", 1: "yes"})


def fitted(*callbacks):
    net = InnaClassifier(hidden_layer_sizes=(4,), max_epochs=3, n_members=1, random_state=0)
    return net.set_params(callbacks=callbacks).fit(X, Y)


def test_tensorboard_shows_every_epoch(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(tmp_path) as writer:
        model = fitted(TensorBoardLogger(writer))
    events = EventAccumulator(str(tmp_path)).Reload()
    for name in ("train_loss", "validation_loss", "lr"):
        found = events.Scalars(f"fit/{name}")
        assert [each.step for each in found] == [1, 2, 3]
        assert [each.value for each in found] == pytest.approx(model.history_[name].tolist(), rel=1e-6)


def test_mlflow_logs_every_epoch_and_keeps_the_model_without_a_pickle(mlflow, tmp_path):
    with mlflow.start_run() as run:
        model = fitted(MLflowLogger(prefix="net_"))
        info = log_model(model, "net")
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "net_train_loss")
    assert [each.value for each in history] == model.history_["train_loss"].tolist()
    assert [each.step for each in history] == [1, 2, 3]
    again = mlflow.pyfunc.load_model(info.model_uri)
    assert (again.predict(X) == model.predict(X)).all()
    assert np.array_equal(again.get_raw_model().predict_proba(X), model.predict_proba(X))
    save_model(model, tmp_path / "folder")
    assert not [path for path in (tmp_path / "folder").rglob("*") if path.suffix in (".pkl", ".pickle")]
    assert (mlflow.pyfunc.load_model(str(tmp_path / "folder")).predict(X) == model.predict(X)).all()


def records(data):
    """Of a run's file that is within one block of 32 KiB: seven bytes, and seven before each record."""
    from wandb.proto.wandb_internal_pb2 import Record

    assert data.startswith(b":W&B")
    at = 7
    while at < len(data):
        _, length, _ = struct.unpack("<IHB", data[at : at + 7])
        record = Record()
        record.ParseFromString(data[at + 7 : at + 7 + length])
        at += 7 + length
        yield record


def test_wandb_gets_every_epoch(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    # What an upload would send later is in a file.
    quiet = wandb.Settings(console="off", x_disable_stats=True)
    with wandb.init(mode="offline", project="nets", dir=str(tmp_path), settings=quiet) as run:
        model = fitted(WandbLogger(run, prefix="net_"))
    wandb.teardown()  # its process has written all of it then
    [file] = tmp_path.rglob("*.wandb")
    rows = [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in records(file.read_bytes())
        if record.HasField("history")
    ]
    assert [row["_step"] for row in rows] == [1, 2, 3]
    for name in ("train_loss", "validation_loss", "lr"):
        assert [row[f"net_{name}"] for row in rows] == model.history_[name].tolist()


def test_a_bar_shows_where_a_fit_is():
    text = io.StringIO()
    fitted(ProgressBar(file=text, mininterval=0))
    assert "3/3" in text.getvalue()
    assert "validation_loss" in text.getvalue()


def test_epochs_can_be_kept_by_a_list():
    heard = []
    fitted(heard.append)
    frame = pd.DataFrame([epoch.losses for epoch in heard])
    assert frame.shape == (3, 3)


def test_its_own_flavour_keeps_a_model_by_skops(mlflow):
    pytest.importorskip("skops.io", reason="skops is not installed")
    import mlflow.sklearn as flavour

    model = fitted()
    with mlflow.start_run():
        # Which packages the model needs MLflow would find out by loading it in another process.
        info = flavour.log_model(
            model,
            name="net",
            serialization_format="skops",
            skops_trusted_types=SKOPS_TYPES,
            pip_requirements=["inna-tune"],
        )
    assert np.array_equal(flavour.load_model(info.model_uri).predict(X), model.predict(X))

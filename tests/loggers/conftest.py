"""MLflow with a database of the test's own, copied: making one takes longer than most tests."""

import shutil

import pytest


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    import mlflow

    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    mlflow.set_tracking_uri(f"sqlite:///{file}")
    assert mlflow.search_experiments()
    mlflow.set_tracking_uri(None)
    return file


@pytest.fixture
def mlflow(request, tmp_path, monkeypatch):
    found = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    shutil.copy(request.getfixturevalue("empty_database"), tmp_path / "mlflow.db")
    found.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    yield found
    found.set_tracking_uri(None)

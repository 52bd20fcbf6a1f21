"""``inna-tune worker`` in this process; what it does to a study is in tests/jobs/test_joining.py."""

import sqlite3

import numpy as np
import pandas as pd
from typer.testing import CliRunner

from inna_tune import InnaClassifier, InnaSearchCV
from inna_tune.cli import app
from inna_tune.jobs.joining import FitRequest
from inna_tune.store.opening import open_storage, store_of


def traced(monkeypatch):
    """The list of all statements from now on."""
    connect, statements = sqlite3.connect, []

    def connect_traced(*args, **kwargs):
        connection = connect(*args, **kwargs)
        connection.set_trace_callback(statements.append)
        return connection

    monkeypatch.setattr(sqlite3, "connect", connect_traced)
    return statements


def test_a_fit_that_goes_on_opens_the_database_once(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"age": rng.normal(40, 10, 60), "label": rng.choice(["no", "yes"], 60)})
    table.to_csv(tmp_path / "people.csv", index=False)
    monkeypatch.chdir(tmp_path)
    settings = ("hidden_layer_sizes=4", "n_members=1", "max_epochs=2")
    words = ["fit", "people.csv", "--target", "label", "--trials", "1", "--resume", "--no-importances"]
    words += [word for each in settings for word in ("--set", each)]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "Found:" not in done.output
    statements = traced(monkeypatch)
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "Found: 1 finished" in done.output
    assert sum("quick_check" in each for each in statements) == 1


def test_a_worker_opens_the_database_once(tmp_path, monkeypatch):
    """Its check reads the whole file, which on a large one takes seconds."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"age": rng.normal(40, 10, 60), "label": rng.choice(["no", "yes"], 60)})
    table.to_csv(tmp_path / "people.csv", index=False)
    url = f"sqlite:///{tmp_path}/studies.db"
    net = InnaClassifier(hidden_layer_sizes=(4,), n_members=1, max_epochs=2)
    search = InnaSearchCV(net, n_trials=1, cv=2, storage=url, study_name="people", refit=False)
    study = search.fit(table[["age"]], table["label"]).study_
    for name, value in FitRequest(1, "label", "binary", 0, 0.2).note().items():
        study.set_user_attr(name, value)
    store_of(study).close()

    statements = traced(monkeypatch)
    words = ["worker", "people", str(tmp_path / "people.csv"), "--storage", url, "--allow-mismatch"]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "1 finished" in done.output
    assert sum("quick_check" in each for each in statements) == 1
    statements.clear()
    store_of(open_storage(url)).close()
    assert sum("quick_check" in each for each in statements) == 1

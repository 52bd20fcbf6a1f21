"""The command line as a person meets it, in an empty folder."""

import contextlib
import json
import os
import re
import signal
import sqlite3
import sys
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
from typer.testing import CliRunner

from inna_tune.cli import app
from tests.warm import Program

ROOT = Path(__file__).parents[1]
# Of a net that trains in no time: what is looked at is what stands around it.
SMALL = ("--set", "hidden_layer_sizes=4", "--set", "max_epochs=3", "--set", "n_members=1")


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "age": np.where(rng.random(90) < 0.1, np.nan, rng.normal(40, 10, 90)),
            "job": rng.choice(["clerk", "smith", "baker"], 90),
            "label": rng.choice(["yes", "no"], 90),
        }
    )
    frame["label"] = np.where(frame["job"] == "smith", "yes", frame["label"])
    frame.to_csv(tmp_path / "people.csv", index=False)
    frame.drop(columns="age").to_csv(tmp_path / "lacking.csv", index=False)
    frame.iloc[:4].to_csv(tmp_path / "tiny.csv", index=False)
    return tmp_path


MAIN = "from inna_tune.cli import main; main()"


def command(*words):
    return [sys.executable, "-c", MAIN, *words]


def environment():
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path, "COLUMNS": "160"}


def run(folder, *words, code=0):
    """In this process: a new one takes seconds to load torch, and only the signals need it."""
    with contextlib.chdir(folder):
        done = CliRunner().invoke(app, words)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.stderr + done.stdout
    if code == 2:
        assert done.stderr.count("\n") == 1, done.stderr
        assert "Traceback" not in done.stderr
    return done


def test_fit_resume_predict_studies_show(folder):
    first = run(folder, "fit", "people.csv", "--target", "label", "--trials", "3", *SMALL)
    assert "binary classification (2 classes: yes" in first.stdout
    for row in ("baseline", "untuned default", "tuned"):
        assert row in first.stdout
    assert "trial 3/3" in first.stderr
    assert (folder / "people.inna").exists()

    resume = re.search(r"Resume:   inna-tune (.*)", first.stdout).group(1).split()
    assert {"hidden_layer_sizes=4", "max_epochs=3"} <= set(resume)
    again = run(folder, *resume)
    assert "Found: 3 finished" in again.stdout
    study = optuna.load_study(study_name="people", storage=f"sqlite:///{folder}/inna_tune.db")
    assert len(study.trials) == 6
    assert all(t.state.is_finished() for t in study.trials)

    run(folder, "predict", "people.inna", "people.csv", "-o", "out.csv")
    predictions = pd.read_csv(folder / "out.csv")
    assert list(predictions.columns) == ["prediction", "probability_no", "probability_yes"]
    assert len(predictions) == 90
    np.testing.assert_allclose(predictions.iloc[:, 1:].sum(axis=1), 1.0)

    assert "people" in run(folder, "studies").stdout
    shown = run(folder, "show", "people", "--best", "2").stdout
    assert "complete" in shown
    assert "lr=" in shown

    assert "Report: people.html" in run(folder, "report", "people").stdout
    written = (folder / "people.html").read_text(encoding="utf-8")
    assert "ffective step" in written
    assert "load(&#39;people.inna&#39;)" in written


def test_wrong_input_is_one_line_and_code_2_and_writes_nothing(folder):
    (folder / "text.db").write_text(
        "this is not a database, only a text that happens to be long enough to be read"
    )
    before = sorted(p.name for p in folder.iterdir())
    fit = ("fit", "people.csv", "--target", "label")
    for words, message in [
        (("fit", "nothing.csv", "--target", "label"), "No such file"),
        (("fit", "people.csv", "--target", "labell"), "Did you mean 'label'"),
        (("fit", "people.csv"), "--target"),
        ((*fit, "--set", "max_epoch=3"), "did you mean max_epochs?"),
        ((*fit, "--set", "dropout=2"), "dropout=2"),
        (("compare", *fit[1:], "--set", "optimizer=sgd"), "name them by optimizers="),
        (("fit", "tiny.csv", "--target", "label"), "rows"),
        ((*fit, "--storage", "sqlite:///text.db"), "not a database"),
        ((*fit, "--storage", "sqlite:///no/such/folder.db"), "folder"),
        ((*fit, "--out", "no/such/model.inna"), "no folder"),
        ((*fit, "--task", "regression"), "text"),
        (("compare", "people.csv", "--target", "label", "--optimizers", "inna,adam"), "must be one of inna"),
        (("compare", "people.csv", "--target", "label", "--baselines", "xgb"), "must be one of hgb"),
        (("compare", "people.csv", "--target", "labell"), "Did you mean 'label'"),
        (("predict", "people.csv", "people.csv", "-o", "out.csv"), "not a model file"),
        (("predict", "nothing.inna", "people.csv", "-o", "out.csv"), "No such model file"),
        (("studies",), "no file"),
        (("show", "people", "--storage", "sqlite:///other.db"), "no file"),
        (("report", "people"), "no file"),
        (("report", "people", "-o", "no/such/report.html"), "no folder"),
    ]:
        assert message in run(folder, *words, code=2).stderr, words
        assert sorted(p.name for p in folder.iterdir()) == before, words


def test_a_name_taken_and_a_study_of_other_data_are_refused(folder):
    run(folder, "fit", "people.csv", "--target", "label", "--trials", "1", "--study", "s", *SMALL)
    model = (folder / "s.inna").read_bytes()
    assert "already" in run(folder, "fit", "people.csv", "--target", "label", "--study", "s", code=2).stderr
    other = run(folder, "fit", "lacking.csv", "--target", "label", "--study", "s", "--resume", *SMALL, code=2)
    assert "'age'" in other.stderr
    target = run(folder, "fit", "people.csv", "--target", "job", "--study", "s", "--resume", *SMALL, code=2)
    assert "target" in target.stderr
    assert (folder / "s.inna").read_bytes() == model
    lacking = run(folder, "predict", "s.inna", "lacking.csv", "-o", "out.csv", code=2)
    assert "lacks 1 column(s)" in lacking.stderr
    assert "'age'" in lacking.stderr


def finished(database):
    with sqlite3.connect(database, timeout=30) as connection:
        rows = connection.execute("SELECT number, state FROM trials").fetchall()
    return {number for number, state in rows if state in ("COMPLETE", "PRUNED", "FAIL")}


def comparable(folder, name):
    study = optuna.load_study(study_name=name, storage=f"sqlite:///{folder}/inna_tune.db")
    return [(t.number, t.params, t.value, t.state) for t in study.trials]


def test_a_study_killed_and_interrupted_loses_no_finished_trial_and_ends_exact(folder):
    words = ("fit", "people.csv", "--target", "label", "--trials", "24", "--study", "s", *SMALL)
    before = set()
    for blow, trial in ((signal.SIGKILL, 3), (signal.SIGINT, 9)):
        more = ("--resume",) if before else ()
        with Program(MAIN, *words, *more, cwd=folder, env=environment()) as process:
            for line in process.stderr:
                told = re.match(r"trial (\d+)/", line)  # not of every trial, where they are quick
                if told and int(told[1]) >= trial:
                    process.send_signal(blow)
                    break
            _, rest = process.communicate()
        assert process.returncode == (130 if blow == signal.SIGINT else -blow), rest
        now = finished(folder / "inna_tune.db")
        assert trial <= len(now) < 24
        assert before <= now
        before = now
    assert "--resume" in rest
    run(folder, *words, "--resume")
    found = comparable(folder, "s")
    assert [number for number, *_ in found] == list(range(24))
    assert all(state.is_finished() for *_, state in found)

    run(folder, *[word if word != "s" else "straight" for word in words])
    assert found == comparable(folder, "straight")


def test_help_has_an_example_and_the_version_is_told(folder):
    from inna_tune import __version__

    assert __version__ in run(folder, "--version").stdout
    for name in ("fit", "predict", "studies", "show", "report"):
        assert f"inna-tune {name}" in run(folder, name, "--help").stdout


def test_a_prior_is_learned_shown_and_used(folder):
    run(folder, "fit", "people.csv", "--target", "label", "--trials", "4", *SMALL)
    learned = run(folder, "prior", "learn", "people", "-o", "prior.json").stdout
    assert "StableStep" in learned
    assert "inna-tune fit TABLE --target COLUMN --prior prior.json" in learned
    shown = run(folder, "prior", "show", "prior.json", "-o", "prior.png").stdout
    assert "First 1: alpha=" in shown
    assert "'name': 'people'" in shown
    assert (folder / "prior.png").stat().st_size > 0
    fitted = run(
        folder,
        "fit",
        "people.csv",
        "--target",
        "label",
        "--trials",
        "2",
        "--study",
        "b",
        "--prior",
        "prior.json",
        *SMALL,
    )
    assert "--prior prior.json" in fitted.stdout
    (folder / "broken.json").write_text("{")
    for words in (
        ("prior", "show", "people.csv"),
        ("prior", "learn", "nobody", "-o", "x.json"),
        ("prior", "learn", "people", "-o", "x.json", "--top", "2"),
        ("prior", "show", "broken.json"),
        ("fit", "people.csv", "--target", "label", "--study", "c", "--prior", "broken.json"),
    ):
        run(folder, *words, code=2)
    assert not (folder / "x.json").exists()


def test_a_study_is_exported_imported_and_joined(folder):
    run(folder, "fit", "people.csv", "--target", "label", "--trials", "2", *SMALL)
    run(folder, "studies", "export", "people", "-o", "sent.db")
    assert "there already" in run(folder, "studies", "export", "people", "-o", "sent.db", code=2).stderr
    assert "--as NAME" in run(folder, "studies", "import", "sent.db", code=2).stderr
    # The option may stand before or after the command.
    run(folder, "studies", "--storage", "sqlite:///other.db", "import", "sent.db")
    run(folder, "studies", "import", "sent.db", "--as", "again", "--storage", "sqlite:///other.db")
    listed = json.loads(run(folder, "studies", "--storage", "sqlite:///other.db", "--json").stdout)
    assert sorted(row["name"] for row in listed["studies"]) == ["again", "people"]
    joined = run(folder, "worker", "again", "people.csv", "--storage", "sqlite:///other.db").stdout
    assert "Found: 2 finished" in joined
    assert "0 left to do" in joined
    lacking = run(folder, "worker", "again", "lacking.csv", "--storage", "sqlite:///other.db", code=2)
    assert "'age'" in lacking.stderr


def test_the_shipped_priors_are_shown_and_used(folder):
    shown = run(folder, "prior", "show", "classification").stdout
    assert "First 1: " in shown
    assert "From: " in shown
    assert "Picture: laws.png" in run(folder, "prior", "show", "regression", "-o", "laws").stdout
    assert (folder / "laws.png").stat().st_size > 0
    assert not [p.name for p in folder.iterdir() if p.name == "laws" or p.name.startswith(".inna-tune-")]
    run(folder, "fit", "people.csv", "--target", "label", "--trials", "2", "--prior", "shipped", *SMALL)
    study = optuna.load_study(study_name="people", storage=f"sqlite:///{folder}/inna_tune.db")
    assert study.user_attrs["inna_tune:portfolio"] >= 3
    assert study.trials[0].params["decay"] == "cosine"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["fit", "people.csv", "--target", "label", "--timeout", "-5"], "--timeout"),
        (["fit", "people.csv", "--target", "label", "--timeout", "0"], "--timeout"),
        (["fit", "people.csv", "--target", "label", "--jobs", "0"], "n_jobs=0"),
        (
            ["fit", "people.csv", "--target", "label", "--out", "people.csv"],
            "that is the table which is read",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_work(folder, words, expected):
    before = (folder / "people.csv").read_bytes()
    with contextlib.chdir(folder):
        done = CliRunner().invoke(app, words)
    assert done.exit_code == 2
    assert expected in done.stderr.replace("\n", " ")
    assert (folder / "people.csv").read_bytes() == before
    assert not list(folder.glob("*.inna"))

"""``fit --metric``: the study, the held-out rows and all that speaks of them are by it."""

import json

import numpy as np
import optuna
import pandas as pd
import pytest
from sklearn.metrics import get_scorer, get_scorer_names

from inna_tune import load
from inna_tune.jobs.tuning import check_metric
from inna_tune.records.attributes import FINGERPRINT, HELD_OUT
from inna_tune.records.record import Metric
from inna_tune.tables import split_rows
from inna_tune.tables.problem import make_problem
from tests.test_cli import SMALL, folder, run  # noqa: F401

FIT = ("fit", "people.csv", "--target", "label", *SMALL)
AREA = "area under the ROC curve"


@pytest.fixture
def tuned(folder):  # noqa: F811
    found = run(folder, *FIT, "--trials", "2", "--metric", "roc_auc", "--json")
    return folder, json.loads(found.stdout)


def test_a_study_is_by_its_metric_wherever_it_is_spoken_of(tuned):
    folder, said = tuned  # noqa: F811
    study = optuna.load_study(study_name="people", storage=f"sqlite:///{folder}/inna_tune.db")
    assert study.user_attrs[FINGERPRINT]["metric"] == "roc_auc"
    assert said["metric"] == AREA
    assert said["best"][AREA] == study.best_value
    assert 0.5 < said["best"][AREA] <= 1
    assert f"Held-out {AREA}: " in said["gain"]
    assert "higher is better" in said["gain"]
    assert "--metric roc_auc" in said["commands"]["resume"]
    assert said["gain"] in run(folder, "show", "people").stdout
    shown = json.loads(run(folder, "show", "people", "--json").stdout)
    assert AREA in json.dumps(shown)
    run(folder, "report", "people", "-o", "people.html")
    page = (folder / "people.html").read_text()
    assert f"{AREA}" in page
    assert "higher is better" in page
    assert said["gain"] in page


def test_held_out_rows_are_scored_by_it(tuned):
    folder, said = tuned  # noqa: F811
    problem = make_problem(pd.read_csv(folder / "people.csv"), "label")
    _, held = split_rows(problem, held_out=0.2, seed=0)
    model = load(folder / "people.inna")
    expected = get_scorer("roc_auc")(model, problem.X.iloc[held], problem.y.iloc[held])
    assert said["held_out"]["tuned"][AREA] == pytest.approx(expected)
    assert said["held_out"]["baseline"][AREA] == 0.5
    study = optuna.load_study(study_name="people", storage=f"sqlite:///{folder}/inna_tune.db")
    assert study.user_attrs[HELD_OUT]["scores"]["tuned"][AREA] == pytest.approx(expected)


def test_another_metric_is_refused_by_name_and_a_worker_knows_it(tuned):
    folder, _ = tuned  # noqa: F811
    other = run(folder, *FIT, "--trials", "4", "--resume", "--metric", "accuracy", code=2).stderr
    assert "the study's metric is roc_auc, now it is accuracy" in other
    assert "with --metric roc_auc" in other
    none = run(folder, *FIT, "--trials", "4", "--resume", code=2).stderr
    assert "the study's metric is roc_auc, now it is neg_log_loss" in none
    run(folder, "worker", "people", "people.csv")
    run(folder, *FIT, "--trials", "3", "--resume", "--metric", "roc_auc")


def test_a_loss_is_shown_as_such(folder):  # noqa: F811
    frame = pd.read_csv(folder / "people.csv")
    frame["pay"] = np.arange(len(frame)) + 100.0
    frame.to_csv(folder / "pay.csv", index=False)
    words = ("fit", "pay.csv", "--target", "pay", "--trials", "1", "--metric", "neg_mean_absolute_error")
    said = json.loads(run(folder, *words, *SMALL, "--json").stdout)
    assert said["best"]["mean absolute error"] > 0
    assert said["held_out"]["tuned"]["mean absolute error"] > 0
    assert "Held-out mean absolute error: " in said["gain"]
    assert "(lower is better)" in said["gain"]


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("roc_acu", "did you mean roc_auc"),
        ("neg_mean_squared_error", "cannot score this binary"),
        ("zzz", "there are accuracy"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(folder, metric, message):  # noqa: F811
    assert message in run(folder, *FIT, "--metric", metric, code=2).stderr
    assert not (folder / "inna_tune.db").exists()


@pytest.mark.parametrize("name", get_scorer_names())
def test_every_scorer_is_taken_or_refused_with_a_remedy(name):
    target = pd.Series([1.0, 2.0, 4.0, 5.0] * 5)
    refusal = ""
    try:
        check_metric(name, "regression", target)
    except ValueError as error:
        refusal = str(error)
    assert not refusal or f"metric={name!r} cannot score this regression" in refusal
    assert not refusal or "such as r2" in refusal
    shown = Metric.of(name, optuna.study.StudyDirection.MAXIMIZE)
    assert shown.lower_is_better == name.startswith("neg_")
    assert not shown.name.startswith("neg_")

"""Columns that a person wants to be no features, and names that are misspelt."""

import json

import optuna
import pandas as pd
import pytest

from inna_tune import load
from inna_tune.cli.understanding import read_problem
from inna_tune.jobs.joining import JOB, read_job
from inna_tune.store.opening import load_study
from inna_tune.tables.predicting import predict_table
from inna_tune.tables.problem import TableError
from tests.test_cli import SMALL, folder, run  # noqa: F401

FIT = ("fit", "people.csv", "--target", "label", "--trials", "2", *SMALL)


def test_a_column_that_is_dropped_is_no_feature_and_predictions_do_without_it(folder):  # noqa: F811
    said = run(folder, *FIT, "--drop", "age").stdout
    assert "Dropped 'age', as asked." in said
    assert "--drop age" in said, "who resumes drops it, too"
    model = load(folder / "people.inna")
    assert list(model.feature_names_in_) == ["job"]
    assert model.extra_["dropped"] == ["age"]
    run(folder, "predict", "people.inna", "lacking.csv", "-o", "without.csv")
    run(folder, "predict", "people.inna", "people.csv", "-o", "with.csv")
    assert (folder / "without.csv").read_bytes() == (folder / "with.csv").read_bytes()
    assert "'age'" in run(folder, *FIT, "--resume", code=2).stderr


def test_workers_drop_it_too(folder, monkeypatch):  # noqa: F811
    run(folder, *FIT, "--drop", "age")
    job = read_job(f"sqlite:///{folder}/inna_tune.db", "people")
    assert job.drop == ("age",)
    asked = []

    def seen(*arguments, drop):
        asked.append(drop)
        return read_problem(*arguments, drop=drop)

    monkeypatch.setattr("inna_tune.cli.working.read_problem", seen)
    run(folder, "worker", "people", "people.csv")
    assert asked == [("age",)]


def test_studies_from_before_and_without_it_say_nothing_of_it(folder):  # noqa: F811
    run(folder, *FIT)
    study = load_study(f"sqlite:///{folder}/inna_tune.db", "people")
    assert "drop" not in study.user_attrs[JOB]
    assert read_job(study._storage, "people").drop == ()


def test_columns_shows_what_is_dropped(folder):  # noqa: F811
    found = json.loads(
        run(folder, "columns", "people.csv", "--target", "label", "--drop", "age", "--json").stdout
    )
    assert {c["name"]: c["left_out"] for c in found["columns"]}["age"] == "dropped, as asked"
    found = json.loads(run(folder, "columns", "people.csv", "--drop", "age", "--json").stdout)
    assert "age" not in {c["name"] for c in found["columns"]}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*FIT, "--drop", "Aeg"), "There is no column 'Aeg'. Did you mean 'age'?"),
        ((*FIT, "--drop", "label"), "is the target, which cannot be dropped"),
        ((*FIT, "--drop", "age", "--drop", "job"), "'age', 'job', which are dropped"),
        (("columns", "people.csv", "--drop", "jbo"), "Did you mean 'job'?"),
        (("compare", *FIT[1:], "--drop", "ages"), "Did you mean 'age'?"),
        (("fit", "people.csv", "--target", "LABEL"), "Did you mean 'label'?"),
        ((*FIT, "--prior", "nothing.json"), "There is no prior file nothing.json"),
        ((*FIT, "--prior", "."), "The prior file . cannot be read"),
        (("prior", "show", "nothing.json"), "There is no prior file nothing.json"),
    ],
)
def test_a_name_that_is_wrong_is_one_line(words, message, folder):  # noqa: F811
    assert message in run(folder, *words, code=2).stderr


def test_a_study_that_is_misspelt_is_guessed(folder):  # noqa: F811
    optuna.create_study(storage=f"sqlite:///{folder}/inna_tune.db", study_name="people")
    for words in (("show", "poeple"), ("report", "poeple"), ("studies", "export", "poeple", "-o", "x.db")):
        assert "did you mean 'people'?" in run(folder, *words, code=2).stderr


def test_a_column_that_is_called_otherwise_is_guessed(folder):  # noqa: F811
    run(folder, *FIT)
    other = pd.read_csv(folder / "people.csv").rename(columns={"age": "Age "})
    with pytest.raises(TableError, match="Is 'age' what is called 'Age ' here"):
        predict_table(load(folder / "people.inna"), other)


def test_each_line_of_a_comparison_says_of_whom_it_is(folder):  # noqa: F811
    words = ("compare", *FIT[1:], "--optimizers", "inna,adamw", "--fits", "1", "--no-ensemble")
    lines = [line for line in run(folder, *words).stderr.splitlines() if "trial " in line]
    assert {line.split(":")[0] for line in lines} == {"inna", "adamw", "hgb"}


def test_a_study_whose_name_is_a_path_has_its_model_here(folder):  # noqa: F811
    said = run(folder, *FIT, "--study", "a/b").stdout
    assert "a_b.inna" in said
    assert (folder / "a_b.inna").exists()
    assert "a_b.html" in run(folder, "report", "a/b").stdout

"""``fit``, and ``fit --cv members``: the study, its workers and its resume are by the rows that nets left out."""

import json

import optuna
import pytest

from inna_tune import load
from inna_tune.estimators.ensemble import Ensemble
from inna_tune.records.attributes import FINGERPRINT
from tests.test_cli import folder, run  # noqa: F401

FIT = (
    *("fit", "people.csv", "--target", "label", "--no-importances"),
    *("--set", "hidden_layer_sizes=4", "--set", "max_epochs=2"),
)


@pytest.mark.parametrize("given", [(), ("--cv", "members")])
def test_the_study_its_worker_and_its_resume_are_by_it(given, folder):  # noqa: F811
    begun = run(folder, *FIT, *given, "--trials", "2", "--json")
    said = json.loads(begun.stdout)
    chosen = (
        "Trials: each is one fit, its 8 nets scored on the rows that each leaves out; by folds with --cv 5"
    )
    assert (chosen in begun.stderr) == (not given)
    assert said["scored_on"] == "the rows that their nets left out"
    assert ("--cv members" in said["commands"]["resume"]) == bool(given)
    assert "trials scored on the rows that their nets left out" in run(folder, "show", "people").stdout
    by_folds = run(folder, *FIT, "--trials", "3", "--resume", "--cv", "5", code=2).stderr
    assert "the study's cross-validation is members, now it is StratifiedKFold" in by_folds
    assert "begun with --cv members: leave --cv out" in by_folds
    # Whichever it was begun with, the other goes on with it.
    others = ("--cv", "members")[: 2 * (not given)]
    again = run(folder, *FIT, "--trials", "3", "--resume", *others).stdout
    assert ("as the study was begun" in again) == (not others)
    study = optuna.load_study(study_name="people", storage=f"sqlite:///{folder}/inna_tune.db")
    study.set_user_attr("inna_tune:job", study.user_attrs["inna_tune:job"] | {"n_trials": 4})
    run(folder, "worker", "people", "people.csv")
    trials = optuna.load_study(study_name="people", storage=f"sqlite:///{folder}/inna_tune.db").trials
    assert study.user_attrs[FINGERPRINT]["cv"] == "members"
    assert [len(t.user_attrs["scores"]) for t in trials] == [
        len(t.user_attrs.get("nets", range(8))) for t in trials
    ]
    assert {len(t.user_attrs["scores"]) for t in trials} <= {4, 8}


def test_by_folds_it_is_said_why_and_goes_on_so(folder):  # noqa: F811
    one = (*FIT, "--set", "n_members=1")
    assert (
        "Trials: each is scored on 5 folds, since with n_members=1 nets"
        in run(folder, *one, "--trials", "1").stdout
    )
    again = run(folder, *one, "--trials", "2", "--resume").stdout
    assert "Trials: each is scored on folds, as the study was begun" in again
    assert "trials scored on folds StratifiedKFold" in run(folder, "show", "people").stdout


def test_an_older_study_by_folds_goes_on_by_folds(folder):  # noqa: F811
    run(folder, *FIT, "--trials", "1", "--cv", "5")
    study = optuna.load_study(study_name="people", storage=f"sqlite:///{folder}/inna_tune.db")
    job = {name: value for name, value in study.user_attrs["inna_tune:job"].items() if name != "cv"}
    study.set_user_attr("inna_tune:job", job)
    said = run(folder, *FIT, "--trials", "2", "--resume").stdout
    assert "Trials: each is scored on folds, as the study was begun" in said
    assert study.user_attrs["inna_tune:job"] == job | {"n_trials": 2}
    trials = study.trials
    assert len(trials) == 2
    assert {len(t.user_attrs["scores"]) for t in trials if t.state.name == "COMPLETE"} == {5}


def test_the_model_is_an_ensemble_of_the_trials_nets_within_a_timeout_too(folder):  # noqa: F811
    found = run(folder, *FIT, "--trials", "2", "--timeout", "1000", "--json")
    said, model = json.loads(found.stdout)["ensemble"], load(folder / "people.inna")
    assert isinstance(model, Ensemble)
    assert said["on_all_rows"] is True
    study = optuna.load_study(study_name="people", storage=f"sqlite:///{folder}/inna_tune.db")
    counts = [len(study.trials[int(number)].user_attrs["scores"]) for number in said["weights"]]
    assert len(model.members_) == sum(counts)


def test_a_word_that_is_none_is_refused(folder):  # noqa: F811
    message = "cv='folds' must be 'auto', 'members', or a number of folds"
    assert message in run(folder, *FIT, "--cv", "folds", code=2).stderr
    pruned = run(folder, *FIT, "--cv", "members", "--set", "early_stopping=False", code=2).stderr
    assert "with early_stopping=False they train on all rows" in pruned

"""``fit --cv members``: the study, its workers and its resume are by the rows that nets left out."""

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


@pytest.fixture
def tuned(folder):  # noqa: F811
    return folder, json.loads(run(folder, *FIT, "--cv", "members", "--trials", "2", "--json").stdout)


def test_the_study_its_worker_and_its_resume_are_by_it(tuned):
    folder, said = tuned  # noqa: F811
    assert "--cv members" in said["commands"]["resume"]
    assert "trials scored on the rows that their nets left out" in run(folder, "show", "people").stdout
    without = run(folder, *FIT, "--trials", "3", "--resume", code=2).stderr
    assert "the study's cross-validation is members, now it is StratifiedKFold" in without
    assert "begun with --cv members: give the same" in without
    run(folder, *FIT, "--trials", "3", "--resume", "--cv", "members")
    study = optuna.load_study(study_name="people", storage=f"sqlite:///{folder}/inna_tune.db")
    study.set_user_attr("inna_tune:job", study.user_attrs["inna_tune:job"] | {"n_trials": 4})
    run(folder, "worker", "people", "people.csv")
    trials = optuna.load_study(study_name="people", storage=f"sqlite:///{folder}/inna_tune.db").trials
    assert study.user_attrs[FINGERPRINT]["cv"] == "members"
    assert [len(t.user_attrs["scores"]) for t in trials] == [
        len(t.user_attrs.get("nets", range(8))) for t in trials
    ]
    assert {len(t.user_attrs["scores"]) for t in trials} <= {4, 8}


def test_the_model_is_an_ensemble_of_the_trials_nets_within_a_timeout_too(folder):  # noqa: F811
    found = run(folder, *FIT, "--cv", "members", "--trials", "2", "--timeout", "1000", "--json")
    said, model = json.loads(found.stdout)["ensemble"], load(folder / "people.inna")
    assert isinstance(model, Ensemble)
    assert said["on_all_rows"] is True
    study = optuna.load_study(study_name="people", storage=f"sqlite:///{folder}/inna_tune.db")
    counts = [len(study.trials[int(number)].user_attrs["scores"]) for number in said["weights"]]
    assert len(model.members_) == sum(counts)


def test_a_word_that_is_none_is_refused(folder):  # noqa: F811
    assert "cv='folds' must be 'members', or None" in run(folder, *FIT, "--cv", "folds", code=2).stderr
    pruned = run(folder, *FIT, "--cv", "members", "--set", "early_stopping=False", code=2).stderr
    assert "with early_stopping=False they train on all rows" in pruned

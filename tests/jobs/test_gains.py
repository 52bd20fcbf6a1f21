"""A gain is told of where there may be one: not of settings over themselves, and with the luck of the seed."""

import math

import numpy as np
import optuna
import pandas as pd
import pytest
from scipy import stats

from inna_tune.jobs.tuning import tune
from inna_tune.jobs.verdict import Comparison, Contender
from inna_tune.records.attributes import PORTFOLIO, UNTUNED
from inna_tune.records.certainty import Gain
from inna_tune.records.leaderboard import (
    EnsembleNote,
    losses_of_folds,
    scores_of_folds,
    scores_of_same_parts,
)
from inna_tune.records.overview import describe_study
from inna_tune.records.record import StudyRecord
from inna_tune.report import render_report
from inna_tune.space import SearchSpace, Uniform
from inna_tune.tables.problem import make_problem

SMALL = ("hidden_layer_sizes=4", "max_epochs=3", "n_members=1")


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({name: rng.normal(size=120) for name in "ab"})
    return make_problem(X.assign(y=np.where(X["a"] + rng.normal(size=120) > 0, "yes", "no")), "y")


def run(problem, n_trials, **options):
    storage = optuna.storages.InMemoryStorage()
    options = {"settings": SMALL} | options
    return tune(problem, n_trials=n_trials, storage=storage, study_name="s", **options)


def test_the_untuned_setting_gains_nothing_over_itself(problem, tmp_path):
    url = f"sqlite:///{tmp_path}/studies.db"
    found = tune(problem, n_trials=1, storage=url, study_name="s", settings=SMALL)
    record = StudyRecord(found.search.study_)
    assert record.untuned.number == 0
    summary = found.summary()
    assert (summary["gain"], summary["change"], summary["counts_luck"]) == (None, None, False)
    assert not any("Tuning" in line for line in describe_study(url, "s").lines)
    assert "against the untuned default" not in render_report(found.search.study_)


def test_what_tuning_found_is_compared_with_the_luck_of_the_folds(problem):
    found = run(problem, 8)
    record = StudyRecord(found.search.study_)
    if record.best_first[0].number == record.untuned.number:
        pytest.fail("the table no longer has a better setting than the untuned one; take another seed")
    gain = found.held_out.gain
    assert found.held_out.luck
    before = losses_of_folds(record, scores_of_folds(record.untuned))
    after = losses_of_folds(record, scores_of_folds(record.best_first[0]))
    width = (
        2 * stats.t.ppf(0.975, 4) * np.log(np.divide(after, before)).std(ddof=1)
    )  # of the folds, beside the rows
    assert math.log1p(gain.high) - math.log1p(gain.low) > width > 0


def test_an_ensemble_of_fits_is_compared_with_the_luck_of_its_trials_nets(problem):
    found = run(problem, 4, cv="members", refit="ensemble", settings=SMALL[:2], importances=False)
    record = StudyRecord(found.search.study_)
    note = EnsembleNote.of(record)
    assert len(note.scores) == 1
    assert found.held_out.luck
    before, *after = scores_of_same_parts(record.untuned, *(record.trials[number] for number in note.weights))
    after = np.average(after, axis=0, weights=list(note.weights.values()))
    n_nets = len(before)
    assert n_nets in (4, 8)
    width = 2 * stats.t.ppf(0.975, n_nets - 1) * np.log(np.divide(after, before)).std(ddof=1)
    gain = found.held_out.gain
    assert math.log1p(gain.high) - math.log1p(gain.low) > width > 0


def test_a_space_without_the_untuned_setting_has_a_gain_but_claims_nothing(problem):
    found = run(problem, 2, space=SearchSpace({"dropout": Uniform(0.1, 0.2)}))
    assert StudyRecord(found.search.study_).untuned is None
    assert not found.held_out.luck
    assert "cannot tell that from the luck of a seed" in found.summary()["gain"]


def test_the_untuned_trial_of_older_studies_is_the_one_tried_first():
    study = optuna.create_study()
    study.enqueue_trial({"x": 0.5})
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    assert StudyRecord(study).untuned is None
    study.set_user_attr(PORTFOLIO, 1)
    assert StudyRecord(study).untuned.number == 0
    study.set_user_attr(UNTUNED, {"x": 0.25})
    assert StudyRecord(study).untuned is None


@pytest.mark.parametrize("n_fits", [1, 2])
def test_a_comparison_of_one_fit_each_finds_nobody_better(n_fits):
    names = {"inna": None, "adamw": Gain(-0.2, -0.3, -0.1), "constant": Gain(-0.5, -0.6, -0.4)}
    contenders = [
        Contender(name, None, {}, 1.0, 0.1, {"RMSE": 1.0}, 0.9, 1.1, gain, {}, "")
        for name, gain in names.items()
    ]
    found = Comparison("regression", "RMSE", "inna", 10, 100, 25, tuple(contenders), n_fits)
    said = " ".join(found.verdict)
    assert ("20.0% below that of adamw" in said) == (n_fits > 1)
    assert ("25 rows and one fit of each cannot tell which is better" in said) == (n_fits == 1)
    assert ("is worth it" in said) == (n_fits > 1)

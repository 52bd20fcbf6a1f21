"""A gain is told of where there may be one: not of settings over themselves, and with the luck of the seed."""

import copy
import math

import numpy as np
import optuna
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import log_loss

from inna_tune.jobs.tuning import score_rows, tune
from inna_tune.jobs.verdict import Comparison, Contender
from inna_tune.records.attributes import PORTFOLIO, UNTUNED
from inna_tune.records.certainty import Gain, relative_change
from inna_tune.records.leaderboard import (
    losses_of_folds,
    scores_of_folds,
)
from inna_tune.records.overview import describe_study
from inna_tune.records.record import StudyRecord
from inna_tune.report import render_report
from inna_tune.space import SearchSpace, Uniform
from inna_tune.tables import split_rows
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


@pytest.mark.parametrize("refit", [True, "ensemble"])
def test_fits_by_members_are_as_lucky_as_what_their_nets_predict_together(problem, refit):
    found = run(problem, 4, cv="members", refit=refit, settings=SMALL[:2], importances=False)
    assert found.held_out.luck
    _, held = split_rows(problem, held_out=0.2, seed=0)
    X, y = problem.X.iloc[held], problem.y.iloc[held]
    # By another way: models that lack a part of their nets.
    halves = []
    for whole in (found.untuned, found.search.best_estimator_):
        nets = getattr(whole, "models_", [whole])
        n_parts = min(len(net.members_) for net in nets)
        assert n_parts > 1
        losses = []
        for part in range(n_parts):
            less = copy.deepcopy(whole)
            for net in getattr(less, "models_", [less]):
                net.weights_ = net.weights_[np.arange(len(net.weights_)) % n_parts != part]
            losses.append(np.log(log_loss(y, less.predict_proba(X))))
        error = np.sqrt((n_parts - 1) / n_parts * np.square(losses - np.mean(losses)).sum())
        halves.append(stats.t.ppf(0.975, n_parts - 1) * error)
    assert all(halves)
    rows = [score_rows(model, X, y)[1] for model in (found.untuned, found.search.best_estimator_)]
    alone = relative_change(*rows)
    halves.append(math.log1p(alone.high) - math.log1p(alone.change))
    gain = found.held_out.gain
    assert math.log1p(gain.high) - math.log1p(gain.change) == pytest.approx(math.hypot(*halves))


def test_by_members_the_luck_is_known_whatever_trials_are_scored_by(problem):
    found = run(problem, 8, cv="members", metric="roc_auc", settings=SMALL[:2], importances=False)
    assert found.held_out.luck


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

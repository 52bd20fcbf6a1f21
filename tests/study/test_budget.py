"""A budget of time: kept, with a model at its end, whole trials where they fit, and nothing of it lost."""

import copy
import math
import time
import warnings

import numpy as np
import optuna
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.exceptions import ConvergenceWarning

from inna_tune import InnaClassifier, InnaSearchCV, clock, load
from inna_tune.engine.population import Population
from inna_tune.engine.width import Layout
from inna_tune.jobs.tuning import tune
from inna_tune.records.attributes import CUT
from inna_tune.records.fingerprint import MismatchError
from inna_tune.records.record import StudyRecord
from inna_tune.study.budget import Budget, OutOfTimeError
from inna_tune.study.evaluation import Cohort
from inna_tune.study.folding import FoldedTable
from inna_tune.tables.problem import make_problem

X, Y = make_classification(180, 5, random_state=0)
NET = InnaClassifier(hidden_layer_sizes=(4,), n_members=1, max_epochs=8, batch_size=32, patience=100)


class HeldClock:
    """Goes on by a tick whenever it is looked at: training looks once a batch."""

    def __init__(self, tick):
        self.tick, self.time = tick, 1000.0

    def now(self):
        self.time += self.tick
        return self.time


class WorkClock:
    """Goes on by what nets are trained, each step of each of them as long as another."""

    def __init__(self, monkeypatch, seconds=1.0):
        self.time, self.seconds, step = 1000.0, seconds, Population._step

        def spend(population, *given):
            self.time += self.seconds * len(population)
            return step(population, *given)

        monkeypatch.setattr(Population, "_step", spend)
        monkeypatch.setattr(clock, "now", lambda: self.time)
        monkeypatch.setattr("inna_tune.engine.training.quickest_layout", whole_layout)


def whole_layout(net, table, members, *more, **options):
    return Layout(len(members), 1)


@pytest.fixture
def hold(monkeypatch):
    def hold(tick):
        held = HeldClock(tick)
        monkeypatch.setattr(clock, "now", held.now)
        # Found by timing steps, the layout says how often a batch looks at the clock.
        monkeypatch.setattr("inna_tune.engine.training.quickest_layout", whole_layout)
        return held

    return hold


def search(**changes):
    settings = {"n_trials": 12, "cv": 3, "random_state": 0, "pruner": optuna.pruners.NopPruner()}
    return InnaSearchCV(NET, **(settings | changes))


@pytest.mark.parametrize("timeout", [0.5, 2, 5, 10, 20, 60, 200])
def test_any_budget_is_kept_and_returns_a_model(hold, timeout):
    held = hold(0.1)
    before = held.time
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = search(timeout=timeout).fit(X, Y)
    assert held.time - before <= 1.1 * timeout + 2
    assert np.isfinite(found.predict_proba(X)).all()
    assert found.best_estimator_.max_time is None
    assert not any(t.state == TrialState.RUNNING for t in found.study_.trials)
    assert not any(t.state == TrialState.PRUNED for t in found.study_.trials)


def test_more_time_gives_more_whole_trials_and_few_are_begun_in_vain(hold):
    whole = []
    for timeout in (40, 80, 160):
        hold(0.1)
        trials = search(timeout=timeout, n_trials=64).fit(X, Y).study_.trials
        whole.append(sum(t.state == TrialState.COMPLETE for t in trials))
        assert sum(CUT in t.user_attrs for t in trials) <= max(1, whole[-1] / 4)
    assert 1 <= whole[0] < whole[1] < whole[2]


def test_a_budget_below_one_epoch_gives_the_untuned_fit_with_a_warning(hold):
    hold(1.0)
    with pytest.warns(ConvergenceWarning, match="timeout=2: the time was up before any trial had a score"):
        found = search(timeout=2).fit(X, Y)
    assert found.best_params_ == {}
    assert math.isnan(found.best_score_)
    assert found.best_index_ == -1
    assert found.best_estimator_.get_params()["lr"] == NET.lr
    assert len(found.cv_results_["params"]) == 0
    with pytest.raises(ValueError, match="give it more time"):
        search(timeout=2, refit=False).fit(X, Y)


def encode_slowly(monkeypatch, held):
    found = FoldedTable._fold

    def encode(*args, **options):
        held.time += 0.1
        return found(*args, **options)

    monkeypatch.setattr(FoldedTable, "_fold", encode)


def test_folds_too_slow_to_encode_leave_the_untuned_fit(hold, monkeypatch):
    encode_slowly(monkeypatch, hold(0.0))
    with pytest.warns(ConvergenceWarning, match="timeout=0.3: the time was up before any trial had a score"):
        fitted = search(timeout=0.3).fit(X, Y)
    assert np.isfinite(fitted.predict_proba(X)).all()
    with pytest.raises(ValueError, match="give it more time"):
        search(timeout=0.3, refit=False).fit(X, Y)


def test_folds_too_slow_to_encode_leave_what_the_study_knows(hold, monkeypatch, tmp_path):
    held = hold(0.0)
    stored = {"storage": f"sqlite:///{tmp_path}/s.db", "study_name": "s", "resume": True}
    encode_slowly(monkeypatch, held)
    with pytest.warns(ConvergenceWarning, match="untuned"):
        begun = search(timeout=0.3, **stored).fit(X, Y)
    assert begun.study_.study_name == "s"
    known = search(n_trials=2, **stored).fit(X, Y)
    again = search(timeout=0.3, n_trials=9, **stored).fit(X, Y)
    assert again.resumed_.finished == len(again.study_.trials) == 2
    assert again.best_params_ == known.best_params_ != {}
    with pytest.raises(MismatchError, match="values of the target differ"):
        search(timeout=0.3, **stored).fit(X, 1 - Y)


def test_a_trial_halted_before_every_fold_has_an_epoch_leaves_the_untuned_fit(hold, monkeypatch):
    # Halted between epochs, since the next one would end too late: by the clock there is time left.
    hold(0.0)
    monkeypatch.setattr(Cohort, "scores", lambda self, *args, **options: [math.nan] * 3)
    monkeypatch.setattr("inna_tune.study.group.Pace.__call__", halt)
    with pytest.warns(ConvergenceWarning, match="timeout=100: the time was up"):
        fitted = search(timeout=100).fit(X, Y)
    assert np.isfinite(fitted.predict_proba(X)).all()


def halt(pace):
    pace.is_out_of_time = True
    return True


def test_settings_that_all_fail_are_an_error_under_a_budget_too(hold):
    hold(0.01)

    def no_score(model, X, y):
        raise RuntimeError("no score today")

    with pytest.raises(ValueError, match="no score today"):
        search(timeout=100, scoring=no_score, n_trials=2).fit(X, Y)


def cut_search(hold, **changes):
    """A search of which one trial is cut off."""
    hold(0.1)
    found = search(timeout=40, **changes).fit(X, Y)
    [number] = [t.number for t in found.study_.trials if CUT in t.user_attrs]
    return found, found.study_.trials[number]


def test_a_cut_trial_waits_with_what_it_reached(hold):
    found, cut = cut_search(hold)
    assert cut.state == TrialState.WAITING  # which no sampler takes for a finished one
    reached = cut.user_attrs[CUT]
    assert reached["value"] == pytest.approx(np.mean(reached["scores"]))
    assert len(reached["scores"]) == 3
    assert 1 <= reached["epochs"] < 8
    record = StudyRecord(found.study_)
    assert cut.number in [t.number for t in record.cut]
    assert cut.number not in [t.number for t in record.complete]
    row = list(found.cv_results_["number"]).index(cut.number)
    assert found.cv_results_["state"][row] == "CUT"
    assert found.cv_results_["mean_test_score"][row] == reached["value"]
    assert found.best_score_ == np.nanmax(found.cv_results_["mean_test_score"])
    assert found.best_params_ == found.cv_results_["params"][found.best_index_]


@pytest.mark.parametrize("population", [1, 4])
def test_a_resumed_study_finishes_what_was_cut_and_is_the_study_that_would_have_been(
    hold, monkeypatch, tmp_path, population
):
    def run(name, **changes):
        where = {"storage": f"sqlite:///{tmp_path}/{name}.db", "study_name": "s", "resume": True}
        return search(n_trials=4, population=population, refit=False, **where, **changes).fit(X, Y).study_

    straight = run("straight")
    hold(0.1)
    for timeout in (4, 4, 4):
        broken = run("broken", timeout=timeout)
    assert any(CUT in t.user_attrs for t in broken.trials)
    assert any((tmp_path / "broken.db.checkpoints").iterdir())
    monkeypatch.undo()
    finished = run("broken")
    for one, other in zip(straight.trials, finished.trials, strict=True):
        assert (one.number, one.params, one.value) == (other.number, other.params, other.value)
        assert one.intermediate_values == other.intermediate_values
        assert other.state == TrialState.COMPLETE
        assert one.user_attrs["epochs"] == other.user_attrs["epochs"]


def test_a_fit_that_time_cuts_comes_to_rest_by_then(hold):
    hold(0.1)
    net = InnaClassifier(
        hidden_layer_sizes=(4,), max_epochs=1000, batch_size=32, random_state=0, patience=1000
    )
    history = net.set_params(max_time=20).fit(X, Y).history_
    assert 5 < history["epoch"].max() < 1000
    assert history["lr"].iloc[-1] < 0.2 * history["lr"].iloc[0]
    # With time enough nothing changes.
    long = net.set_params(max_epochs=10, max_time=1e9).fit(X, Y).history_.drop(columns="seconds")
    free = net.set_params(max_epochs=10, max_time=None).fit(X, Y).history_.drop(columns="seconds")
    assert long.equals(free)


def test_tune_has_its_default_and_its_scores_within_the_budget(hold, tmp_path):
    held = hold(0.1)
    before = held.time
    frame = pd.DataFrame(X).add_prefix("x").assign(y=Y)
    report = tune(
        make_problem(frame, "y"),
        n_trials=100,
        storage=f"sqlite:///{tmp_path}/s.db",
        study_name="s",
        timeout=30,
        estimator=NET,
    )
    assert held.time - before <= 1.1 * 30 + 2
    summary = report.summary()
    assert set(report.scores.index) == {"baseline", "untuned default", "tuned"}
    assert np.isfinite(report.scores.to_numpy()).all()
    assert set(summary["cut"]) <= {"trials", "untuned default", "tuned"}


# ---------------------------------------------------------------------- what the time goes to


@pytest.fixture
def work(monkeypatch):
    return WorkClock(monkeypatch)


def timed(work, run):
    began = work.time
    return run(), work.time - began


def test_of_a_long_budget_all_is_used(work):
    _, plain = timed(work, lambda: clone(NET).set_params(random_state=0).fit(X, Y))
    for fits in (8, 30):
        # Of a seed whose best trial is not the first, which is fitted already and would leave the time of the last fit.
        tuned = search(timeout=fits * plain, n_trials=10_000, random_state=2)
        found, spent = timed(work, lambda model=tuned: model.fit(X, Y))
        assert found.best_index_ > 0
        assert 0.85 * fits * plain <= spent <= 1.1 * fits * plain
        assert {m["stop_reason"] for m in found.best_estimator_.members_} == {"max_epochs"}
        # A trial on three folds costs two fits; what is over are the first fit, the last, and what is kept in doubt.
        whole = sum(t.state == TrialState.COMPLETE for t in found.study_.trials)
        assert whole >= (fits - 3.5) / 2 - 1


@pytest.mark.parametrize("share", [0.3, 0.9, 1.2, 2.0, 2.9])
@pytest.mark.parametrize("refit", [True, "ensemble"])
def test_where_no_trial_fits_in_the_model_is_the_plain_fit(work, share, refit):
    one = clone(NET).set_params(random_state=0)
    _, whole = timed(work, lambda: clone(one).fit(X, Y))
    plain = clone(one).set_params(max_time=share * whole).fit(X, Y)
    with pytest.warns(ConvergenceWarning, match="the time was up before any trial had a score"):
        found, spent = timed(work, lambda: search(timeout=share * whole, refit=refit).fit(X, Y))
    assert found.study_.trials == []
    assert np.array_equal(found.predict_proba(X), plain.predict_proba(X))
    assert spent <= 1.1 * share * whole + 2


def test_a_first_trial_alone_leaves_the_untuned_fit_and_its_own_score(work):
    """Time for it, but for no other, nor for another fit."""
    one = clone(NET).set_params(random_state=0)
    plain, whole = timed(work, lambda: one.fit(X, Y))
    found, spent = timed(work, lambda: search(timeout=3.3 * whole).fit(X, Y))
    assert [t.state for t in found.study_.trials] == [TrialState.COMPLETE]
    assert found.best_score_ == found.study_.best_value
    assert np.array_equal(found.predict_proba(X), plain.predict_proba(X))
    assert spent == pytest.approx(3 * whole, rel=0.1)


def test_what_is_no_whole_fit_trains_fewer_nets(work):
    net = InnaClassifier(hidden_layer_sizes=(4,), max_epochs=3, batch_size=32, linear_path=False)
    _, whole = timed(work, lambda: clone(net).set_params(random_state=0).fit(X, Y))
    for share, n_nets in ((1.1, 8), (1.7, 12)):
        with pytest.warns(ConvergenceWarning, match="before any trial"):
            found, spent = timed(
                work, lambda n=share: InnaSearchCV(net, timeout=n * whole, cv=5, random_state=0).fit(X, Y)
            )
        assert len(found.best_estimator_.members_) == n_nets
        assert found.best_estimator_.n_members == "auto"
        assert spent <= share * whole


def test_of_nets_that_were_chosen_none_of_another_kind_come_beside_them(work):
    net = InnaClassifier(hidden_layer_sizes=(4,), max_epochs=3, batch_size=32)
    _, whole = timed(work, lambda: clone(net).set_params(random_state=0).fit(X, Y))
    with pytest.warns(ConvergenceWarning, match="before any trial"):
        found = InnaSearchCV(net, timeout=1.7 * whole, cv=5, random_state=0).fit(X, Y)
    assert len(found.best_estimator_.members_) == 4


def test_what_is_left_at_the_end_trains_more_nets(work, tmp_path):
    net = InnaClassifier(hidden_layer_sizes=(4,), max_epochs=3, batch_size=32, linear_path=False)
    _, whole = timed(work, lambda: clone(net).set_params(random_state=0).fit(X, Y))
    with pytest.warns(ConvergenceWarning, match="before any trial"):
        found, spent = timed(
            work, lambda: InnaSearchCV(net, timeout=2.6 * whole, cv=5, random_state=0).fit(X, Y)
        )
    model = found.best_estimator_
    assert len(model.members_) == len(model.weights_) == model.history_["member"].nunique() == 16
    assert spent <= 2.6 * whole
    halves = copy.copy(model), copy.copy(model)
    for half, part in zip(halves, (slice(8), slice(8, 16)), strict=True):
        half.weights_ = model.weights_[part]
    assert np.array_equal(
        halves[0].predict_proba(X), clone(net).set_params(random_state=0).fit(X, Y).predict_proba(X)
    )
    assert not np.array_equal(halves[1].predict_proba(X), halves[0].predict_proba(X))
    together = np.concatenate([half._outputs(X) for half in halves])
    assert np.allclose(model._outputs(X), together, atol=1e-5)
    model.save(tmp_path / "m.inna")
    assert np.array_equal(load(tmp_path / "m.inna").predict_proba(X), model.predict_proba(X))
    assert len(clone(model).fit(X, Y).members_) == 8


def test_an_ensemble_keeps_no_time_for_a_fit_and_holds_trials_that_were_cut(work):
    _, whole = timed(work, lambda: clone(NET).set_params(random_state=0).fit(X, Y))
    found, spent = timed(work, lambda: search(timeout=8.5 * whole, refit="ensemble").fit(X, Y))
    assert spent >= 8 * whole
    assert found.best_estimator_.models_
    [cut] = [t for t in found.study_.trials if CUT in t.user_attrs]
    assert cut.user_attrs[CUT]["epochs"] >= 1
    assert np.isfinite(found.predict_proba(X)).all()


def test_settings_that_cannot_be_fitted_in_time_leave_the_untuned_fit(work, monkeypatch):
    """As where the machine slows down."""
    monkeypatch.setattr(Budget, "has_time_to_fit", False)
    with pytest.warns(ConvergenceWarning, match="no time was left to fit the best settings"):
        found = search(timeout=1000, n_trials=6, random_state=2).fit(X, Y)
    assert found.best_index_ > 0
    assert found.best_estimator_.get_params()["lr"] == NET.lr


# ---------------------------------------------------------------------- the books alone

seconds = st.floats(1e-3, 1e4)


@pytest.mark.parametrize(("settings", "expected"), [({}, 5 * 3600 * 8 / (4500 * 3)), ({"n_members": 2}, 4.0)])
def test_what_a_trial_costs_knows_nothing_of_where_trainings_would_end(settings, expected):
    search = InnaSearchCV(InnaClassifier(**settings), timeout=60.0)
    assert Budget.of(search, 4500, [3600] * 5, begun=0.0).trial_cost == pytest.approx(expected)


@given(
    whole=seconds,
    spent=st.floats(0, 1),
    rows=st.integers(0, 10**6),
    epochs=st.integers(1, 1000),
    trained=st.lists(st.tuples(seconds, st.integers(1, 10**7)), max_size=4),
    trials=st.lists(st.tuples(seconds, st.integers(1, 16)), max_size=4),
    most=st.integers(1, 64),
)
def test_what_is_kept_and_drawn_is_within_reason(whole, spent, rows, epochs, trained, trials, most):
    now = time.monotonic()
    ends = now + whole * (1 - spent)
    budget = Budget(ends, fit_rows=rows, fit_epochs=epochs, begun=ends - whole)
    for each in trained:
        budget.note_training(*each)
    for each in trials:
        budget.note_trials(*each)
    assert 0 <= budget.kept <= whole / 2 * (1 + 1e-6)
    assert budget.trials_end <= budget.cut_at <= ends
    drawn = budget.trials_to_draw(most)
    assert 0 <= drawn <= most
    if trials and drawn > 1:
        mean = sum(s for s, _ in trials) / sum(n for _, n in trials)
        assert drawn * mean <= whole or sum(n for _, n in trials) > most  # only the recent ones count


def test_the_fit_is_estimated_from_what_the_best_trial_took():
    budget = Budget(time.monotonic() + 1000, fit_rows=500, fit_epochs=100)
    assert budget.kept == pytest.approx(500, rel=0.01)  # nothing is known: half
    budget.note_training(2.0, 2000)
    assert budget.kept == pytest.approx(1.25 * 1e-3 * 500 * 100)
    budget.note_score(-0.3, 20)
    budget.note_score(-0.5, 90)
    assert budget.kept == pytest.approx(1.25 * 1e-3 * 500 * 20)
    assert Budget(time.monotonic() + 1000).kept == 0  # no fit follows


def test_where_the_untuned_fit_is_known_the_last_one_takes_as_long_or_longer():
    budget = Budget(time.monotonic() + 1000, fit_rows=500, fit_epochs=100, trial_cost=2.0)
    budget.note_fit(40.0, 20)
    budget.note_training(200.0, 20)
    assert budget.kept == pytest.approx(1.25 * 40)
    budget.note_score(-0.3, 10, 60.0)  # stacked nets take less each
    assert budget.kept == pytest.approx(1.25 * 40)
    budget.note_score(-0.2, 30, 60.0)
    assert budget.kept == pytest.approx(1.25 * 60)
    budget.note_score(-0.1, 30, 160.0)  # as of a wider net
    assert budget.kept == pytest.approx(1.25 * 80)


def test_folds_that_take_too_long_to_encode_are_given_up(hold):
    held = hold(0.0)
    budget = Budget(held.time + 10)
    for fold in range(6):
        budget.check_preparation(fold, 6)
        held.time += 0.8
    budget = Budget(held.time + 10)
    budget.check_preparation(0, 6)
    held.time += 1.0
    with pytest.raises(OutOfTimeError):
        budget.check_preparation(1, 6)

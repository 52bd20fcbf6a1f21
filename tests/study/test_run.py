"""The loop of a study runs whatever scores trials: here a function of one number, with nothing of nets in it."""

import copy
import pickle
import time
from functools import partial

import numpy as np
import optuna
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState
from sklearn.dummy import DummyRegressor
from sklearn.metrics import get_scorer

from inna_tune import clock
from inna_tune.records.attributes import FINGERPRINT, POPULATION, REASON, SEED
from inna_tune.records.fingerprint import MismatchError, fingerprint
from inna_tune.space import SearchSpace, Uniform
from inna_tune.store.opening import open_storage
from inna_tune.study.budget import Budget, OutOfTimeError
from inna_tune.study.job import Beginning
from inna_tune.study.run import StudyOptions, run_study
from tests.warm import OTHERS, Program

SPACE = SearchSpace({"x": Uniform(-1, 1)})


class Square:
    """Scores x by how near it is to a half; may fail on some trials, or be broken off at one."""

    def __init__(self, failing=(), broken_at=None):
        self.failing, self.broken_at = failing, broken_at
        self.cohorts = []

    def begin(self, study, seed):
        return Beginning(SPACE, lambda: [{"x": 0.25}])

    def prepare(self, runner, trial, settings):
        if trial.number in self.failing:
            raise ValueError(f"not {trial.number}")
        return trial, settings["x"]

    def run(self, runner, prepared):
        self.cohorts.append([trial.number for trial, _ in prepared])
        for trial, x in prepared:
            if trial.number == self.broken_at:
                raise KeyboardInterrupt
            runner.tell(trial, TrialState.COMPLETE, -((x - 0.5) ** 2), {})


def question(rows):
    return partial(
        fingerprint,
        pd.DataFrame({"a": np.arange(rows)}),
        np.arange(rows),
        task="regression",
        cv=2,
        splits=[(np.array([0]), np.array([1]))],
        metric="r2",
        scorer=get_scorer("r2"),
        estimator=DummyRegressor(),
    )


def run(evaluation, storage=None, *, rows=4, budget=None, notes=None, **options):
    base = {"n_trials": 7, "storage": storage, "study_name": "s", "resume": True, "seed": 3, "population": 3}
    made = evaluation if callable(evaluation) else lambda: evaluation
    return run_study(made, question(rows), StudyOptions(**(base | options)), budget=budget, notes=notes)


def told(study):
    return [(t.number, t.params, t.value, t.state) for t in study.trials]


def test_any_evaluation_gets_cohorts_first_settings_and_what_others_must_know():
    square = Square()
    found = run(square, notes={"mine": 1})
    assert square.cohorts == [[0, 1, 2], [3, 4, 5], [6]]
    assert found.resumed.finished == 0
    study = found.study
    assert study.trials[0].params == {"x": 0.25}
    assert study.best_value == max(-((t.params["x"] - 0.5) ** 2) for t in study.trials)
    assert (study.user_attrs[SEED], study.user_attrs[POPULATION], study.user_attrs["mine"]) == (3, 3, 1)
    assert study.user_attrs[FINGERPRINT]["space"] == SPACE.to_json()


@settings(max_examples=8, deadline=None)
@given(broken_at=st.integers(0, 6), failing=st.sets(st.integers(0, 6), max_size=2))
def test_broken_off_at_any_trial_and_resumed_it_is_the_study_that_would_have_been(broken_at, failing):
    straight = run(Square(failing)).study
    storage = open_storage(None)
    if broken_at not in failing:
        with pytest.raises(KeyboardInterrupt):
            run(Square(failing, broken_at), storage)
    resumed = run(Square(failing), storage, population="auto")
    assert told(resumed.study) == told(straight)
    failed = {t.number: t.user_attrs[REASON] for t in straight.trials if t.state == TrialState.FAIL}
    assert failed == {number: f"ValueError: not {number}" for number in failing}


def test_an_error_may_end_the_search_and_a_callback_may_stop_it():
    storage = open_storage(None)
    with pytest.raises(ValueError, match="not 1"):
        run(Square([1]), storage, error_score="raise")
    heard = []

    def stop(study, trial):
        heard.append(trial.number)
        study.stop()

    study = run(Square(), storage, callbacks=[stop]).study
    assert heard
    assert len(study.trials) < 7
    assert not any(t.state == TrialState.RUNNING for t in study.trials)


def test_the_study_is_known_as_soon_as_it_is_open_also_to_whoever_is_interrupted():
    opened = []
    with pytest.raises(KeyboardInterrupt):
        run_study(lambda: Square(broken_at=0), question(4), StudyOptions(n_trials=1), opened=opened.append)
    assert [type(run.study) for run in opened] == [optuna.Study]


def test_where_no_time_is_left_to_prepare_what_the_study_has_counts_and_other_data_are_refused():
    def late():
        raise OutOfTimeError

    storage = open_storage(None)
    run(Square(), storage)
    found = run(late, storage, n_trials=9)
    assert (len(found.study.trials), found.resumed.left_to_do) == (7, 2)
    with pytest.raises(MismatchError, match="the data have 5"):
        run(late, storage, rows=5)


@pytest.mark.parametrize("seconds", [0.0, 5.0])
def test_a_budget_sent_to_another_process_ends_there_when_it_ends_here(seconds, monkeypatch):
    """Its clock began elsewhere, and it starts some seconds later."""
    now, day = 100.0, 5000.0
    monkeypatch.setattr(clock, "now", lambda: now)
    monkeypatch.setattr(time, "time", lambda: day)
    budget = Budget(now + 60.0, begun=now - 20.0)
    budget.note_trials(3.0, 2)
    content = pickle.dumps(budget)
    here = copy.deepcopy(budget)
    now, day = 7.0, day + seconds
    there = pickle.loads(content)
    assert (there.left, there.ends - there.begun) == (60.0 - seconds, 80.0)
    for found in (here, there):
        found.note_trials(1.0, 1)
        assert len(found._trial_seconds) == 3
    assert here.ends == budget.ends
    assert len(budget._trial_seconds) == 2, "each learns for itself"


def test_a_process_that_compares_nothing_loads_no_other_models():
    code = (
        "import sys, inna_tune.jobs.tuning, inna_tune.jobs.joining, inna_tune.jobs.comparing; "
        "print([m for m in ('skrub', 'sklearn.ensemble') if m in sys.modules])"
    )
    with Program(code, loaded=OTHERS) as program:
        assert program.communicate() == ("[]\n", "")

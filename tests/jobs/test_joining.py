"""Workers join a study from other processes: exact totals, the same data, the same question."""

import dataclasses
import re
import shlex
import shutil
import signal

import numpy as np
import optuna
import pandas as pd
import pytest

from inna_tune import InnaClassifier
from inna_tune.jobs.joining import JOB, FitRequest, join, read_job
from inna_tune.jobs.tuning import tune
from inna_tune.records.attributes import ALLOWED_MISMATCH, PORTFOLIO
from inna_tune.records.fingerprint import MismatchError
from inna_tune.records.overview import find_progress
from inna_tune.space import Prior
from inna_tune.store.errors import StorageError
from inna_tune.store.opening import open_storage
from inna_tune.store.store import OWNER
from inna_tune.store.transfer import import_studies
from inna_tune.tables.problem import make_problem
from tests.store import test_postgres
from tests.warm import Program

# The server of the other module's tests.
server, url = test_postgres.server, test_postgres.url


def frame(seed=0):
    rng = np.random.default_rng(seed)
    found = pd.DataFrame({"age": rng.normal(40, 10, 60), "job": rng.choice(["clerk", "smith"], 60)})
    return found.assign(label=np.where(found["job"] == "smith", "yes", "no"))


SETTINGS = ("hidden_layer_sizes=4", "max_epochs=2")  # which a worker learns from the study


def begin(storage, n_trials, **more):
    more = {"settings": SETTINGS} | more
    return tune(
        make_problem(frame(), "label"), n_trials=n_trials, storage=storage, study_name="people", **more
    )


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A database with the study, two trials done."""
    path = tmp_path_factory.mktemp("template") / "studies.db"
    begin(f"sqlite:///{path}", 2).search.study_._storage._backend.engine.dispose()
    return path


@pytest.fixture
def storage(template, tmp_path):
    return f"sqlite:///{shutil.copy(template, tmp_path / 'studies.db')}"


def load(storage):
    return optuna.load_study(study_name="people", storage=open_storage(storage))


def ask_for(storage, n_trials):
    """As if `fit` had been given more trials and been killed at once."""
    study = load(storage)
    study.set_user_attr(JOB, study.user_attrs[JOB] | {"n_trials": n_trials})
    return study


def worker(storage, table):
    return Program("from inna_tune.cli import main; main()", "worker", "people", table, "--storage", storage)


def crew(storage, table, count):
    workers = [worker(storage, table) for _ in range(count)]
    try:
        return [(*each.communicate(), each.returncode) for each in workers]
    finally:
        for each in workers:
            each.kill()


def check_exact(study, n_trials):
    trials = study.get_trials()
    assert len(trials) == n_trials
    assert all(t.state.is_finished() for t in trials)
    assert sorted(t.number for t in trials) == list(range(n_trials))
    assert len({t.params["lr"] for t in trials}) == n_trials


def test_two_workers_share_a_study_on_sqlite(storage, tmp_path):
    table = tmp_path / "people.csv"
    frame().to_csv(table, index=False)
    study = ask_for(storage, 12)
    found = []  # whoever comes second may find what the first has done by then
    for out, err, code in crew(storage, table, 2):
        assert code == 0, err
        found.append(int(re.search(r"Found: (\d+) finished", out)[1]))
        assert "Now:   12 finished" in out
        assert "0 to be taken up again, 0 left to do, best so far " in out
    assert min(found) == 2
    check_exact(study, 12)


def test_workers_share_a_study_on_a_server(url, template, tmp_path):
    table = tmp_path / "people.csv"
    frame().to_csv(table, index=False)
    import_studies(url, template)
    study = ask_for(url, 10)
    for out, err, code in crew(url, table, 2):
        assert code == 0, err
        assert test_postgres.PASSWORD not in out + err
    check_exact(study, 10)


def test_a_worker_goes_on_as_the_study_itself_would_have(storage, tmp_path):
    whole = begin(f"sqlite:///{tmp_path}/whole.db", 6).search.study_
    study = ask_for(storage, 6)
    before, after = join(make_problem(frame(), "label"), storage=storage, study_name="people")
    assert (before.finished, before.left_to_do) == (2, 4)
    assert (after.finished, after.left_to_do) == (6, 0)
    assert [t.params for t in study.trials] == [t.params for t in whole.trials]
    assert [t.value for t in study.trials] == [t.value for t in whole.trials]


def test_what_a_dead_worker_left_is_taken_up_by_one_that_joins(storage):
    study = ask_for(storage, 3)
    left = study.ask()
    study._storage.set_trial_system_attr(left._trial_id, OWNER, {"id": "0" * 32, "host": "gone", "pid": 1})
    before, _ = join(make_problem(frame(), "label"), storage=storage, study_name="people")
    assert before.left_behind == 1
    check_exact(study, 3)


def test_fit_waits_for_the_trials_of_others(storage, monkeypatch):
    """The best one may be among them."""
    looks = []
    study = load(storage)
    done = study.trials[0]

    def running(self):
        looks.append(1)
        if len(looks) == 2:  # another worker tells its trial, which no other can beat
            study.add_trial(
                optuna.trial.create_trial(
                    value=0.0,
                    params=done.params | {"dropout": 0.4321},
                    distributions=done.distributions,
                    user_attrs=done.user_attrs,
                )
            )
        return len(looks) < 3

    monkeypatch.setattr("inna_tune.study.running.TrialRunner._others_run", running)
    monkeypatch.setattr("inna_tune.study.running._WAIT", 0.0)
    report = begin(storage, 2, resume=True, refit=True)
    assert len(looks) == 3
    assert report.search.best_params_["dropout"] == 0.4321
    assert report.search.best_estimator_.dropout == 0.4321


def test_other_data_are_refused_and_each_difference_named(storage):
    study = ask_for(storage, 3)
    other = make_problem(frame().assign(more=1.0), "label")
    with pytest.raises(MismatchError, match="'more'"):
        join(other, storage=storage, study_name="people")
    assert len(study.trials) == 2
    assert ALLOWED_MISMATCH not in study.user_attrs
    join(other, storage=storage, study_name="people", allow_mismatch=True)
    assert len(study.trials) == 3
    assert study.user_attrs[ALLOWED_MISMATCH]


def test_a_study_that_does_not_say_what_to_do_is_refused(tmp_path):
    storage = f"sqlite:///{tmp_path}/studies.db"
    begin(storage, 1, estimator=InnaClassifier(max_epochs=2, n_members=1), settings=())
    with pytest.raises(StorageError, match="InnaSearchCV"):
        read_job(storage, "people")
    study = optuna.load_study(study_name="people", storage=storage)
    sound = {"n_trials": 3, "target": "label", "task": "binary", "seed": 0, "held_out": 0.2}
    study.set_user_attr(JOB, sound)
    assert read_job(storage, "people") == FitRequest(3, "label", "binary", 0, 0.2)
    study.set_user_attr(JOB, sound | {"settings": list(SETTINGS)})
    assert read_job(storage, "people").settings == SETTINGS
    for wrong in (
        {"n_trials": "many"},
        [1],
        {"n_trials": 3},
        sound | {"n_trials": 0},
        sound | {"seed": -1},
        sound | {"seed": float("inf")},
        sound | {"held_out": float("nan")},
        sound | {"task": "guess"},
        sound | {"settings": 3},
        sound | {"settings": [3]},
        sound | {"settings": ["speed=3"]},
    ):
        study.set_user_attr(JOB, wrong)
        with pytest.raises(StorageError, match="not what this version writes"):
            read_job(storage, "people")
    with pytest.raises(StorageError, match="no study"):
        read_job(storage, "nobody")


def test_what_fit_asks_for_in_the_meantime_is_done_too(storage):
    study = ask_for(storage, 3)

    def more(running, trial):
        if trial.number == 2:
            ask_for(storage, 5)

    _, after = join(make_problem(frame(), "label"), storage=storage, study_name="people", callbacks=[more])
    assert (after.finished, after.left_to_do) == (5, 0)
    check_exact(study, 5)


def test_a_timeout_ends_a_worker_and_leaves_the_rest(storage):
    ask_for(storage, 10_000)
    _, after = join(make_problem(frame(), "label"), storage=storage, study_name="people", timeout=1.0)
    assert 2 <= after.finished < 10_000
    assert after.running == 0
    assert after.left_behind <= 1  # what time cut off waits


def test_the_best_value_is_shown_as_elsewhere(storage, tmp_path):
    study = load(storage)
    before, _ = join(make_problem(frame(), "label"), storage=storage, study_name="people")
    assert before.best_value == -study.best_value > 0
    assert find_progress(storage, "people", 7) == dataclasses.replace(before, left_to_do=5)
    assert find_progress(storage, "nobody", 7) is None
    assert find_progress(f"sqlite:///{tmp_path}/none.db", "people", 7) is None
    assert not (tmp_path / "none.db").exists()


def test_ctrl_c_ends_a_worker_cleanly(storage, tmp_path):
    table = tmp_path / "people.csv"
    frame().to_csv(table, index=False)
    ask_for(storage, 100)
    with worker(storage, table) as process:
        for line in process.stderr:
            if line.startswith("trial "):
                process.send_signal(signal.SIGINT)
                break
        _, said = process.communicate()
    assert process.returncode == 130
    assert "Interrupted; finished trials are safe." in said
    assert "Traceback" not in said
    done = find_progress(storage, "people", 100)
    assert 3 <= done.finished < 100
    assert done.running == 0
    n_trials = done.finished + done.left_behind + 1
    study = ask_for(storage, n_trials)
    before, _ = join(make_problem(frame(), "label"), storage=storage, study_name="people")
    assert before.left_behind == done.left_behind
    check_exact(study, n_trials)


def test_workers_may_join_only_once_the_settings_to_try_first_wait_for_them(tmp_path, monkeypatch):
    named = []
    set_user_attr = optuna.Study.set_user_attr

    def spy(study, name, value):
        named.append(name)
        set_user_attr(study, name, value)

    monkeypatch.setattr(optuna.Study, "set_user_attr", spy)
    begin(f"sqlite:///{tmp_path}/studies.db", 1, space=Prior.shipped("classification"))
    assert named.index(PORTFOLIO) < named.index(JOB)


def test_a_resume_with_another_seed_names_it(storage):
    with pytest.raises(
        MismatchError, match=r"begun with seed=0, and seed=5 holds out other rows: give .*--seed 0,"
    ):
        begin(storage, 3, resume=True, seed=5)


def test_a_resume_with_other_settings_names_those_of_the_study(storage):
    with pytest.raises(
        MismatchError, match="begun --set hidden_layer_sizes=4 --set max_epochs=2: give the same"
    ):
        begin(storage, 3, resume=True, settings=())
    with pytest.raises(MismatchError, match="max_epochs"):
        begin(storage, 3, resume=True, settings=("hidden_layer_sizes=4", "max_epochs=3"))
    assert len(begin(storage, 3, resume=True).search.study_.trials) == 3


def test_settings_that_a_study_was_begun_with_are_quoted_for_a_shell(storage):
    study = ask_for(storage, 3)
    settings = ["hidden_layer_sizes=(4, 4)", "max_epochs=2"]
    study.set_user_attr(JOB, study.user_attrs[JOB] | {"settings": settings})
    with pytest.raises(MismatchError, match="It was begun (.*): give the same") as caught:
        begin(storage, 3, resume=True, settings=("max_epochs=3",))
    begun = str(caught.value).partition("It was begun ")[2].partition(": give the same")[0]
    assert shlex.split(begun) == ["--set", settings[0], "--set", settings[1]]


def test_a_worker_of_other_settings_is_refused(storage):
    study = ask_for(storage, 3)
    study.set_user_attr(JOB, study.user_attrs[JOB] | {"settings": ["hidden_layer_sizes=4", "max_epochs=3"]})
    with pytest.raises(MismatchError, match="max_epochs"):
        join(make_problem(frame(), "label"), storage=storage, study_name="people")


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan"), float("inf")])
def test_a_budget_that_is_none_is_named(storage, timeout):
    with pytest.raises(ValueError, match=f"timeout={timeout} must be a positive number of seconds"):
        begin(storage, 3, resume=True, timeout=timeout)
    with pytest.raises(ValueError, match=f"timeout={timeout} must be a positive number of seconds"):
        join(make_problem(frame(), "label"), storage=storage, study_name="people", timeout=timeout)

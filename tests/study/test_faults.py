"""Faults while a search runs: the database's are no trial's, and a trial that kills its process is one that fails."""

import json
import multiprocessing
import os
import random
import signal
import sqlite3
import time
from contextlib import closing
from types import SimpleNamespace

import numpy as np
import pytest
import sqlalchemy
from optuna.samplers import RandomSampler
from optuna.trial import TrialState
from sklearn.datasets import load_iris
from sklearn.metrics import make_scorer

from inna_tune import InnaClassifier, InnaSearchCV, PriorSampler, SearchSpace
from inna_tune.records.fingerprint import MismatchError
from inna_tune.records.overview import find_progress, list_studies
from inna_tune.store import sqlite, waiting
from inna_tune.store.errors import UnreachableError
from inna_tune.store.opening import load_study, open_storage
from inna_tune.store.retrying import retry_failed
from inna_tune.store.sql import Database
from inna_tune.store.store import (
    MAX_DEATHS,
    MAX_UNSEEN_DEATHS,
    OWNER,
    deaths_of,
    is_deadly,
    is_suspect,
    owner_record,
)
from inna_tune.store.workers import Worker
from inna_tune.study import running
from tests.warm import Program

IRIS = load_iris(return_X_y=True, as_frame=True)
SPACE = SearchSpace.inna(curvature=20.0)


def search(storage, **changes):
    settings = {
        "sampler": PriorSampler(RandomSampler(), SPACE, k=np.inf, seed=0),
        "n_trials": 4,
        "cv": 2,
        "population": 2,
        "study_name": "s",
        "resume": True,
        "random_state": 0,
        "refit": False,
    }
    net = InnaClassifier(hidden_layer_sizes=(4,), n_members=1, max_epochs=8, early_stopping=False)
    return InnaSearchCV(net, SPACE, storage=storage, **(settings | changes))


def comparable(study):
    told = ("scores", "seed", "epochs", "reason")
    return [
        (t.number, t.state, t.value, t.params, t.intermediate_values, [t.user_attrs.get(n) for n in told])
        for t in study.get_trials()
    ]


@pytest.fixture
def url(tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT", 0.01)
    monkeypatch.setattr(waiting, "_FIRST", 0.0)
    return f"sqlite:///{tmp_path}/s.db"


@pytest.fixture(scope="module")
def straight():
    """The study that nothing gets in the way of."""
    return comparable(search(None).fit(*IRIS).study_)


# ---------------------------------------------------------------------- the database's faults


@pytest.mark.parametrize("seed", [0, 1])
def test_a_database_that_fails_again_and_again_leaves_the_study_that_would_have_been(url, straight, seed):
    """One statement in ten fails, whichever it is: of a claim, a parameter, a report, a result, a look."""
    storage = open_storage(url)
    draw, failed = random.Random(seed), set()

    def fail(connection, cursor, statement, *more):
        if draw.random() < 0.1:
            failed.add(" ".join(statement.split()[:3]))
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = sqlite3.SQLITE_BUSY
            raise error

    sqlalchemy.event.listen(storage._backend.engine, "before_cursor_execute", fail)
    assert comparable(search(storage).fit(*IRIS).study_) == straight
    assert len(failed) > 5


@pytest.mark.parametrize("at", ["ask", "report"])
def test_a_lock_that_is_never_released_ends_the_search_and_no_trial(
    url, straight, tmp_path, at, monkeypatch, caplog
):
    monkeypatch.setattr(waiting, "PATIENCE", 0.2)
    monkeypatch.setattr(waiting, "_SILENT", 0.0)
    path = tmp_path / "s.db"
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:

        class Hold:
            """Somebody else takes the lock, at a moment of the second cohort."""

            def __call__(self, study, trial):
                if at == "ask" and sum(t.state.is_finished() for t in study.trials) == 2:
                    other.execute("BEGIN IMMEDIATE")

            def on_training(self, study, training):
                if at == "report" and 2 in training.trials and not other.in_transaction:
                    other.execute("BEGIN IMMEDIATE")

        with caplog.at_level("WARNING"), pytest.raises(UnreachableError, match="another process holds"):
            search(url, callbacks=[Hold()]).fit(*IRIS)
        assert "waiting for the database, 0 s of at most 0 s" in caplog.text
        other.execute("ROLLBACK")
    states = [t.state for t in load_study(url, "s").trials]
    assert TrialState.FAIL not in states
    assert states[:2] == [t[1] for t in straight[:2]]
    again = search(url).fit(*IRIS)
    assert comparable(again.study_) == straight
    assert not any(deaths_of(t.system_attrs) for t in again.study_.trials)


def scored_with_a_database_of_its_own(y, predicted):
    raise sqlite3.OperationalError("database is locked")


def test_a_scorers_own_database_is_the_trials_affair(url):
    broken = make_scorer(scored_with_a_database_of_its_own)
    with pytest.raises(
        ValueError, match="None of 2 finished trials gave a score; the first one: Operational"
    ):
        search(url, scoring=broken, n_trials=2).fit(*IRIS)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), PermissionError(13, "denied")])
def test_a_disk_that_takes_no_file_of_a_trial_fails_none(url, straight, error, monkeypatch):
    def full(*args, **kwargs):
        raise error

    monkeypatch.setattr("inna_tune.study.beside.replacing", full)
    monkeypatch.setattr("inna_tune.study.group._WORTH_KEEPING", 0.0)
    assert comparable(search(url).fit(*IRIS).study_) == straight


CLI = """
import os, sys
from inna_tune.store import sqlite, waiting
sqlite.BUSY_TIMEOUT, waiting.PATIENCE, waiting._SILENT = 0.01, float(sys.argv.pop(1)), 0.2
go = int(sys.argv.pop())
from inna_tune.cli import main
from inna_tune.study import running
ask = running.ask
def told(study, worker, limit):
    trial = ask(study, worker, limit)
    if trial is not None and trial.number == 1:
        print("at work", flush=True)
        os.read(go, 1)
    return trial
running.ask = told
main()
"""


class Locked:
    """The command line at work, until somebody else takes the lock of its database."""

    def __init__(self, folder, patience):
        read, self._go = os.pipe()
        words = ["fit", "sklearn:iris", "--trials", 3, "--study", "s", "--set", "hidden_layer_sizes=4"]
        words += ["--set", "max_epochs=3", "--set", "n_members=1"]
        self.program = Program(CLI, patience, *words, cwd=folder, fds=[read])
        os.close(read)
        for line in self.program.stdout:
            if line.startswith("at work"):
                break
        self.other = sqlite3.connect(folder / "inna_tune.db", isolation_level=None)
        self.other.execute("BEGIN IMMEDIATE")
        os.write(self._go, b"!")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.program.__exit__(*error)
        self.other.close()
        os.close(self._go)


def test_the_command_line_waits_and_says_so(tmp_path):
    with Locked(tmp_path, 600) as found:
        line = next(line for line in found.program.stderr if "database" in line)
        assert line.startswith("waiting for the database, 0 s of at most 10 min")
        found.other.execute("ROLLBACK")
        _, said = found.program.communicate()
        assert found.program.returncode == 0, said
    states = [t.state for t in load_study(f"sqlite:///{tmp_path}/inna_tune.db", "s").trials]
    assert len(states) == 3
    assert TrialState.FAIL not in states


def test_the_command_line_says_that_the_database_stayed_away(tmp_path):
    with Locked(tmp_path, 0.5) as found:
        _, said = found.program.communicate()
        assert found.program.returncode == 75, said
    lines = said.splitlines()
    assert sum("waiting for the database" in line for line in lines) <= 2
    assert "waited 1 s for the database: another process holds the file (database is locked)" in lines[
        -1
    ] or ("waited 0 s for the database" in lines[-1])
    assert any(line.startswith("Resume with: inna-tune fit sklearn:iris") for line in lines)
    assert "Traceback" not in said


def test_ctrl_c_while_the_database_is_away_ends_at_once(tmp_path):
    with Locked(tmp_path, 600) as found:
        next(line for line in found.program.stderr if "waiting for the database" in line)
        found.program.send_signal(signal.SIGINT)
        _, said = found.program.communicate()
        assert found.program.returncode == 130, said
    assert "Resume with" in said


# ---------------------------------------------------------------------- trials that kill

# The trial is known by its step, since whoever scores it hears of no number.
DEADLY = """
import os, signal, sys, time
from pathlib import Path
from sklearn.metrics import get_scorer
from tests.study.test_faults import IRIS, search

def scorer(estimator, X, y, lr=float(sys.argv[2]), last=int(sys.argv[3]), end=sys.argv[4]):
    if estimator.lr == lr:
        n_scored = int(os.environ.get("N_SCORED", 0)) + 1
        os.environ["N_SCORED"] = str(n_scored)
        if n_scored == last and end == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if n_scored == last and end == "waits" and not Path("goes-on").exists():
            Path("is-there").touch()
            time.sleep(600)
    return get_scorer("neg_log_loss")(estimator, X, y)

search(sys.argv[1], scoring=scorer).fit(*IRIS)
"""


@pytest.mark.parametrize(("killer", "last"), [(1, 1), pytest.param(0, 3, marks=pytest.mark.slow)])
def test_a_trial_that_kills_its_process_three_times_fails_and_the_search_goes_on(url, straight, killer, last):
    codes = []
    while not codes or codes[-1] == -signal.SIGKILL:
        assert len(codes) < 6, "the search does not get past the trial"
        with Program(DEADLY, url, repr(straight[killer][3]["lr"]), last, "dies") as program:
            _, said = program.communicate()
            codes.append(program.returncode)
    # The third death is that of a process of the trial's own, which the search outlives.
    assert codes == [-signal.SIGKILL, -signal.SIGKILL, 0], said
    found = comparable(load_study(url, "s"))
    number, state, *_, notes = found.pop(killer)
    assert (number, state) == (killer, TrialState.FAIL)
    assert notes[-1] == "its process died 3 times while it trained, perhaps for want of memory"
    # Those that trained with it are not to blame; who is pruned depends on the others' reports.
    assert [(t[0], t[3]) for t in found] == [(t[0], t[3]) for t in straight if t[0] != killer]
    assert all(t[1] in (TrialState.COMPLETE, TrialState.PRUNED) for t in found)


def test_a_search_that_is_killed_from_outside_again_and_again_fails_no_trial(url, straight, tmp_path):
    words = DEADLY, url, repr(straight[1][3]["lr"]), 1, "waits"
    for _ in range(MAX_DEATHS):
        with Program(*words, cwd=tmp_path) as program:
            while not (tmp_path / "is-there").exists():
                assert program.poll() is None
                time.sleep(0.01)
            (tmp_path / "is-there").unlink()
            os.killpg(program.pid, signal.SIGKILL)  # as schedulers do, with all its processes
            program.communicate()
    (tmp_path / "goes-on").touch()
    with Program(*words, cwd=tmp_path) as program:
        _, said = program.communicate()
    assert program.returncode == 0, said
    study = load_study(url, "s")
    assert comparable(study) == straight
    assert deaths_of(study.trials[1].system_attrs) == MAX_DEATHS


def test_a_daemon_which_may_start_no_process_tries_a_suspect_itself(url, straight, monkeypatch):
    """Else it ended at once, and so did whoever took the study up, without end."""
    monkeypatch.setattr(running, "is_suspect", lambda attributes: True)
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)
    assert comparable(search(url).fit(*IRIS).study_) == straight


def test_deaths_that_nobody_saw_are_a_trials_in_the_end():
    nobody = SimpleNamespace(record={"id": "x"}, is_alive=lambda owner: owner == {"id": "giver"})
    record = {"giver": {"id": "another"}}
    for k in range(1, MAX_UNSEEN_DEATHS + 1):
        record = owner_record(nobody, record, died=True)
        assert is_deadly({OWNER: record}) == (k == MAX_UNSEEN_DEATHS)
        assert is_suspect({OWNER: record}) == (MAX_DEATHS - 1 <= k < MAX_UNSEEN_DEATHS)
        record["giver"] = {"id": "another"}
    record = owner_record(nobody, {"deaths": MAX_DEATHS - 1, "giver": {"id": "giver"}}, died=True)
    assert is_deadly({OWNER: record})
    assert not is_deadly({OWNER: owner_record(nobody, record | {"reached": 4}, died=True, reached=8)})


def test_one_that_gets_further_each_time_is_not_to_blame():
    nobody = SimpleNamespace(record={"id": "x"})
    record = None
    for reached in (None, 1, 4, 16, 16):
        record = owner_record(nobody, record, died=True, reached=reached)
    assert (record["deaths"], record["attempt"]) == (2, 5)
    record = owner_record(nobody, record)  # put back, and taken up again
    assert (record["deaths"], record["attempt"]) == (2, 6)
    assert owner_record(nobody, record, died=True, reached=16)["deaths"] == 3


def test_ctrl_c_puts_back_what_is_in_hand_and_is_no_death(url, straight):
    class Interrupt:
        def __call__(self, study, trial):
            pass

        def on_training(self, study, training):
            if 2 in training.trials and training.epoch == 0:
                signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for _ in range(4):
            with pytest.raises(KeyboardInterrupt):
                search(url, callbacks=[Interrupt()]).fit(*IRIS)
            [row] = list_studies(url)
            assert (row.running, row.failed) == (0, 0)
            progress = find_progress(url, "s", 4)
            assert (progress.left_behind, progress.left_to_do) == (2, 2)
    finally:
        signal.signal(signal.SIGINT, before)
    study = load_study(url, "s")
    assert [t.state for t in study.trials[2:]] == [TrialState.WAITING] * 2
    again = search(url).fit(*IRIS)
    assert comparable(again.study_) == straight
    assert [t.system_attrs[OWNER]["attempt"] for t in again.study_.trials] == [1, 1, 5, 5]
    assert not any(deaths_of(t.system_attrs) for t in again.study_.trials)


def test_a_callback_that_raises_leaves_nothing_running(url, straight):
    def fail(study, trial):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        search(url, callbacks=[fail]).fit(*IRIS)
    assert not any(t.state == TrialState.RUNNING for t in load_study(url, "s").trials)
    assert comparable(search(url).fit(*IRIS).study_) == straight


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no such processes here")
def test_a_forked_child_that_outlives_its_parent_does_not_stand_for_it(url):
    code = """
import os, sys
from inna_tune.store.opening import open_storage
from inna_tune.store.workers import Worker
with Worker(open_storage(sys.argv[1])) as worker:
    print(worker.id, flush=True)
    fd = int(sys.argv[2])
    if os.fork() == 0:
        os.read(fd, 1)  # for as long as the test looks
        os._exit(0)
    os._exit(1)  # without a word
"""
    open_storage(url)._backend.engine.dispose()
    read, write = os.pipe()
    try:
        with Program(code, url, fds=[read]) as program:
            name = program.stdout.readline().strip()
            program.wait()
            watcher = Worker(open_storage(url))
            assert watcher.is_alive({"id": name}) is False
    finally:
        os.write(write, b"!")
        os.close(read)
        os.close(write)


# ---------------------------------------------------------------------- mending


def blame(url, number, reason):
    """What an older version did: the trial that was being written has failed."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        [[trial]] = connection.execute("SELECT trial_id FROM trials WHERE number = ?", [number])
        connection.execute("UPDATE trials SET state = 'FAIL' WHERE trial_id = ?", [trial])
        connection.execute("DELETE FROM trial_values WHERE trial_id = ?", [trial])
        connection.execute("DELETE FROM trial_user_attributes WHERE trial_id = ?", [trial])
        connection.execute(
            "INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES (?, 'reason', ?)",
            [trial, json.dumps(reason)],
        )


def test_trials_that_failed_for_the_storage_are_queued_again_and_mend_the_study(url, straight):
    search(url).fit(*IRIS).study_._storage._backend.engine.dispose()
    blame(url, 0, "StorageInternalError: An exception is raised during the commit.")
    blame(url, 2, "OSError: [Errno 28] No space left on device: 'x.safetensors' (while fold 1 was scored)")
    blame(url, 3, "ValueError: the person's own (database)")
    assert retry_failed(url, "s") == [0, 2]
    assert retry_failed(url, "s") == []
    states = [t.state for t in load_study(url, "s").trials]
    assert states == [TrialState.WAITING, straight[1][1], TrialState.WAITING, TrialState.FAIL]
    found = comparable(search(url).fit(*IRIS).study_)
    assert found[:3] == straight[:3]
    assert retry_failed(url, "s", every=True) == [3]
    assert comparable(search(url).fit(*IRIS).study_) == straight


def test_a_storage_that_is_already_open_sees_what_was_queued_again(url):
    storage = open_storage(url)
    study = search(storage).fit(*IRIS).study_
    blame(url, 1, "StorageError: the disk is full")
    storage.forget()
    assert study.trials[1].state == TrialState.FAIL
    assert retry_failed(storage, "s") == [1]
    assert study.trials[1].state == TrialState.WAITING
    assert search(storage).fit(*IRIS).study_.trials[1].state != TrialState.WAITING


# ---------------------------------------------------------------------- two at once


@pytest.mark.parametrize("what", ["seed", "space"])
def test_of_two_searches_that_begin_at_once_with_other_questions_one_is_refused(url, what, monkeypatch):
    other = {"random_state": 1} if what == "seed" else {"space": SearchSpace.inna(curvature=30.0)}
    settle, begun = Database.settle, []

    def late(self, study_id, name, value):
        if name == "inna_tune:seed" and not begun:
            begun.append(True)
            with monkeypatch.context() as patch:
                patch.setattr(Database, "settle", settle)
                search(url).set_params(**other).fit(*IRIS)  # between this one's look and its own word
        return settle(self, study_id, name, value)

    monkeypatch.setattr(Database, "settle", late)
    with pytest.raises(MismatchError, match="another seed" if what == "seed" else "space"):
        search(url).fit(*IRIS)
    assert len(load_study(url, "s").trials) == 4

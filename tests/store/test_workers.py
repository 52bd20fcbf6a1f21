"""Many workers, killed and restarted, share one study without a trial lost, repeated or too many."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.pruners import SuccessiveHalvingPruner
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage
from optuna.trial import Trial, TrialState

from inna_tune.store.asking import ask, tell
from inna_tune.store.opening import create_study, gathered, open_storage
from inna_tune.store.store import OWNER
from inna_tune.store.workers import Worker, resume_summary
from tests.store.crew import Crew


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/studies.db"


@pytest.fixture(params=["memory", "sqlite", "plain sqlite"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BaseStorage]:
    """Each kind of storage; "plain" is one a person opened by Optuna itself."""
    url = f"sqlite:///{tmp_path}/studies.db"
    if request.param == "memory":
        storage = open_storage(None)
    else:
        storage = open_storage(RDBStorage(url) if request.param == "plain sqlite" else url)
    yield storage
    if not isinstance(storage, InMemoryStorage):
        storage._backend.engine.dispose()  # type: ignore[attr-defined]


def new_study(storage: BaseStorage, **kwargs: object) -> optuna.Study:
    return create_study(storage, "shared", "minimize", resume=False, **kwargs)  # type: ignore[arg-type]


def asked(study: optuna.Study, worker: Worker, n_trials: int) -> Trial:
    trial = ask(study, worker, n_trials)
    assert trial is not None
    return trial


def states(study: optuna.Study) -> Counter[str]:
    return Counter(trial.state.name for trial in study.get_trials(deepcopy=False))


def test_eight_processes_create_one_study_and_run_it_exactly(url: str, tmp_path: Path) -> None:
    with Crew(url, 40, 8) as crew:  # all eight create database and study at once
        create_study(open_storage(url), "shared", "minimize", resume=True).enqueue_trial({"x": 0.25})
        crew.start()
        lines = crew.finish()
    told = Counter(line.split()[1] for line in lines if line.startswith("told"))
    assert told == {str(number): 1 for number in range(40)}
    study = optuna.load_study(study_name="shared", storage=url)
    assert [trial.number for trial in study.trials] == list(range(40))
    assert states(study) == {"COMPLETE": 40}
    assert study.trials[0].params == {"x": 0.25}
    assert not (tmp_path / "studies.db.locks").exists(), "lock files are left behind"


def test_a_killed_workers_trial_is_taken_up_with_its_number_and_values(url: str) -> None:
    storage = open_storage(url)
    with Crew(url, 3, step=True) as crew:
        study = create_study(storage, "shared", "minimize", resume=True)
        crew.start()
        number, value = crew.read("asked")
        crew.order()
        assert crew.read("told") == [number, value]
        number, value = crew.read("asked")
        assert (resume_summary(study, 3).running, resume_summary(study, 3).left_to_do) == (1, 1)
        with Worker(storage) as mine:
            assert asked(study, mine, 3).number == 2, "a living worker's trial must not be taken"
            assert ask(study, mine, 3) is None
            crew.kill()
            assert crew.output.readline() == ""  # the pipe breaks when the process is gone
            trial = asked(study, mine, 3)
            assert (trial.number, trial.suggest_float("x", 0.0, 1.0)) == (int(number), float(value))
            stored = study._storage.get_trial(trial._trial_id)
            assert stored.system_attrs[OWNER]["attempt"] == 2
            assert not stored.intermediate_values, "reports of the first life would mislead the pruner"
            assert ask(study, mine, 3) is None


def test_kills_at_random_moments_lose_and_repeat_nothing(url: str) -> None:
    n_trials, told = 40, Counter[str]()

    def note(lines: Iterable[str]) -> None:
        told.update(line.split()[1] for line in lines if line.startswith("told"))

    for lines in (9, 16):
        with Crew(url, n_trials, 3) as crew:
            crew.start()
            note(islice(crew.output, lines))
            for pid in crew.pids:
                crew.kill(pid)
            note(crew.output)
    storage = open_storage(url)
    study = create_study(storage, "shared", "minimize", resume=True)
    with Worker(storage) as worker:
        while (trial := ask(study, worker, n_trials)) is not None:
            value = trial.suggest_float("x", 0.0, 1.0)
            assert tell(study, worker, trial, value)
            note([f"told {trial.number}"])
    assert states(study) == {"COMPLETE": n_trials}
    assert [trial.number for trial in study.trials] == list(range(n_trials))
    assert all(trial.value == trial.params["x"] for trial in study.trials)
    # One killed between telling and saying so says nothing; none may say it twice.
    assert set(told.values()) == {1}
    assert len(told) >= n_trials - 6


FORKING = """
import os, sys
from inna_tune.store.opening import open_storage
from inna_tune.store.workers import Worker

with Worker(open_storage(sys.argv[1])) as worker:
    for ending in ("unwinds", "stays"):
        child = os.fork()
        if child == 0:
            if ending == "unwinds":
                sys.exit()
            print(os.getppid(), os.getpid(), worker.id, flush=True)
            sys.stdin.read()
            os._exit(0)
        if ending == "unwinds":
            os.waitpid(child, 0)
    os.waitpid(child, 0)
"""


def test_forked_children_neither_end_nor_prolong_a_workers_life(url: str) -> None:
    watcher = Worker(open_storage(url))
    with subprocess.Popen(
        [sys.executable, "-c", FORKING, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        parent_pid, child_pid, name = parent.stdout.readline().split()
        assert watcher.is_alive({"id": name}), "a child ended its parent's life"
        os.kill(int(parent_pid), signal.SIGKILL)
        parent.wait()
        os.kill(int(child_pid), 0)
        assert not watcher.is_alive({"id": name}), "a child keeps its dead parent alive"


def test_the_total_is_exact_over_restarts_and_states(storage: BaseStorage) -> None:
    study = new_study(storage)
    ends = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]
    for n_trials in (2, 2, 7, 3):
        with Worker(storage) as worker:
            while (trial := ask(study, worker, n_trials)) is not None:
                state = ends[trial.number % 3]
                assert tell(study, worker, trial, 1.0 if state == TrialState.COMPLETE else None, state)
    assert states(study) == {"COMPLETE": 3, "PRUNED": 2, "FAIL": 2}


def test_waiting_trials_go_first_and_wait_where_there_is_no_room(storage: BaseStorage) -> None:
    study = new_study(storage)
    for x in (0.1, 0.2, 0.3):
        study.enqueue_trial({"x": x})
    with Worker(storage) as worker:
        values = []
        while (trial := ask(study, worker, 2)) is not None:
            values.append(trial.suggest_float("x", 0, 1))
    assert values == [0.1, 0.2]
    assert states(study) == {"RUNNING": 2, "WAITING": 1}


def test_threads_share_a_study_exactly(storage: BaseStorage) -> None:
    study = new_study(storage)
    study.enqueue_trial({"x": 0.5})
    numbers: list[int] = []

    def work() -> None:
        with Worker(storage) as worker:
            while (trial := ask(study, worker, 12)) is not None:
                numbers.append(trial.number)
                tell(study, worker, trial, trial.suggest_float("x", 0, 1))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(12))
    assert states(study) == {"COMPLETE": 12}


def test_a_trial_without_owner_is_taken_up(storage: BaseStorage) -> None:
    study = new_study(storage)
    left = study.ask()
    left.suggest_float("x", 0, 1)
    with Worker(storage) as worker:
        trial = asked(study, worker, 5)
        assert trial.number == left.number
        assert trial.params == left.params


def test_a_trial_taken_up_forgets_the_rungs_of_its_first_life(storage: BaseStorage) -> None:
    study = new_study(storage, pruner=SuccessiveHalvingPruner(min_resource=1, reduction_factor=2))
    with Worker(storage) as first:
        trial = asked(study, first, 1)
        trial.set_user_attr("seed", 1)
        for step in (1, 2, 4):
            trial.report(1.0, step)
            assert not trial.should_prune()
    with Worker(storage) as second:
        again = asked(study, second, 1)
        stored = storage.get_trial(again._trial_id)
        assert (stored.intermediate_values, stored.user_attrs) == ({}, {"seed": 1})
        assert list(stored.system_attrs) == [OWNER]
        again.report(1.0, 1)
        assert not again.should_prune()


def test_a_new_trial_sees_what_study_ask_would_show(url: str) -> None:
    def values(study: optuna.Study, worker: Worker | None) -> list[float]:
        found = []
        for _ in range(14):
            trial = study.ask() if worker is None else asked(study, worker, 99)
            found.append(trial.suggest_float("x", 0, 1) + trial.suggest_float("y", 0, 1))
            study.tell(trial, found[-1])
        return found

    def sampler() -> optuna.samplers.BaseSampler:
        return optuna.samplers.TPESampler(seed=1, n_startup_trials=4)

    storage = open_storage(url)
    with Worker(storage) as worker:
        ours = values(new_study(storage, sampler=sampler()), worker)
    assert ours == values(optuna.create_study(sampler=sampler()), None)


def test_a_worker_must_be_at_work(storage: BaseStorage) -> None:
    worker = Worker(storage)
    study = new_study(storage)
    with pytest.raises(ValueError, match="enter it first"):
        ask(study, worker, 1)
    with worker:
        pass
    with pytest.raises(ValueError, match="enter it first"):
        ask(study, worker, 1)


def test_a_result_is_not_told_for_a_trial_taken_over(storage: BaseStorage) -> None:
    study = new_study(storage)
    with Worker(storage) as first:
        trial = asked(study, first, 1)
    with Worker(storage) as second:
        again = asked(study, second, 1)
        assert not tell(study, first, trial, 1.0)
        assert tell(study, second, again, 2.0)
        assert not tell(study, first, trial, 1.0)
    assert study.best_value == 2.0


@pytest.fixture(scope="module")
def lonely_worker(tmp_path_factory: pytest.TempPathFactory) -> Worker:
    folder = tmp_path_factory.mktemp("lonely")
    worker = Worker(open_storage(f"sqlite:///{folder}/studies.db"))
    (folder / "victim").touch()
    (folder / "studies.db.locks").mkdir()
    return worker


@given(
    st.one_of(
        st.none() | st.text() | st.dictionaries(st.text(), st.text()),
        st.sampled_from(
            ["../../victim", "/etc/passwd", "a" * 32 + "/..", "A" * 32, "0" * 33, "0" * 32 + "\n"]
        ),
    )
)
def test_an_owner_record_never_names_a_file_outside(lonely_worker: Worker, name: object) -> None:
    assert lonely_worker._folder is not None
    assert lonely_worker.is_alive(name) is False
    assert lonely_worker.is_alive({"id": name}) is False
    assert (lonely_worker._folder.parent / "victim").exists()
    assert not list(lonely_worker._folder.iterdir())


def test_the_lock_file_of_a_dead_worker_is_removed(lonely_worker: Worker) -> None:
    assert lonely_worker._folder is not None
    dead = lonely_worker._folder / ("0" * 32)
    dead.touch()
    assert lonely_worker.is_alive({"id": dead.name}) is False
    assert not dead.exists()
    lonely_worker._folder.mkdir(exist_ok=True)


def test_resume_summary_is_one_line_that_adds_up(storage: BaseStorage) -> None:
    study = new_study(storage)
    assert str(resume_summary(study, 9)) == (
        "0 finished (0 failed, 0 pruned), 0 to be taken up again, 9 left to do, best so far none yet"
    )
    with Worker(storage) as worker:
        for state, value in (("COMPLETE", 0.5), ("COMPLETE", 0.25), ("FAIL", None), ("PRUNED", None)):
            tell(study, worker, asked(study, worker, 9), value, TrialState[state])
        asked(study, worker, 9)
        assert "1 running elsewhere, 0 to be taken up again, 4 left to do" in str(resume_summary(study, 9))
    found = resume_summary(study, 9)
    assert str(found) == (
        "4 finished (1 failed, 1 pruned), 1 to be taken up again, 5 left to do, best so far 0.25 (trial 1)"
    )
    assert (found.finished, found.complete, found.left_to_do) == (4, 2, 5)
    assert resume_summary(study, 2).left_to_do == 1, "what is left behind is finished in any case"


def test_gathered_writes_are_one_transaction(url: str) -> None:
    storage = open_storage(url)
    study = new_study(storage)
    other = open_storage(url)
    with Worker(storage) as worker:
        trial = asked(study, worker, 1)
        with gathered(study):
            trial.suggest_float("x", 0, 1)
            trial.set_user_attr("seed", 1)
            trial.report(0.5, 1)
            assert other.get_trial(trial._trial_id).params == {}
            with gathered(study):
                trial.set_user_attr("nested", 1)
            assert other.get_trial(trial._trial_id).user_attrs == {}
        seen = other.get_trial(trial._trial_id)
        assert (seen.params, seen.user_attrs) == (trial.params, {"seed": 1, "nested": 1})
        assert seen.intermediate_values == {1: 0.5}
        with gathered(study):
            trial.set_user_attr("epochs", 3)
            assert storage.get_trial(trial._trial_id).user_attrs["epochs"] == 3, "one reads what one wrote"
            trial.set_user_attr("epochs", 4)
            tell(study, worker, trial, 0.5)
    finished = other.get_trial(trial._trial_id)
    assert (finished.state, finished.user_attrs["epochs"]) == (TrialState.COMPLETE, 4)


def test_an_error_in_a_gathered_block_writes_nothing(url: str) -> None:
    storage = open_storage(url)
    study = new_study(storage)
    trial = study.ask()

    def fail() -> None:
        with gathered(study):
            trial.set_user_attr("seed", 1)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert storage.get_trial(trial._trial_id).user_attrs == {}
    trial.set_user_attr("seed", 2)
    assert storage.get_trial(trial._trial_id).user_attrs == {"seed": 2}


def test_host_folder_is_private_and_shared_by_its_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from optuna.storages.journal import JournalFileBackend, JournalStorage

    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "journal")))
    study = new_study(storage)
    with Worker(storage) as first, Worker(storage) as second:
        trial = asked(study, first, 2)
        assert asked(study, second, 2).number != trial.number
        assert first.record["place"] == second.record["place"]
        elsewhere = {**first.record, "id": "0" * 32, "place": "another host"}
        assert second.is_alive(elsewhere) is None
        [folder] = [path for path in tmp_path.iterdir() if path.is_dir()]
        assert folder.stat().st_mode & 0o777 == 0o700
        assert re.fullmatch("[0-9a-f]{32}", first.record["place"])
    assert os.listdir(folder) == ["place"]


def test_the_lease_outlasts_several_beats() -> None:
    from inna_tune.store import sql, workers

    assert sql.LEASE.total_seconds() >= 3 * workers.BEAT

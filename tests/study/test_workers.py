"""Many workers, killed and restarted, share one study without a trial lost, repeated or too many."""

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from inna_tune.study.storage import create_study, open_storage
from inna_tune.study.workers import OWNER, Worker, ask, resume_summary

RUN_STUDY = """
import sys, optuna
from inna_tune.study.storage import create_study, open_storage
from inna_tune.study.workers import Worker, ask
optuna.logging.disable_default_handler()
url, n_trials, hang_at = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
storage = open_storage(url)
sampler = optuna.samplers.RandomSampler(seed=0)
study = create_study(storage, "shared", "minimize", sampler, resume=True)
print("ready", flush=True)
sys.stdin.readline()
with Worker(storage) as worker:
    while (trial := ask(study, worker, n_trials)) is not None:
        x = trial.suggest_float("x", 0.0, 1.0)
        print(trial.number, x, flush=True)
        if trial.number == hang_at:
            sys.stdin.readline()
        study.tell(trial, x)
"""


def start(url: str, n_trials: int, hang_at: int = -1) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUN_STUDY, url, str(n_trials), str(hang_at)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def release(*workers: subprocess.Popen[str]) -> None:
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()


def kill(worker: subprocess.Popen[str]) -> None:
    os.kill(worker.pid, signal.SIGKILL)
    worker.communicate()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/studies.db"


def test_eight_processes_create_one_study_and_run_it_exactly(url: str, tmp_path: Path) -> None:
    create_study(open_storage(url), "shared", "minimize", resume=False).enqueue_trial({"x": 0.25})
    workers = [start(url, 40) for _ in range(8)]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    release(*workers)
    told = Counter(line.split()[0] for worker in workers for line in worker.communicate()[0].splitlines())
    assert [worker.returncode for worker in workers] == [0] * 8
    assert told == {str(number): 1 for number in range(40)}
    study = optuna.load_study(study_name="shared", storage=url)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 40
    assert study.trials[0].params == {"x": 0.25}
    assert not (tmp_path / "studies.db.locks").exists()


def test_a_killed_workers_trial_is_taken_up_with_its_number_and_values(url: str) -> None:
    worker = start(url, 5, hang_at=2)
    assert worker.stdout is not None
    assert worker.stdout.readline() == "ready\n"
    release(worker)
    begun = [worker.stdout.readline().split() for _ in range(3)]
    storage = open_storage(url)
    study = create_study(storage, "shared", "minimize", resume=True)
    assert resume_summary(study, 5).running == 1
    kill(worker)
    assert resume_summary(study, 5).left_behind == 1
    with Worker(storage) as mine:
        trial = ask(study, mine, 5)
        assert trial is not None
        assert trial.number == 2
        assert trial.suggest_float("x", 0.0, 1.0) == float(begun[2][1])
        assert study._storage.get_trial(trial._trial_id).system_attrs[OWNER]["attempt"] == 2

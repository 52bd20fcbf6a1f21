"""What a budget of time means to a command whose table takes long to read."""

import contextlib

import optuna
import pandas as pd
import pytest
from typer.testing import CliRunner

from inna_tune import clock
from inna_tune.cli import app
from inna_tune.jobs.joining import FitRequest
from inna_tune.study.running import TrialRunner
from inna_tune.tables import reading


@pytest.fixture
def after_reading(tmp_path, monkeypatch):
    """Runs a command whose table takes so many seconds to read; its errors, and the seconds that the work is given."""

    def run(seconds, *words):
        now, given, read = [1000.0], [], reading.read

        def slowly(*args, **options):
            now[0] += seconds
            return read(*args, **options)

        def work(problem, **options):
            given.append(options["timeout"])
            raise KeyboardInterrupt

        pd.DataFrame({"x": range(30), "label": ["no", "yes"] * 15}).to_csv(tmp_path / "t.csv", index=False)
        job = FitRequest(n_trials=3, target="label", task="binary", seed=0, held_out=0.2)
        monkeypatch.setattr("inna_tune.jobs.joining.read_job", lambda storage, study: job)
        monkeypatch.setattr("inna_tune.store.opening.open_storage", lambda storage, **options: storage)
        monkeypatch.setattr("inna_tune.records.overview.find_progress", lambda *args: None)
        monkeypatch.setattr(clock, "now", lambda: now[0])
        monkeypatch.setattr(reading, "read", slowly)
        monkeypatch.setattr("inna_tune.jobs.tuning.tune", work)
        monkeypatch.setattr("inna_tune.jobs.joining.join", work)
        with contextlib.chdir(tmp_path):
            done = CliRunner().invoke(app, words)
        assert done.exit_code == 130, done.output
        return done.stderr, given[0]

    return run


FIT = ("fit", "t.csv", "--target", "label", "--timeout", "60")
WORKER = ("worker", "t", "t.csv", "--timeout", "60")


@pytest.mark.parametrize("words", [FIT, WORKER])
def test_reading_counts_from_the_start_of_the_command(after_reading, words):
    assert after_reading(20, *words)[1] == pytest.approx(40)


@pytest.mark.parametrize("words", [FIT, WORKER])
def test_what_much_of_the_time_went_to_is_said_before_the_work(after_reading, words):
    said, given = after_reading(45, *words)
    assert "Note: reading the table took 45 s of the 1 min 00 s of --timeout; 15 s are left\n" in said
    assert given == pytest.approx(15)
    assert "Note:" not in after_reading(20, *words)[0]


@pytest.mark.parametrize("words", [FIT, WORKER])
def test_a_table_that_takes_longer_than_all_is_told_and_there_is_a_little_time_for_a_model(
    after_reading, words
):
    said, given = after_reading(200, *words)
    assert (
        "Note: reading the table took 3 min 20 s, and --timeout is 1 min 00 s: the work itself has 6 s"
        in said
    )
    assert given == pytest.approx(6)


def test_a_summary_counts_the_trials_that_ran_and_not_those_that_were_asked_for(tmp_path, monkeypatch):
    now, told, tell = [1000.0], [], TrialRunner.tell

    def last(runner, *args, **options):
        tell(runner, *args, **options)
        told.append(args)
        now[0] += 1e6 * (len(told) == 2)

    monkeypatch.setattr(clock, "now", lambda: now[0])
    monkeypatch.setattr(TrialRunner, "tell", last)
    pd.DataFrame({"x": range(60), "label": ["no", "yes"] * 30}).to_csv(tmp_path / "t.csv", index=False)
    small = [f"--set={each}" for each in ("n_members=1", "max_epochs=2", "hidden_layer_sizes=4")]
    words = ["fit", "t.csv", "--target", "label", "--trials", "8", "--timeout", "1000", *small]
    with contextlib.chdir(tmp_path):
        done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    study = optuna.load_study(study_name="t", storage=f"sqlite:///{tmp_path}/inna_tune.db")
    n_finished = sum(trial.state.is_finished() for trial in study.trials)
    assert 2 <= n_finished < 8
    assert f"({n_finished} trials)" in " ".join(done.stdout.split())

"""Ctrl-C at the moments when it used to be swallowed, or to print a trace."""

import contextlib
import re
import shlex
import signal

import optuna
import pytest
from typer.testing import CliRunner

from inna_tune import InnaClassifier, InnaSearchCV
from inna_tune.cli import app
from inna_tune.engine import Training
from inna_tune.estimators import EnsembleClassifier
from tests.test_cli import MAIN, SMALL, environment, folder, run  # noqa: F401
from tests.warm import Program

FIT = ("fit", "people.csv", "--target", "label", "--trials", "2", *SMALL)
# The fits that no trial is: each does its first epoch, says so, and waits for the signal.
HALTING = """
import signal, sys
from inna_tune.engine import Training
train = Training.run
def run(self, until_epoch=None, *, shorten=False, **others):
    if not shorten:
        return train(self, until_epoch, **others)
    train(self, 1, **others)
    print("refit has begun", file=sys.stderr, flush=True)
    while True:
        signal.pause()
Training.run = run
"""


def told(folder, name="people"):  # noqa: F811
    study = optuna.load_study(study_name=name, storage=f"sqlite:///{folder}/inna_tune.db")
    # The attributes of the study are written when it begins: what it has later is what it was told of its model.
    return [(t.number, t.params, t.value, t.state) for t in study.trials], study.user_attrs


def test_ctrl_c_while_the_best_settings_are_fitted(folder):  # noqa: F811
    run(folder, *FIT, "--study", "straight")
    (folder / "people.inna").write_bytes((folder / "straight.inna").read_bytes())
    with Program(HALTING + MAIN, *FIT, cwd=folder, env=environment()) as process:
        assert any("refit has begun" in line for line in process.stderr)
        process.send_signal(signal.SIGINT)
        said, error = process.communicate()
    assert process.returncode == 130, error
    assert error.splitlines()[0] == "Interrupted; finished trials are safe."
    assert "untuned default" not in said
    assert (folder / "people.inna").read_bytes() == (folder / "straight.inna").read_bytes()
    trials, attributes = told(folder)
    assert (len(trials), {state.name for *_, state in trials}) == (2, {"COMPLETE"})
    assert not [name for name in attributes if "held" in name or "model" in name]
    resume = shlex.split(re.search(r"Resume with: inna-tune (.*)", error)[1])
    assert "Found: 2 finished" in run(folder, *resume).stdout
    assert told(folder)[0] == trials, "only the fit is left"
    run(folder, "predict", "people.inna", "people.csv", "-o", "resumed.csv")
    run(folder, "predict", "straight.inna", "people.csv", "-o", "straight.csv")
    assert (folder / "resumed.csv").read_bytes() == (folder / "straight.csv").read_bytes()


@pytest.fixture
def interrupted(monkeypatch):
    """The fits that no trial is end by Ctrl-C, once one more epoch than given has ended."""
    train, left = Training.run, [0]

    def run(self, until_epoch=None, *, shorten=False, **others):
        if not shorten:
            return train(self, until_epoch, **others)
        if left[0]:
            left[0] -= 1
            return train(self, until_epoch, shorten=shorten, **others)
        train(self, 1, **others)
        raise KeyboardInterrupt

    monkeypatch.setattr(Training, "run", run)
    return left


@pytest.mark.parametrize(
    ("words", "before"),
    [
        ((*FIT, "--no-ensemble"), 0),  # the best settings
        ((*FIT, "--no-ensemble"), 1),  # the untuned default beside them
        ((*FIT, "--timeout", "1000"), 0),  # the untuned default, which comes first then
        (FIT, 0),  # the ensemble is of the folds' nets, so that this is the default
        (("compare", *FIT[1:], "--optimizers", "adamw", "--fits", "2"), 0),
        (("compare", *FIT[1:], "--optimizers", "adamw", "--fits", "2"), 1),
        (("compare", *FIT[1:], "--optimizers", "adamw", "--fits", "2", "--no-ensemble"), 1),
    ],
)
def test_no_fit_of_a_search_swallows_it(words, before, folder, interrupted):  # noqa: F811
    interrupted[0] = before
    with contextlib.chdir(folder):
        done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 130, done.output
    assert "Resume with: " in done.stderr
    assert not (folder / "people.inna").exists()
    with contextlib.suppress(KeyError):
        assert not [name for name in told(folder)[1] if "held" in name]


@pytest.mark.parametrize("refit", [True, "ensemble"])
def test_a_search_raises_it_and_a_fit_alone_keeps_the_best(refit, folder, interrupted):  # noqa: F811
    import pandas as pd

    frame = pd.read_csv(folder / "people.csv")
    X, y = frame[["age", "job"]], frame["label"]
    net = InnaClassifier(hidden_layer_sizes=(4,), max_epochs=3, n_members=1, random_state=0)
    search = InnaSearchCV(net, n_trials=1, cv=2, refit=refit, random_state=0)
    with pytest.raises(KeyboardInterrupt):
        search.fit(X, y)
    assert len(search.study_.trials) == 1
    assert not hasattr(search, "best_estimator_")
    with pytest.raises(KeyboardInterrupt):
        EnsembleClassifier([net, net], random_state=0).fit(X, y)
    with pytest.warns(UserWarning, match="interrupted"):
        assert net.fit(X, y).predict(X).shape == (90,)


def test_where_there_are_no_trials_nothing_is_said_of_them(folder, monkeypatch):  # noqa: F811
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("inna_tune.tables.reading.read", interrupt)
    with contextlib.chdir(folder):
        done = CliRunner().invoke(app, ["columns", "people.csv"])
    assert (done.exit_code, done.stderr) == (130, "Interrupted.\n")


# Interrupts itself when it is about to import the module that its first word names.
IMPORTING = """
import os, signal, sys
name = sys.argv.pop(1)
class Finder:
    def find_spec(self, found, path=None, target=None):
        if found == name:
            print("interrupted", flush=True)
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
"""


@pytest.mark.parametrize(
    "module", ["inna_tune.cli.console", "rich.table", "optuna", "numpy", "pandas", "sklearn.utils", "torch"]
)
def test_ctrl_c_while_it_starts_is_one_line(module, folder):  # noqa: F811
    words = ("predict", "people.inna", "people.csv", "-o", "out.csv")
    with Program(IMPORTING + MAIN, module, *words, cwd=folder, env=environment(), loaded=()) as process:
        said, error = process.communicate()
    assert (process.returncode, said, error) == (130, "interrupted\n", "Interrupted.\n")


def test_ctrl_c_between_imports_is_one_line_too(folder):  # noqa: F811
    code = "import inna_tune.cli.program as program\ndef run():\n    raise KeyboardInterrupt\nprogram.run = run\n"
    with Program(code + MAIN, cwd=folder, env=environment()) as process:
        said, error = process.communicate()
    assert (process.returncode, said, error) == (130, "", "Interrupted.\n")


FULL = "os.dup2(os.open('/dev/full', os.O_WRONLY), {0})\n"
CLOSED = "os.close({0})\nsys.{1} = None\n"
BROKEN = "read, write = os.pipe()\nos.close(read)\nos.dup2(write, {0})\n"
OUT, ERR = (1, "stdout"), (2, "stderr")


@pytest.mark.parametrize(
    ("how", "code", "said"),
    [
        (FULL.format(*ERR), 0, ""),
        (FULL.format(*OUT), 2, "not all that was printed has arrived: No space left on device\n"),
        (CLOSED.format(*ERR) + CLOSED.format(*OUT), 0, ""),
        (BROKEN.format(*ERR) + BROKEN.format(*OUT), 1, ""),
    ],
    ids=["errors to a full disk", "results to a full disk", "both closed", "both to nobody"],
)
def test_a_search_does_not_end_since_nobody_reads_what_it_says(how, code, said, folder):  # noqa: F811
    with Program("import os, sys\n" + how + MAIN, *FIT, cwd=folder, env=environment()) as process:
        _, error = process.communicate()
    assert process.returncode == code, error
    assert error.endswith(said)
    assert "Traceback" not in error
    assert {state.name for *_, state in told(folder)[0]} == {"COMPLETE"}
    assert (folder / "people.inna").exists()


def test_predictions_that_do_not_arrive_are_no_success(folder):  # noqa: F811
    run(folder, *FIT)
    code = "import os, sys\n" + FULL.format(*OUT) + MAIN
    words = ("predict", "people.inna", "people.csv", "-o", "-")
    with Program(code, *words, cwd=folder, env=environment()) as process:
        _, error = process.communicate()
    assert (process.returncode, error.count("\n")) == (2, 1)
    assert "No space left" in error

"""Commands that are printed to be run again hold all that was given, whatever it is, and do the same."""

import contextlib
import re
import shlex
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

from inna_tune import InnaClassifier, clock
from inna_tune.cli import app
from inna_tune.cli.commands import command_line, more_trials
from inna_tune.jobs.joining import FitRequest
from tests.test_cli import folder, run  # noqa: F401

# For every option, something that is not its default and needs quoting or a guard where it is a text.
GIVEN = {
    "fit": {
        "table": "-my people.csv",
        "target": "the label",
        "drop": ["age"],
        "trials": 3,
        "timeout": 1234.5,
        "jobs": -1,
        "task": "binary",
        "storage": "sqlite:///my studies.db",
        "study": "--my study's",
        "resume": True,
        "prior": "shipped",
        "metric": "roc_auc",
        "cv": "members",
        "settings": ["hidden_layer_sizes=(4, 4)", "max_epochs=2"],
        "seed": 7,
        "verbose": True,
        "ensemble": True,
        "importances": False,
        "model": "-my model.inna",
        "force": True,
        "allow_mismatch": True,
        "as_json": True,
    },
    "compare": {
        "table": "-my people.csv",
        "target": "the label",
        "drop": ["age"],
        "optimizers": "adamw, sgd",
        "baselines": "",
        "trials": 3,
        "timeout": 1234.5,
        "task": "binary",
        "storage": "sqlite:///my studies.db",
        "study": "--my study's",
        "resume": True,
        "jobs": -1,
        "fits": 2,
        "ensemble": False,
        "settings": ["hidden_layer_sizes=(4, 4)", "max_epochs=2"],
        "seed": 7,
        "allow_mismatch": True,
        "as_json": True,
    },
    "worker": {
        "study": "--my study's",
        "table": "-my people.csv",
        "storage": "sqlite:///my studies.db",
        "target": "the label",
        "timeout": 1234.5,
        "allow_mismatch": True,
        "as_json": True,
    },
}
# What does the work of each, and is replaced by something that notes what it is asked for.
WORK = {
    "fit": "inna_tune.jobs.tuning.tune",
    "compare": "inna_tune.jobs.comparing.compare",
    "worker": "inna_tune.jobs.joining.join",
}
LATER = {"resume", "callbacks", "watch", "encoded"}  # given by every resume, or made anew


def parameters(name):
    return {each.name: each for each in typer.main.get_command(app).commands[name].params}


def words_of(name, given):
    """A command as a person types it, by the names and the order of its own parameters."""
    words = [name]
    for each in parameters(name).values():
        if each.name in given and each.param_type_name == "option":
            value = given[each.name]
            values = value if isinstance(value, list) else [value]
            flag = each.opts[0] if value is True else (each.secondary_opts or [""])[0]
            words += [flag if each.is_flag else f"{each.opts[0]}={value}" for value in values]
    return [*words, "--", *(given[n] for n, p in parameters(name).items() if p.param_type_name == "argument")]


@pytest.fixture
def place(folder):  # noqa: F811
    lines = (folder / "people.csv").read_text().replace("label", "the label", 1)
    (folder / "-my people.csv").write_text(lines)
    return folder


@pytest.fixture
def interrupted(monkeypatch):
    """The work of every command ends at once by Ctrl-C; what it was asked for is in the list."""
    asked = []
    for path in WORK.values():

        def work(problem, **options):
            asked.append({n: v for n, v in options.items() if n not in LATER} | {"task": problem.task})
            raise KeyboardInterrupt

        monkeypatch.setattr(path, work)
    job = FitRequest(n_trials=3, target="the label", task="binary", seed=0, held_out=0.2)
    monkeypatch.setattr("inna_tune.jobs.joining.read_job", lambda storage, study: job)
    monkeypatch.setattr("inna_tune.store.opening.open_storage", lambda storage, **options: storage)
    # The seconds of a budget that are left depend on the machine.
    monkeypatch.setattr(clock, "now", lambda: 0.0)
    return asked


def interrupt(place, words):
    with contextlib.chdir(place):
        done = CliRunner().invoke(app, words)
    assert done.exit_code == 130, done.output
    return re.search(r"Resume with: (.*)", done.stderr).group(1)


def test_every_command_that_can_be_resumed_is_tried():
    """One that asks for all of its options here, and so for those that are added."""
    for name, given in GIVEN.items():
        known = parameters(name)
        assert set(given) == {n for n in known if n != "help"}, name
        assert not {n for n, value in given.items() if value == known[n].default}, name
    commands = typer.main.get_command(app).commands
    resumable = {
        name for name, command in commands.items() if {"trials", "timeout"} & {p.name for p in command.params}
    }
    assert resumable == set(GIVEN)


@pytest.mark.parametrize("name", GIVEN)
def test_with_all_options_it_holds_all_options(name, place, interrupted):
    printed = interrupt(place, words_of(name, GIVEN[name]))
    words = shlex.split(printed)
    assert words[0] == "inna-tune"
    assert interrupt(place, words[1:]) == printed
    assert interrupted[0] == interrupted[1]
    flags = [
        p.secondary_opts[0] if GIVEN[name][p.name] is False else p.opts[0]
        for p in parameters(name).values()
        if p.name in GIVEN[name] and p.param_type_name == "option"
    ]
    assert all(any(word.partition("=")[0] == flag for word in words) for flag in flags)


@pytest.mark.parametrize(("name", "option"), [(n, o) for n, given in GIVEN.items() for o in given])
def test_with_one_option_it_holds_that_option(name, option, place, interrupted):
    needed = {"table", "study", "target"} if name == "worker" else {"table", "target"}
    given = {n: v for n, v in GIVEN[name].items() if n in needed | {option}}
    printed = interrupt(place, words_of(name, given))
    assert interrupt(place, shlex.split(printed)[1:]) == printed
    assert interrupted[0] == interrupted[1]


def test_what_stands_before_the_command_is_kept(place, interrupted):
    printed = interrupt(place, ["--debug", "fit", "people.csv", "--target", "label"])
    assert printed == "inna-tune --debug fit people.csv --target label --study people --resume"


def test_a_password_is_not_printed(place, monkeypatch):
    storage = "postgresql+psycopg://me:secret@server/studies"
    assert "secret" not in command_line("report", study="people", storage=storage)


def test_a_command_holds_no_more_than_it_takes():
    assert command_line("report", study="-a b") == "inna-tune report -- '-a b'"
    assert (
        command_line("studies", "import", file="x.db", rename="-y") == "inna-tune studies import x.db --as=-y"
    )
    with pytest.raises(TypeError, match=r"has no parameters \['speed'\]"):
        command_line("report", study="a", speed=1)


def test_what_is_left_is_asked_for_before_more():
    assert more_trials(5, [{"complete": 3, "pruned": 1, "fail": 1}]) == 10
    assert more_trials(5, [{"complete": 5}, {"complete": 3, "running": 2}]) == 5


@pytest.fixture
def small(monkeypatch):
    for name, value in {"hidden_layer_sizes": (4,), "n_members": 1, "max_epochs": 2}.items():
        monkeypatch.setitem(InnaClassifier.__init__.__kwdefaults__, name, value)


@pytest.mark.parametrize("name", ["fit", "compare"])
def test_what_is_printed_at_the_end_holds_all_options_and_runs(name, place, small):
    given = GIVEN[name] | {"trials": 1, "jobs": 1, "as_json": False, "resume": False, "optimizers": "adamw"}
    given = {n: v for n, v in given.items() if n in GIVEN[name] and v not in (False, 1)} | {"trials": 1}
    given.pop("cv", None)  # too few of its rows differ; tests/cli/test_members.py goes on with such a study
    first = run(place, *words_of(name, given)).stdout
    printed = re.search(r"Resume: +(.*)", first).group(1)
    assert all(p.opts[0] in printed for n, p in parameters(name).items() if n in given and n != "table")
    again = run(place, *shlex.split(printed)[1:]).stdout
    assert re.search(r"Resume: +(.*)", again).group(1) == printed.replace("--trials 2", "--trials 4")
    for label in ("Report", "Predict"):
        for shown in re.findall(rf"{label}: +(inna-tune.*)", again):
            run(place, *shlex.split(shown.replace("NEW_TABLE", "'./-my people.csv'"))[1:])


def test_a_worker_says_how_to_go_on_only_where_something_is_left(place, monkeypatch):
    job = FitRequest(n_trials=3, target="label", task="binary", seed=0, held_out=0.2)
    monkeypatch.setattr("inna_tune.jobs.joining.read_job", lambda storage, study: job)
    monkeypatch.setattr("inna_tune.store.opening.open_storage", lambda storage, **options: storage)
    for left in (0, 2):
        after = SimpleNamespace(left_to_do=left)
        monkeypatch.setattr(WORK["worker"], lambda problem, after=after, **options: (after, after))
        said = run(place, "worker", "people", "people.csv", "--timeout", "5").stdout
        assert ("Resume: inna-tune worker people people.csv --timeout 5" in said) == bool(left)

"""What scripts rely on: one JSON object on standard output, exit codes, no colours and no noise in a pipe."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from inna_tune import cli
from tests.test_cli import MAIN, SMALL, command, environment, folder, run  # noqa: F401
from tests.warm import Program


def of_json(folder, *words):  # noqa: F811
    done = run(folder, *words, "--json")
    return json.loads(done.stdout), done


def refuse(constant):
    raise AssertionError(f"{constant} is no JSON")


def test_every_command_that_prints_results_prints_them_as_json(folder):  # noqa: F811
    fitted, done = of_json(folder, "fit", "people.csv", "--target", "label", "--trials", "3", *SMALL)
    assert "Task: binary" in done.stderr
    assert fitted["study"] == "people"
    assert fitted["trials"]["complete"] + fitted["trials"]["pruned"] == 3
    assert set(fitted["held_out"]) == {"baseline", "untuned default", "tuned"}
    assert fitted["held_out"]["tuned"]["log-loss"] > 0
    change = fitted["change"]
    # The untuned settings gain nothing over themselves.
    assert (change is None) == (set(fitted["ensemble"]["weights"]) == {"0"})
    assert change is None or change["low"] <= change["change"] <= change["high"]
    assert fitted["best"]["settings"]["alpha"] > 0
    assert "effective step" in fitted["best"]["words"]
    assert fitted["model"] == "people.inna"
    run(folder, *fitted["commands"]["report"].split()[1:])

    predicted, _ = of_json(folder, "predict", "people.inna", "people.csv", "-o", "out.csv")
    assert predicted["predictions"] == len(pd.read_csv(folder / "out.csv")) == 90
    listed, _ = of_json(folder, "studies")
    assert [row["name"] for row in listed["studies"]] == ["people"]
    assert listed["studies"][0]["best"] == pytest.approx(fitted["best"]["log-loss"])
    shown, _ = of_json(folder, "show", "people", "--best", "1")
    assert shown["best"][0]["score"] == pytest.approx(fitted["best"]["log-loss"])
    assert shown["best"][0]["settings"] == fitted["best"]["settings"]
    assert of_json(folder, "report", "people")[0] == {"study": "people", "report": "people.html"}
    learned, _ = of_json(folder, "prior", "learn", "people", "-o", "prior.json")
    assert learned["prior"] == "prior.json"
    assert of_json(folder, "prior", "show", "prior.json")[0]["space"] == learned["space"]
    machine, _ = of_json(folder, "bug-report")
    assert {"inna-tune", "torch", "optuna", "SQLite"} <= set(machine["versions"])
    assert "threadpoolctl" in machine["scikit-learn"]
    assert "Is CUDA available" in machine["torch"]


def test_an_ensemble_is_a_model_file_as_any(folder):  # noqa: F811
    words = (
        "fit",
        "people.csv",
        "--target",
        "label",
        "--trials",
        "3",
        "--study",
        "mean",
        "--ensemble",
        *SMALL,
    )
    fitted, _ = of_json(folder, *words)
    weights = fitted["ensemble"]["weights"]
    assert sum(weights.values()) == pytest.approx(1)
    predicted, _ = of_json(folder, "predict", "mean.inna", "people.csv", "-o", "mean.csv")
    assert predicted["predictions"] == 90
    shown, _ = of_json(folder, "show", "mean")
    assert {str(row["number"]): row["weight"] for row in shown["best"] if row["weight"]} == weights
    assert shown["ensemble"]["score"] == pytest.approx(-fitted["ensemble"]["value"])
    again = run(folder, *fitted["commands"]["resume"].split()[1:-1]).stdout
    assert "(an ensemble of the " in again
    assert "--ensemble" in again
    assert "ensemble" in run(folder, "show", "mean").stdout


def test_a_comparison_as_json_and_as_a_table(folder):  # noqa: F811
    words = (
        "compare",
        "people.csv",
        "--target",
        "label",
        "--optimizers",
        "inna,adamw",
        "--trials",
        "2",
        *SMALL,
    )
    found, done = of_json(folder, *words, "--fits", "3")
    assert "trial 2/2" in done.stderr
    assert [c["name"] for c in found["contenders"]] == ["inna", "adamw", "hgb", "inna-ensemble", "constant"]
    assert found["contenders"][1]["study"] == "people-adamw"
    assert found["contenders"][1]["against"]["low"] < found["contenders"][1]["against"]["high"]
    assert found["contenders"][2]["trials"]["complete"] == 2
    resume = found["commands"]["resume"].split()[1:]
    assert "studies named 'people-adamw', 'people-hgb', 'people-inna'" in run(folder, *words, code=2).stderr
    assert resume[-1] == "--json"
    again = run(folder, *resume[:-1], "--trials", "2", "--fits", "1", "--baselines", "").stdout
    assert "18 held-out rows; each tuned by 2 trials" in again
    assert "inna against it" in again
    assert "hgb" not in again
    assert found["verdict"][0].startswith("The held-out log-loss of inna")


def test_what_is_not_finite_is_null(capsys):
    cli.console.print_json(
        {"a": [float("nan"), float("inf"), 1.5], 3: "[bold]:smile:\ud800", "c": (True, None)}
    )
    found = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert found == {"a": [None, None, 1.5], "3": "[bold]:smile:?", "c": [True, None]}


@pytest.fixture
def broken(monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("the sky\nfell")

    monkeypatch.setattr("inna_tune.records.overview.list_studies", fail)


def test_the_unexpected_is_one_line_and_code_1(folder, broken):  # noqa: F811
    done = run(folder, "studies", code=1)
    assert done.stderr.count("\n") == 1
    assert "unexpected RuntimeError: the sky fell" in done.stderr
    assert "bug-report" in done.stderr
    with pytest.raises(RuntimeError):
        run(folder, "--debug", "studies")


def test_nets_that_no_memory_holds_are_wrong_input(folder):  # noqa: F811
    words = ["fit", "people.csv", "--target", "label", "--trials", "1", "--set", "n_members=1"]
    done = run(folder, *words, "--set", "hidden_layer_sizes=999999999", code=2)
    assert "hidden_layer_sizes=999999999: training takes about" in done.stderr
    assert "than 999999999" in done.stderr


def test_a_pipe_gets_results_without_colours_and_debug_may_stand_anywhere(folder):  # noqa: F811
    def go(*words):
        with Program(MAIN, *words, cwd=folder, env=environment()) as program:
            return *program.communicate(), program.wait()

    _, said, code = go("show", "nobody", "--debug")
    assert code == 1
    assert "Traceback" in said
    version = subprocess.run(
        command("--version"), cwd=folder, env=environment(), capture_output=True, text=True
    )  # as a person starts it
    assert (version.returncode, version.stderr) == (0, "")
    machine, said, code = go("bug-report")
    assert code == 0
    assert said == ""
    assert "\x1b" not in machine
    assert "threadpoolctl" in machine
    assert "Is CUDA available" in machine
    for place in (folder, sys.executable, sys.prefix, Path.home()):
        assert str(place) not in machine

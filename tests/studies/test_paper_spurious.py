"""The study of spurious points: its examples are what it says, its counts count, its files are written and agree."""

import importlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

FOLDER = Path(__file__).parents[2] / "studies" / "paper"
NAMES = ("rectifiers", "one-weight net", "absolute values")


@pytest.fixture
def spurious(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("spurious")


@pytest.mark.parametrize("name", NAMES)
def test_the_batches_add_up_to_the_smooth_sum_smallest_at_the_minimum(spurious, name):
    example = spurious.EXAMPLES[name]
    grid = torch.linspace(-3, 3, 601, dtype=torch.float64)
    torch.testing.assert_close(sum(example.batches(grid)), example.sum(grid))
    assert grid[example.sum(grid).argmin()].item() == pytest.approx(example.minimum, abs=1e-9)


def test_backpropagation_says_zero_at_the_traps_alone(spurious):
    table = spurious.slopes().set_index("example")
    assert table["norm of the true slope at 0"].to_dict() == dict(zip(NAMES, (1, 2, 1), strict=True))
    assert table["stationarity at 0"].to_dict() == dict(zip(NAMES, (0, 0, 1), strict=True))
    assert (table["stationarity at 1e-30"] == table["norm of the true slope at 1e-30"]).all()


def test_descent_that_lands_on_the_point_stays_and_inertia_carries_inna_over_it(spurious):
    example, start = spurious.EXAMPLES["one-weight net"], torch.tensor([-1.0])
    descent = spurious.run(example, spurious.OPTIMIZERS["gradient descent (step 1/4)"], start, 200)
    inna = spurious.run(example, spurious.OPTIMIZERS["INNA (γ 0.5, α 1, β 0.5)"], start, 200)
    assert descent[1:].eq(0).all()
    assert inna[1].item() == 0.0
    assert spurious.counted(inna, 1.0) == {"runs": 1, "crossed": 1, "ended": 0, "at the minimum": 1}
    assert spurious.counted(descent, 1.0) == {"runs": 1, "crossed": 0, "ended": 1, "at the minimum": 0}


def test_every_run_of_the_results_is_at_the_spurious_point_or_the_minimum(spurious):
    results = pd.read_csv(FOLDER / "spurious.csv")
    cells = len(spurious.EXAMPLES) * len(spurious.OPTIMIZERS) * len(spurious.STARTS)
    assert len(results) == cells
    assert (results["ended"] + results["at the minimum"] == results["runs"]).all()


def test_the_script_writes_its_files(spurious, tmp_path, monkeypatch):
    out = tmp_path / "small.csv"
    monkeypatch.setattr("sys.argv", ["spurious.py", "--runs", "4", "--nets", "2", "--out", str(out)])
    monkeypatch.setattr(spurious, "N_STEPS", 20)
    spurious.main()
    assert set(pd.read_csv(out).runs) == {1, 4, 33}
    kinks = pd.read_csv(tmp_path / "small_nets.csv")
    assert np.array_equal(kinks["activations seen"], 2 * [2 * 20 * 5 * 8])
    assert out.with_suffix(".png").stat().st_size > 0
    assert out.with_suffix(".md").read_text().count("\n| ") > len(pd.read_csv(out))


def test_the_paragraph_says_what_the_files_say():
    text = " ".join((FOLDER / "README.md").read_text().split())
    ends = pd.read_csv(FOLDER / "spurious.csv")
    kinks = pd.read_csv(FOLDER / "spurious_nets.csv").set_index("precision")
    inna = ends.optimizer.str.startswith("INNA")
    double, half = ends.starts == "normal, float64", ends.starts == "normal, bfloat16"

    def share(rows):
        return f"{rows.ended.sum()} of {rows.runs.sum():,}"

    assert f"never ended there: {share(ends[inna & double])} runs" in text
    assert f"it was {share(ends[inna & half])} too" in text
    assert f"although {ends[inna & half].crossed.sum()} of the runs stood on the point" in text
    descent = ends[~inna & half]
    assert f"stayed in {descent.ended.sum()} of its {descent.runs.sum():,} in" in text
    at_end = kinks["nets with an exact kink at the end"]
    assert f"Of {kinks.nets.iloc[0]} rectifier nets" in text
    assert at_end["float32"] == 0
    assert f"in bfloat16 {at_end['bfloat16']} had one" in text
    losses = kinks["median loss at the end"]
    assert losses.max() / losses.min() < 1.03
    stuck = ends[ends.starts == "zero, float32"].groupby("example").ended.sum()
    assert stuck.to_dict() == {"rectifiers": 4, "one-weight net": 4, "absolute values": 0}

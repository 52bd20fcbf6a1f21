"""The study of costs: the memory it counts is what the optimizers are known to keep, its files are written."""

import importlib
from pathlib import Path

import pandas as pd
import pytest
import torch

FOLDER = Path(__file__).parents[2] / "studies" / "paper"
TENSORS = {
    "SGD": 0,
    "SGD, momentum": 1,
    "INNA": 1,
    "ADAGRAD": 1,
    "ADAM": 2,
    "AdamW": 2,
    "INNAprop": 2,
}


@pytest.fixture
def cost(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("cost")


@pytest.mark.parametrize("name", TENSORS)
def test_state_is_counted(cost, name):
    weight = torch.nn.Parameter(torch.ones(6, 5))
    optimizer = cost.METHODS[name]([weight])
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert cost.state_bytes(optimizer) == 4 * 30 * TENSORS[name]


def test_the_nets_are_those_meant(cost):
    net, x = cost.lenet()
    assert sum(p.numel() for p in net.parameters()) == 61_706
    assert net(x).shape == (32, 10)


def test_the_script_writes_its_files_and_draws_them_again(cost, tmp_path, monkeypatch):
    out = tmp_path / "small.csv"
    monkeypatch.setattr(cost, "NETS", {"LeNet": cost.lenet})
    monkeypatch.setattr("sys.argv", ["cost.py", "--rounds", "1", "--repeats", "1", "--out", str(out)])
    cost.main()
    found = pd.read_csv(out).set_index("method")
    assert found.state_bytes_a_weight.to_dict() == {name: 4 * n for name, n in TENSORS.items()}
    assert (found.step_us > 0).all()
    assert found.training_step_ratio["SGD, momentum"] == 1
    table = out.with_suffix(".md").read_text()
    out.with_suffix(".md").unlink()
    monkeypatch.setattr("sys.argv", ["cost.py", "--draw", "--out", str(out)])
    cost.main()
    assert out.with_suffix(".md").read_text() == table
    assert out.with_suffix(".png").stat().st_size > 0

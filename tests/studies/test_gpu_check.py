"""The script for a machine with a GPU runs to its end where there is none, at small sizes."""

import importlib.util
from pathlib import Path

import pytest
import torch

FILE = Path(__file__).parents[2] / "studies" / "gpu" / "check.py"


@pytest.fixture
def check(monkeypatch):
    monkeypatch.syspath_prepend(FILE.parent)
    spec = importlib.util.spec_from_file_location("gpu_check", FILE)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(__import__("sys").modules, "gpu_check", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return module


def test_all_of_it_runs_dry(check, tmp_path):
    precision = torch.backends.cuda.matmul.fp32_precision
    assert check.main(["--dry", "--out", str(tmp_path / "found.md")]) == 0
    text = (tmp_path / "found.md").read_text()
    assert "Failed" not in text
    assert "not on a GPU" in text
    for part in check.Check.PARTS:
        assert f"## {part}\n\n| " in text
    for compared in ("AdamW, fused", "skorch", "tf32", "no graph", "collected", "float64", "peak MiB"):
        assert compared in text, compared
    assert torch.backends.cuda.matmul.fp32_precision == precision


def test_no_file_with_tests_for_a_gpu_is_forgotten(check):
    tests = FILE.parents[2] / "tests"
    marked = {
        str(file.relative_to(tests.parent))
        for file in tests.rglob("test_*.py")
        if "mark.gpu" in file.read_text()
    } - {str(Path(__file__).relative_to(tests.parent))}
    assert set(check.GPU_TESTS) == marked


def test_a_part_that_fails_is_told_and_the_others_go_on(check, tmp_path, monkeypatch):
    def failing(_):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(check.Check, "PARTS", {"One": failing, "Two": lambda _: [{"a": 1.0}]})
    assert check.main(["--dry", "--out", str(tmp_path / "found.md")]) == 1
    text = (tmp_path / "found.md").read_text()
    assert text.index("out of luck") < text.index("| 1 |")


def test_without_a_gpu_it_says_so_and_overwrites_no_results(check, capsys):
    for words, told in (([], "torch sees no CUDA device here"), (["--dry"], "say with --out")):
        with pytest.raises(SystemExit):
            check.main(words)
        assert told in capsys.readouterr().err


def test_weights_that_differ_from_those_of_the_cpu_are_a_failure(check, monkeypatch):
    monkeypatch.setattr(check, "TOLERANCES", {"float32": -1.0})
    with pytest.raises(RuntimeError, match="otherwise than the CPU"):
        check.Check(torch.device("cpu"), check.SMALL, None, dry=True).equality()

"""The examples that put INNA into other people's training loops run, and learn."""

import importlib.util
import warnings
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(
    ("name", "least"),
    [("skorch_own_loop", 0.9), ("lightning_own_loop", 0.2)],
)
def test_example_learns(name, least, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        # What these libraries warn of is theirs to mend.
        warnings.simplefilter("ignore")
        spec.loader.exec_module(module)
        assert module.main() > least
    assert not list(tmp_path.iterdir()), "an example leaves nothing behind"

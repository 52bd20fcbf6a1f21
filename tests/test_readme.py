"""What the README says is so: its figures are those of the files, its code runs."""

import re
from pathlib import Path

import pytest

from inna_tune import InnaClassifier

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", ["results/main_job", "results/splits", "paper/lenet"])
def test_its_tables_are_those_the_studies_wrote(name):
    assert (ROOT / f"studies/{name}.md").read_text() in README


def test_its_pictures_are_there():
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)
    assert pictures
    for path in pictures:
        assert (ROOT / path).stat().st_size > 0


@pytest.mark.parametrize("number", range(len(re.findall(r"^```python$", README, re.MULTILINE))))
def test_its_code_runs(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # What it prints stands nowhere, so that a small net shows as well that it runs.
    for name, value in {"hidden_layer_sizes": (8,), "max_epochs": 5}.items():
        monkeypatch.setitem(InnaClassifier.__init__.__kwdefaults__, name, value)
    code = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)[number]
    exec(compile(code, f"README.md, block {number}", "exec"), {"__name__": "readme"})


def test_there_are_two_commands():
    commands = re.findall(r"^```bash install\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert len(commands) == 2
    assert "inna-tune fit" in commands[0]
    assert commands[1].strip().endswith("pytest")

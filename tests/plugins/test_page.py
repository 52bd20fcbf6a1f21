"""The code of the page about other frameworks runs, each block where its framework is installed."""

import re
from pathlib import Path

import pytest

from tests.plugins.frameworks import FRAMEWORKS, need

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "automl.md"
BLOCKS = {}
for code in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL):
    [needed] = [name for name in FRAMEWORKS if re.search(rf"^(?:from|import) {name}\b", code, re.MULTILINE)]
    BLOCKS[needed] = code


def test_every_framework_has_its_section():
    text = PAGE.read_text()
    for name in FRAMEWORKS:
        assert f"inna-tune[{name}]" in text
    assert BLOCKS.keys() == {"autogluon", "flaml", "ray"}


@pytest.mark.parametrize("name", sorted(BLOCKS))
def test_its_code_runs(name, tmp_path, monkeypatch):
    need(name)
    monkeypatch.chdir(tmp_path)
    exec(compile(BLOCKS[name], f"automl.md, {name}", "exec"), {"__name__": "documentation"})

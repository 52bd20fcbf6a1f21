"""What is required is there, and what is not there is said."""

import tomllib
from pathlib import Path

import pytest

from tests.plugins.frameworks import FRAMEWORKS, is_installed, need, required
from tests.warm import Program

ROOT = Path(__file__).parents[2]


def test_what_is_required_is_installed():
    assert required() <= FRAMEWORKS.keys()
    assert all(is_installed(name) for name in required())


def test_each_framework_is_an_extra():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for name, (_, requirement) in FRAMEWORKS.items():
        [found] = extras[name]
        assert found.startswith(f"{requirement}>=")


def test_a_missing_framework_skips_with_a_remedy_or_fails(monkeypatch):
    monkeypatch.setitem(FRAMEWORKS, "ray", ("no_such_module.tune", "ray[tune]"))
    monkeypatch.setenv("INNA_TUNE_FRAMEWORKS", "")
    with pytest.raises(pytest.skip.Exception, match=r"pip install 'inna-tune\[ray\]'"):
        need("ray")
    monkeypatch.setenv("INNA_TUNE_FRAMEWORKS", "flaml,ray")
    with pytest.raises(RuntimeError, match="requires ray"):
        need("ray")


def test_the_package_imports_no_framework():
    names = sorted({module.partition(".")[0] for module, _ in FRAMEWORKS.values()})
    code = (
        "import sys, inna_tune, inna_tune.plugins, inna_tune.plugins.ranges, inna_tune.study, inna_tune.cli\n"
        f"print([name for name in {names} if name in sys.modules])"
    )
    with Program(code) as program:
        printed, said = program.communicate()
    assert printed == "[]\n", said

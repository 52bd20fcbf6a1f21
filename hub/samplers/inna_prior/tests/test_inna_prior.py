"""The package as OptunaHub loads it: Optuna's own contract for samplers, and priors that count."""

import math
import runpy
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.testing.pytest_samplers import BasicSamplerTestCase, RelativeSamplerTestCase

optunahub = pytest.importorskip(
    "optunahub", reason="optunahub is not installed: pip install 'inna-tune[optunahub]'"
)

ROOT = Path(__file__).parents[3]
PACKAGE = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def module():
    return optunahub.load_local_module("samplers/inna_prior", registry_root=str(ROOT))


class TestContract(BasicSamplerTestCase, RelativeSamplerTestCase):
    @pytest.fixture
    def sampler(self, module) -> Callable[[], optuna.samplers.BaseSampler]:
        space = module.SearchSpace({"lr": module.LogUniform(0.01, 1.0)})
        return lambda: module.PriorSampler(optuna.samplers.TPESampler(n_startup_trials=0), space)


def test_it_begins_where_the_prior_is(module):
    def median(sampler):
        study = optuna.create_study(sampler=sampler)
        return sorted(math.log10(space.suggest(study.ask())["lr"]) for _ in range(21))[10]

    space = module.SearchSpace({"lr": module.LogNormal(1e-3, 0.2, low=1e-6, high=1e3)})
    flat = optuna.samplers.RandomSampler(seed=0)
    assert median(module.PriorSampler(flat, space, seed=0)) == pytest.approx(-3, abs=0.2)
    assert median(flat) > -2.5


def test_all_names_are_there(module):
    assert all(getattr(module, name).__doc__ for name in module.__all__)


def test_the_example_runs(monkeypatch):
    monkeypatch.chdir(ROOT.parent)
    names = runpy.run_path(str(PACKAGE / "example.py"))
    assert len(names["study"].trials) == 30
    assert names["study"].best_value < 1


def test_the_readme_has_what_the_registry_asks_for():
    _, front, text = (PACKAGE / "README.md").read_text().split("---\n", 2)
    keys = dict(line.split(": ", 1) for line in front.splitlines())
    assert keys.keys() == {"author", "title", "description", "tags", "optuna_versions", "license"}
    assert "sampler" in keys["tags"]
    assert keys["license"] == "MIT License"
    for heading in ("Abstract", "Class or Function Names", "Installation", "Example"):
        assert f"\n## {heading}\n" in text
    assert {path.name for path in PACKAGE.iterdir()} >= {
        "LICENSE",
        "__init__.py",
        "example.py",
        "requirements.txt",
    }


def test_the_readmes_code_runs(monkeypatch, module):
    monkeypatch.setattr(optunahub, "load_module", lambda package: module)
    code = (PACKAGE / "README.md").read_text().split("```python\n")[1].split("```")[0]
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    assert len(names["study"].trials) == 30

"""Who wants to silence one warning, or to raise it, can: each has a class of its own."""

import ast
from pathlib import Path

import pytest

import inna_tune
from tests.warm import OTHERS, Program

ROOT = Path(inna_tune.__file__).parent
GENERAL = {"Warning", "UserWarning", "RuntimeWarning", "FutureWarning"}


def warn_calls():
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {"warnings.warn", "warn"}:
                yield pytest.param(node, id=f"{path.relative_to(ROOT)}:{node.lineno}")


@pytest.mark.parametrize("call", list(warn_calls()))
def test_a_warning_has_a_class_of_its_own_and_points_at_the_caller(call):
    category = call.args[1] if len(call.args) > 1 else None
    named = {k.arg: k.value for k in call.keywords}
    category = named.get("category", category)
    assert category is not None
    assert ast.unparse(category).endswith("Warning")
    assert ast.unparse(category) not in GENERAL
    assert "stacklevel" in named


def test_they_are_found():
    assert len(list(warn_calls())) >= 8


def test_importing_everything_changes_no_filter():
    code = (
        "import warnings, torch, sklearn.pipeline, pandas, optuna, skrub, matplotlib.figure; "
        "before = warnings.filters[:]; import inna_tune.cli, inna_tune.report, inna_tune.jobs.comparing, inna_tune.plots; "
        "print(before == warnings.filters)"
    )
    with Program(code, loaded=OTHERS) as program:
        assert program.communicate()[0] == "True\n"

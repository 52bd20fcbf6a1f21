"""The floors of the house: imports run only downwards, and the lower rooms are usable alone."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
import torch.utils._device

import inna_tune
from tests.warm import Program

ROOT = Path(inna_tune.__file__).parent
FLOORS = {
    "files": -1,
    "clock": -1,
    "visible": -1,
    "strangers_json": -1,
    "optim": 0,
    "nets": 0,
    "store": 0,
    "engine": 1,
    "space": 1,
    "estimators": 2,
}
FLOORS |= {
    "tables": 3,
    "records": 3,
    "loggers": 3,
    "study": 4,
    "jobs": 5,
    "plots": 6,
    "report": 7,
    "cli": 8,
    "plugins": 8,
}
KNOWS = {  # of what lies below
    "space": {"optim"},
    "engine": {"nets", "optim"},
    "store": set(),
    "records": {"optim", "space", "store"},
    "tables": {"estimators"},
    "loggers": {"estimators"},
    "plugins": {"estimators", "optim", "space"},
}
FILES = sorted(p for p in ROOT.rglob("*.py") if p.parent != ROOT)


def imported_rooms(tree):
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "inna_tune" and len(parts) > 1:
                yield parts[1]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_down_the_floors(path):
    here = path.relative_to(ROOT).parts[0].removesuffix(".py")
    for room in imported_rooms(ast.parse(path.read_text())):
        allowed = room == here or FLOORS[room] < FLOORS[here]
        assert allowed, f"{here} imports {room}"
        assert here not in KNOWS or room in KNOWS[here] | {
            here,
            "files",
            "clock",
            "visible",
            "strangers_json",
        }, f"{here} imports {room}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_is_one_idea(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 500, f"{len(lines)} lines"
    if path.parent.name != "cli":
        assert not any(re.match(r"\s*print\(", line) for line in lines)


def of_a_process(code, *, loaded):
    """What code prints in a process that has these modules and no other but Python's."""
    with Program(code, loaded=loaded) as program:
        printed, said = program.communicate()
    assert program.returncode == 0, said
    return printed.strip()


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [
        ("optim", ["pandas", "sklearn", "optuna", "inna_tune.space", "inna_tune.engine"]),
        ("space", ["pandas", "sklearn", "inna_tune.engine", "inna_tune.estimators"]),
        ("nets", ["pandas", "sklearn", "optuna"]),
        ("engine", ["pandas", "sklearn", "optuna"]),
        ("store", ["torch", "pandas", "sklearn"]),
    ],
)
def test_a_room_does_not_load_what_it_does_not_know(room, forbidden):
    names = [f"inna_tune.{room}.{file.stem}" for file in (ROOT / room).glob("[a-z]*.py")]
    code = f"import sys, inna_tune.{room}, {', '.join(names)}; print([m for m in {forbidden!r} if m in sys.modules])"
    assert of_a_process(code, loaded=() if "torch" in forbidden else ("torch",)) == "[]"


def _imported_modules(tree, own, modules):
    """Modules of the package that a file imports, wherever in it; what only type checkers read is no import."""
    if isinstance(tree, ast.If) and ast.unparse(tree.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
        for child in tree.orelse:
            yield from _imported_modules(child, own, modules)
        return
    if isinstance(tree, ast.Import):
        yield from (alias.name for alias in tree.names)
    elif isinstance(tree, ast.ImportFrom):
        base = tree.module or ""
        if tree.level:
            base = ".".join([*own.split(".")[: -tree.level], *filter(None, [tree.module])])
        for alias in tree.names:
            yield f"{base}.{alias.name}" if f"{base}.{alias.name}" in modules else base
    for child in ast.iter_child_nodes(tree):
        yield from _imported_modules(child, own, modules)


def _find_circle(sources):
    """One circle among modules, given as name -> source; empty if there is none. A package counts as its __init__."""
    graph = {
        name: {m for m in _imported_modules(ast.parse(text), name, sources) if m in sources and m != name}
        for name, text in sources.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def _package_sources():
    names = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        names[".".join(parts).removesuffix(".__init__")] = path.read_text()
    return names


def test_no_modules_import_each_other():
    circle = _find_circle(_package_sources())
    assert not circle, " imports ".join(reversed(circle))


@pytest.mark.parametrize(
    ("a", "b", "found"),
    [
        ("import p.b", "import p.a", True),
        ("from p import b", "def f():\n    from p.a import x", True),
        ("from p.b import x", "if y:\n    from p import a", True),
        ("import p.b", "if TYPE_CHECKING:\n    from p.a import x", False),
        ("import p.b", "import other.a", False),
    ],
)
def test_a_circle_is_found_wherever_an_import_stands(a, b, found):
    assert bool(_find_circle({"p": "", "p.a": a, "p.b": b})) is found


def test_every_file_that_contributing_names_is_there():
    root = ROOT.parent
    named = re.findall(
        r"`((?:inna_tune|tests|studies|examples|docs)/[\w./-]*)`", (root / "CONTRIBUTING.md").read_text()
    )
    assert len(named) > 30
    assert not [name for name in named if not (root / name).exists()]


def test_public_names_are_there():
    for name in inna_tune.__all__:
        assert getattr(inna_tune, name).__doc__
    assert set(inna_tune.__all__) <= set(dir(inna_tune))
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        inna_tune.Nonsense  # noqa: B018


@pytest.mark.parametrize("kind", ["INNA", "INNAprop"])
def test_a_step_does_not_load_the_compiler(kind):
    """Which torch's own optimizers do: a second or two of the first fit of a process."""
    code = (
        f"import sys, torch; from inna_tune.optim import {kind}\n"
        "weight = torch.nn.Parameter(torch.ones(3))\n"
        f"optimizer = {kind}([weight])\n"
        "weight.grad = torch.ones(3)\n"
        "optimizer.step()\n"
        "print([m for m in ('torch._dynamo', 'sympy') if m in sys.modules], weight[0].item() < 1)"
    )
    assert of_a_process(code, loaded=("torch",)) == "[] True"


def test_a_fit_does_not_load_what_takes_longer_than_a_small_one():
    code = (
        "import sys; import numpy as np; from inna_tune import InnaClassifier\n"
        "from inna_tune.optim.optimizers import OPTIMIZERS\n"
        "X = np.random.default_rng(0).normal(size=(40, 2))\n"
        "net = InnaClassifier(hidden_layer_sizes=(4,), n_members=2, max_epochs=2)\n"
        "for embedding, optimizer in [('piecewise', 'inna'), *(('periodic', name) for name in OPTIMIZERS)]:\n"
        "    net.set_params(numeric_embedding=embedding, optimizer=optimizer).fit(X, X[:, 0] > 0)\n"
        "    loaded = [m for m in ('torch._dynamo', 'sympy') if m in sys.modules]\n"
        "    assert not loaded, (embedding, optimizer, loaded)\n"
        "print(len(net.members_))"
    )
    assert of_a_process(code, loaded=("torch",)) == "2"


def test_closed_forms_laws_and_words_do_without_torch():
    code = (
        "import sys; from inna_tune.optim import DECAY_LAWS, decay_factor, describe_settings, is_stable, pure_numbers\n"
        "describe_settings(0.1, 0.5, 0.1, 10.0); [decay_factor(law, 1.0, horizon=2.0) for law in DECAY_LAWS]\n"
        "print('torch' in sys.modules)"
    )
    assert of_a_process(code, loaded=()) == "False"


FACTORIES = {function.__name__ for function in torch.utils._device._device_constructors()}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_tensor_is_made_on_the_device_that_torch_has_by_default(path):
    # A person may have set it, to one where our other tensors are not.
    calls = [
        f"{node.lineno}: torch.{node.func.attr}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and ast.unparse(node.func.value) == "torch"
        and node.func.attr in FACTORIES
        and not any(keyword.arg == "device" for keyword in node.keywords)
    ]
    assert not calls, "say device="

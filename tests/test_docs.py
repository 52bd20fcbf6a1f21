"""The documentation builds without a warning, needs no network to read, names all that is public, and its code runs."""

import re
import shlex
import sys
from importlib import import_module
from pathlib import Path

import matplotlib as mpl
import pytest
from sphinx.util.inventory import InventoryFile
from typer.main import get_command

import inna_tune
from inna_tune.cli import app
from tests.browser import Browser, overflow
from tests.warm import Program

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
ROOMS = ("optim", "space", "nets", "engine", "estimators", "study", "plots", "report", "loggers")


def blocks(path, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL)


def name_of(path):
    return str(path.relative_to(ROOT))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    words = ["-W", "--keep-going", "-q", "-E", "-b", "html", "-d", folder / "doctrees", DOCS, folder / "html"]
    with Program(
        "import sys; from sphinx.cmd.build import main; sys.exit(main(sys.argv[1:]))", *words
    ) as build:
        _, said = build.communicate()
    assert build.returncode == 0, said
    assert len(list((folder / "html").rglob("*.html"))) > len(PAGES)
    assert list((folder / "html").rglob("*.css"))
    assert not said
    return folder / "html"


def test_every_public_name_is_in_the_reference(site):
    inventory = InventoryFile.loads((site / "objects.inv").read_bytes(), uri="")
    there = {name for kind in inventory.data if kind.startswith("py:") for name in inventory.data[kind]}
    public = {f"inna_tune.{room}.{n}" for room in ROOMS for n in import_module(f"inna_tune.{room}").__all__}
    public |= {f"{home}.{name}" for name, home in inna_tune._HOMES.items()}
    assert public <= there, sorted(public - there)


def test_every_command_is_in_the_reference(site):
    page = (site / "reference" / "cli.html").read_text()
    for name, command in get_command(app).commands.items():
        below = {f"{name} {inner}": c for inner, c in getattr(command, "commands", {}).items()}
        for words, leaf in (below or {name: command}).items():
            assert f">inna-tune {words}<" in page
            options = [option for p in leaf.params for option in p.opts if option.startswith("-")]
            assert not [option for option in options if f">{option}<" not in page], words


def test_pages_load_nothing_from_elsewhere(site):
    for page in site.rglob("*.html"):
        tags = re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*>", page.read_text())
        assert not [tag for tag in tags if re.search(r'(?:src|href)="(?:https?:)?//', tag)], page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(?:https?:)?//", sheet.read_text()), sheet


def test_pages_fit_a_phone_and_a_screen(site):
    pages = [p for p in site.rglob("*.html") if p.name not in {"search.html", "genindex.html"}]
    with Browser() as browser:
        for page in pages:
            browser.open(page.as_uri(), width=390)
            assert overflow(browser) == [], page
            browser.resize(1280)
            assert overflow(browser) == [], page
            assert browser.errors == []
            assert all(r.startswith((site.as_uri(), "data:")) for r in browser.requests)
        browser.open((site / "index.html").as_uri(), width=1280, dark=True)
        assert overflow(browser) == []
        assert browser.errors == []


def test_pages_name_no_place_of_this_machine(site):
    for page in site.rglob("*.html"):
        assert not [
            place for place in (str(ROOT), str(Path.home()), sys.prefix) if f"{place}/" in page.read_text()
        ]


def test_formulas_are_set(site):
    page = (site / "mathematics.html").read_text()
    formulas = re.findall(r"<math.*?</math>", page, re.DOTALL)
    assert len(formulas) > 150
    assert not re.search(r"\\[a-zA-Z]+", re.sub(r"<[^>]*>", "", page))
    assert "<mn>12</mn>" not in page, "a fraction of two digits was read as a number"


def test_every_example_is_listed():
    listed = (DOCS / "guides" / "examples.md").read_text()
    for path in (ROOT / "examples").glob("*.py"):
        assert f"../../examples/{path.name}>" in listed


# Its code needs other frameworks, and is run by tests/plugins/test_page.py.
FOREIGN = DOCS / "guides" / "automl.md"


@pytest.mark.parametrize("path", [p for p in PAGES if blocks(p, "python") and p != FOREIGN], ids=name_of)
def test_its_code_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # A default net trains long, and what the pages print stands on none of them.
    for kind in (inna_tune.InnaClassifier, inna_tune.InnaRegressor):
        for name, value in {"hidden_layer_sizes": (8,), "n_members": 1, "max_epochs": 5}.items():
            monkeypatch.setitem(kind.__init__.__kwdefaults__, name, value)
    names = {"__name__": "documentation"}
    with mpl.rc_context({"backend": "agg"}):
        for number, code in enumerate(blocks(path, "python")):
            exec(compile(code, f"{path.name}, block {number}", "exec"), names)


COMMANDS = [
    (name_of(path), line)
    for path in [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    for language in ("bash", "bash install")
    for block in blocks(path, language)
    for line in block.splitlines()
    if line.startswith("inna-tune ")
]


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=lambda text: text)
def test_its_commands_are_there(page, line):
    command, words = get_command(app), shlex.split(line, comments=True)[1:]
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    if words != ["--version"]:
        command.make_context("inna-tune", words)

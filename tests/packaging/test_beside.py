"""This package can be installed beside others that its users have: pip finds versions of all that go together.

The slow tests need a package index: ``pytest -m slow -n 0 tests/packaging/test_beside.py``.
"""

import sys
import zipfile
from pathlib import Path

import pytest

from tests.packaging.beside import OTHERS, ROOT, ConflictError, ask, beside, condensed, make_environment, row

PAGE = ROOT / "docs" / "guides" / "automl.md"


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    return make_environment(tmp_path_factory.mktemp("beside") / "venv")


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_versions_go_together(name, python):
    try:
        found = beside(python, OTHERS[name])
    except ConflictError as error:
        pytest.fail(f"inna-tune can't be installed beside {name}:\n{error}", pytrace=False)
    assert "inna-tune" in found.versions
    sys.stdout.write(row(name, found))


def test_the_page_has_a_row_for_each():
    rows = [line.split("|")[1].split() for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    told = {" ".join(words[:-1]) for words in rows if words}
    assert set(OTHERS) <= told


def wheel(folder: Path, name: str, version: str, *needs: str) -> None:
    """An empty package."""
    meta = f"{name}-{version}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {need}" for need in needs]
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{meta}/METADATA", "\n".join(lines))
        archive.writestr(f"{meta}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{meta}/RECORD", "")


def test_a_conflict_names_who_wants_what(tmp_path):
    wheel(tmp_path, "table", "2.3")
    wheel(tmp_path, "table", "3.0")
    wheel(tmp_path, "tuner", "1.0", "table>=3")
    wheel(tmp_path, "automl", "1.6", "table<3")
    wheel(tmp_path, "automl", "1.5", "table<2.9")
    offline = ("--isolated", "--no-index", "--find-links", str(tmp_path))
    found = ask(Path(sys.executable), *offline, "automl")
    assert {name: str(version) for name, version in found.items()} == {"automl": "1.6", "table": "2.3"}
    with pytest.raises(ConflictError) as caught:
        ask(Path(sys.executable), *offline, "tuner", "automl")
    said = str(caught.value)
    assert "tuner wants table>=3" in said
    assert "automl wants table<3" in said
    assert "1.6" in said
    assert len(said.splitlines()) <= 4


def test_what_is_no_conflict_is_told_as_it_is():
    said = "WARNING: Location is ignored\nERROR: No matching distribution found for nowhere"
    assert condensed("Collecting nowhere", said) == "ERROR: No matching distribution found for nowhere"

"""The lowest versions that are asked for are those that were tried."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
NEEDED = [
    Requirement(line)
    for line in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
]
PINS = {
    canonicalize_name(pin.name): Version(str(pin.specifier).removeprefix("=="))
    for line in (ROOT / "constraints-lowest.txt").read_text().splitlines()
    if line and not line.startswith("#")
    for pin in [Requirement(line)]
}


# torch is tried in the version of constraints.txt alone.
@pytest.mark.parametrize("needed", [n for n in NEEDED if n.name != "torch"], ids=lambda n: n.name)
def test_the_floor_of_a_package_is_what_the_tests_were_run_with(needed):
    [floor] = [Version(part.version) for part in needed.specifier if part.operator == ">="]
    pinned = PINS[canonicalize_name(needed.name)]
    assert pinned == floor

"""Each framework in an environment of its own, as a person installs it: the tests of its adapter run there and none is skipped.

They need a package index and some minutes: ``pytest -m slow -n 0 tests/plugins``.
"""

import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.plugins.frameworks import FRAMEWORKS

ROOT = Path(__file__).parents[2]
TESTS = {
    "autogluon": ["tests/plugins/test_autogluon.py"],
    "flaml": ["tests/plugins/test_flaml.py"],
    "optunahub": ["hub"],
    "ray": [],
}


def run(*words, **settings):
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, **settings)
    assert done.returncode == 0, f"{' '.join(map(str, words))}\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", FRAMEWORKS)
def test_in_an_environment_of_its_own(name, tmp_path):
    assert TESTS.keys() == FRAMEWORKS.keys()
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    # The version of torch that constraints.txt names comes without CUDA on a plain machine; the rest is what the index has.
    [torch] = re.findall(r"^torch==.*$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    run(*install, torch)
    run(*install, torch, f"{ROOT}[{name}]", "pytest", "pytest-xdist", "hypothesis")
    tests = [*TESTS[name], "tests/plugins/test_examples.py", "tests/plugins/test_page.py"]
    environment = os.environ | {"INNA_TUNE_FRAMEWORKS": name, "OMP_NUM_THREADS": "1"}
    # The other frameworks' examples and blocks skip there.
    said = run(python, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *tests, env=environment)
    skipped = [line for line in said.splitlines() if line.startswith("SKIPPED")]
    assert not [line for line in skipped if f" {name} is not installed" in line], said
    assert re.search(r"\d+ passed", said), said
    sys.stdout.write(said)

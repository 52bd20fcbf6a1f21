"""The command line starts without what only training needs."""

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "sklearn", "optuna", "pandas", "scipy", "matplotlib", "sqlalchemy")


@pytest.mark.parametrize("words", [["--help"], ["fit", "--help"], ["--version"]])
def test_what_only_prints_a_few_lines_imports_nothing_heavy(words):
    script = (
        "import sys, json\n"
        "from inna_tune.cli import main\n"
        f"sys.argv[1:] = {words!r}\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        f"    print(json.dumps([end.code, [m for m in {HEAVY!r} if m in sys.modules]]))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [0, []]

"""Mutants of every file that is read end in a result or in one line; studies/fuzz.py has the long version."""

import json
from pathlib import Path

import pytest

from tests.warm import Program

STUDIES = Path(__file__).parents[2] / "studies"

# In a process of its own: each mutant is read by a fork, and this one has threads.
CODE = """
import json, sys
sys.path.insert(0, sys.argv[1])
import fuzz
kind = next(each for each in fuzz.KINDS if each.name == sys.argv[2])
counts = fuzz.fuzz(kind, seed=int(sys.argv[3]), cases=range(int(sys.argv[4])), thorough=int(sys.argv[5]))
print(json.dumps(counts))
"""


def fuzz(kind, cases, *, seed=0, thorough=10**9):
    with Program(CODE, STUDIES, kind, seed, cases, thorough) as program:
        out, err = program.communicate()
    assert program.returncode == 0, err
    *said, counted = out.splitlines()
    return json.loads(counted), "\n".join(said)


@pytest.mark.parametrize(("kind", "cases"), [("prior", 12), ("checkpoint", 12), ("csv", 4), ("database", 3)])
def test_a_few_mutants(kind, cases):
    counts, said = fuzz(kind, cases)
    assert counts["result"] + counts["one line"] == cases, said
    assert counts["one line"] > 0


ENDED = """
import pathlib, sys, time
sys.path.insert(0, sys.argv[1])
import fuzz
fuzz.WAIT = 0.3
def run():
    began = time.process_time()
    while time.process_time() - began < 0.6:
        pass
for work in (run, lambda: time.sleep(60), lambda: sys.exit(3)):
    print(fuzz.in_child(work, pathlib.Path(sys.argv[2]) / "log"))
"""


def test_slow_is_what_does_nothing_not_what_works_long_or_has_no_processor(tmp_path):
    with Program(ENDED, STUDIES, tmp_path) as program:
        out, err = program.communicate()
    assert out.split() == ["result", "slow", "unexpected"], err


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        "model",
        "ensemble",
        "prior",
        "database",
        "checkpoint",
        "csv",
        "csv.gz",
        "jsonl",
        "parquet",
        "feather",
        "xlsx",
    ],
)
def test_many_mutants(kind):
    counts, said = fuzz(kind, 300, seed=1, thorough=20)
    assert counts["result"] + counts["one line"] == 300, said
    assert counts["result"] > 0

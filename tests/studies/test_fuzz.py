"""Mutants of every file that is read end in a result or in one line; studies/fuzz.py has the long version."""

import importlib
import json
from collections import Counter
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


def test_counts_are_of_one_code_and_a_run_goes_on_where_it_broke_off(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(STUDIES))
    tallies = importlib.import_module("tallies")

    def of(code, seed=0):
        return tallies.Tallies(tmp_path / "t.csv", code=code, seed=seed, outcomes=("result", "one line"))

    one = of("a")
    assert one.missing("csv", range(7)) == list(range(7))
    one.add("csv", [0, 1, 2], Counter({"result": 2, "one line": 1}))
    one.add("csv", [5], Counter({"result": 1}))
    one.add("prior", [0, 1], Counter({"one line": 2}))
    assert of("a").missing("csv", range(7)) == [3, 4, 6]
    assert list(tallies.slices(one.missing("csv", range(9)), 2)) == [[3, 4], [6, 7], [8]]
    table = one.table(["csv", "prior", "model"], "file").splitlines()
    assert table[2:] == ["| csv | 4 | 3 | 1 |", "| prior | 2 | 0 | 2 |", "| model | 0 | 0 | 0 |"]
    for other in (of("b"), of("a", seed=1)):
        assert other.missing("csv", range(3)) == [0, 1, 2]
    of("b").add("csv", [0], Counter({"result": 1}))
    assert of("a").missing("csv", range(3)) == [0, 1, 2], "what other code did is gone"
    assert tallies.code_of(STUDIES / "tallies.py") != tallies.code_of(STUDIES / "fuzz.py")


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

"""What the tests catch: small mistakes put into the code one by one, and whether a test fails by each.

A mutant is a copy of the package at a commit with one change, drawn at random from all places in the functions of a room:

    compare    < and <=, > and >=, == and !=, is and is not, in and not in take each other's place
    one more   a whole number is one larger
    and / or   take each other's place
    not        is left out
    + -, * /   take each other's place
    return     gives None
    deleted    a call, an augmented assignment or a raise is left out
    swapped    the first two arguments of a call

The tests of the room run once without a change, and coverage.py notes which test reaches which line. For a mutant the tests
that reach its line run, the quickest first, until one fails or 40 seconds of tests (as they took without it) have passed;
where a fixture reached the line, all tests of its file count as reaching it. What no test of the room reaches survives. A
mutant that has not ended after 150 seconds has timed out: something waits for ever, which a person would see.

A map is kept, and used again where the folder that ``--maps`` names has it: tests that a later commit lacks are left out then.
What a child process of a test does is not seen by coverage.py, so that mutants may look unreached that are not. Both sides of
a comparison are seen alike.

    pip install coverage
    python studies/mutation.py before COMMIT      the tests and the package of a commit, under the name "before"
    python studies/mutation.py after HEAD         writes studies/results/mutation.csv and mutation.md
"""

import argparse
import ast
import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
SEED, TEST_SECONDS, LIMIT = 0, 40.0, 150.0
KEY = ["room", "file", "line", "column", "operator"]

_FLIPPED = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_ARITHMETIC = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}


@dataclass(frozen=True)
class Mutant:
    """One change: in `file`, the text from (line, column) to (end_line, end_column) becomes `text`; columns count bytes."""

    room: str
    file: str
    line: int
    column: int
    end_line: int
    end_column: int
    operator: str
    was: str
    text: str

    def apply(self, source: bytes) -> bytes:
        """The changed file."""
        lines = source.splitlines(keepends=True)
        head, tail = lines[self.line - 1][: self.column], lines[self.end_line - 1][self.end_column :]
        return b"".join([*lines[: self.line - 1], head, self.text.encode(), tail, *lines[self.end_line :]])


def changes(node: ast.AST) -> Iterator[tuple[str, str]]:
    """What a node may become: operator and new text."""
    match node:
        case ast.Compare(left, [op], right) if type(op) in _FLIPPED:
            yield "compare", ast.unparse(ast.Compare(left, [_FLIPPED[type(op)]()], right))
        case ast.Constant(int() as value) if not isinstance(value, bool):
            yield "one more", str(value + 1)
        case ast.BoolOp(op, values):
            other = ast.Or() if isinstance(op, ast.And) else ast.And()
            yield "and / or", f"({ast.unparse(ast.BoolOp(other, values))})"
        case ast.UnaryOp(ast.Not(), operand):
            yield "not", f"({ast.unparse(operand)})"
        case ast.BinOp(left, op, right) if type(op) in _ARITHMETIC:
            yield "+ -, * /", f"({ast.unparse(ast.BinOp(left, _ARITHMETIC[type(op)](), right))})"
        case ast.Return(ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            yield "return", "return None"
        case ast.Expr(ast.Call()) | ast.AugAssign() | ast.Raise():
            yield "deleted", "pass"
    if isinstance(node, ast.Call) and len(node.args) >= 2:
        first, second, *others = node.args
        if not any(isinstance(each, ast.Starred) for each in (first, second)):
            yield "swapped", ast.unparse(ast.Call(node.func, [second, first, *others], node.keywords))


def mutants_of(root: Path, room: str) -> list[Mutant]:
    """All mutants of the functions of a room."""
    found = []
    for path in sorted((root / "inna_tune" / room).rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        tree = ast.parse(source)
        within = {
            id(node): node
            for function in ast.walk(tree)
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
            for statement in function.body
            for node in ast.walk(statement)
        }
        # A format string holds no text of its own that could be replaced, and an annotation does nothing.
        inert = {
            id(node)
            for outer in within.values()
            for part in (
                [outer]
                if isinstance(outer, ast.JoinedStr)
                else [outer.annotation]
                if isinstance(outer, ast.AnnAssign)
                else []
            )
            for node in ast.walk(part)
        }
        for node in within.values():
            if id(node) in inert or not isinstance(node, ast.expr | ast.stmt):
                continue
            was = ast.get_source_segment(source, node) or ""
            found += [
                Mutant(
                    room,
                    str(path.relative_to(root)),
                    node.lineno,
                    node.col_offset,
                    node.end_lineno or node.lineno,
                    node.end_col_offset or 0,
                    operator,
                    " ".join(was.split())[:80],
                    text,
                )
                for operator, text in changes(node)
            ]
    return sorted(found, key=lambda m: (m.file, m.line, m.column, m.operator))


# ---------------------------------------------------------------------- in a child process


def in_child(root: Path, words: list[str], limit: float, plugins: list[object] = []) -> int | None:  # noqa: B006
    """Exit code of pytest on a copy, or None if it did not end in time. Forked: importing torch takes longer than a test."""
    child = os.fork()
    if child == 0:
        code = 3
        try:
            os.setpgid(0, 0)
            os.chdir(root)
            sys.path.insert(0, str(root))
            os.environ["PYTHONPATH"] = str(root)
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 1)
            os.dup2(silence, 2)
            import pytest

            fixed = ["-n", "0", "-q", "-p", "no:cacheprovider", "-m", "not slow and not gpu"]
            code = int(pytest.main([*fixed, *words], plugins=plugins))
        finally:
            os._exit(code)
    ends = time.monotonic() + limit
    while time.monotonic() < ends:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


class Map:
    """A plugin of pytest that notes which test reaches which line, and how long it takes."""

    def __init__(self, root: Path, room: str, path: Path) -> None:
        import coverage

        self.root, self.path, self.seconds = root, path, {}
        self.coverage = coverage.Coverage(
            data_file=str(path) + ".data", source=[str(root / "inna_tune" / room)]
        )

    def pytest_sessionstart(self):
        self.coverage.start()

    def pytest_runtest_setup(self, item):
        self.coverage.switch_context(f"{item.nodeid}|setup")

    def pytest_runtest_call(self, item):
        self.coverage.switch_context(f"{item.nodeid}|call")

    def pytest_runtest_logreport(self, report):
        taken = self.seconds.get(report.nodeid, (0.0, True))
        self.seconds[report.nodeid] = (taken[0] + report.duration, taken[1] and not report.failed)

    def pytest_sessionfinish(self):
        self.coverage.stop()
        data = self.coverage.get_data()
        reached = {
            os.path.relpath(file, self.root): data.contexts_by_lineno(file) for file in data.measured_files()
        }
        self.path.write_text(json.dumps({"seconds": self.seconds, "reached": reached}))


class Names:
    """A plugin of pytest that notes which tests there are."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def pytest_collection_finish(self, session):
        self.path.write_text(json.dumps([item.nodeid for item in session.items]))


def tests_for(mutant: Mutant, found: dict) -> list[str]:
    """The tests that reach a mutant's line, the quickest first."""
    lines = found["reached"].get(mutant.file, {})
    contexts = {c for line in range(mutant.line, mutant.end_line + 1) for c in lines.get(str(line), [])}
    files = {c.partition("::")[0] for c in contexts if c.endswith("|setup")}
    names = {c.rpartition("|")[0] for c in contexts}
    sound = {name: seconds for name, (seconds, passed) in found["seconds"].items() if passed}
    tests = sorted(
        (seconds, name)
        for name, seconds in sound.items()
        if name in names or name.partition("::")[0] in files
    )
    chosen, total = [], 0.0
    for seconds, name in tests:
        total += seconds
        if chosen and total > TEST_SECONDS:
            break
        chosen.append(name)
    return chosen


def study(label: str, commit: str, rooms: list[str], n_mutants: int, maps: Path, without: list[str]) -> None:
    """Run the mutants of all rooms against the tests of a commit."""
    import hypothesis  # noqa: F401
    import optuna  # noqa: F401
    import scipy.stats  # noqa: F401
    import sklearn.ensemble  # noqa: F401
    import torch

    torch.set_num_threads(1)
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True).stdout
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve() / "copy"
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(root, filter="data")
        for room in rooms:
            everything = mutants_of(root, room)
            sample = random.Random(f"{SEED} {room}").sample(everything, n_mutants)
            noted = maps / f"{room}.json"
            if not noted.exists():
                left_out = [f"--ignore=tests/{room}/{name}" for name in without]
                in_child(root, [f"tests/{room}", *left_out], 3600.0, [Map(root, room, noted)])
            found = json.loads(noted.read_text())
            listed = Path(folder) / "names.json"
            in_child(root, [f"tests/{room}", "--collect-only"], 600.0, [Names(listed)])
            there = set(json.loads(listed.read_text()))
            found["seconds"] = {name: taken for name, taken in found["seconds"].items() if name in there}
            print(f"{room}: {len(everything)} mutants, {len(found['seconds'])} tests", flush=True)
            for mutant in sample:
                tests = tests_for(mutant, found)
                began = time.monotonic()
                outcome = "unreached"
                if tests:
                    path = root / mutant.file
                    source = path.read_bytes()
                    path.write_bytes(mutant.apply(source))
                    try:
                        code = in_child(root, ["-x", *tests], LIMIT)
                    finally:
                        path.write_bytes(source)
                    # 1: a test failed; 2: the changed module could not be imported.
                    outcome = {None: "timed out", 0: "survived", 1: "killed", 2: "killed"}[code]
                print(
                    f"{mutant.file}:{mutant.line} {mutant.operator}: {outcome} by {len(tests)} tests, "
                    f"{time.monotonic() - began:.0f} s",
                    flush=True,
                )
                add_row({"tests": label, **asdict(mutant), "outcome": outcome, "n_tests": len(tests)})


def add_row(row: dict) -> None:
    """Write a result at once: a run takes long."""
    path = RESULTS / "mutation.csv"
    fresh = pd.DataFrame([row])
    if path.exists():
        old = pd.read_csv(path, keep_default_na=False)
        same = (old[["tests", *KEY]] == fresh.loc[0, ["tests", *KEY]]).all(axis=1)
        fresh = pd.concat([old[~same], fresh])
    fresh.to_csv(path, index=False)


def write() -> None:
    """The table of counts, and what the two sides of a comparison tell differently."""
    rows = pd.read_csv(RESULTS / "mutation.csv", keep_default_na=False)
    counts = rows.groupby(["room", "tests", "outcome"], sort=False).size().unstack(fill_value=0)
    columns = [c for c in ("killed", "timed out", "survived", "unreached") if c in counts]
    lines = [
        "# What the tests catch",
        "",
        f"Mutants of {', '.join(rows['room'].unique())}, seed {SEED}, the same for both sides: the tests before the "
        "suite was shortened and after.",
        "`python studies/mutation.py` says how they are made, and which tests run for each. On a busy machine a mutant may "
        "time out for that alone.",
        "",
        f"| room | tests | mutants | {' | '.join(columns)} |",
        "| --- " * 3 + "| ---: " * len(columns) + "|",
    ]
    for (room, label), row in counts.iterrows():
        lines.append(f"| {room} | {label} | {row.sum()} | {' | '.join(str(row[c]) for c in columns)} |")
    wide = rows.pivot_table(index=KEY, columns="tests", values="outcome", aggfunc="first")
    what = rows.drop_duplicates(KEY).set_index(KEY)
    lines += ["", "## Told differently", ""]
    if {"before", "after"} <= set(wide):
        caught = wide.isin(["killed", "timed out"])
        parted = wide[caught["before"] != caught["after"]].dropna()
        for key, row in parted.iterrows():
            lines.append(
                f"- `{key[1]}:{key[2]}`, {key[4]}, `{what.loc[key, 'was']}`: {row['before']} → {row['after']}"
            )
        if parted.empty:
            lines.append("Nothing.")
    lines += ["", "## What survived", ""]
    last = "after" if "after" in wide else "before"
    for key, outcome in wide[last].dropna().items():
        if outcome in ("survived", "unreached"):
            change = f"`{what.loc[key, 'was']}` → `{what.loc[key, 'text'][:80]}`"
            lines.append(f"- `{key[1]}:{key[2]}`, {key[4]}: {change} ({outcome})")
    (RESULTS / "mutation.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("label", help="before or after")
    parser.add_argument("commit")
    parser.add_argument("--rooms", nargs="+", default=["store", "optim", "study"])
    parser.add_argument("--mutants", type=int, default=20, help="of each room")
    parser.add_argument(
        "--maps", type=Path, default=Path(tempfile.gettempdir()), help="where ROOM.json, the map, is kept"
    )
    parser.add_argument("--without", nargs="*", default=[], help="files of tests that take no part")
    arguments = parser.parse_args()
    study(
        arguments.label,
        arguments.commit,
        arguments.rooms,
        arguments.mutants,
        arguments.maps.resolve(),
        arguments.without,
    )
    write()

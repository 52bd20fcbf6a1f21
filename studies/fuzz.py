"""Change files at random, and count what becomes of whoever reads them.

    python studies/fuzz.py [--cases 1000] [--seed 0] [--only prior] [--first 17]

Of every kind of file that the product reads one is written as the product writes it, and changed: bits flipped, bytes
cut off, values of its JSON replaced (numbers that overflow, other types, nesting without an end, great lengths), keys
taken away, cells of its database set to what can't be there. A command reads the mutant. It has to end with its result, or
with one line and code 2, within 20 seconds of a processor, two minutes of waiting for anything but one, and 4 GB more than it
began with. Counted are

* result: the change did no harm, or made another file that makes sense,
* one line: wrong input, code 2,
* unexpected: code 1 ("please report"), or any exception that reached the program's frame,
* killed: by a signal, such as that of a crash,
* slow: not done in time.

Each case has a random stream of its own: ``--only KIND --first N --cases 1`` runs one again, and shows what it printed.
Counts are kept in ``results/fuzz.csv`` and ``.md``, ten cases by ten: a run that was broken off goes on, and several may share
the work, a kind each; other code, or another seed, begins anew.
"""

import argparse
import contextlib
import gzip
import math
import os
import random
import resource
import shutil
import signal
import sqlite3
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import torch
from crews import seconds_idle
from mutants import change_bytes, change_json, change_tensor
from safetensors import safe_open
from safetensors.torch import save as serialize
from tallies import Tallies, code_of, slices
from typer.testing import CliRunner

import inna_tune
from inna_tune import InnaClassifier, SearchSpace
from inna_tune.cli import app
from inna_tune.engine import MemberProgress, MemberResult, MemberState
from inna_tune.engine.members import HISTORY
from inna_tune.estimators import saving
from inna_tune.space import Prior, PriorSampler, learn
from inna_tune.study.checkpoints import Checkpoint, Checkpoints

RESULTS = Path(__file__).parent / "results" / "fuzz.md"
OUTCOMES = ("result", "one line", "unexpected", "killed", "slow")
SECONDS, WAIT, MEMORY = 20, 120, 4 << 30
SLICE = 10  # cases between one look at the file of counts and the next
SETTINGS = ("--set", "hidden_layer_sizes=4", "--set", "max_epochs=2", "--set", "n_members=1")

# ---------------------------------------------------------------------- kinds of files


def frame(n: int = 60) -> pd.DataFrame:
    """A table with a column of every kind."""
    rng = np.random.default_rng(0)
    label = rng.choice(["no", "yes"], n)
    return pd.DataFrame(
        {
            "number": np.where(rng.random(n) < 0.1, np.nan, rng.normal(40, 10, n)).round(3),
            "kind": rng.choice(["clerk", "smith, jr", 'the "baker"'], n),
            "day": pd.date_range("2024-01-01", periods=n).strftime("%Y-%m-%d"),
            "words": rng.choice(["good and cheap", "bad, but cheap", "good but dear"], n),
            "label": label,
        }
    )


def run(*words: Any) -> None:
    """A command in this process; what isn't clean is raised."""
    done = CliRunner().invoke(app, [str(word) for word in words])
    print(*words, "->", done.exit_code, done.output[-3000:], sep="\n")
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    lines = done.stderr.count("\n")
    if done.exit_code not in (0, 2) or (
        done.exit_code == 2 and lines != 1 and not done.stderr.startswith("Usage")
    ):
        raise AssertionError(f"code {done.exit_code}, {lines} lines: {done.stderr[-2000:]}")
    if done.exit_code == 2:
        raise RefusedError(done.stderr)


class RefusedError(Exception):
    """One line and code 2."""


class Kind:
    """A kind of file. ``make`` writes one, and what else its reading needs, into the folder that is the working one."""

    name = ""
    path = ""

    def make(self) -> None:
        """Write the file."""
        raise NotImplementedError

    def change(self, rng: random.Random) -> None:
        """Make a mutant of it."""
        Path(self.path).write_bytes(change_bytes(rng, Path(self.path).read_bytes()))

    def read(self, rng: random.Random, *, thorough: bool) -> None:
        """Do what reads it; what isn't clean is raised."""
        raise NotImplementedError


class Model(Kind):
    """A model file, its digest right again after most changes."""

    name, path = "model", "m.inna"

    def make(self) -> None:
        table = frame()
        table.to_csv("t.csv", index=False)
        net = InnaClassifier(hidden_layer_sizes=(4,), max_epochs=2, n_members=1, random_state=0)
        net.fit(table.drop(columns="label"), table["label"])
        net.save(self.path)

    def change(self, rng: random.Random) -> None:
        if rng.random() < 0.2:
            super().change(rng)
            return
        with safe_open(self.path, framework="pt") as file:
            metadata, tensors = dict(file.metadata()), {n: file.get_tensor(n) for n in file.keys()}  # noqa: SIM118
        if rng.random() < 0.75:
            metadata["model"] = change_json(rng, metadata["model"])
        else:
            name = rng.choice(sorted(tensors))
            tensors[name] = change_tensor(rng, tensors[name])
            if rng.random() < 0.1:
                del tensors[name]
        if rng.random() < 0.05:
            metadata["version"] = rng.choice(["", "99", "x" * 1000, "\x1b[31m", "4.0", "5"])
        metadata["digest"] = saving.digest(metadata["model"].encode("utf-8", "replace").decode(), tensors)
        metadata["model"] = metadata["model"].encode("utf-8", "replace").decode()
        Path(self.path).write_bytes(serialize(tensors, metadata=metadata))

    def read(self, rng: random.Random, *, thorough: bool) -> None:
        run("predict", self.path, "t.csv", "-o", "p.csv")


class EnsembleModel(Model):
    """A model file of an ensemble."""

    name, path = "ensemble", "e.inna"

    def make(self) -> None:
        frame().to_csv("t.csv", index=False)
        run("fit", "t.csv", "--target", "label", "--trials", "2", "--ensemble", "--out", self.path, *SETTINGS)


class PriorFile(Kind):
    """A prior file, shown and tuned with."""

    name, path = "prior", "p.json"

    def make(self) -> None:
        frame().to_csv("t.csv", index=False)
        space = SearchSpace.inna(curvature=10.0)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0), study_name="s")
        study.set_user_attr("inna_tune:curvature", 10.0)
        study.optimize(
            lambda trial: sum(v for v in space.suggest(trial).values() if isinstance(v, float)), n_trials=12
        )
        learn([study], top=0.5).save(self.path)

    def change(self, rng: random.Random) -> None:
        text = change_json(rng, Path(self.path).read_text(encoding="utf-8"))
        Path(self.path).write_bytes(text.encode("utf-8", "replace"))

    def read(self, rng: random.Random, *, thorough: bool) -> None:
        run("prior", "show", self.path)
        space, portfolio = Prior.load(self.path).at(5.0)
        study = optuna.create_study(
            sampler=PriorSampler(optuna.samplers.RandomSampler(seed=0), space, seed=0)
        )
        for setting in portfolio[:3]:
            study.enqueue_trial(setting)
        study.optimize(lambda trial: float(len(space.suggest(trial))), n_trials=5)
        if thorough:
            run("fit", "t.csv", "--target", "label", "--trials", "2", "--prior", self.path, *SETTINGS)


class Database(Kind):
    """The database of studies, whose cells are changed by SQLite itself."""

    name, path = "database", "inna_tune.db"

    def make(self) -> None:
        frame().to_csv("t.csv", index=False)
        run("fit", "t.csv", "--target", "label", "--trials", "3", "--study", "s", *SETTINGS)

    def change(self, rng: random.Random) -> None:
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            connection.execute("PRAGMA journal_mode=DELETE")  # one file
        if rng.random() < 0.15:
            super().change(rng)
            return
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            connection.text_factory = bytes
            connection.execute("PRAGMA ignore_check_constraints=ON")
            for _ in range(rng.choice([1, 1, 2, 5])):
                with contextlib.suppress(sqlite3.IntegrityError, OverflowError):
                    self._change_cell(rng, connection)
            connection.commit()

    def _change_cell(self, rng: random.Random, connection: sqlite3.Connection) -> None:
        names = "SELECT name FROM sqlite_master WHERE type='table'"
        tables = [name.decode() for (name,) in connection.execute(names)]
        filled = [t for t in tables if connection.execute(f'SELECT count(*) FROM "{t}"').fetchone()[0]]
        table = rng.choice(filled)
        columns = [row[1].decode() for row in connection.execute(f'PRAGMA table_info("{table}")')]
        column = rng.choice(columns)
        rows = connection.execute(f'SELECT rowid, "{column}" FROM "{table}"').fetchall()
        row, value = rng.choice(rows)
        if rng.random() < 0.08:
            connection.execute(f'DELETE FROM "{table}" WHERE rowid=?', (row,))
            return
        if column.endswith("_json") and rng.random() < 0.9:
            new: Any = change_json(rng, value.decode()).encode("utf-8", "replace").decode()
        else:
            odd = [
                None,
                "",
                "x",
                "NAN",
                "[/red]\x1b[31m",
                -1,
                0,
                2**62,
                1e308,
                math.inf,
                b"\xff\x00",
                "2024-13-45",
            ]
            new = rng.choice(odd)
        connection.execute(f'UPDATE "{table}" SET "{column}"=? WHERE rowid=?', (new, row))

    def read(self, rng: random.Random, *, thorough: bool) -> None:
        shutil.copy(self.path, "copy.db")
        refused = []
        commands: list[tuple[str, ...]] = [
            ("studies",),
            ("show", "s"),
            ("prior", "learn", "s", "-o", "learned.json"),
            ("studies", "export", "s", "-o", "sent.db", "--force"),
            ("studies", "import", "copy.db", "--storage", "sqlite:///other.db"),
        ]
        if thorough:
            commands += [
                ("report", "s"),
                ("fit", "t.csv", "--target", "label", "--trials", "4", "--study", "s", "--resume", *SETTINGS),
                ("worker", "s", "t.csv", "--target", "label"),
            ]
        for words in commands:
            try:
                run(*words)
            except RefusedError as error:
                refused.append(error)
        if refused:
            raise refused[0]


class CheckpointFile(Kind):
    """What a running trial left: no error at all, whatever is in it."""

    name, path = "checkpoint", ""
    _sizes = ((12, 4),)

    def _study(self) -> optuna.Study:
        return optuna.load_study(study_name="s", storage="sqlite:///c.db")

    def make(self) -> None:
        study = optuna.create_study(study_name="s", storage="sqlite:///c.db")
        size, stream = sum(self._sizes[0]), torch.zeros(8, dtype=torch.uint8)
        state = MemberState(
            torch.zeros(size), 2, {"lr": 0.1, "alpha": 0.5, "beta": 0.1}, streams=[stream, stream]
        )
        history = {name: [0.5, 0.4] for name in HISTORY}
        result = MemberResult(torch.zeros(size), 1, 0.5, 2, "early_stopping", 0.1, 0.5, 0.1, None, history)
        saved = Checkpoint("identity", 2, 1.5, {1: 0.5}, {}, [MemberProgress(result, state)], [0])
        assert Checkpoints(study).save(0, saved)
        assert Checkpoints(study).load(0, "identity", self._sizes) is not None

    def change(self, rng: random.Random) -> None:
        (path,) = (p for p in Path("c.db.checkpoints").rglob("*") if p.is_file())
        if rng.random() < 0.4:
            path.write_bytes(change_bytes(rng, path.read_bytes()))
            return
        with safe_open(str(path), framework="pt") as file:
            metadata, tensors = dict(file.metadata()), {n: file.get_tensor(n) for n in file.keys()}  # noqa: SIM118
        if rng.random() < 0.7:
            metadata["content"] = change_json(rng, metadata["content"]).encode("utf-8", "replace").decode()
        else:
            name = rng.choice(sorted(tensors))
            tensors[name] = change_tensor(rng, tensors[name])
        metadata["digest"] = saving.digest(metadata["content"], tensors)
        path.write_bytes(serialize(tensors, metadata=metadata))

    def read(self, rng: random.Random, *, thorough: bool) -> None:
        if Checkpoints(self._study()).load(0, "identity", self._sizes) is None:
            raise RefusedError


class TableFile(Kind):
    """A table."""

    def __init__(self, suffix: str) -> None:
        self.name, self.path = suffix.removeprefix("."), f"t{suffix}"

    def make(self) -> None:
        table = frame()
        if self.name in ("parquet", "feather"):
            getattr(table, f"to_{self.name}")(self.path)
        elif self.name == "xlsx":
            table.to_excel(self.path, index=False)
        elif self.name == "jsonl":
            table.to_json(self.path, orient="records", lines=True)
        else:
            table.to_csv(self.path, index=False)

    def change(self, rng: random.Random) -> None:
        path = Path(self.path)
        if self.name == "jsonl" and rng.random() < 0.7:
            lines = path.read_text().splitlines()
            at = rng.randrange(len(lines))
            lines[at] = change_json(rng, lines[at])
            path.write_bytes("\n".join(lines).encode("utf-8", "replace"))
        elif self.name == "xlsx" and rng.random() < 0.8:
            with zipfile.ZipFile(path) as file:
                parts = {name: file.read(name) for name in file.namelist()}
            name = rng.choice(sorted(parts))
            parts[name] = change_bytes(rng, parts[name])
            with zipfile.ZipFile(path, "w") as file:
                for name, content in parts.items():
                    file.writestr(name, content)
        elif self.name == "csv.gz" and rng.random() < 0.7:
            path.write_bytes(gzip.compress(change_bytes(rng, gzip.decompress(path.read_bytes()))))
        elif self.name == "csv" and rng.random() < 0.2:
            encoding = rng.choice(["utf-16", "utf-32", "cp1252", "utf-16-le", "cp037"])
            path.write_bytes(path.read_text().encode(encoding))
        else:
            super().change(rng)

    def read(self, rng: random.Random, *, thorough: bool) -> None:
        run("columns", self.path, "--target", "label")
        if thorough:
            run("fit", self.path, "--target", "label", "--trials", "1", *SETTINGS)


KINDS: list[Kind] = [Model(), EnsembleModel(), PriorFile(), Database(), CheckpointFile()]
KINDS += [TableFile(s) for s in (".csv", ".csv.gz", ".jsonl", ".parquet", ".feather", ".xlsx")]

# ---------------------------------------------------------------------- cases


def in_child(work: Callable[[], object], log: Path) -> str:
    """Do something in a process of its own, and say how it ended."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with log.open("w", encoding="utf-8", errors="backslashreplace") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
                with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
                    code = _ended(work)
        finally:
            os._exit(code)
    began = time.monotonic()
    while time.monotonic() - began < WAIT or seconds_idle(child, began) < WAIT:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            code = os.waitstatus_to_exitcode(status)
            if code == -signal.SIGXCPU:
                return "slow"
            return "killed" if code < 0 else {0: "result", 2: "one line"}.get(code, "unexpected")
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "slow"


def _ended(work: Callable[[], object]) -> int:
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + SECONDS, -1))
    try:
        work()
    except RefusedError:
        return 2
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def in_folder(folder: Path, work: Callable[[], object]) -> Callable[[], object]:
    """Work, with a folder as the working one."""

    def there() -> object:
        os.chdir(folder)
        return work()

    return there


def fuzz(
    kind: Kind, *, seed: int, cases: Iterable[int], thorough: int = 20, say: bool = False
) -> Counter[str]:
    """Read mutants of one kind; what isn't clean is printed with its number.

    Parameters
    ----------
    kind : Kind
    seed : int
    cases : iterable of int
        Numbers of the cases, each with a stream of its own.
    thorough : int
        Every so many cases the longer commands, too.
    say : bool
        Whether to print what each case printed.
    """
    counts: Counter[str] = Counter(dict.fromkeys(OUTCOMES, 0))
    with tempfile.TemporaryDirectory() as place:
        made, log = Path(place, "made"), Path(place, "log")
        made.mkdir()
        if in_child(in_folder(made, kind.make), log) != "result":
            raise RuntimeError(f"{kind.name}: {log.read_text()}")
        for case in cases:
            rng = random.Random(f"{kind.name}:{seed}:{case}")
            folder = Path(place, str(case))
            shutil.copytree(made, folder)
            with contextlib.chdir(folder):
                kind.change(rng)
            is_thorough = case % thorough == thorough - 1
            reading = in_folder(folder, lambda rng=rng, all_=is_thorough: kind.read(rng, thorough=all_))
            outcome = in_child(reading, log)
            counts[outcome] += 1
            if say or outcome not in ("result", "one line"):
                print(f"{kind.name} {case}: {outcome}")
                print(log.read_text(encoding="utf-8")[-3000 if say else -700 :], flush=True)
            shutil.rmtree(folder)
    return counts


def main() -> None:
    """Fuzz what the words say."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", choices=[kind.name for kind in KINDS])
    given = parser.parse_args()
    chosen = [kind for kind in KINDS if given.only in (None, kind.name)]
    if given.cases == 1:
        for kind in chosen:
            print(dict(fuzz(kind, seed=given.seed, cases=[given.first], say=True)))
        return
    here = Path(__file__).parent
    code = code_of(Path(inna_tune.__file__).parent, here / "fuzz.py", here / "mutants.py")
    tallies = Tallies(RESULTS.with_suffix(".csv"), code=code, seed=given.seed, outcomes=OUTCOMES)
    for kind in chosen:
        missing = tallies.missing(kind.name, range(given.first, given.first + given.cases))
        for part in slices(missing, SLICE):
            counts = fuzz(kind, seed=given.seed, cases=part)
            tallies.add(kind.name, part, counts)
            print(kind.name, part[0], dict(counts), flush=True)
            table = tallies.table((each.name for each in KINDS), "file")
            said = f"Seed {given.seed}, code {code}; `python studies/fuzz.py` goes on with what is missing."
            RESULTS.write_text(
                f"# Mutants of every file that is read\n\n{said}\n\n{table}\n", encoding="utf-8"
            )


if __name__ == "__main__":
    main()

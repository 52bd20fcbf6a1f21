"""What keeping a study costs: memory, SQLite as Optuna opens it, and as inna-tune does, with told trials on the disk or not.

A trial of nothing but bookkeeping: 10 parameters drawn at random, 5 reports with a pruner's answer to each, 6 user
attributes, and its result. The storages take turns, in an order drawn anew for every trial, so that what else the machine
does falls on all alike. What it costs that a told trial is on the disk before anything goes on (``synchronous=FULL`` for that
one transaction) is the difference to "SQLite, inna-tune, NORMAL", which does without. A row holds the median over the last
100 trials before a study reaches a size, and how long a new process takes from opening the storage to the first trial of the
resumed study, without its imports.

    python studies/storage_overhead.py                    writes studies/results/storage_overhead.csv
    python studies/storage_overhead.py --sizes 20,40      small, prints only
    python studies/storage_overhead.py --url postgresql+psycopg://…    a server, too; prints only
"""

import argparse
import os
import platform
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from pathlib import Path
from unittest.mock import patch

import optuna
import pandas as pd
from optuna.pruners import SuccessiveHalvingPruner
from optuna.samplers import RandomSampler
from optuna.storages import BaseStorage, InMemoryStorage, get_storage

from inna_tune.store import database
from inna_tune.store.asking import ask, tell
from inna_tune.store.opening import create_study, gathered, open_storage
from inna_tune.store.workers import Worker, resume_summary

RESULTS = Path(__file__).parent / "results" / "storage_overhead.csv"
SIZES = (100, 500, 1000)
WINDOW = 100
GOAL_TRIAL, GOAL_RESUME = 25.0, 2.0  # milliseconds, seconds
OURS = "SQLite, inna-tune"
NORMAL = 1  # as SQLite numbers ``synchronous``


class Bookkeeping:
    """A study in some storage, and one trial after the other in it."""

    def __init__(
        self, open_it: Callable[[], BaseStorage], durable: bool, stack: ExitStack, *, synced: bool = True
    ) -> None:
        self.open, self.durable, self.synced, self.milliseconds = open_it, durable, synced, []
        self.study = self.resume()
        self.worker = stack.enter_context(Worker(self.study._storage)) if durable else None

    def resume(self) -> optuna.Study:
        """Open the storage and create the study, or go on with it."""
        sampler, pruner = RandomSampler(seed=0), SuccessiveHalvingPruner()
        return create_study(self.open(), "overhead", "minimize", sampler, pruner, resume=True)

    def run_trial(self) -> None:
        """Keep the books of one trial, as InnaSearchCV does where the study is durable."""
        began = time.perf_counter()
        together = gathered if self.durable else lambda study: nullcontext()
        trial = self.study.ask() if self.worker is None else ask(self.study, self.worker, 10**9)
        with together(self.study):
            for number in range(10):
                trial.suggest_float(f"parameter {number}", 1e-4, 1.0, log=True)
        for rung in (1, 2, 4, 8, 16):
            trial.report(trial.params["parameter 0"] + 1 / rung, rung)
            trial.should_prune()
        with together(self.study):
            for number in range(6):
                trial.set_user_attr(f"attribute {number}", {"seconds": 1.25, "epochs": 16})
            if self.worker is None:
                self.study.tell(trial, 0.5)
            else:
                with nullcontext() if self.synced else patch.object(database, "_FULL", NORMAL):
                    tell(self.study, self.worker, trial, 0.5)
        self.milliseconds.append(1e3 * (time.perf_counter() - began))

    def seconds_to_resume(self) -> float | None:
        """From opening the storage to having the next trial, which waits for no one and is then told."""
        if isinstance(self.study._storage, InMemoryStorage):
            return None
        began = time.perf_counter()
        study = self.resume()
        if self.durable:
            resume_summary(study, 10**9)
            with Worker(study._storage) as worker:
                trial = ask(study, worker, 10**9)
                seconds = time.perf_counter() - began
                tell(study, worker, trial, state=optuna.trial.TrialState.FAIL)
        else:
            study.get_trials(deepcopy=False)
            trial = study.ask()
            seconds = time.perf_counter() - began
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        study._storage._backend.engine.dispose()
        return seconds


def measure(sizes: list[int], url: str | None) -> pd.DataFrame:
    """Run all storages up to the largest size; one row for each storage and size."""
    rows, order = [], random.Random(0)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        plain, ours, unsynced = (f"sqlite:///{folder}/{name}.db" for name in ("plain", "ours", "unsynced"))
        kinds = {
            "memory": Bookkeeping(InMemoryStorage, False, stack),
            "SQLite, Optuna": Bookkeeping(lambda: get_storage(plain), False, stack),
            OURS: Bookkeeping(lambda: open_storage(ours), True, stack),
            f"{OURS}, NORMAL": Bookkeeping(lambda: open_storage(unsynced), True, stack, synced=False),
        }
        if url is not None:
            kinds["server, inna-tune"] = Bookkeeping(lambda: open_storage(url), True, stack)
        for done in range(1, max(sizes) + 1):
            for kind in order.sample(list(kinds.values()), len(kinds)):
                kind.run_trial()
            if done in sizes:
                for name, kind in kinds.items():
                    window = kind.milliseconds[-WINDOW:]
                    rows.append(
                        {
                            "storage": name,
                            "trials": done,
                            "ms a trial": round(statistics.median(window), 1),
                            "ms a trial, 95%": round(pd.Series(window).quantile(0.95), 1),
                            "s to resume": kind.seconds_to_resume(),
                        }
                    )
    return pd.DataFrame(rows).round({"s to resume": 2})


def machine() -> str:
    """Name the machine and what it runs."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = (
            line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line
        )
        model = next(models, model)
    return (
        f"{model}, {os.cpu_count()} CPUs, {platform.system()}, Python {platform.python_version()}, "
        f"Optuna {optuna.__version__}, SQLite {sqlite3.sqlite_version}"
    )


def main() -> None:
    """Measure, print, and write the full run's results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="study sizes, increasing")
    parser.add_argument("--url", help="a server's empty database, too")
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.sizes.split(",")]
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    table = measure(sizes, arguments.url)
    print(machine())
    print(table.to_string(index=False, na_rep="-"))
    ours = table[table["storage"] == OURS].iloc[-1]
    print(f"Goals: {ours['ms a trial']} of at most {GOAL_TRIAL:.0f} ms a trial", end=", ")
    print(f"{ours['s to resume']} of at most {GOAL_RESUME:.0f} s to resume {ours['trials']} trials")
    if tuple(sizes) == SIZES and arguments.url is None:
        RESULTS.parent.mkdir(exist_ok=True)
        table.assign(machine=machine()).to_csv(RESULTS, index=False)


if __name__ == "__main__":
    main()

"""Kill workers at random moments and count what is lost.

    python studies/chaos.py [--kills 100] [--postgres URL] [--only PostgreSQL]

Workers are processes that tune a small net on iris by `InnaSearchCV`, all on one study. One of them, drawn at random, gets
SIGKILL after a random while (0.05 to 1.5 seconds), and another begins in its place, until there were enough kills, over as
many studies as that takes. Then the last study is finished. Counted are

* trials that had finished before a kill and later were gone or had another value (lost),
* trials still RUNNING at the end,
* studies whose total is not exact,
* numbers or settings that a study has twice (duplicates).

SQLite with one and with four workers; with ``--postgres``, an empty database of a server, also that with eight. Rows go to
``results/chaos.csv`` as they are found, and the table to ``results/chaos.md``.
"""

import argparse
import multiprocessing
import os
import random
import signal
import tempfile
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from sklearn.datasets import load_iris

from inna_tune import InnaClassifier, InnaSearchCV
from inna_tune.store.opening import open_storage
from inna_tune.store.store import OWNER
from inna_tune.study import group

RESULTS = Path(__file__).parent / "results" / "chaos.csv"
CONTEXT: Any = multiprocessing.get_context("fork")  # a worker need not load torch again


def search(url, name, n_trials):
    """What every worker runs."""
    net = InnaClassifier(hidden_layer_sizes=(8,), n_members=1, max_epochs=32, early_stopping=False)
    return InnaSearchCV(
        net,
        n_trials=n_trials,
        cv=2,
        storage=url,
        study_name=name,
        resume=True,
        population=2,
        refit=False,
        random_state=0,
    )


def work(url, name, n_trials):
    """Run a worker in this process, which may be killed at any moment."""
    os.setpgid(0, 0)
    warnings.simplefilter("ignore")
    group._WORTH_KEEPING = 0.0  # a checkpoint at every rung, so that kills meet them half written, too
    search(url, name, n_trials).fit(*load_iris(return_X_y=True, as_frame=True))


@dataclass
class Count:
    """What was found."""

    kills: int = 0
    trials: int = 0
    lost: int = 0
    running: int = 0
    inexact: int = 0
    duplicates: int = 0
    taken_up: int = 0
    seconds: float = 0.0
    finished: dict[int, Any] = field(default_factory=dict)

    def look(self, url, name):
        """Note what has finished, and what of that was there before and is so no more."""
        try:
            study = load(url, name)
        except KeyError:
            return
        now = {t.number: (t.value, t.params) for t in study.get_trials() if t.state.is_finished()}
        self.lost += sum(now.get(number) != known for number, known in self.finished.items())
        self.finished = now

    def end(self, url, name, n_trials):
        """Count the whole study at its end."""
        self.look(url, name)
        self.finished = {}
        trials = load(url, name).get_trials()
        self.trials += len(trials)
        self.running += sum(not t.state.is_finished() for t in trials)
        self.inexact += len(trials) != n_trials
        numbers, settings = (
            [t.number for t in trials],
            [tuple(sorted(map(str, t.params.items()))) for t in trials],
        )
        self.duplicates += len(numbers) - len(set(numbers)) + len(settings) - len(set(settings))
        owners = [t.system_attrs.get(OWNER, {}) for t in trials]
        self.taken_up += sum(owner.get("attempt", 1) > 1 for owner in owners)


def load(url, name):
    """A copy in memory of the study as anybody sees it."""
    storage = open_storage(url)
    try:
        copy = optuna.storages.InMemoryStorage()
        optuna.copy_study(from_study_name=name, from_storage=storage, to_storage=copy)
        return optuna.load_study(study_name=name, storage=copy)
    finally:
        storage._backend.engine.dispose()


def chaos(url, *, n_workers, n_kills, n_trials, seed=0, shortest=0.05, longest=1.5):
    """Run studies of ``n_trials`` under kills; a `Count`.

    Parameters
    ----------
    url : str
        Of the database.
    n_workers, n_kills, n_trials, seed : int
    shortest, longest : float
        Bounds of the uniform law of the seconds between kills.
    """
    draw, count, began = random.Random(seed), Count(), time.monotonic()
    number = 0
    while count.kills < n_kills:
        name = f"chaos {number}"
        crew = []
        try:
            while True:
                crew = [w for w in crew if w.is_alive()]
                if done(url, name, n_trials):
                    break
                while len(crew) < n_workers:
                    worker = CONTEXT.Process(target=work, args=(url, name, n_trials), daemon=True)
                    worker.start()
                    crew.append(worker)
                time.sleep(draw.uniform(shortest, longest))
                if count.kills < n_kills and not done(url, name, n_trials):
                    count.look(url, name)
                    victim = draw.choice(crew)
                    if victim.is_alive():
                        os.kill(victim.pid, signal.SIGKILL)
                        count.kills += 1
                    victim.join()
            for worker in crew:
                worker.join(60)
        finally:
            for worker in crew:
                worker.kill()
                worker.join()
        count.end(url, name, n_trials)
        number += 1
    count.seconds = time.monotonic() - began
    return count


def done(url, name, n_trials):
    """Whether a study has its trials, all of them finished."""
    try:
        trials = load(url, name).get_trials()
    except KeyError:
        return False
    return sum(t.state.is_finished() for t in trials) >= n_trials


def main():
    """Run, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--trials", type=int, default=60, help="of each study")
    parser.add_argument("--postgres", help="URL of an empty database, postgresql+psycopg://...")
    parser.add_argument("--only", choices=("SQLite", "PostgreSQL"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    known = pd.read_csv(RESULTS) if RESULTS.exists() else pd.DataFrame(columns=["storage", "workers"])
    with tempfile.TemporaryDirectory() as folder:
        runs = [("SQLite", f"sqlite:///{folder}/one.db", 1), ("SQLite", f"sqlite:///{folder}/four.db", 4)]
        if arguments.postgres:
            runs.append(("PostgreSQL", arguments.postgres, 8))
        for storage, url, n_workers in runs:
            if arguments.only not in (None, storage):
                continue
            found = chaos(url, n_workers=n_workers, n_kills=arguments.kills, n_trials=arguments.trials)
            row = {
                "storage": storage,
                "workers": n_workers,
                "kills": found.kills,
                "trials": found.trials,
                "taken up again": found.taken_up,
                "lost": found.lost,
                "RUNNING": found.running,
                "totals not exact": found.inexact,
                "duplicates": found.duplicates,
            }
            print(row, flush=True)
            known = known[(known.storage != storage) | (known.workers != n_workers)]
            known = pd.concat([known, pd.DataFrame([row])], ignore_index=True)
            known.to_csv(RESULTS, index=False)
    lines = ["| " + " | ".join(known.columns) + " |", "|---" + "|---:" * (len(known.columns) - 1) + "|"]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in known.itertuples(index=False)]
    RESULTS.with_suffix(".md").write_text("\n".join(lines) + "\n")
    print(*lines, sep="\n")


if __name__ == "__main__":
    main()

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

``python studies/chaos.py --faults`` is ``python studies/faults.py``: rounds of other faults.
"""

import argparse
import os
import random
import signal
import tempfile
import time
import warnings
from pathlib import Path

import optuna
import pandas as pd
from crews import CONTEXT, Count, done, search
from faults import add_options, run_faults
from sklearn.datasets import load_iris

from inna_tune.study import group

RESULTS = Path(__file__).parent / "results" / "chaos.csv"


def work(url, name, n_trials):
    """Run a worker in this process, which may be killed at any moment."""
    os.setpgid(0, 0)
    warnings.simplefilter("ignore")
    group._WORTH_KEEPING = 0.0  # a checkpoint at every rung, so that kills meet them half written, too
    search(url, name, n_trials).fit(*load_iris(return_X_y=True, as_frame=True))


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


def main():
    """Run, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--trials", type=int, default=60, help="of each study")
    parser.add_argument("--postgres", help="URL of an empty database, postgresql+psycopg://...")
    parser.add_argument("--only", choices=("SQLite", "PostgreSQL"))
    parser.add_argument("--faults", action="store_true", help="rounds of faults in place of kills")
    add_options(parser)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if arguments.faults:
        run_faults(arguments)
        return
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

"""Rounds of faults, each a small study that something happens to, and that is finished then: what was lost?

    python studies/faults.py [--rounds 100] [--at-once 8] [--fault "lock held"] [--held 90] [--away 30] [--postgres URL]

What happens, when a number of trials that is drawn has finished, and up to half a second later:

* lock held: another process holds SQLite's write lock for ``--held`` seconds,
* database away: PostgreSQL's connections break, and for 1 to ``--away`` seconds none is taken, or each is refused,
* disk full: the file system of the database and of all beside it has no byte left for up to 5 seconds (as root: it is
  mounted for the round),
* no file grows: the same for the process alone, by a limit of its own,
* killer trial: a trial kills its process whenever it trains,
* killed from outside: the worker is killed five times while the same trial trains, at the same rung,
* SIGINT: once or several times,
* clock jumps: a worker's clock jumps by up to a year, forward or back, at three moments, while another worker has the true
  one (by libfaketime, Debian's package ``faketime``); on PostgreSQL in every other round, if there is one.

Counted are trials lost (finished before, and later gone or with another value, or missing at the end), trials wrongly FAIL,
trials RUNNING at the end, and workers that ended with anything but 0 (or 130 after SIGINT, or a SIGKILL that was meant).
Rounds run side by side, each with a folder, a proxy and a database of its own, since most of them is waiting. A row a round
goes to ``results/chaos_faults.csv`` as it ends; those that are there are not run again. The table is
``results/chaos_faults.md``.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import warnings
from multiprocessing.connection import wait
from pathlib import Path

import optuna
import pandas as pd
from crews import CONTEXT, load, search
from fault_rounds import FAKETIME, N_EPOCHS, N_TRIALS, NAME, Round
from sklearn.datasets import load_iris

RESULTS = Path(__file__).parent / "results" / "chaos_faults.csv"

FAULTS = (
    "lock held",
    "database away",
    "disk full",
    "no file grows",
    "killer trial",
    "killed from outside",
    "SIGINT",
    "clock jumps",
)
_COUNTS = ["trials", "lost", "wrongly failed", "RUNNING", "other ends"]
COLUMNS = ["fault", "round", *_COUNTS, "seconds of the fault", "seconds"]


def run_round(fault, number, options, sender):
    """Run a round in a process of its own, and send its row; its folder stays where something was found."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    folder = Path(tempfile.mkdtemp(prefix="inna-tune-round-"))
    row = Round(fault, number, folder, options).run()
    if any(row[name] for name in _COUNTS[1:]):
        print(f"{fault} {number}: {row}, see {folder}", flush=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)
    sender.send({"fault": fault, "round": number, **row})


def possible(options):
    """The faults that can be had here; of the others it is said why not."""
    lacks = {
        "database away": None if options.postgres else "no --postgres",
        "disk full": None if os.geteuid() == 0 else "only root mounts file systems",
        "clock jumps": None if FAKETIME.exists() else f"no {FAKETIME}",
    }
    chosen = [f for f in FAULTS if f in (options.fault or FAULTS)]
    for fault in chosen:
        if lacks.get(fault):
            print(f"{fault}: not run, {lacks[fault]}", flush=True)
    return [f for f in chosen if not lacks.get(f)]


def run_faults(options):
    """Run all rounds that are not there, and write them as they end."""
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the rounds end with it
    known = pd.read_csv(RESULTS).to_dict("records") if RESULTS.exists() else []
    there = {(row["fault"], row["round"]) for row in known}
    faults = possible(options)
    todo = [(f, n) for n in range(options.rounds) for f in faults if (f, n) not in there]
    running = {}
    if todo:
        options.steps = warm_up()
    try:
        while todo or running:
            while todo and len(running) < options.at_once:
                fault, number = todo.pop(0)
                receiver, sender = CONTEXT.Pipe(duplex=False)
                process = CONTEXT.Process(target=run_round, args=(fault, number, options, sender))
                process.start()
                sender.close()
                running[receiver] = process, fault, number
            for receiver in wait(list(running)):
                process, fault, number = running.pop(receiver)
                try:
                    known.append(receiver.recv())
                except EOFError:
                    print(f"{fault} {number}: the round itself ended early", flush=True)
                process.join()
                write(known)
    finally:
        for process, *_ in running.values():
            process.terminate()


def warm_up():
    """Load, in the process that the others are forks of, what a worker would load; the steps of a study's trials."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/studies.db"
        found = search(url, NAME, N_TRIALS).set_params(timeout=3600.0, estimator__max_epochs=N_EPOCHS)
        found.fit(*load_iris(return_X_y=True, as_frame=True))
        return [trial.params["lr"] for trial in load(url, NAME).get_trials()]


def write(rows):
    """Write the rows, and the table of them."""
    frame = pd.DataFrame(rows, columns=COLUMNS)
    frame["place"] = [FAULTS.index(fault) for fault in frame["fault"]]
    frame = frame.sort_values(["place", "round"]).drop(columns="place")
    partial = RESULTS.with_suffix(".part")
    frame.convert_dtypes().to_csv(partial, index=False)
    partial.replace(RESULTS)
    found = frame.groupby("fault", sort=False).agg(
        {"round": "count"} | dict.fromkeys(_COUNTS, "sum") | {"seconds of the fault": "median"}
    )
    found = found.rename(
        columns={"round": "rounds", "seconds of the fault": "seconds of the fault, median"}
    ).reset_index()
    lines = ["| " + " | ".join(found.columns) + " |", "|---" + "|---:" * (len(found.columns) - 1) + "|"]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in found.itertuples(index=False)]
    RESULTS.with_suffix(".md").write_text("\n".join(lines) + "\n")


def add_options(parser):
    """What can be said of rounds."""
    parser.add_argument("--rounds", type=int, default=100, help="of each fault")
    parser.add_argument("--at-once", type=int, default=8, help="rounds side by side")
    parser.add_argument("--fault", action="append", choices=FAULTS, help="of these alone")
    parser.add_argument("--held", type=float, default=90.0, help="seconds that the lock is held")
    parser.add_argument("--away", type=float, default=30.0, help="seconds that the server is away at most")


def main():
    """Run, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    parser.add_argument("--postgres", help="URL of a superuser's database, postgresql+psycopg://...")
    run_faults(parser.parse_args())


if __name__ == "__main__":
    main()

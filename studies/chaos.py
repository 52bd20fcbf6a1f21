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

    python studies/chaos.py --faults [--rounds 100] [--held 90] [--away 30] [--postgres URL]

Rounds of other faults, each a study of its own at a random moment of which something happens, and which is finished then:
another process holds SQLite's write lock; the disk is full; SIGINT; a trial kills its process whenever it trains; with
``--postgres``, the server is away (a proxy breaks all connections). Counted are trials lost, trials wrongly FAIL, trials
RUNNING at the end, and workers that ended with anything but 0 (or 130 after SIGINT, or the killer's SIGKILL). Rows go
to ``results/chaos_faults.csv``.
"""

import argparse
import contextlib
import logging
import multiprocessing
import os
import random
import resource
import signal
import socket
import sqlite3
import tempfile
import threading
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from optuna.trial import TrialState
from sklearn.datasets import load_iris
from sqlalchemy.engine import make_url

from inna_tune import InnaClassifier, InnaSearchCV
from inna_tune.store.opening import open_storage
from inna_tune.store.store import OWNER
from inna_tune.study import group

RESULTS = Path(__file__).parent / "results" / "chaos.csv"
FAULTS = RESULTS.with_name("chaos_faults.csv")
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


# ---------------------------------------------------------------------- other faults


class Kill:
    """A trial that kills its process whenever it trains."""

    def __init__(self, number):
        self.number = number

    def __call__(self, study, trial):
        """Hear that a trial is told."""

    def on_training(self, study, training):
        """Hear what trains now."""
        if self.number in training.trials:
            os.kill(os.getpid(), signal.SIGKILL)


def fill_the_disk(wait, seconds):
    """Let no file of this process grow beyond a page for a while."""
    time.sleep(wait)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    time.sleep(seconds)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def work_with(url, name, n_trials, killer, full):
    """What a worker of such a round runs."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if full is not None:
        threading.Thread(target=fill_the_disk, args=full, daemon=True).start()
    warnings.simplefilter("ignore")
    logging.getLogger("inna_tune").setLevel(logging.ERROR)
    group._WORTH_KEEPING = 0.0
    try:
        found = search(url, name, n_trials)
        found.set_params(callbacks=() if killer is None else (Kill(killer),))
        found.fit(*load_iris(return_X_y=True, as_frame=True))
    except KeyboardInterrupt:
        os._exit(130)


class Proxy:
    """Between workers and a server, whose connections break when it is told to go away."""

    def __init__(self, url):
        self._at = make_url(url)
        self._server = socket.create_server(("127.0.0.1", 0))
        self._open, self.is_away = [], False
        self.url = self._at.set(host="127.0.0.1", port=self._server.getsockname()[1]).render_as_string(False)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            client, _ = self._server.accept()
            if self.is_away:
                client.close()
                continue
            server = socket.create_connection((self._at.host, self._at.port or 5432))
            self._open += [client, server]
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, one, other):
        with contextlib.suppress(OSError):
            while content := one.recv(65536):
                other.sendall(content)
        for each in (one, other):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def away(self, seconds):
        """Be away for some seconds."""
        self.is_away = True
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._open = []
        time.sleep(seconds)
        self.is_away = False


def hold_the_lock(path, seconds):
    """Be another process that writes for some seconds."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=60)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        time.sleep(seconds)
        connection.execute("ROLLBACK")


def faults(fault, url, rounds, *, n_trials=12, longest=2.0, seed=0):
    """Run rounds of a fault, each a study of ``n_trials``; what was found.

    Parameters
    ----------
    fault : {"lock held", "disk full", "SIGINT", "killer trial", "database away"}
    url : str
    rounds, n_trials, seed : int
    longest : float
        Seconds that the fault lasts at most.
    """
    draw, began = random.Random(seed), time.monotonic()
    proxy = Proxy(url) if fault == "database away" else None
    found = dict.fromkeys(("trials", "lost", "wrongly failed", "RUNNING", "other ends"), 0)
    for number in range(rounds):
        name, count = f"{fault} {number}", Count()
        killer = draw.randrange(n_trials) if fault == "killer trial" else None
        wait, seconds = draw.uniform(0.1, 1.5), draw.uniform(0.1, longest)
        given = fault
        while not done(url, name, n_trials):
            full = (wait, seconds) if given == "disk full" else None
            at = url if proxy is None else proxy.url
            worker = CONTEXT.Process(target=work_with, args=(at, name, n_trials, killer, full), daemon=True)
            worker.start()
            if given in ("lock held", "SIGINT", "database away"):
                time.sleep(wait)
                count.look(url, name)
            if given == "lock held":
                hold_the_lock(make_url(url).database, seconds)
            elif given == "SIGINT" and worker.is_alive():
                os.kill(worker.pid, signal.SIGINT)
                given = None if draw.random() < 0.3 else given
            elif proxy is not None and given:
                proxy.away(seconds)
            if given != "SIGINT":
                given = None
            worker.join()
            usual = {"SIGINT": (0, 130), "killer trial": (0, -signal.SIGKILL)}.get(fault, (0,))
            found["other ends"] += worker.exitcode not in usual
        count.look(url, name)
        trials = load(url, name).get_trials()
        failed = {t.number for t in trials if t.state == TrialState.FAIL}
        found["trials"] += len(trials)
        found["lost"] += count.lost + abs(n_trials - len(trials))
        found["wrongly failed"] += len(failed - {killer}) + (killer is not None and killer not in failed)
        found["RUNNING"] += sum(not t.state.is_finished() for t in trials)
    row = {"fault": fault, "storage": make_url(url).get_backend_name(), "rounds": rounds}
    return row | found | {"seconds": round(time.monotonic() - began)}


def run_faults(arguments):
    """All rounds of all faults, printed and written as they are found."""
    known = pd.read_csv(FAULTS) if FAULTS.exists() else pd.DataFrame(columns=["fault"])
    with tempfile.TemporaryDirectory() as folder:
        plan = [("lock held", arguments.held), ("disk full", 2.0), ("SIGINT", 0.2), ("killer trial", 0.2)]
        runs = [(fault, f"sqlite:///{folder}/{fault.replace(' ', '_')}.db", most) for fault, most in plan]
        if arguments.postgres:
            runs.append(("database away", arguments.postgres, arguments.away))
        for fault, url, longest in runs:
            if arguments.fault not in (None, fault):
                continue
            row = faults(fault, url, arguments.rounds, longest=longest)
            print(row, flush=True)
            row.pop("seconds")
            known = pd.concat([known[known.fault != fault], pd.DataFrame([row])], ignore_index=True)
            known.to_csv(FAULTS, index=False)


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
    parser.add_argument("--fault", help="of these alone")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--held", type=float, default=90.0, help="seconds that the lock is held at most")
    parser.add_argument("--away", type=float, default=30.0, help="seconds that the server is away at most")
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

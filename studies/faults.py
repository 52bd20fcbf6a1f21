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
import contextlib
import logging
import math
import os
import random
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path

import optuna
import pandas as pd
import sqlalchemy
from crews import CONTEXT, Count, done, load, score, search
from optuna.trial import TrialState
from sklearn.datasets import load_iris
from sqlalchemy.engine import make_url

from inna_tune.study import group

RESULTS = Path(__file__).parent / "results" / "chaos_faults.csv"
N_TRIALS = 6
N_EPOCHS = 8
NAME = "round"
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
KILLS_FROM_OUTSIDE = 5
_HANGS = 1800.0  # seconds beyond a fault, after which a worker counts as one that hangs


# ---------------------------------------------------------------------- in the worker


class Watch:
    """What a worker tells: how many trials it has told, -1 before it trains any."""

    def __init__(self):
        self.n_told = CONTEXT.Value("i", -1)

    def __call__(self, study, trial):
        """Hear that a trial is told."""
        self.n_told.value += 1

    def on_training(self, study, training):
        """Hear what trains now."""
        self.n_told.value = max(self.n_told.value, 0)


def work(url, watch, log, *, scorer=None, n_growing=None, seconds=0.0):
    """What a worker of a round runs: the rest of its study.

    Parameters
    ----------
    url, log : str
        The database, and the file for what the worker says.
    watch : Watch
    scorer : callable or None
    n_growing : int or None
        Trials after which no file of this process grows for some ``seconds``.
    """
    os.setpgid(0, 0)
    for stream in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if n_growing is not None:
        threading.Thread(target=stop_growing, args=(watch, n_growing, seconds), daemon=True).start()
    warnings.simplefilter("ignore")
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    group._WORTH_KEEPING = 0.0  # a checkpoint at every rung
    try:
        found = search(url, NAME, N_TRIALS)
        found.set_params(callbacks=(watch,), timeout=3600.0, scoring=scorer, estimator__max_epochs=N_EPOCHS)
        found.fit(*load_iris(return_X_y=True, as_frame=True))
    except KeyboardInterrupt:
        os._exit(130)


def stop_growing(watch, n_told, seconds):
    """Let no file of this process grow beyond a page for a while."""
    while watch.n_told.value < n_told:
        time.sleep(0.01)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    time.sleep(seconds)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


# ---------------------------------------------------------------------- what happens


class Proxy:
    """Between workers and a server; its connections break when it goes away, and new ones end, or are refused."""

    def __init__(self, url, refuses):
        self._at, self._refuses = make_url(url), refuses
        self._server = socket.create_server(("127.0.0.1", 0))
        self._port = self._server.getsockname()[1]
        self._open, self._is_away = [], False
        self.url = self._at.set(host="127.0.0.1", port=self._port).render_as_string(False)
        threading.Thread(target=self._accept, args=(self._server,), daemon=True).start()

    def _accept(self, server):
        with contextlib.suppress(OSError):
            while True:
                client, _ = server.accept()
                if self._is_away:
                    client.close()
                    continue
                server_side = socket.create_connection((self._at.host, self._at.port or 5432))
                self._open += [client, server_side]
                for one, other in ((client, server_side), (server_side, client)):
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
        self._is_away = True
        if self._refuses:
            self._server.shutdown(socket.SHUT_RDWR)
            self._server.close()
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._open = []
        time.sleep(seconds)
        self._is_away = False
        if self._refuses:
            self._server = socket.create_server(("127.0.0.1", self._port))
            threading.Thread(target=self._accept, args=(self._server,), daemon=True).start()


def hold_the_lock(path, seconds):
    """Be another process that writes for some seconds."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=60)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        time.sleep(seconds)
        connection.execute("ROLLBACK")


def fill(folder, seconds):
    """Leave a file system no byte for some seconds."""
    path = Path(folder) / "full"
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))
    with contextlib.suppress(OSError), path.open("ab", buffering=0) as file:
        while file.write(b"0"):
            pass
    time.sleep(seconds)
    path.unlink()


# ---------------------------------------------------------------------- a round


class Round:
    """A study, what happens to it, and what was found.

    Parameters
    ----------
    fault : str
    number : int
        The seed of all that is drawn.
    folder : Path
        An empty one.
    options : argparse.Namespace
    """

    def __init__(self, fault, number, folder, options):
        self.fault, self.folder, self.options = fault, folder, options
        self.draw = random.Random(f"{fault} {number}")
        self.found = dict.fromkeys(("trials", "lost", "wrongly failed", "RUNNING", "other ends"), 0)
        self.count, self.log = Count(), str(folder / "log")
        self.at_trial, self.later = self.draw.randrange(N_TRIALS), self.draw.uniform(0.0, 0.5)
        self.seconds = 0.0
        self.is_server = fault == "database away" or (
            fault == "clock jumps" and options.postgres is not None and number % 2 == 1
        )
        self.url = f"sqlite:///{folder}/studies.db"
        for variable in ("XDG_RUNTIME_DIR", "XDG_CACHE_HOME"):
            os.environ[variable] = str(folder)

    def run(self):
        """Run it; its row."""
        began = time.monotonic()
        with contextlib.ExitStack() as stack:
            if self.is_server:
                self.url = stack.enter_context(a_database(self.options.postgres))
            getattr(self, self.fault.replace(" ", "_").lower())()
            self._finish()
            self._count()
        return self.found | {
            "seconds of the fault": round(self.seconds, 1),
            "seconds": round(time.monotonic() - began, 1),
        }

    # each fault ---------------------------------------------------------

    def lock_held(self):
        worker, watch = self._start()
        self._await_moment(worker, watch)
        self.seconds = self.options.held
        hold_the_lock(make_url(self.url).database, self.seconds)
        self._end(worker)

    def database_away(self):
        proxy = Proxy(self.url, refuses=self.draw.random() < 0.5)
        worker, watch = self._start(proxy.url)
        self._await_moment(worker, watch)
        self.seconds = self.draw.uniform(1.0, self.options.away)
        proxy.away(self.seconds)
        self._end(worker)

    def disk_full(self):
        self.seconds = self.draw.uniform(0.5, 5.0)
        where = self.folder / "disk"
        where.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(where)], check=True)
        try:
            self.url = f"sqlite:///{where}/studies.db"
            worker, watch = self._start()
            self._await_moment(worker, watch)
            fill(where, self.seconds)
            self._end(worker)
            self._finish()
            for path in where.glob("studies.db*"):
                if path.is_file():
                    shutil.copy(path, self.folder)
            self._count()
        finally:
            subprocess.run(["umount", "-l", str(where)], check=True)
        self.url = f"sqlite:///{self.folder}/studies.db"

    def no_file_grows(self):
        self.seconds = self.draw.uniform(0.5, 5.0)
        worker, _ = self._start(n_growing=self.at_trial, seconds=self.seconds)
        self._end(worker)

    def killer_trial(self):
        self.killer = self.at_trial
        self.scorer = self._ending("dies")
        while not done(self.url, NAME, N_TRIALS) and self.found["other ends"] == 0:
            worker, _ = self._start()
            self._end(worker, usual=(0, -signal.SIGKILL))

    def killed_from_outside(self):
        self.scorer = self._ending("waits")
        is_held = self.folder / "is-held"
        for _ in range(KILLS_FROM_OUTSIDE):
            worker, _ = self._start()
            while worker.is_alive() and not is_held.exists():
                time.sleep(0.05)
            time.sleep(self.later)
            self._look()
            is_held.unlink(missing_ok=True)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)
            self._end(worker, usual=(-signal.SIGKILL,))
        (self.folder / "goes-on").touch()

    def sigint(self):
        while True:
            worker, watch = self._start()
            self._await_moment(worker, watch)
            if worker.is_alive():
                os.kill(worker.pid, signal.SIGINT)
            self._end(worker, usual=(0, 130))
            self.at_trial = self.draw.randrange(3)
            if self.draw.random() < 0.5 or done(self.url, NAME, N_TRIALS):
                return

    def clock_jumps(self):
        clock, now = self.folder / "clock", [0.0]
        clock.write_text("+0")
        code = "import sys, faults; faults.work(sys.argv[1], faults.Watch(), sys.argv[2])"
        environment = os.environ | {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
        }
        with subprocess.Popen([sys.executable, "-c", code, self.url, self.log], env=environment) as faked:
            try:
                self._await_finished(faked, min(self.at_trial, N_TRIALS // 2))
                worker, _ = self._start()
                for _ in range(3):
                    size = math.exp(self.draw.uniform(math.log(1.0), math.log(365 * 86400.0)))
                    now[0] = size if self.draw.random() < 0.5 else -size
                    (self.folder / "next").write_text(f"{now[0]:+.0f}")
                    os.replace(self.folder / "next", clock)
                    time.sleep(self.later)
                self.seconds = now[0]
                self._end(worker)
                try:
                    self.found["other ends"] += faked.wait(_HANGS) != 0
                except subprocess.TimeoutExpired:
                    self.found["other ends"] += 1
            finally:
                faked.kill()

    # what they share ----------------------------------------------------

    scorer = None

    def _ending(self, end):
        """A scorer by which the process ends that trains the trial that was drawn."""
        lr = self.options.steps[self.at_trial]
        return partial(score, lr=lr, end=end, folder=str(self.folder))

    def _start(self, url=None, **more):
        watch = Watch()
        worker = CONTEXT.Process(
            target=work, args=(url or self.url, watch, self.log), kwargs={"scorer": self.scorer, **more}
        )
        worker.start()
        return worker, watch

    def _await_moment(self, worker, watch):
        while worker.is_alive() and watch.n_told.value < self.at_trial:
            time.sleep(0.01)
        time.sleep(self.later)
        self._look()

    def _await_finished(self, process, number):
        while process.poll() is None:
            with contextlib.suppress(KeyError):
                trials = load(self.url, NAME).get_trials(deepcopy=False)
                if sum(t.state.is_finished() for t in trials) >= number:
                    return
            time.sleep(0.5)

    def _look(self):
        self.count.look(self.url, NAME)

    def _end(self, worker, usual=(0,)):
        worker.join(_HANGS + abs(self.seconds if self.fault != "clock jumps" else 0.0))
        if worker.is_alive():
            with Path(self.log).open("a") as log:
                log.write("the worker hangs\n")
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGABRT)
            worker.join()
        self.found["other ends"] += worker.exitcode not in usual

    def _finish(self):
        """Let further workers do what is left, of which there is nothing after most faults."""
        for _ in range(3):
            if done(self.url, NAME, N_TRIALS):
                return
            worker, _ = self._start()
            self._end(worker)

    killer: int | None = None

    def _count(self):
        self._look()
        trials = load(self.url, NAME).get_trials()
        failed = {t.number for t in trials if t.state == TrialState.FAIL}
        wrongly = len(failed - {self.killer}) + (self.killer is not None and self.killer not in failed)
        self.found |= {
            "trials": len(trials),
            "lost": self.count.lost + abs(N_TRIALS - len(trials)),
            "wrongly failed": wrongly,
            "RUNNING": sum(not t.state.is_finished() for t in trials),
        }


@contextlib.contextmanager
def a_database(url):
    """A database of its own on a server."""
    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")
    name = f"round_{os.getpid()}"
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    try:
        yield make_url(url).set(database=name).render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        engine.dispose()


# ---------------------------------------------------------------------- many rounds

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

"""A round of a fault: a small study, what happens to it, and what was lost by it; `faults.py` runs many."""

import contextlib
import logging
import math
import os
import random
import resource
import select
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from functools import partial
from pathlib import Path

import sqlalchemy
from crews import CONTEXT, Count, done, load, score, search, seconds_idle
from optuna.trial import TrialState
from sklearn.datasets import load_iris
from sqlalchemy.engine import make_url

from inna_tune.study import group

N_TRIALS = 6
N_EPOCHS = 8
NAME = "round"
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
KILLS_FROM_OUTSIDE = 5
_HANGS = (
    1800.0  # seconds beyond a fault without running, nor waiting for a processor, after which a worker hangs
)


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


def sleep_by_select():
    """Let this process sleep by ``select``: of the times to sleep until libfaketime 0.9.10 makes such as the kernel refuses."""
    time.sleep = lambda seconds: select.select([], [], [], seconds)


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
        code = (
            "import sys, fault_rounds as r; r.sleep_by_select(); r.work(sys.argv[1], r.Watch(), sys.argv[2])"
        )
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
                began = time.monotonic()
                while faked.poll() is None and seconds_idle(faked.pid, began) < _HANGS:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        faked.wait(10.0)
                self.found["other ends"] += faked.poll() != 0
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
        longest = _HANGS + abs(self.seconds if self.fault != "clock jumps" else 0.0)
        began = time.monotonic()
        worker.join(longest)
        while worker.is_alive() and seconds_idle(worker.pid, began) < longest:
            worker.join(10.0)
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

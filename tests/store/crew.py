"""Worker processes for the tests: started from a warm process, told what to do by pipes, killed at will."""

import os
import signal
from types import TracebackType
from typing import IO, Self

from tests.warm import Program

# One process forks the workers. Each waits for a line before it works, and with `step` for another one before it tells a trial.
_SCRIPT = """
import os, sys, optuna
from inna_tune.store.opening import create_study, gathered, open_storage
from inna_tune.store.asking import ask, tell
from inna_tune.store.workers import Worker

optuna.logging.disable_default_handler()
url, n_trials, step = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "step"

def say(*words):
    os.write(1, (" ".join(map(str, words)) + chr(10)).encode())

def work(orders):
    storage = open_storage(url)
    study = create_study(storage, "shared", "minimize", optuna.samplers.RandomSampler(seed=os.getpid()), resume=True)
    say("ready", os.getpid())
    orders.readline()
    with Worker(storage) as worker:
        while (trial := ask(study, worker, n_trials)) is not None:
            with gathered(study):
                x = trial.suggest_float("x", 0.0, 1.0)
            say("asked", trial.number, x)
            trial.report(x, 1)
            if step:
                orders.readline()
            if tell(study, worker, trial, x):
                say("told", trial.number, x)

children = []
for fd in map(int, sys.argv[4:]):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work(os.fdopen(fd))
            code = 0
        except Exception as error:
            say("failed", repr(error), repr(error.__cause__))
        finally:
            os._exit(code)
    children.append(child)
failed = sum(os.waitpid(child, 0)[1] == 256 for child in children)
sys.exit(failed)
"""


class Crew:
    """Workers on the study "shared" of the storage at `url`, all together ready when the block begins.

    Parameters
    ----------
    url : str
    n_trials : int
    size : int
        How many worker processes.
    step : bool
        Whether each worker waits for `order` before it tells a trial.
    """

    def __init__(self, url: str, n_trials: int, size: int = 1, *, step: bool = False) -> None:
        pipes = [os.pipe() for _ in range(size)]
        self._orders = [os.fdopen(write, "w") for _, write in pipes]
        reads = [read for read, _ in pipes]
        self._process = Program(_SCRIPT, url, n_trials, "step" if step else "run", fds=reads)
        for read in reads:
            os.close(read)
        self.output: IO[str] = self._process.stdout

    def __enter__(self) -> Self:
        self.pids = [int(self.read("ready")[0]) for _ in self._orders]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pid in self.pids:
            self.kill(pid)
        self._process.__exit__()
        for orders in self._orders:
            orders.close()

    def read(self, word: str) -> list[str]:
        """Return the rest of the next line, which has to begin with `word`."""
        first, *rest = self.output.readline().split() or ["nothing"]
        assert first == word, f"expected {word}, got {first} {rest}"
        return rest

    def order(self, worker: int = 0) -> None:
        """Let a waiting worker go on."""
        self._orders[worker].write("\n")
        self._orders[worker].flush()

    def start(self) -> None:
        """Let all workers begin."""
        for worker in range(len(self._orders)):
            self.order(worker)

    def kill(self, pid: int | None = None) -> None:
        """Kill a worker, by default the first, so that it can't clean up."""
        try:
            os.kill(self.pids[0] if pid is None else pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def finish(self) -> list[str]:
        """Wait for all workers; return the lines they wrote."""
        lines = self.output.read().splitlines()
        assert self._process.wait() == 0, "a worker failed"
        return lines

"""Programs started from a process that has loaded what they need: each is a process of its own, and costs no import."""

import atexit
import contextlib
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

# The server forks a keeper a program, which forks the program, tells its id, waits for it and tells its code: the program
# may be killed, and the test is none of its relatives.
_SERVER = r"""
import atexit, gc, importlib, json, os, signal, socket, sys, traceback
for name in sys.argv[2:]:
    importlib.import_module(name)

def program(asked, given):
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell began the tests in the background
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    sys.argv = ["-c", *asked["words"], *map(str, given)]
    sys.path[:0] = asked["path"]
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", closefd=False)
    code = 0
    try:
        exec(compile(asked["code"], "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code)

def keep(asked, out, err, told, *given):
    child = os.fork()
    if child == 0:
        server.close()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        for fd in (out, err, told):
            os.close(fd)
        program(asked, given)
    for fd in (out, err, *given):
        os.close(fd)
    os.write(told, b"%d\n" % child)
    os.write(told, b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    os._exit(0)

gc.freeze()  # children share what is loaded, as long as no look for garbage writes into it
server = socket.socket(fileno=int(sys.argv[1]))
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while True:
    header, ancillary, *_ = socket.recv_fds(server, 4, 64)
    if not header:
        break
    size, asked = int.from_bytes(header, "big"), b""
    while len(asked) < size:
        asked += server.recv(size - len(asked))
    if os.fork() == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        keep(json.loads(asked), *ancillary)
    for fd in ancillary:
        os.close(fd)
"""

_ROOT = Path(__file__).parents[1]

# Of every program, so that its sets have another order than those of the tests, whose seed is drawn.
HASH_SEED = "1"

# What most programs need.
_USUAL = (
    *("numpy", "optuna", "pandas", "sklearn.datasets", "sklearn.dummy", "sklearn.ensemble", "torch", "typer"),
    *("inna_tune.cli", "inna_tune.jobs.tuning", "inna_tune.jobs.comparing", "inna_tune.report"),
    "inna_tune.tables.understanding",
)

# Nothing of this package, for programs by which it is seen what that loads or says.
OTHERS = ("numpy", "optuna", "pandas", "scipy.stats", "sklearn.model_selection", "sqlalchemy", "torch")


@functools.cache
def _server(loaded: tuple[str, ...]) -> socket.socket:
    """One a test process and what is loaded, begun when it is first needed; it ends when this end of the socket closes."""
    ours, theirs = socket.socketpair()
    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER, str(theirs.fileno()), *loaded],
        pass_fds=[theirs.fileno()],
        env=os.environ | {"PYTHONPATH": path, "PYTHONHASHSEED": HASH_SEED},
        start_new_session=True,
    )
    theirs.close()
    atexit.register(process.wait)
    atexit.register(ours.close)
    return ours


# What runs a file as ``python FILE WORDS`` would.
RUN_FILE = "import runpy, sys; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"


class Program:
    """Code that runs as ``python -c CODE WORDS`` would, in a process of its own.

    Parameters
    ----------
    code : str
    *words : str
        What it finds in ``sys.argv``.
    cwd : path, optional
    env : mapping, optional
        All of its environment; by default this one's.
    fds : sequence of int
        Files that it gets; it finds their numbers in ``sys.argv``, after the words.
    loaded : tuple of str
        Modules that it finds imported.

    Attributes
    ----------
    pid : int
    stdout, stderr : text files
    returncode : int or None
        Negative where a signal killed it, as of `subprocess.Popen`.
    """

    def __init__(self, code, *words, cwd=None, env=None, fds=(), loaded=_USUAL):
        pipes = [os.pipe() for _ in range(3)]
        asked = {
            "code": code,
            "words": [str(word) for word in words],
            "cwd": str(cwd or Path.cwd()),
            "env": dict(os.environ if env is None else env),
            "path": [str(_ROOT)],
        }
        content = json.dumps(asked).encode()
        server = _server(loaded)
        socket.send_fds(server, [len(content).to_bytes(4, "big")], [*(write for _, write in pipes), *fds])
        server.sendall(content)
        for _, write in pipes:
            os.close(write)
        self.stdout, self.stderr, self._told = (os.fdopen(read, encoding="utf-8") for read, _ in pipes)
        self.pid = int(self._told.readline())
        self.returncode = None

    def wait(self):
        """Its code, once it has ended."""
        if self.returncode is None:
            self.returncode = int(self._told.readline())
        return self.returncode

    def poll(self):
        """Its code if it has ended, else None."""
        if self.returncode is None and select.select([self._told], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def communicate(self):
        """What it writes from now on to the end: standard output and standard error."""
        errors = []
        reader = threading.Thread(target=lambda: errors.append(self.stderr.read()))
        reader.start()
        output = self.stdout.read()
        reader.join()
        self.wait()
        return output, errors[0]

    def send_signal(self, number):
        """A signal, if it still runs."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self):
        """End it, whatever it does."""
        self.send_signal(signal.SIGKILL)
        self.wait()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.kill()
        for file in (self.stdout, self.stderr, self._told):
            file.close()

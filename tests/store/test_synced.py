"""A told trial is on the disk when `tell` returns: the kernel's own calls, as strace lists them."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOLD = """
import os
import sys

from inna_tune.store.asking import ask, tell
from inna_tune.store.opening import create_study, open_storage
from inna_tune.store.workers import Worker

study = create_study(open_storage(sys.argv[1]), "s", "minimize", resume=True)
with Worker(study._storage) as worker:
    trial = ask(study, worker, 1)
    os.write(2, b"report begins")
    trial.report(0.5, 1)
    os.write(2, b"tell begins")
    tell(study, worker, trial, 1.0, notes={"a": 1})
    os.write(2, b"tell ended")
"""


def calls_on_the_log(trace: str, begins: str, ends: str) -> list[str]:
    """Names of the calls between two words of the program that concern the write-ahead log, in their order."""
    lines = trace.splitlines()
    begin, end = (next(i for i, line in enumerate(lines) if word in line) for word in (begins, ends))
    calls = (re.match(r"(?:\d+ +)?(\w+)\(\d+<[^>]*-wal>", line) for line in lines[begin:end])
    return [call[1] for call in calls if call is not None]


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_between_a_tells_write_and_its_return_the_log_is_synced(tmp_path: Path) -> None:
    log = tmp_path / "trace"
    calls = "write,pwrite64,pwritev,fsync,fdatasync"
    words = ["strace", "-f", "-y", "-s", "40", "-e", f"trace={calls}", "-o", str(log)]
    code = [sys.executable, "-c", TOLD, f"sqlite:///{tmp_path}/studies.db"]
    done = subprocess.run([*words, *code], capture_output=True, text=True)
    if "ptrace" in done.stderr and "not permitted" in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr
    trace = log.read_text(errors="replace")
    told = calls_on_the_log(trace, "tell begins", "tell ended")
    assert "pwrite64" in told
    last_write = len(told) - told[::-1].index("pwrite64")
    assert set(told[last_write:]) & {"fsync", "fdatasync"}
    # A report waits for no disk, which shows that the trace tells one from the other.
    assert set(calls_on_the_log(trace, "report begins", "tell begins")) == {"pwrite64"}

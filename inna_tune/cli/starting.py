"""What surrounds the program: Ctrl-C while it loads what it needs, and outputs that nobody can read.

Of Python's own alone, so that it is in place before anything that takes time is imported.
"""

import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn, TextIO, cast

_IMPORTING = "<frozen importlib"  # how the files of Python's import machinery are called


def run_program(command: Callable[[], int]) -> NoReturn:
    """Run the program, and end the process with its code.

    Parameters
    ----------
    command : callable
        Imports what it needs, does the work and returns the exit code.
    """
    _occupy_standard_files()
    _read_words_as_utf8()
    out, error = _Stream(sys.stdout, 1), _Stream(sys.stderr, 2)
    sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, error)
    _replace_handlers(signal.default_int_handler, by=_interrupt)
    try:
        code = command()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            error.write(f"{end.code}\n")
    except KeyboardInterrupt:
        _say_interrupted()
        code = 130
    out.flush()
    if out.failed is not None:
        # Who has closed the other end of a pipe knows it.
        if out.failed.errno != errno.EPIPE:
            error.write(f"inna-tune: not all that was printed has arrived: {out.failed.strerror}\n")
        code = code or (1 if out.failed.errno == errno.EPIPE else 2)
    error.flush()
    # Once all is done, an interrupt must not print what it finds Python at.
    _replace_handlers(_interrupt, signal.default_int_handler, by=signal.SIG_DFL)
    sys.exit(code)


def _read_words_as_utf8() -> None:
    """Begin anew in Python's UTF-8 mode where words came that the locale has no letters for, such as "größe" under LC_ALL=C.

    Decoding these words alone would not do: files are opened, and text is printed, by the same locale.
    """
    words = sys.argv[1:]
    if sys.flags.utf8_mode or not any("\udc80" <= letter <= "\udcff" for word in words for letter in word):
        return
    # Only where the process was begun with these words, not where something calls the program with words of its own.
    if words and sys.orig_argv[-len(words) :] == words and sys.executable:
        os.execve(
            sys.executable,
            [sys.executable, "-X", "utf8", *sys.orig_argv[1:]],
            os.environ | {"PYTHONUTF8": "1"},  # for the workers, too
        )


def begin_work() -> None:
    """From here on Ctrl-C raises KeyboardInterrupt wherever it comes, since there is something to be put in order."""
    _replace_handlers(_interrupt, by=signal.default_int_handler)


def _replace_handlers(*known: Any, by: Any) -> None:
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) in known:
        signal.signal(signal.SIGINT, by)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt; within an import, where libraries may swallow it or print a trace, end at once."""
    while frame is not None:
        if frame.f_code.co_filename.startswith(_IMPORTING):
            _say_interrupted()
            os._exit(130)
        frame = frame.f_back
    raise KeyboardInterrupt


def _say_interrupted() -> None:
    with suppress(OSError):
        os.write(2, b"Interrupted.\n")


def _occupy_standard_files() -> None:
    """Open what was closed, so that no file of ours gets a number that others take for standard output."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
        if getattr(sys, name) is None:
            file = open(number, "w" if number else "r", closefd=False, encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, file)


class _Stream:
    """Standard output or error, to which writing never fails: no search ends since nobody can be told of it.

    Attributes
    ----------
    failed : OSError or None
        The first error; what is written after it goes nowhere.
    """

    def __init__(self, file: TextIO, number: int) -> None:
        self._file, self._number = file, number
        self.failed: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, text: str) -> int:
        """Write a text, or let it be."""
        self._try(lambda: self._file.write(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Bring out what was written."""
        self._try(self._file.flush)

    def _try(self, act: Callable[[], object]) -> None:
        try:
            act()
        except OSError as error:
            self.failed = self.failed or error
            # What is still in the file's buffer, and what comes, has to go somewhere.
            with suppress(OSError, io.UnsupportedOperation):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._number)
                os.close(nowhere)
                self._file.flush()
        except ValueError:  # it was closed
            return

"""All commands, and the words by which one of them is run."""

import sys
import traceback
import warnings
from contextlib import suppress
from typing import Any

# In the order in which the help lists the commands.
# isort: off
from inna_tune.cli import understanding  # noqa: F401
from inna_tune.cli import fitting, leaving, comparing, working, looking  # noqa: F401
from inna_tune.cli import transfer, retrying, reporting, dashboard, prior, bugs  # noqa: F401

# isort: on
from inna_tune.cli import console
from inna_tune.cli.console import app

__all__ = ["app", "run"]


_said: set[str] = set()


def run() -> int:
    """Run what the words of this process ask for; the exit code, where it does not end by itself."""
    console.is_own_process = True
    words = sys.argv[1:]
    if "--debug" in words:  # wherever it stands: after an error people append it
        words.remove("--debug")
        words.insert(0, "--debug")
    warnings.showwarning = _show_warning
    with suppress(AttributeError):  # a terminal that cannot write a letter gets its escape
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        app(words)
    except Exception:  # with --debug
        console.err.lines(traceback.format_exc())
        return 1
    return 0


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,
    line: Any = None,
) -> None:
    if file is not None or console.shows_traces():
        text = warnings.formatwarning(message, category, filename, lineno, line)
        console.err.lines(text.rstrip()) if file is None else file.write(text)
        return
    # Where in the code it arose says nothing to a person at a terminal, and each fold or trial would say it anew.
    said = f"Note: {message}"
    if said not in _said:
        _said.add(said)
        console.say(said, console.err)

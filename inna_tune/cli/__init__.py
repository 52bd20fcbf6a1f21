"""The command line ``inna-tune``. It says nothing of its own: the rooms below do the work.

Every command is in a module of this package and joins the app when that is imported; what they share is in `console`.
"""

import io
import sys
import traceback
import warnings
from typing import Any

# In the order in which the help lists the commands.
# isort: off
from inna_tune.cli import understanding  # noqa: F401
from inna_tune.cli import fitting, comparing, working, looking, transfer, reporting, dashboard, prior, bugs  # noqa: F401

# isort: on
from inna_tune.cli import console
from inna_tune.cli.console import app

__all__ = ["app", "main"]


def main() -> None:
    """Entry point of the ``inna-tune`` command."""
    console.is_own_process = True
    words = sys.argv[1:]
    if "--debug" in words:  # wherever it stands: after an error people append it
        words.remove("--debug")
        words.insert(0, "--debug")
    warnings.showwarning = _show_warning
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that cannot write a letter gets its escape
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        sys.exit(app(words))
    except BrokenPipeError:
        raise
    except Exception:  # with --debug
        console.err.lines(traceback.format_exc())
        sys.exit(1)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,
    line: Any = None,
) -> None:
    text = warnings.formatwarning(message, category, filename, lineno, line)
    console.err.lines(text.rstrip()) if file is None else file.write(text)

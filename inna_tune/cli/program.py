"""All commands, and the words by which one of them is run."""

import sys

# In the order in which the help lists the commands.
# isort: off
from inna_tune.cli import understanding  # noqa: F401
from inna_tune.cli import fitting, comparing, working, looking, transfer, reporting, dashboard, prior, bugs  # noqa: F401

# isort: on
from inna_tune.cli import console
from inna_tune.cli.console import app

__all__ = ["app", "run"]


def run() -> int:
    """Run what the words of this process ask for; the exit code, where it does not end by itself."""
    console.is_own_process = True
    words = sys.argv[1:]
    if "--debug" in words:  # wherever it stands: after an error people append it
        words.remove("--debug")
        words.insert(0, "--debug")
    app(words)
    return 0

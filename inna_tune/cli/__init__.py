"""The command line ``inna-tune``. It says nothing of its own: the rooms below do the work.

Every command is in a module of this package and joins the app when that is imported; what they share is in `console`.
"""

import sys

# In the order in which the help lists the commands.
# isort: off
from inna_tune.cli import understanding  # noqa: F401
from inna_tune.cli import fitting, leaving, comparing, working, looking  # noqa: F401
from inna_tune.cli import transfer, reporting, dashboard, prior, bugs  # noqa: F401

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
    sys.exit(app(words))

"""The command line ``inna-tune``. It says nothing of its own: the rooms below do the work.

Every command is in a module of this package and joins the app when `program` imports it; what they share is in `console`.
Here nothing is imported that takes time, so that Ctrl-C is understood from the first moment.
"""

from typing import TYPE_CHECKING, Any

from inna_tune.cli.starting import run_program

if TYPE_CHECKING:
    from inna_tune.cli.console import app

__all__ = ["app", "main"]


def main() -> None:
    """Entry point of the ``inna-tune`` command."""

    def run() -> int:
        from inna_tune.cli.program import run

        return run()

    run_program(run)


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module 'inna_tune.cli' has no attribute {name!r}")
    from inna_tune.cli.program import app

    return app

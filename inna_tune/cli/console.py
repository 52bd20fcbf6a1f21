"""What every command shares: the consoles, the options of the program itself, errors in one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

DEFAULT_STORAGE = "sqlite:///inna_tune.db"

app = typer.Typer(
    name="inna-tune",
    help="Tune INNA, the inertial Newton algorithm, on your table.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)
if not out.is_terminal:
    out.width = 160  # a file or a pipe has no edge to wrap tables at

_debug = False

Storage = Annotated[str, typer.Option(help="Database of the studies: an Optuna URL.")]


def _version(value: bool) -> None:
    if value:
        from inna_tune import __version__

        out.print(f"inna-tune {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the whole trace of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    global _debug
    _debug = debug


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Wrong input ends with one line on standard error and code 2; an interrupt with code 130."""
    try:
        yield
    except KeyboardInterrupt:
        err.print("Interrupted; finished trials are safe.")
        raise typer.Exit(130) from None
    except (ValueError, TypeError, OSError, ImportError) as error:
        if _debug:
            raise
        # NOTE: markup=False, since a message may quote text in square brackets.
        err.print(f"inna-tune: {' '.join(str(error).split())}", markup=False, style="red")
        raise typer.Exit(2) from None


def default_name(table: str) -> str:
    """Name of the study of a table, if none is given."""
    return table.removeprefix("sklearn:") if table.startswith("sklearn:") else Path(table).stem


def settings_text(settings: dict[str, Any]) -> str:
    """Parameters in one line."""
    return ", ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in settings.items())

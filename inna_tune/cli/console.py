"""What every command shares: the consoles, the options of the program itself, errors in one line, results as JSON."""

import json
import math
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from inna_tune import clock
from inna_tune.visible import visible, visible_json

TABLE = "A file (.csv, .tsv, .parquet, .feather, .jsonl, .xlsx), - for a pipe, or sklearn:NAME."
DEFAULT_STORAGE = "sqlite:///inna_tune.db"


class _Usage(TyperGroup):
    """Typer's messages about words that make no sense, through the door."""

    def make_context(self, *args: Any, **options: Any) -> Any:
        with _seen():
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        with _seen():
            return super().invoke(ctx)


@contextmanager
def _seen() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # NOTE: told by what it has, since click's classes lie elsewhere in newer versions of typer.
        if hasattr(error, "format_message"):
            message = visible(error.format_message(), lines=True)
            error.format_message = lambda: message
        raise


app = typer.Typer(
    name="inna-tune",
    cls=_Usage,
    help="Tune INNA, the inertial Newton algorithm, on your table.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

LEAST_SECONDS = 0.1  # of a budget
# What of a budget the work has whatever came before it; and what that may take without a word.
_LEAST_SHARE, _MUCH = 0.1, 0.5
_LONGEST = 2000  # letters of an error, which may quote a cell of megabytes


class Door(Console):
    """The door that all texts pass on their way to the terminal, since names and labels in them are strangers'.

    No text is markup, in the cells of a table neither, and what a terminal would obey is shown as an escape.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, soft_wrap=True, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """One line, whatever is in it."""
        return super().render_str(visible(text), **options)

    def lines(self, text: str) -> None:
        """Print a text of several lines."""
        self.print(Text(visible(text, lines=True)))


out = Door()
err = Door(stderr=True)
if not out.is_terminal:
    out.width = 160  # a file or a pipe has no edge to wrap tables at


def say(text: object, console: Console = out) -> None:
    """Print one line."""
    console.print(visible(str(text)))


_debug = False
is_own_process = False  # whether the program was started as `inna-tune`, and not called from another
_started = clock.now()  # before torch and scikit-learn are imported, which takes seconds

STORAGE_VARIABLE = "INNA_TUNE_STORAGE"  # as in inna_tune.store.errors, which a --help need not wait for


def _find_storage(context: typer.Context, parameter: typer.CallbackParam, value: str) -> str:
    """The URL that was given, or that of the variable, which also may be named: ``$NAME``, where no shell has filled it in."""
    named = re.fullmatch(r"\$\{?(\w+)\}?", value)
    if named is not None:
        return os.environ.get(named[1], value)
    source = context.get_parameter_source(str(parameter.name))
    return (
        os.environ.get(STORAGE_VARIABLE, value) if source is not None and source.name == "DEFAULT" else value
    )


Storage = Annotated[
    str,
    typer.Option(
        callback=_find_storage,
        help=f"Database of the studies: an Optuna URL. The variable {STORAGE_VARIABLE} may hold it, with its password.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="A parameter of InnaClassifier or InnaRegressor, such as max_epochs=30; once for each.",
    ),
]
Drop = Annotated[
    list[str] | None,
    typer.Option("--drop", metavar="NAME", help="A column that is to be no feature; once for each."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the results as one JSON object, for scripts.")]


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
    global _debug, _started
    _debug = debug
    if not is_own_process:
        _started = clock.now()


def shows_traces() -> bool:
    """Whether --debug was given."""
    return _debug


class Told(KeyboardInterrupt):
    """An interrupt of which the person has been told what it left."""


@contextmanager
def one_line_errors() -> Iterator[None]:
    """One line on standard error and a code.

    2 for wrong input, 75 where the database was away for too long (``EX_TEMPFAIL``: later it may work), 130 for an interrupt,
    1 for what should not happen.
    """
    try:
        if is_own_process:
            # The progress line says what Optuna's messages would. Here, since importing it takes the time of a --help.
            import optuna

            optuna.logging.set_verbosity(optuna.logging.WARNING)
        yield
    except KeyboardInterrupt as interrupt:
        if not isinstance(interrupt, Told):
            err.print("Interrupted.")
        raise typer.Exit(130) from None
    except BrokenPipeError:
        raise  # whoever read our output has gone; the program's frame ends it without a word
    except (ValueError, TypeError, OSError, ImportError) as error:
        if _debug:
            raise
        from inna_tune.store.errors import UnreachableError

        _complain(str(error))
        raise typer.Exit(75 if isinstance(error, UnreachableError) else 2) from None
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:
        if _debug:
            raise
        from inna_tune.store.errors import DATABASE_ERRORS, cause_of

        if _is_out_of_memory(error):
            _complain(
                f"there is not enough memory for this ({error}); take fewer rows or columns, or smaller nets"
            )
            raise typer.Exit(2) from None
        if isinstance(error, DATABASE_ERRORS):  # where no room told which storage it was
            _complain(f"the storage of the studies: {cause_of(error)}")
            raise typer.Exit(2) from None
        _complain(
            f"unexpected {type(error).__name__}: {error}. See more with: inna-tune --debug …; please report it with what "
            "inna-tune bug-report prints"
        )
        raise typer.Exit(1) from None


def _is_out_of_memory(error: Exception) -> bool:
    """Of torch's too, which are no MemoryError; who has not loaded it has none of these."""
    if isinstance(error, MemoryError) or "torch" not in sys.modules:
        return isinstance(error, MemoryError)
    from inna_tune.engine.width import is_out_of_memory

    return is_out_of_memory(error)


def _complain(message: str) -> None:
    line = " ".join(message.split())
    if len(line) > _LONGEST:
        line = f"{line[: _LONGEST // 2]} … {line[-_LONGEST // 2 :]}"
    err.print(f"inna-tune: {line}", style="red")


def time_left(timeout: float | None) -> float | None:
    """Seconds that are left of a budget which began with the program; a tenth of it at least, for a model at all."""
    return None if timeout is None else max(timeout - (clock.now() - _started), _LEAST_SHARE * timeout)


def say_what_time_took(timeout: float | None, what: str) -> None:
    """Say so where what was done before the work took half of a budget, or more than all of it."""
    from inna_tune.records.text import duration

    spent, left = clock.now() - _started, time_left(timeout)
    if timeout is None or left is None or spent < _MUCH * timeout:
        return
    if spent < timeout:
        said = f"took {duration(spent)} of the {duration(timeout)} of --timeout; {duration(left)} are left"
    else:
        said = (
            f"took {duration(spent)}, and --timeout is {duration(timeout)}: the work itself has {duration(left)} all the "
            "same, in which little can be trained; give more time"
        )
    say(f"Note: {what} {said}", err)


def default_name(table: str) -> str:
    """Name of the study of a table, if none is given."""
    if table == "-":
        return "stdin"
    if table.startswith("sklearn:"):
        return table.removeprefix("sklearn:")
    path = Path(table)
    return Path(path.stem).stem if path.suffix.lower() in (".gz", ".bz2", ".zst", ".lz4") else path.stem


def print_json(content: Any) -> None:
    """Print results for scripts: what is not finite as null, times as ISO 8601."""
    text = json.dumps(_plain(content), indent=2, ensure_ascii=False, allow_nan=False)
    # A lone surrogate, which a name in a database may hold, is no UTF-8.
    text = text.encode("utf-8", "replace").decode("utf-8")
    out.print(Text(visible_json(text)))


def _plain(thing: Any) -> Any:
    if is_dataclass(thing) and not isinstance(thing, type):
        return _plain(asdict(thing))
    if isinstance(thing, Mapping):
        return {str(k): _plain(v) for k, v in thing.items()}
    if isinstance(thing, list | tuple):
        return [_plain(v) for v in thing]
    if isinstance(thing, bool) or thing is None or isinstance(thing, int | str):
        return thing
    if isinstance(thing, float):
        return thing if math.isfinite(thing) else None
    if isinstance(thing, datetime):
        return thing.isoformat()
    if hasattr(thing, "item"):
        return _plain(thing.item())  # numpy's scalars
    return str(thing)

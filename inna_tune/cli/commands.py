"""Commands as a person would type them, made of the parameters of the commands themselves and quoted for a shell."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console

from inna_tune.cli.console import STORAGE_VARIABLE, Told, app, err, say
from inna_tune.cli.starting import begin_work

_VARIABLE = f"${STORAGE_VARIABLE}"


def command_line(*names: str, **values: Any) -> str:
    """A command with these arguments and options; options that have their default are left out.

    Parameters
    ----------
    *names : str
        Such as ``"studies", "export"``.
    **values
        By the names of the function's parameters.
    """
    found: Any = typer.main.get_command(app)
    for name in names:
        found = found.commands[name]
    return _joined([str(app.info.name), *names, *_words(found, values)])


def again(context: typer.Context, **changes: Any) -> str:
    """The command that runs now, with all that was given, but for some changes.

    Parameters
    ----------
    context : typer.Context
    **changes
        By the names of the function's parameters.
    """
    words: list[str] = []
    here: Any = context
    while here is not None:
        own = _words(here.command, here.params | (changes if here is context else {}))
        words = [str(app.info.name if here.parent is None else here.info_name), *own, *words]
        here = here.parent
    return _joined(words)


@contextmanager
def resumable(resumption: str) -> Iterator[None]:
    """Say after Ctrl-C what is safe, or where the database went away, and how to go on."""
    from inna_tune.store.errors import UnreachableError

    begin_work()
    try:
        yield
    except (KeyboardInterrupt, UnreachableError) as error:
        if isinstance(error, KeyboardInterrupt):
            say("Interrupted; finished trials are safe.", err)
        say(f"Resume with: {resumption}", err)
        say_variable(err, resumption)
        if isinstance(error, KeyboardInterrupt):
            raise Told from None
        raise


def say_variable(console: Console, *commands: str) -> None:
    """Say what a variable is to hold that stands in commands for a URL with a password."""
    if any(_VARIABLE in command for command in commands):
        say(f"{STORAGE_VARIABLE} is to hold the URL of the database, with its password.", console)


def more_trials(n_trials: int, states: Sequence[Mapping[str, int]]) -> int:
    """What to ask for next: the same number where studies have not come so far, else twice as many.

    Parameters
    ----------
    n_trials : int
    states : sequence of mappings
        Of each study, how many trials are in each state.
    """
    finished = [sum(of.get(state, 0) for state in ("complete", "pruned", "fail")) for of in states]
    return n_trials if any(each < n_trials for each in finished) else 2 * n_trials


def _words(of: Any, values: Mapping[str, Any]) -> list[str]:
    """Arguments and options of a command with these values."""
    unknown = values.keys() - {each.name for each in of.params}
    if unknown:
        raise TypeError(f"{of.name} has no parameters {sorted(unknown)}")
    arguments: list[str] = []
    options: list[str] = []
    for each in of.params:
        value = values.get(each.name)
        if value is None or (each.param_type_name == "option" and value == each.default):
            continue
        parts = [_word(v) for v in (value if isinstance(value, list | tuple) else [value])]
        if each.param_type_name == "argument":
            arguments += parts
        elif each.is_flag:
            options.append(max(each.opts if value else each.secondary_opts, key=len))
        else:
            name = max(each.opts, key=len)
            for part in parts:
                part = _without_password(part) if each.name == "storage" else part
                # What begins with a dash would be taken for another option.
                options += [f"{name}={part}"] if part.startswith("-") else [name, part]
    if any(part.startswith("-") for part in arguments):
        return [*options, "--", *arguments]
    return [*arguments, *options]


def _without_password(storage: str) -> str:
    from inna_tune.store.errors import has_password

    return _VARIABLE if has_password(storage) else storage


def _joined(words: Sequence[str]) -> str:
    """Words as a shell takes them; the variable is for the shell to fill in."""
    return " ".join(f'"{word}"' if word == _VARIABLE else shlex.quote(word) for word in words)


def _word(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)

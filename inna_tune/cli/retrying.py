"""``inna-tune studies retry``."""

from typing import Annotated

import typer

from inna_tune.cli.console import DEFAULT_STORAGE, AsJson, Storage, one_line_errors, print_json, say
from inna_tune.cli.looking import studies_app
from inna_tune.records.text import count


@studies_app.command("retry")
def retry(
    study: Annotated[str, typer.Argument(help="Name of the study.")],
    storage: Storage = DEFAULT_STORAGE,
    every: Annotated[
        bool, typer.Option("--all", help="Queue all trials that failed, whatever the reason.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Queue trials again that failed for a fault of the database; the next `fit --resume` takes them up.

    Example: [bold]inna-tune studies retry churn[/bold]
    """
    with one_line_errors():
        from inna_tune.store.retrying import retry_failed

        found = retry_failed(storage, study, every=every)
        if as_json:
            print_json({"study": study, "trials": found})
        elif found:
            numbers = ", ".join(map(str, found))
            say(
                f"Queued {count(len(found), 'trial')} of study {study} again ({numbers}); resume it to train them"
            )
        else:
            why = "" if every else " for a fault of the database; --all takes every trial that failed"
            say(f"No trial of study {study} failed{why}")

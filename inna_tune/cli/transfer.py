"""``inna-tune studies export`` and ``studies import``."""

from typing import Annotated

import typer

from inna_tune.cli.commands import command_line
from inna_tune.cli.console import DEFAULT_STORAGE, AsJson, Storage, one_line_errors, print_json, say
from inna_tune.cli.looking import studies_app
from inna_tune.cli.outputs import DATABASE, Force, check_output


@studies_app.command("export")
def export(
    study: Annotated[str, typer.Argument(help="Name of the study.")],
    output: Annotated[str, typer.Option("--output", "-o", help="SQLite file to write.")],
    storage: Storage = DEFAULT_STORAGE,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Write a study into a file of its own: to keep, or to send.

    Example: [bold]inna-tune studies export churn -o churn.db[/bold]
    """
    with one_line_errors():
        from inna_tune.store.transfer import export_study

        check_output(output, DATABASE, "--output", storage=storage, force=force, study=study)
        done = export_study(storage, study, output, replace=force)
        if as_json:
            print_json({"study": done, "file": output})
            return
        say(f"Wrote study {done.name} with {done.words} to {output}")
        say(f"Take it in: {command_line('studies', 'import', file=output)}")


@studies_app.command("import")
def import_(
    file: Annotated[str, typer.Argument(help="SQLite file with studies.")],
    storage: Storage = DEFAULT_STORAGE,
    study: Annotated[str | None, typer.Option(help="The one study to take; all if not given.")] = None,
    rename: Annotated[str | None, typer.Option("--as", help="Its name here.")] = None,
    as_json: AsJson = False,
) -> None:
    """Take the studies of a file into the database.

    Example: [bold]inna-tune studies import churn.db --as churn-2025[/bold]
    """
    with one_line_errors():
        from inna_tune.store.errors import redact_url
        from inna_tune.store.transfer import import_studies

        found = import_studies(storage, file, only=study, rename=rename)
        if as_json:
            print_json({"studies": found})
            return
        for done in found:
            say(f"Took in study {done.name} with {done.words} into {redact_url(storage)}")

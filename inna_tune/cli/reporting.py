"""``inna-tune report``."""

from typing import Annotated

import typer

from inna_tune.cli.console import DEFAULT_STORAGE, AsJson, Storage, app, one_line_errors, print_json, say
from inna_tune.cli.outputs import REPORT, Force, check_output, default_file


@app.command()
def report(
    study: Annotated[str, typer.Argument(help="Name of the study.")],
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="HTML file to write; STUDY.html if not given.")
    ] = None,
    storage: Storage = DEFAULT_STORAGE,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Write all that is known of a study, with pictures, into one HTML file that needs no network.

    Example: [bold]inna-tune report churn -o report.html[/bold]
    """
    with one_line_errors():
        from inna_tune.report import write_report
        from inna_tune.store.opening import load_study

        place = default_file(study, ".html") if output is None else output
        path = check_output(place, REPORT, "--output", storage=storage, force=force)
        written = write_report(load_study(storage, study), path)
        if as_json:
            print_json({"study": study, "report": str(written)})
        else:
            say(f"Report: {written}")

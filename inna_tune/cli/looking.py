"""``inna-tune studies`` and ``show``."""

from typing import Annotated

import typer
from rich.table import Table

from inna_tune.cli.console import (
    DEFAULT_STORAGE,
    AsJson,
    Storage,
    app,
    one_line_errors,
    out,
    print_json,
    say,
)
from inna_tune.records.text import settings_text

studies_app = typer.Typer(invoke_without_command=True)
app.add_typer(studies_app, name="studies")


@studies_app.callback()
def studies(context: typer.Context, storage: Storage = DEFAULT_STORAGE, as_json: AsJson = False) -> None:
    """List the studies of a database; export and import them.

    Example: [bold]inna-tune studies[/bold]
    """
    if context.invoked_subcommand is not None:
        # Both places are natural to write them; one of them would be passed over in silence.
        context.default_map = {context.invoked_subcommand: {"storage": storage, "as_json": as_json}}
        return
    with one_line_errors():
        from inna_tune.records.overview import list_studies

        found = list_studies(storage)
        if as_json:
            print_json({"studies": found})
            return
        listed = Table("study", "metric", "best", "complete", "pruned", "failed", "running", "begun")
        for row in found:
            best = "" if row.best is None else f"{row.best:.5g}"
            begun = "" if row.begun is None else f"{row.begun:%Y-%m-%d %H:%M}"
            listed.add_row(
                row.name,
                row.metric,
                best,
                str(row.complete),
                str(row.pruned),
                str(row.failed),
                str(row.running),
                begun,
            )
        out.print(listed)


@app.command()
def show(
    study: Annotated[str, typer.Argument(help="Name of the study.")],
    storage: Storage = DEFAULT_STORAGE,
    best: Annotated[int, typer.Option(help="How many of the best trials to list.", min=1)] = 5,
    as_json: AsJson = False,
) -> None:
    """Describe a study and its best trials.

    Example: [bold]inna-tune show churn --best 10[/bold]
    """
    with one_line_errors():
        from inna_tune.records.overview import describe_study

        found = describe_study(storage, study, n_best=best)
        if as_json:
            print_json(found)
            return
        for line in found.lines:
            say(line)
        listed = Table("trial", found.metric, "weight", "epochs", "seconds", "to predict", "settings")
        if (ensemble := found.ensemble) is not None:
            listed.add_row(
                "ensemble",
                f"{ensemble.score:.5g}",
                "",
                "",
                f"{ensemble.fit_seconds:.1f}",
                _seconds(ensemble.predict_seconds),
                "",
                end_section=True,
            )
        for trial in found.best:
            listed.add_row(
                str(trial.number),
                f"{trial.score:.5g}",
                f"{trial.weight:.2f}" if trial.weight else "",
                f"{trial.epochs:g}",
                f"{trial.seconds:.1f}",
                _seconds(trial.predict_seconds),
                settings_text(trial.settings),
            )
        out.print(listed)
        if found.words:
            say(f"The best: {found.words}.")


def _seconds(value: float) -> str:
    """Of predictions, which may take little; empty where unknown."""
    return f"{value:.2g}" if value == value else ""

"""``inna-tune prior learn`` and ``prior show``."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from inna_tune.cli.commands import command_line
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
from inna_tune.cli.outputs import PICTURE, PRIOR, Force, check_output, picture_metadata
from inna_tune.records.text import count, settings_text

prior_app = typer.Typer(help="Learn priors from finished studies, and look at them.", no_args_is_help=True)
app.add_typer(prior_app, name="prior")


@prior_app.command("learn")
def prior_learn(
    studies: Annotated[list[str], typer.Argument(help="Names of finished studies.")],
    output: Annotated[str, typer.Option("--output", "-o", help="Prior file to write.")],
    storage: Storage = DEFAULT_STORAGE,
    top: Annotated[float, typer.Option(help="Share of each study's trials that count as its best.")] = 0.1,
    portfolio: Annotated[int, typer.Option(help="Settings to try first.", min=0)] = 8,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Learn a prior from finished studies: where their best settings lie, in numbers that fit any data.

    Example: [bold]inna-tune prior learn churn adult -o prior.json[/bold]
    """
    with one_line_errors():
        from inna_tune.space import learn
        from inna_tune.store.opening import load_study, open_storage, storage_errors

        path = check_output(output, PRIOR, "--output", storage=storage, force=force)
        opened = open_storage(storage, create=False)
        with storage_errors(opened):
            found = learn([load_study(opened, name) for name in studies], top=top, n_portfolio=portfolio)
        found.save(path)
        if as_json:
            print_json({"prior": str(path), **_content(found)})
            return
        _print_prior(found)
        say(f"Prior: {path}, of {count(len(studies), 'study', 'studies')}")
        say(f"Use: {command_line('fit', table='TABLE', target='COLUMN', prior=str(path))}")


@prior_app.command("show")
def prior_show(
    file: Annotated[
        str, typer.Argument(help="Prior file; or classification, or regression: the shipped ones.")
    ],
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Picture of the laws to write (.png, .svg, .pdf).")
    ] = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Describe a prior: its laws, what is tried first, and what it was learned from.

    Example: [bold]inna-tune prior show prior.json -o prior.png[/bold]
    """
    with one_line_errors():
        from inna_tune.space import Prior
        from inna_tune.space.prior import TASKS

        found = Prior.shipped(file) if file in TASKS else Prior.load(file)
        if output is not None:
            from inna_tune.files import replacing
            from inna_tune.plots.priors import priors

            # By the suffix matplotlib knows the format; where there is none, it would add one of its own.
            if output not in ("", "-") and not Path(output).suffix and not os.path.lexists(output):
                output = f"{output}.png"
            path = check_output(output, PICTURE, "--output", reads={"prior": file}, force=force)
            with replacing(path, suffix=path.suffix) as written:
                priors(found.space).savefig(
                    written, format=path.suffix[1:] or "png", metadata=picture_metadata(path)
                )
        if as_json:
            print_json({"prior": file, "picture": output, **_content(found)})
            return
        _print_prior(found)
        for number, settings in enumerate(found.portfolio, 1):
            say(f"First {number}: {settings_text(settings)}")
        for study in found.provenance.get("studies", ()):
            say(f"From: {study}")
        if output is not None:
            say(f"Picture: {output}")


def _content(prior: Any) -> dict[str, Any]:
    return {
        "space": prior.space.to_json(),
        "portfolio": [dict(settings) for settings in prior.portfolio],
        "provenance": dict(prior.provenance),
    }


def _print_prior(prior: Any) -> None:
    listed = Table("parameter", "number", "5%", "median", "95%", "choices")
    for name, number, quantiles, choices in prior.rows():
        listed.add_row(name, number, *(quantiles or ("", "", "")), choices)
    out.print(listed)

"""``inna-tune compare``."""

from typing import Annotated, Any

import typer
from rich.table import Table

from inna_tune.cli.commands import again, more_trials, resumable, say_variable
from inna_tune.cli.console import (
    DEFAULT_STORAGE,
    LEAST_SECONDS,
    TABLE,
    AsJson,
    Drop,
    Settings,
    Storage,
    app,
    default_name,
    err,
    one_line_errors,
    out,
    print_json,
    say,
)
from inna_tune.cli.understanding import read_problem
from inna_tune.optim.optimizers import OPTIMIZERS
from inna_tune.records.text import settings_text


@app.command()
def compare(
    context: typer.Context,
    table: Annotated[str, typer.Argument(help=TABLE)],
    target: Annotated[list[str] | None, typer.Option(help="Column to predict.")] = None,
    drop: Drop = None,
    optimizers: Annotated[
        str, typer.Option(help=f"Of {', '.join(OPTIMIZERS)}; separated by commas.")
    ] = ",".join(OPTIMIZERS),
    baselines: Annotated[
        str,
        typer.Option(
            help="Of hgb (gradient boosting) and linear, by scikit-learn; separated by commas, '' for none."
        ),
    ] = "hgb",
    trials: Annotated[
        int, typer.Option(help="Trials of each contender in all, earlier ones included.", min=1)
    ] = 50,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds to tune each contender.", min=LEAST_SECONDS)
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="binary, multiclass or regression; found if not given.")
    ] = None,
    storage: Storage = DEFAULT_STORAGE,
    study: Annotated[
        str | None, typer.Option(help="What the studies' names begin with; the table's name if not given.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the studies of these names.")] = False,
    jobs: Annotated[int, typer.Option(help="Worker processes for the nets; -1 for one a core.")] = 1,
    fits: Annotated[
        int,
        typer.Option(help="Fits of each one's best settings: fewer than five make wide intervals.", min=1),
    ] = 5,
    ensemble: Annotated[
        bool, typer.Option(help="Let the ensemble of the first optimizer's trials take part.")
    ] = True,
    settings: Settings = None,
    seed: Annotated[int, typer.Option(help="Root of all random streams.", min=0)] = 0,
    allow_mismatch: Annotated[
        bool, typer.Option("--allow-mismatch", help="Resume although the data or the question differ.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Find whether INNA is worth it on a table: tune optimizers and baselines alike, compare them on held-out rows.

    Example: [bold]inna-tune compare churn.csv --target churn --optimizers inna,adamw --baselines hgb[/bold]
    """
    with one_line_errors():
        from inna_tune.cli.progress import Progress
        from inna_tune.jobs.comparing import compare as run
        from inna_tune.store.errors import redact_url

        console = err if as_json else out
        _, problem = read_problem(table, target, task, console, drop=drop or ())
        name = study or default_name(table)
        say(f"Task: {problem.description}", console)
        same = {"target": problem.target, "study": name, "resume": True}
        with resumable(again(context, **same)):
            found = run(
                problem,
                optimizers=_listed(optimizers),
                baselines=_listed(baselines),
                n_trials=trials,
                storage=storage,
                study_name=name,
                resume=resume,
                timeout=timeout,
                seed=seed,
                n_fits=fits,
                n_jobs=jobs,
                ensemble=ensemble,
                settings=settings or (),
                watch=lambda study: Progress(trials, study, prefix=f"{study.removeprefix(f'{name}-')}: "),
                allow_mismatch=allow_mismatch,
            )
        states = [each.trials for each in found.contenders if each.study is not None]
        resumption = again(context, **same, trials=more_trials(trials, states))
        if as_json:
            where = {"storage": redact_url(storage), "commands": {"resume": resumption}}
            print_json(found.summary() | where)
            return
        _print_comparison(found)
        say(f"Studies:  {name}-… in {redact_url(storage)}; see one by inna-tune report")
        say(f"Resume:   {resumption}")
        say_variable(out, resumption)


def _listed(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def _print_comparison(found: Any) -> None:
    """One row a contender, then what follows in words."""
    metrics = next(list(c.scores) for c in found.contenders if c.scores)
    listed = Table(
        title=f"{found.n_held_out_rows} held-out rows; each tuned by {found.n_trials} trials on the other rows"
    )
    listed.add_column("contender")
    for heading in (
        f"{found.metric} over folds",
        f"held-out {found.metric} (95%)",
        *metrics[1:],
        f"{found.reference} against it (95% together)",
        "seconds",
    ):
        listed.add_column(heading, justify="right")
    for each in found.contenders:
        if each.failed:
            listed.add_row(each.name, *["none"] * (len(metrics) + 1), "", f"{each.seconds:.1f}")
            continue
        first, *others = each.scores.values()
        gain = each.against
        listed.add_row(
            each.name,
            "" if each.cross_validated is None else f"{each.cross_validated:.4f}",
            f"{first:.4f} ({each.low:.4f} to {each.high:.4f})",
            *(f"{value:.4f}" for value in others),
            "" if gain is None else f"{gain.change:+.1%} ({gain.low:+.1%} to {gain.high:+.1%})",
            f"{each.seconds:.1f}" if each.study else "",
            style="bold" if each.name == found.reference else "",
        )
    out.print(listed)
    for sentence in found.verdict:
        say(sentence)
    for each in found.contenders:
        if each.failed:
            say(f"{each.name}: {each.failed}")
        elif each.settings:
            say(f"{each.name}: {settings_text(each.settings)}")
        elif each.words:
            say(f"{each.name}: {each.words}")

"""``inna-tune worker``."""

from typing import Annotated

import typer

from inna_tune.cli.commands import again, resumable, say_variable
from inna_tune.cli.console import (
    DEFAULT_STORAGE,
    LEAST_SECONDS,
    AsJson,
    Storage,
    app,
    err,
    one_line_errors,
    out,
    print_json,
    say,
    say_what_time_took,
    time_left,
)
from inna_tune.cli.understanding import read_problem


@app.command()
def worker(
    context: typer.Context,
    study: Annotated[str, typer.Argument(help="Name of the study, begun by `inna-tune fit`.")],
    table: Annotated[str, typer.Argument(help="The same table: a file, or sklearn:NAME.")],
    storage: Storage = DEFAULT_STORAGE,
    target: Annotated[str | None, typer.Option(help="Column to predict; the study knows it.")] = None,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds after which this worker ends.", min=LEAST_SECONDS)
    ] = None,
    allow_mismatch: Annotated[
        bool, typer.Option("--allow-mismatch", help="Work on it although the data differ.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Join a study that `fit` began, from another process or machine, until it has its trials.

    Example: [bold]inna-tune worker churn churn.csv --storage postgresql+psycopg://me@server/studies[/bold]
    """
    with one_line_errors():
        from inna_tune.cli.progress import Progress
        from inna_tune.jobs.joining import join, read_job
        from inna_tune.records.overview import find_progress
        from inna_tune.store.opening import open_storage

        opened = open_storage(storage, create=False)
        job = read_job(opened, study)
        console = err if as_json else out
        _, problem = read_problem(table, target or job.target, job.task, console, drop=job.drop)
        say_what_time_took(timeout, "reading the table")
        if (found := find_progress(opened, study, job.n_trials)) is not None:
            say(f"Found: {found}", console)
        with resumable(again(context)), Progress(job.n_trials, study) as progress:
            before, after = join(
                problem,
                storage=opened,
                study_name=study,
                timeout=time_left(timeout),
                callbacks=(progress,),
                allow_mismatch=allow_mismatch,
            )
        if as_json:
            commands = {"commands": {"resume": again(context)}} if after.left_to_do else {}
            print_json({"study": study, "before": before, "after": after} | commands)
            return
        say(f"Now:   {after}")
        if after.left_to_do:
            say(f"Resume: {again(context)}")
            say_variable(out, again(context))

"""``inna-tune fit`` and ``predict``."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from inna_tune.cli.commands import again, command_line, more_trials, resumable, say_variable
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
    say_what_time_took,
    time_left,
)
from inna_tune.cli.outputs import MODEL, PREDICTIONS, Force, check_output, default_file
from inna_tune.cli.understanding import read_problem, show_columns, show_warnings
from inna_tune.records.text import count, settings_text
from inna_tune.visible import visible

SHIPPED = "shipped"
STDOUT = "-"
MOST_COLUMNS = 200  # that the study keeps for its report
LOOKING_SHARE = 0.05  # of a budget of time, for looking at the columns


@app.command()
def fit(
    context: typer.Context,
    table: Annotated[str, typer.Argument(help=TABLE)],
    target: Annotated[
        list[str] | None, typer.Option(help="Column to predict; once for each of several columns of numbers.")
    ] = None,
    drop: Drop = None,
    trials: Annotated[
        int, typer.Option(help="Trials of the study in all, earlier ones included.", min=1)
    ] = 50,
    timeout: Annotated[
        float | None,
        typer.Option(help="Seconds for all of it, the model and its scores too.", min=LEAST_SECONDS),
    ] = None,
    jobs: Annotated[int, typer.Option(help="Worker processes; -1 for one a core.")] = 1,
    task: Annotated[
        str | None, typer.Option(help="binary, multiclass or regression; found if not given.")
    ] = None,
    storage: Storage = DEFAULT_STORAGE,
    study: Annotated[
        str | None, typer.Option(help="Name of the study; the table's name if not given.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the study of that name.")] = False,
    prior: Annotated[
        str | None,
        typer.Option(
            help="Prior file of `inna-tune prior learn`, or `shipped`: learned on ten public tables. "
            "If not given: the priors set by hand."
        ),
    ] = None,
    settings: Settings = None,
    seed: Annotated[int, typer.Option(help="Root of all random streams.", min=0)] = 0,
    metric: Annotated[
        str | None,
        typer.Option(
            help="What to tune by: any scorer's name of scikit-learn, such as roc_auc or neg_mean_absolute_error. If not "
            "given: the loss that the net is trained on."
        ),
    ] = None,
    cv: Annotated[
        str,
        typer.Option(
            help="What trials are scored on. `members`: a trial is one fit, each of its nets scored on the rows that it was "
            "trained without, which costs less than folds. A number: so many folds. `auto`: what the study was begun with; of "
            "a new one `members`, where a fit is of several nets that leave out rows (under 25,000 rows, as the estimator "
            "comes), else five folds under 2,000 rows, three under 10,000, one held-out fifth above."
        ),
    ] = "auto",
    ensemble: Annotated[
        bool | None,
        typer.Option(
            help="Whether the model averages several trials, chosen by the rows that their nets did not see; if not, it is the "
            "best settings, fitted on all rows that were tuned on. If not given: the average, but not of folds within a "
            "--timeout."
        ),
    ] = None,
    importances: Annotated[
        bool,
        typer.Option(
            help="Whether to measure by held-out rows what each column is worth, for ten seconds or a thirtieth of the timeout "
            "at most."
        ),
    ] = True,
    model: Annotated[
        str | None, typer.Option("--out", "-o", help="File of the tuned model; STUDY.inna if not given.")
    ] = None,
    force: Force = False,
    allow_mismatch: Annotated[
        bool, typer.Option("--allow-mismatch", help="Resume although the data or the question differ.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show every column, as `inna-tune columns` does.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Tune on a table, score on held-out rows, and write the model.

    Example: [bold]inna-tune fit churn.csv --target churn --trials 50[/bold]
    """
    with one_line_errors():
        from inna_tune.cli.progress import Progress
        from inna_tune.estimators import save
        from inna_tune.jobs.tuning import tune
        from inna_tune.jobs.validation import AUTO, choose_validation, read_cv
        from inna_tune.records import attributes
        from inna_tune.records.overview import find_progress, find_study, opened_to_resume
        from inna_tune.space import Prior
        from inna_tune.store.errors import redact_url
        from inna_tune.store.opening import storage_errors
        from inna_tune.study.splits import MEMBERS
        from inna_tune.tables.understanding import understand

        # The one JSON object stands alone on standard output.
        console = err if as_json else out
        scored_on: str | int | None = read_cv(cv)
        encoded = None
        name = study or default_name(table)
        path = check_output(
            default_file(name, ".inna") if model is None else model,
            MODEL,
            "--out",
            reads={"table": table, "prior": prior},
            storage=storage,
            force=force,
        )
        learned = None if prior in (None, SHIPPED) else Prior.load(prior)
        found, problem = read_problem(table, target, task, console, drop=drop or ())
        if prior == SHIPPED:
            learned = Prior.shipped("regression" if problem.task == "regression" else "classification")
        say(f"Task: {problem.description}", console)
        say_what_time_took(timeout, "reading the table")
        share = None if timeout is None else LOOKING_SHARE * timeout
        understood = understand(found.frame, found.schema, problem, seconds=share)
        if verbose:
            show_columns(understood, console)
        else:
            say(f"Columns: {understood.summary}", console)
        show_warnings(understood, console)
        same = {"target": list(problem.targets), "study": name, "resume": True}
        studies = opened_to_resume(storage) if resume else storage
        if resume and (progress := find_progress(studies, name, trials)) is not None:
            say(f"Found: {progress}", console)
        resumption = again(context, **same)
        if scored_on == AUTO:
            validation = choose_validation(
                problem,
                seed=seed,
                settings=settings or (),
                metric=metric,
                space=learned,
                study=find_study(studies, name) if resume else None,
            )
            say(f"Trials: {validation.words}", console)
            say_what_time_took(timeout, "finding what trials are scored on")
            scored_on, encoded = validation.cv, validation.table
        if ensemble is None:
            # The nets of trials that are fits are there already; those of a few folds would be fitted once more.
            ensemble = timeout is None or scored_on == MEMBERS
        with resumable(resumption), Progress(trials, name) as shown:
            report = tune(
                problem,
                n_trials=trials,
                storage=studies,
                study_name=name,
                resume=resume,
                timeout=time_left(timeout),
                n_jobs=jobs,
                seed=seed,
                settings=settings or (),
                metric=metric,
                cv=scored_on,
                space=learned,
                refit="ensemble" if ensemble else True,
                callbacks=(shown,),
                allow_mismatch=allow_mismatch,
                importances=importances,
                encoded=encoded,
            )
            search = report.search
            notes = {
                "table": table,
                "target": problem.target,
                "targets": list(problem.targets),
                "dropped": list(problem.dropped),
                "task": problem.task,
                "study": name,
                "held_out_scores": report.scores.T.to_dict(),
            }
            with _kept_where_it_fails(report, path, resumption):
                save(search.best_estimator_, path, extra=notes, schema=found.schema.of(problem.X.columns))
            report.forget_models()
            with storage_errors(search.study_):
                search.study_.set_user_attr(attributes.MODEL, path.name)
                search.study_.set_user_attr(attributes.COLUMNS, understood.to_json(most=MOST_COLUMNS))
        commands = {
            "report": command_line("report", study=name, storage=storage),
            "predict": command_line("predict", model=str(path), table="NEW_TABLE", output="predictions.csv"),
            "resume": again(context, **same, trials=more_trials(trials, [report.summary()["trials"]])),
        }
        if as_json:
            where = {"storage": redact_url(storage), "model": str(path), "commands": commands}
            print_json(report.summary() | where)
            return
        _print_summary(report)
        states = report.summary()["trials"]
        done = sum(states[state] for state in ("complete", "pruned", "fail") if state in states)
        say(f"Study:    {name} in {redact_url(storage)} ({count(done, 'trial')})")
        made = f"fitted on the {report.n_tuning_rows} rows that were tuned on"
        if report.ensemble is not None:
            made = f"an ensemble of {report.ensemble.words}"
        say(f"Model:    {path} ({made})")
        for what, command in commands.items():
            say(f"{what.capitalize() + ':':<9} {command}")
        say_variable(out, *commands.values())


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="File that fit wrote.")],
    table: Annotated[str, typer.Argument(help=TABLE)],
    output: Annotated[str, typer.Option("--output", "-o", help="CSV file to write; - for standard output.")],
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Write predictions, and the probability of every class, for a table.

    Example: [bold]inna-tune predict churn.inna new_customers.csv -o predictions.csv[/bold]
    """
    with one_line_errors():
        from inna_tune.estimators import load
        from inna_tune.files import replacing
        from inna_tune.tables.predicting import predict_table, spreadsheet_warning
        from inna_tune.tables.reading import read

        if output == STDOUT and as_json:
            raise ValueError(
                "--output - and --json both want standard output; name a file for the predictions"
            )
        path = None
        if output != STDOUT:
            path = check_output(
                output, PREDICTIONS, "--output", reads={"model": model, "table": table}, force=force
            )
        fitted = load(model)
        found = read(table, schema=fitted.schema_ if hasattr(fitted, "feature_names_in_") else None)
        for note in found.notes:
            say(note, err)
        predictions = predict_table(fitted, found.frame)
        if (warning := spreadsheet_warning(predictions)) is not None:
            say(f"Note: {warning}", err)
        if path is None:
            written = predictions.to_csv(index=False)
            # A pipe gets what a file would; a terminal obeys what labels may hold.
            sys.stdout.write(visible(written, lines=True) if sys.stdout.isatty() else written)
            return
        # With the suffix, by which pandas compresses.
        with replacing(path, suffix=path.suffix) as written:
            predictions.to_csv(written, index=False)
        if as_json:
            print_json(
                {"predictions": len(predictions), "columns": list(predictions.columns), "output": str(path)}
            )
        else:
            say(f"Wrote {count(len(predictions), 'prediction')} to {path}")


@contextmanager
def _kept_where_it_fails(report: Any, path: Path, resumption: str) -> Iterator[None]:
    """Where the block can't write the model, keep it beside the study, and say how to go on."""
    try:
        yield
    except OSError as error:
        folder = report.keep_models()
        kept = "the trials are safe, and a resume fits the model once more"
        if folder is not None:
            kept = f"the model is kept in {folder}, and a resume saves it at once"
        say(f"Resume with: {resumption}", err)
        say_variable(err, resumption)
        raise OSError(
            f"--out {path}: {error.strerror or error}; {kept}: free some space, or name another file"
        ) from error


def _print_summary(report: Any) -> None:
    """Scores beside the baselines, what tuning bought, and the best settings in words."""
    from inna_tune.records.wording import columns_worth

    listed = Table(f"{report.n_held_out_rows} held-out rows", *report.scores.columns)
    for name, row in report.scores.iterrows():
        style = "bold" if name == "tuned" else ""
        listed.add_row(str(name), *(f"{v:.4f}" for v in row), style=style)
    out.print(listed)
    found = report.summary()
    best = found["best"]
    if found["gain"]:
        say(found["gain"])
    if best is None:
        say("Best:     no trial had a score in time; the model is the untuned default")
    else:
        say(f"Best:     trial {best['trial']}, {best['words']}")
        say("Settings: " + settings_text(best["settings"]))
    if (worth := columns_worth(report.held_out)) is not None:
        say(f"Worth most: {worth}")
    for failed in found["failed"]:
        numbers = ", ".join(map(str, failed["trials"]))
        say(f"Failed:   {count(len(failed['trials']), 'trial')} ({numbers}): {failed['reason']}")
    if found["cut"]:
        say(f"Time cut off: {', '.join(found['cut'])}; more of it may help")
    if found["misleading"]:
        say(found["misleading"])

"""``inna-tune fit`` and ``predict``."""

import shlex
from typing import Annotated, Any

import typer
from rich.table import Table

from inna_tune.cli.console import (
    DEFAULT_STORAGE,
    Storage,
    app,
    default_name,
    err,
    one_line_errors,
    out,
    settings_text,
)
from inna_tune.cli.progress import ProgressLine


@app.command()
def fit(
    table: Annotated[str, typer.Argument(help="A .csv or .parquet file, or sklearn:NAME.")],
    target: Annotated[str | None, typer.Option(help="Column to predict.")] = None,
    trials: Annotated[
        int, typer.Option(help="Trials of the study in all, earlier ones included.", min=1)
    ] = 50,
    timeout: Annotated[float | None, typer.Option(help="Seconds after which tuning stops.")] = None,
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
        typer.Option(help="Prior file of `inna-tune prior learn`; the shipped prior if not given."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Root of all random streams.", min=0)] = 0,
    model: Annotated[
        str | None, typer.Option("--out", help="File of the tuned model; STUDY.inna if not given.")
    ] = None,
    allow_mismatch: Annotated[
        bool, typer.Option("--allow-mismatch", help="Resume although the data or the question differ.")
    ] = False,
) -> None:
    """Tune on a table, score on held-out rows, and write the model.

    Example: [bold]inna-tune fit churn.csv --target churn --trials 50[/bold]
    """
    with one_line_errors():
        from inna_tune.space import Prior
        from inna_tune.space.evidence import MISLEADING, misleading_text
        from inna_tune.study.attributes import MODEL
        from inna_tune.study.storage import redact_url
        from inna_tune.study.tables import make_problem, read_table
        from inna_tune.study.tuning import check_output, tune

        learned = None if prior is None else Prior.load(prior)
        frame, own_target = read_table(table)
        problem = make_problem(frame, target or own_target, task=task)
        name = study or default_name(table)
        path = check_output(model or f"{name}.inna")
        if problem.dropped_rows:
            out.print(f"Dropped {problem.dropped_rows} rows whose target is missing.", markup=False)
        out.print(f"Task: {problem.description}", markup=False)
        again = ["inna-tune", "fit", table, "--target", problem.target, "--study", name, "--resume"]
        again += [] if storage == DEFAULT_STORAGE else ["--storage", redact_url(storage)]
        again += [] if seed == 0 else ["--seed", str(seed)]
        again += [] if task is None else ["--task", task]
        again += [] if prior is None else ["--prior", prior]
        again += [] if model is None else ["--out", model]
        try:
            with ProgressLine(trials, problem.task) as progress:
                report = tune(
                    problem,
                    n_trials=trials,
                    storage=storage,
                    study_name=name,
                    resume=resume,
                    timeout=timeout,
                    seed=seed,
                    space=learned,
                    callbacks=(progress,),
                    allow_mismatch=allow_mismatch,
                )
        except KeyboardInterrupt:
            err.print(f"Resume with: {shlex.join([*again, '--trials', str(trials)])}", markup=False)
            raise
        search = report.search
        if search.resumed_.finished or search.resumed_.left_behind:
            out.print(f"Resumed: {search.resumed_}", markup=False)
        notes = {
            "table": table,
            "target": problem.target,
            "task": problem.task,
            "study": name,
            "held_out_scores": report.scores.T.to_dict(),
        }
        from inna_tune.estimators import save

        save(search.best_estimator_, path, extra=notes)
        search.study_.set_user_attr(MODEL, path.name)
        _print_scores(report)
        out.print("Best settings: " + settings_text(search.best_params_), markup=False)
        if misled := misleading_text(search.study_.user_attrs.get(MISLEADING, {})):
            out.print(misled, markup=False)
        out.print(
            f"Study: {name} in {redact_url(storage)} ({len(search.study_.trials)} trials)", markup=False
        )
        out.print(
            f"Model: {path} (fitted on the {report.n_tuning_rows} rows that were tuned on)", markup=False
        )
        out.print(f"Resume:  {shlex.join([*again, '--trials', str(2 * trials)])}", markup=False)
        out.print(
            f"Predict: {shlex.join(['inna-tune', 'predict', str(path), 'NEW_TABLE', '-o', 'predictions.csv'])}",
            markup=False,
        )


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="File that fit wrote.")],
    table: Annotated[str, typer.Argument(help="A .csv or .parquet file, or sklearn:NAME.")],
    output: Annotated[str, typer.Option("--output", "-o", help="CSV file to write.")],
) -> None:
    """Write predictions, and the probability of every class, for a table.

    Example: [bold]inna-tune predict churn.inna new_customers.csv -o predictions.csv[/bold]
    """
    with one_line_errors():
        from inna_tune.estimators import load
        from inna_tune.study.tables import read_table
        from inna_tune.study.tuning import check_output, predict_table

        path = check_output(output)
        fitted = load(model)
        frame, _ = read_table(table)
        predictions = predict_table(fitted, frame)
        predictions.to_csv(path, index=False)
        out.print(f"Wrote {len(predictions)} predictions to {path}", markup=False)


def _print_scores(report: Any) -> None:
    from inna_tune.study.wording import tuning_gain

    listed = Table(f"{report.n_held_out_rows} held-out rows", *report.scores.columns)
    for name, row in report.scores.iterrows():
        listed.add_row(str(name), *(f"{v:.4f}" for v in row))
    out.print(listed)
    gain = tuning_gain(report.held_out)
    if gain is not None:
        out.print(gain, markup=False)

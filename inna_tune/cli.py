"""The command line: ``inna-tune fit, predict, studies, show``. It says nothing of its own: the rooms below do the work."""

import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

DEFAULT_STORAGE = "sqlite:///inna_tune.db"

app = typer.Typer(
    name="inna-tune",
    help="Tune INNA, the inertial Newton algorithm, on your table.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)
if not out.is_terminal:
    out.width = 160  # a file or a pipe has no edge to wrap tables at

prior_app = typer.Typer(help="Learn priors from finished studies, and look at them.", no_args_is_help=True)
app.add_typer(prior_app, name="prior")

_debug = False

Storage = Annotated[str, typer.Option(help="Database of the studies: an Optuna URL.")]


def _version(value: bool) -> None:
    if value:
        from inna_tune import __version__

        out.print(f"inna-tune {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the whole trace of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    global _debug
    _debug = debug


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Wrong input ends with one line on standard error and code 2; an interrupt with code 130."""
    try:
        yield
    except KeyboardInterrupt:
        err.print("Interrupted; finished trials are safe.")
        raise typer.Exit(130) from None
    except (ValueError, TypeError, OSError, ImportError) as error:
        if _debug:
            raise
        # NOTE: markup=False, since a message may quote text in square brackets.
        err.print(f"inna-tune: {' '.join(str(error).split())}", markup=False, style="red")
        raise typer.Exit(2) from None


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
    with _one_line_errors():
        from inna_tune.space import Prior
        from inna_tune.study.storage import redact_url
        from inna_tune.study.tables import make_problem, read_table
        from inna_tune.study.tuning import check_output, tune

        learned = None if prior is None else Prior.load(prior)
        frame, own_target = read_table(table)
        problem = make_problem(frame, target or own_target, task=task)
        name = study or _default_name(table)
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
            with _Progress(trials, problem.task) as progress:
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
        _print_scores(report)
        out.print("Best settings: " + _settings(search.best_params_), markup=False)
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
    with _one_line_errors():
        from inna_tune.estimators import load
        from inna_tune.study.tables import read_table
        from inna_tune.study.tuning import check_output, predict_table

        path = check_output(output)
        fitted = load(model)
        frame, _ = read_table(table)
        predictions = predict_table(fitted, frame)
        predictions.to_csv(path, index=False)
        out.print(f"Wrote {len(predictions)} predictions to {path}", markup=False)


@app.command()
def studies(storage: Storage = DEFAULT_STORAGE) -> None:
    """List the studies of a database.

    Example: [bold]inna-tune studies[/bold]
    """
    with _one_line_errors():
        from inna_tune.study.overview import list_studies

        listed = Table("study", "metric", "best", "complete", "pruned", "failed", "running", "begun")
        for row in list_studies(storage):
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
) -> None:
    """Describe a study and its best trials.

    Example: [bold]inna-tune show churn --best 10[/bold]
    """
    with _one_line_errors():
        from inna_tune.study.overview import describe_study

        found = describe_study(storage, study, n_best=best)
        for line in found.lines:
            out.print(line, markup=False)
        listed = Table("trial", found.metric, "epochs", "seconds", "settings")
        for trial in found.best:
            listed.add_row(
                str(trial.number),
                f"{trial.score:.5g}",
                str(trial.epochs),
                f"{trial.seconds:.1f}",
                _settings(trial.settings),
            )
        out.print(listed)


@prior_app.command("learn")
def prior_learn(
    studies: Annotated[list[str], typer.Argument(help="Names of finished studies.")],
    output: Annotated[str, typer.Option("--output", "-o", help="Prior file to write.")],
    storage: Storage = DEFAULT_STORAGE,
    top: Annotated[float, typer.Option(help="Share of each study's trials that count as its best.")] = 0.1,
    portfolio: Annotated[int, typer.Option(help="Settings to try first.", min=0)] = 8,
) -> None:
    """Learn a prior from finished studies: where their best settings lie, in numbers that fit any data.

    Example: [bold]inna-tune prior learn churn adult -o prior.json[/bold]
    """
    with _one_line_errors():
        from inna_tune.space import learn
        from inna_tune.study.overview import load_study
        from inna_tune.study.tuning import check_output

        path = check_output(output)
        found = learn([load_study(storage, name) for name in studies], top=top, n_portfolio=portfolio)
        found.save(path)
        _print_prior(found)
        out.print(f"Prior: {path}, of {len(studies)} studies", markup=False)
        out.print(
            f"Use: {shlex.join(['inna-tune', 'fit', 'TABLE', '--target', 'COLUMN', '--prior', str(path)])}",
            markup=False,
        )


@prior_app.command("show")
def prior_show(
    file: Annotated[str, typer.Argument(help="Prior file.")],
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Picture of the laws to write (.png, .svg, .pdf).")
    ] = None,
) -> None:
    """Describe a prior: its laws, what is tried first, and what it was learned from.

    Example: [bold]inna-tune prior show prior.json -o prior.png[/bold]
    """
    with _one_line_errors():
        from inna_tune.space import Prior

        found = Prior.load(file)
        _print_prior(found)
        for number, settings in enumerate(found.portfolio, 1):
            out.print(f"First {number}: {_settings(dict(settings))}", markup=False)
        for study in found.provenance.get("studies", ()):
            out.print(f"From: {study}", markup=False)
        if output is not None:
            from inna_tune.space.pictures import draw_space
            from inna_tune.study.tuning import check_output

            path = check_output(output)
            draw_space(found.space).savefig(path)
            out.print(f"Picture: {path}", markup=False)


def _print_prior(prior: Any) -> None:
    listed = Table("parameter", "number", "5%", "median", "95%", "choices")
    for name, number, quantiles, choices in prior.rows():
        listed.add_row(name, number, *(quantiles or ("", "", "")), choices)
    out.print(listed)


def _default_name(table: str) -> str:
    return table.removeprefix("sklearn:") if table.startswith("sklearn:") else Path(table).stem


def _settings(settings: dict[str, Any]) -> str:
    return ", ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in settings.items())


def _print_scores(report: Any) -> None:
    listed = Table(f"{report.n_held_out_rows} held-out rows", *report.scores.columns)
    for name, row in report.scores.iterrows():
        listed.add_row(str(name), *(f"{v:.4f}" for v in row))
    out.print(listed)
    loss = report.scores.columns[0]
    default, tuned = report.scores.loc["untuned default", loss], report.scores.loc["tuned", loss]
    change = (default - tuned) / default
    out.print(
        f"Tuning {'lowered' if change >= 0 else 'raised'} the held-out {loss} by {abs(change):.1%} against the untuned default."
    )


class _Progress:
    """One line: trials, best score, time left; rewritten on a terminal, printed now and then elsewhere."""

    def __init__(self, n_trials: int, task: str) -> None:
        self.n_trials = n_trials
        self.label = "RMSE" if task == "regression" else "log-loss"
        self.began = time.monotonic()
        self.first: int | None = None
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} trials"),
            TextColumn("{task.fields[best]}"),
            TimeRemainingColumn(compact=True),
            console=err,
            transient=True,
            disable=not err.is_terminal,
        )
        self.task = self.bar.add_task("Tuning", total=n_trials, best="")

    def __enter__(self) -> "_Progress":
        self.bar.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.bar.__exit__(*error)

    def __call__(self, study: Any, trial: Any) -> None:
        done = sum(t.state.is_finished() for t in study.get_trials(deepcopy=False))
        if self.first is None:
            self.first = done - 1
        best = _best(study)
        text = "" if best is None else f"best {self.label} {-best.value:.5g} (trial {best.number})"
        self.bar.update(self.task, completed=done, best=text)
        every = max(1, self.n_trials // 10)
        if not err.is_terminal and (done % every == 0 or done == self.n_trials):
            elapsed = time.monotonic() - self.began
            left = elapsed / (done - self.first) * (self.n_trials - done)
            err.print(f"trial {done}/{self.n_trials}, {text}, {left:.0f} s left", markup=False)


def _best(study: Any) -> Any:
    try:
        return study.best_trial
    except ValueError:
        return None


def main() -> None:
    """Entry point of the ``inna-tune`` command."""
    import optuna

    # This process is ours alone, and the progress line says what Optuna's messages would.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sys.exit(app())

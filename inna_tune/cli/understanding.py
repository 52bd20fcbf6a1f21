"""``inna-tune columns``, and the same table within ``fit``."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from inna_tune.cli.console import TABLE, AsJson, Drop, app, one_line_errors, out, print_json, say

if TYPE_CHECKING:
    from inna_tune.tables.problem import Problem
    from inna_tune.tables.reading import Table as TableRead
    from inna_tune.tables.understanding import Understanding


@app.command()
def columns(
    table: Annotated[str, typer.Argument(help=TABLE)],
    target: Annotated[
        list[str] | None, typer.Option(help="Column to predict; once for each of several columns of numbers.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="binary, multiclass or regression; found if not given.")
    ] = None,
    drop: Drop = None,
    as_json: AsJson = False,
) -> None:
    """Show what is understood of a table, column by column, and what may be wrong with it.

    Example: [bold]inna-tune columns churn.csv --target churn[/bold]
    """
    with one_line_errors():
        from inna_tune.tables.problem import find_dropped, make_problem
        from inna_tune.tables.reading import read
        from inna_tune.tables.understanding import understand

        found = read(table)
        wanted = target or found.target
        problem = None if wanted is None else make_problem(found.frame, wanted, task=task, drop=drop or ())
        frame = found.frame
        if problem is None:
            frame = frame.drop(columns=list(find_dropped(frame, drop or ())))
        understood = understand(frame, found.schema, problem)
        remarks = [*found.notes, *([] if problem is None else problem.remarks)]
        if as_json:
            print_json({"table": table, "remarks": remarks} | understood.to_json())
            return
        for remark in remarks:
            say(remark)
        show_columns(understood, out)
        show_warnings(understood, out)


def read_problem(
    table: str, target: list[str] | str | None, task: str | None, console: Any, *, drop: Sequence[str] = ()
) -> tuple["TableRead", "Problem"]:
    """A table and what is to be learned of it, with what there is to say of both said."""
    from inna_tune.tables.problem import make_problem
    from inna_tune.tables.reading import read

    found = read(table)
    problem = make_problem(found.frame, target or found.target, task=task, drop=drop)
    for remark in (*found.notes, *problem.remarks):
        say(remark, console)
    return found, problem


def show_columns(understood: "Understanding", console: Any) -> None:
    """The table of all columns."""
    listed = Table(f"{understood.n_rows} rows", "taken as", "missing", "values", "example", "left out")
    for view in understood.columns:
        cells = (
            view.name,
            view.taken_as,
            str(view.missing or ""),
            view.values,
            view.example,
            view.left_out or "",
        )
        listed.add_row(*cells, style="dim" if view.left_out else "")
    console.print(listed)
    if understood.target is not None:
        say(f"Task: {understood.target}", console)


def show_warnings(understood: "Understanding", console: Any) -> None:
    """What may be wrong, a line each."""
    for warning in understood.warnings:
        say(f"Note: {warning}", console)

"""``inna-tune bug-report``."""

from inna_tune.cli.console import AsJson, app, one_line_errors, out, print_json


@app.command("bug-report")
def bug_report(as_json: AsJson = False) -> None:
    """Print versions and hardware, to paste into a bug report; it names no host, person or path.

    Example: [bold]inna-tune bug-report[/bold]
    """
    with one_line_errors():
        from inna_tune.report.machine import describe_machine

        found = describe_machine()
        if as_json:
            print_json(found)
            return
        for title, rows in found.items():
            if rows:
                out.print(f"{title.capitalize()}:")
            for name, value in rows.items():
                out.print(f"  {name}: {value}", markup=False)

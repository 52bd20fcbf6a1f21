"""``inna-tune dashboard``."""

from typing import Annotated

import typer

from inna_tune.cli.console import (
    DEFAULT_STORAGE,
    AsJson,
    Storage,
    app,
    err,
    one_line_errors,
    out,
    print_json,
    say,
)


@app.command()
def dashboard(
    storage: Storage = DEFAULT_STORAGE,
    port: Annotated[
        int, typer.Option(help="Port to listen at; 0 for any that is free.", min=0, max=65535)
    ] = 8080,
    host: Annotated[
        str,
        typer.Option(help="Address to listen at; any but this machine's own opens the studies to others."),
    ] = "127.0.0.1",
    as_json: AsJson = False,
) -> None:
    """Serve Optuna's dashboard, and the reports, of all studies of a database, to this machine's browser.

    Example: [bold]inna-tune dashboard[/bold]
    """
    with one_line_errors():
        from inna_tune.report.serving import DashboardServer, is_loopback

        with DashboardServer(storage, host=host, port=port) as server:
            if not is_loopback(host):
                err.print(
                    f"Warning: everyone who reaches {host} can read, change and delete these studies, without a password.",
                    style="yellow",
                )
            if as_json:
                print_json(
                    {"dashboard": f"{server.address}/dashboard", "reports": f"{server.address}/reports"}
                )
            else:
                say(f"Dashboard: {server.address}/dashboard")
                say(f"Reports:   {server.address}/reports")
                say("End it with Ctrl-C.")
            # Whoever reads the address through a pipe waits for it.
            out.file.flush()
            try:
                server.run()
            except KeyboardInterrupt:
                err.print("Dashboard ended.")

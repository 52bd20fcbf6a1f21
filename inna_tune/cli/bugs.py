"""``inna-tune bug-report``."""

import io
import re
from contextlib import redirect_stdout
from pathlib import Path

from inna_tune.cli.console import AsJson, app, one_line_errors, out, print_json, say

_PATHS = re.compile(r"^ *(executable|filepath):.*\n", re.MULTILINE)


@app.command("bug-report")
def bug_report(as_json: AsJson = False) -> None:
    """Print versions and hardware, to paste into a bug report; it names no host, person or folder of theirs.

    Example: [bold]inna-tune bug-report[/bold]
    """
    with one_line_errors():
        from sklearn import show_versions
        from torch.utils.collect_env import get_pretty_env_info

        with redirect_stdout(io.StringIO()) as said:
            show_versions()
        texts = {"scikit-learn": said.getvalue(), "torch": get_pretty_env_info()}  # type: ignore[no-untyped-call]
        texts = {name: _without_folders(text) for name, text in texts.items()}
        versions = _versions()
        if as_json:
            print_json({"versions": versions} | texts)
            return
        for name, found in versions.items():
            say(f"{name}: {found}")
        for name, text in texts.items():
            out.lines(f"\nFound by {name}:\n{text}")


def _versions() -> dict[str, str]:
    """Of this package and of what it asks for, as far as it is installed."""
    import sqlite3
    from importlib.metadata import PackageNotFoundError, requires, version

    asked = {re.split(r"[^\w.-]", line)[0].lower() for line in requires("inna-tune") or ()}
    found = {"inna-tune": version("inna-tune")}
    for name in sorted(asked):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # an extra's
            continue
    return found | {"SQLite": sqlite3.sqlite_version}


def _without_folders(text: str) -> str:
    return _PATHS.sub("", text).replace(str(Path.home()), "~").strip()

"""Whether others can be installed in one environment with this package, asked of pip, which installs nothing.

    python tests/packaging/beside.py [NAME ...]

prints what each of `OTHERS` comes to as the rows of the table in docs/guides/automl.md. It needs a package index, and for each
a minute. The index need not hold a torch without CUDA, as the wheels themselves are not fetched.
"""

import json
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]

# As they are called, and what installs them.
OTHERS = {
    "AutoGluon": "autogluon.tabular",
    "FLAML": "flaml[automl]",
    "pytabkit": "pytabkit",
    "skorch": "skorch",
    "Ray Tune": "ray[tune]",
    "TabPFN": "tabpfn",
    "transformers": "transformers",
    "MLflow": "mlflow",
    "NePS": "neural-pipeline-search",
    "pytorch-tabular": "pytorch_tabular",
}

_CONFLICT = re.compile(r"The conflict is caused by:\n(.*?)(?:\n\s*\n|\Z)", re.DOTALL)
_WHO = re.compile(r"^(?P<who>\S+(?: \S+)?) depends on (?P<what>.+)$")
_ASKED = re.compile(r"^The user requested (?P<what>.+)$")


class ConflictError(Exception):
    """What is wanted of one environment excludes each other; the message says who wants what."""


@dataclass(frozen=True)
class Beside:
    """What pip would install.

    Attributes
    ----------
    version : Version
        Of the other.
    versions : dict of str to Version
        Of all packages, by their canonical names.
    """

    version: Version
    versions: dict[str, Version]

    def held_back(self) -> dict[str, Version]:
        """What this package needs and has to take in another release than that of constraints.txt's."""
        tried = {
            canonicalize_name(pin.name): Version(str(pin.specifier).removeprefix("=="))
            for line in (ROOT / "constraints.txt").read_text().splitlines()
            if line and not line.startswith("#")
            for pin in [Requirement(line)]
        }
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        needed = {canonicalize_name(Requirement(line).name) for line in project["dependencies"]}
        return {n: v for n, v in self.versions.items() if n in needed and v < tried[n]}


def make_environment(folder: Path, *options: str) -> Path:
    """An empty environment with the newest pip, which reads what packages need without fetching them.

    Parameters
    ----------
    folder : Path
    *options : str
        Of ``pip install``.

    Returns
    -------
    Path
        Of its Python.
    """
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "-U", "pip", *options], check=True)
    return python


def ask(python: Path, *wanted: str) -> dict[str, Version]:
    """What pip would install of packages in a new environment, by name.

    Parameters
    ----------
    python : Path
        Whose pip is asked.
    *wanted : str
        Requirements, folders of projects, and options of ``pip install``.

    Raises
    ------
    ConflictError
        If no versions of all go together.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        # Not --quiet, which keeps silent about who asked for what.
        words = [python, "-m", "pip", "install", "--dry-run", "--ignore-installed"]
        words += ["--disable-pip-version-check", "--report", report, *wanted]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ConflictError(condensed(done.stdout, done.stderr))
        found = [item["metadata"] for item in json.loads(report.read_text())["install"]]
    return {canonicalize_name(item["name"]): Version(item["version"]) for item in found}


def beside(python: Path, other: str) -> Beside:
    """What pip would install of the newest release of another and of this package together.

    Raises
    ------
    ConflictError
        If they exclude each other.
    """
    name = canonicalize_name(Requirement(other).name)
    # An older release might go with anything.
    newest = ask(python, "--no-deps", other)[name]
    try:
        found = ask(python, str(ROOT), f"{other}=={newest}")
    except ConflictError:
        # Its newest may ask for what the index does not have yet, whatever it is beside.
        alone = ask(python, other)[name]
        if alone == newest:
            raise
        newest, found = alone, ask(python, str(ROOT), f"{other}=={alone}")
    return Beside(newest, found)


def condensed(output: str, errors: str) -> str:
    """Who asks for what, out of pip's message; its end, where it tells of no conflict.

    Parameters
    ----------
    output, errors : str
        What pip wrote.
    """
    found = _CONFLICT.search(output)
    if found is None:
        lines = [line for line in errors.splitlines() if not line.startswith(("WARNING", "ERROR: Ignored"))]
        return "\n".join(line[:300] for line in lines)
    wants: dict[str, list[str]] = {}
    for line in map(str.strip, found[1].splitlines()):
        if match := _WHO.match(line):
            who = match["who"].split()[0]
            wants.setdefault(f"{who} wants {match['what']}", []).append(match["who"])
        elif match := _ASKED.match(line):
            wants.setdefault(f"asked for: {match['what']}", [])
    lines = []
    for want, releases in wants.items():
        numbers = [release.partition(" ")[2] for release in releases if " " in release]
        lines.append(want + (f" (in {', '.join(numbers)})" if numbers else ""))
    return "\n".join(lines)


def row(name: str, found: Beside) -> str:
    """A row of the documentation's table."""
    older = ", ".join(f"{name} {version}" for name, version in sorted(found.held_back().items()))
    return f"| {name} {found.version} | {older or 'nothing'} |"


def main(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        python = make_environment(Path(folder) / "venv")
        for name in names or OTHERS:
            try:
                print(row(name, beside(python, OTHERS[name])), flush=True)
            except ConflictError as error:
                print(f"| {name} | excluded: {str(error).replace(chr(10), '; ')} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

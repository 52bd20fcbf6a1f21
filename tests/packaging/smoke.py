"""What an installed inna-tune must be able to do, tried from outside of the source: python tests/packaging/smoke.py.

Run it by the Python of the environment that the wheel was installed into. It needs nothing but the package.
"""

import json
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2]


def inna_tune(folder: Path, *words: str) -> str:
    """Run a command of the program that was installed beside this Python."""
    program = Path(sys.executable).with_name("inna-tune")
    run = subprocess.run([program, *words], cwd=folder, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise SystemExit(f"inna-tune {' '.join(words)}: code {run.returncode}\n{run.stdout}{run.stderr}")
    return run.stdout


def main() -> None:
    # A script's own folder is on the path, but not the source's root: what is imported is what was installed.
    import inna_tune as package
    from inna_tune.space import Prior

    root = resources.files(package)
    if Path(str(root)) == SOURCE / "inna_tune":
        raise SystemExit(
            f"{root} is the source; run this by the Python of an environment with the wheel installed"
        )
    assert (root / "py.typed").is_file(), "the types are not declared"
    for task in ("classification", "regression"):
        assert Prior.shipped(task).portfolio, task

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        assert package.__version__ in inna_tune(folder, "--version")
        assert "torch" in inna_tune(folder, "bug-report")
        fitted = json.loads(inna_tune(folder, "fit", "sklearn:wine", "--trials", "2", "--json"))
        assert fitted["model"] == "wine.inna", fitted
        predicted = json.loads(
            inna_tune(folder, "predict", "wine.inna", "sklearn:wine", "-o", "wine.csv", "--json")
        )
        assert predicted["predictions"] == 178, predicted
        inna_tune(folder, "report", "wine", "-o", "wine.html")
        assert "<svg" in (folder / "wine.html").read_text(encoding="utf-8")
    print(f"inna-tune {package.__version__} works from {root.parent.name}")


if __name__ == "__main__":
    main()

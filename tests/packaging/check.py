"""What is in a wheel and an sdist, after python -m build: python tests/packaging/check.py FOLDER."""

import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "inna_tune"
NOT_PACKAGED = {".pyc"}
IN_SDIST = ["pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "constraints.txt"]
IN_SDIST += ["constraints-lowest.txt"]
IN_SDIST += ["examples/quick_start.py", "docs/conf.py", "docs/_static/formulas.css", "tests/conftest.py"]


def package_files() -> set[str]:
    """Every file of the package in the source: code, types, priors, templates."""
    return {
        str(path.relative_to(ROOT))
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.suffix not in NOT_PACKAGED
    }


def main(folder: Path) -> None:
    [wheel], [sdist] = folder.glob("*.whl"), folder.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        [metadata] = [archive.read(n).decode() for n in names if n.endswith(".dist-info/METADATA")]
    packaged = {name for name in names if ".dist-info/" not in name}
    lacking, strange = package_files() - packaged, packaged - package_files()
    assert not lacking, f"the wheel lacks {sorted(lacking)}"
    assert not strange, f"the wheel should not hold {sorted(strange)}"
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert "License-Expression: MIT" in metadata
    assert "Description-Content-Type: text/markdown" in metadata
    with tarfile.open(sdist) as archive:
        there = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    lacking = (package_files() | set(IN_SDIST)) - there
    assert not lacking, f"the sdist lacks {sorted(lacking)}"
    print(f"{wheel.name}: {len(packaged)} files; {sdist.name}: {len(there)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

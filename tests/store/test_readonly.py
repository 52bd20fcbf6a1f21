"""A database that can only be read: its studies are listed, shown, reported and exported, and it stays as it is."""

import json
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import optuna
import pytest

from inna_tune.store import sqlite
from inna_tune.store.errors import StorageError
from inna_tune.store.opening import create_study, load_study, open_storage
from tests.warm import Program

# A superuser may write anywhere, until he gives that up: CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, see capset(2).
CODE = """
import ctypes, json, os, sys
if os.getuid() == 0:
    libc, header, data = ctypes.CDLL(None, use_errno=True), (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, data) == 0
    data[0] &= ~0b110
    data[1] &= ~0b110
    assert libc.capset(header, data) == 0
sys.argv = ["inna-tune", *json.loads(sys.argv[1])]
from inna_tune.cli import main
main()
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Two folders: one to be read, one to write into."""
    for name in ("read", "write"):
        (tmp_path / name).mkdir()
    yield tmp_path
    (tmp_path / "read").chmod(0o755)


@pytest.fixture
def database(place: Path) -> Path:
    path = place / "read" / "s.db"
    storage = open_storage(f"sqlite:///{path}")
    study = create_study(storage, "work", "minimize", optuna.samplers.RandomSampler(seed=0), resume=False)
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    storage._backend.engine.dispose()  # type: ignore[attr-defined]
    return path


def run(place: Path, *words: object) -> str:
    given = [str(word) for word in words]
    with Program(CODE, json.dumps(given), cwd=place / "write") as program:
        out, said = program.communicate()
    assert program.returncode == 0, said
    return out


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="gives up a superuser's rights as Linux has them"
)
@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_database_that_is_read_only_is_shown_reported_and_exported(
    database: Path, place: Path, what: str
) -> None:
    database.chmod(0o444)
    if what == "folder":
        database.parent.chmod(0o555)
    before, url = snapshot(database.parent), f"sqlite:///{database}"
    assert "work" in run(place, "studies", "--storage", url)
    assert "3 complete" in run(place, "show", "work", "--storage", url)
    run(place, "report", "work", "--storage", url, "-o", "work.html")
    assert "<html" in (place / "write" / "work.html").read_text()
    run(place, "studies", "export", "work", "--storage", url, "-o", "copy.db")
    copy = load_study(f"sqlite:///{place}/write/copy.db", "work")
    assert [t.value for t in copy.trials] == [t.value for t in load_study(url, "work").trials]
    assert {name: content for name, content in snapshot(database.parent).items() if name in before} == before


def test_a_file_that_cannot_be_written_is_refused_to_whoever_would_write(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "_may_write", lambda path: False)
    study = load_study(f"sqlite:///{database}", "work")
    assert len(study.trials) == 3
    with pytest.raises(StorageError, match="the file is read-only .*; make it and its folder writable"):
        study.set_user_attr("a", 1)


def test_a_log_that_cannot_be_read_is_not_passed_over(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Closed(sqlite._ReadOnly):
        def execute(self, *arguments):  # type: ignore[no-untyped-def]
            raise sqlite3.OperationalError("unable to open database file")

    monkeypatch.setattr(sqlite, "_may_write", lambda path: False)
    monkeypatch.setattr(sqlite, "_ReadOnly", Closed)
    with closing(sqlite3.connect(database)) as writer:
        writer.execute("CREATE TABLE kept_in_the_log (x)")
        writer.commit()
        with pytest.raises(StorageError, match="has a log beside it .*copy both"):
            open_storage(f"sqlite:///{database}", create=False)

"""Tables that are made here are those that Optuna would make, and its migrations are read once."""

import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import alembic.script.base
import pytest
from alembic.script import ScriptDirectory
from optuna.storages import RDBStorage

from inna_tune.store import versions
from inna_tune.store.opening import open_storage

ROWS = (
    "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name",
    "SELECT version_info_id, schema_version, library_version FROM version_info",
    "SELECT version_num FROM alembic_version",
)


def contents(path: Path) -> list[list[Any]]:
    with closing(sqlite3.connect(path)) as connection:
        return [connection.execute(rows).fetchall() for rows in ROWS]


def test_what_is_made_is_what_optuna_makes(tmp_path: Path) -> None:
    RDBStorage(f"sqlite:///{tmp_path}/optunas.db").engine.dispose()
    storage: Any = open_storage(f"sqlite:///{tmp_path}/ours.db")
    storage._backend.engine.dispose()
    made = contents(tmp_path / "ours.db")
    assert made == contents(tmp_path / "optunas.db")
    assert len(made[1]) == len(made[2]) == 1


OPTUNAS = Path(versions.models.__file__).parent / "alembic"


@pytest.fixture
def nothing_read() -> Any:
    versions._revisions.cache_clear()
    yield
    versions._revisions.cache_clear()


@pytest.mark.usefixtures("nothing_read")
def test_a_migration_is_read_once_a_process_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, links = Counter[Path](), versions._links
    monkeypatch.setattr(versions, "_links", lambda path: (read.update([path]), links(path))[1])
    monkeypatch.setattr(alembic.script.base.util, "load_python_file", None)
    for name in "aabb":  # made, opened, made, opened
        storage: Any = open_storage(f"sqlite:///{tmp_path}/{name}.db")
        storage._backend.engine.dispose()
    assert set(read.values()) == {1}
    assert set(read) == set((OPTUNAS / "versions").glob("*.py"))


@pytest.mark.usefixtures("nothing_read")
@pytest.mark.parametrize(
    ("way", "is_run"),
    [
        ("{name} = {value!r}", False),
        ("{name}: str | None = {value!r}", False),
        ("{name} = str({value!r}) if {value!r} else None", True),
    ],
)
def test_the_newest_revision_is_alembics_however_migrations_are_written(
    way: str, is_run: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(OPTUNAS, tmp_path / "alembic")
    expected = ScriptDirectory(str(OPTUNAS))
    for revision in expected.walk_revisions():
        links = {"revision": revision.revision, "down_revision": revision.down_revision}
        text = "\n".join(way.format(name=name, value=value) for name, value in links.items())
        Path(tmp_path / "alembic" / "versions" / Path(revision.path).name).write_text(text)
    monkeypatch.setattr(versions.models, "__file__", str(tmp_path / "models.py"))
    loaded, load = [], alembic.script.base.util.load_python_file
    monkeypatch.setattr(
        alembic.script.base.util, "load_python_file", lambda *given: (loaded.append(given), load(*given))[1]
    )
    newest, everything = versions._revisions()
    assert bool(loaded) == is_run
    assert newest == expected.get_current_head()
    assert everything == {each.revision for each in expected.walk_revisions()}

"""Tables that are made here are those that Optuna would make, and its migrations are read once."""

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import alembic.script.base
import pytest
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


def test_a_migration_is_run_once_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load, loaded = alembic.script.base.util.load_python_file, Counter[str]()

    def counted(folder: str, name: str) -> Any:
        loaded[name] += 1
        return load(folder, name)

    monkeypatch.setattr(alembic.script.base.util, "load_python_file", counted)
    versions._migrations.cache_clear()
    for name in "aabb":  # made, opened, made, opened
        storage: Any = open_storage(f"sqlite:///{tmp_path}/{name}.db")
        storage._backend.engine.dispose()
    assert set(loaded.values()) == {1}, loaded

"""Optuna's tables in a file, and of which Optuna they are: its migrations are read once a process, not at each opening."""

import ast
import shlex
from functools import cache
from pathlib import Path

import optuna
from optuna.storages._rdb import models
from sqlalchemy import Column, Engine, MetaData, PrimaryKeyConstraint, String, Table, insert, select

from inna_tune.store.errors import StorageError

# As Alembic makes it: https://alembic.sqlalchemy.org/en/latest/api/runtime.html
_REVISION = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)


@cache
def _revisions() -> tuple[str | None, frozenset[str]]:
    """The newest of Optuna's revisions, and all of them."""
    folder = Path(models.__file__).parent / "alembic"
    before = dict(map(_links, (folder / "versions").glob("*.py")))
    newest = set(before) - set(before.values())
    if len(newest) == 1 and set(before.values()) - {None} <= set(before):
        return str(*newest), frozenset(map(str, before))
    # NOTE: only where they are written in a way that is not known yet: Alembic takes as long to load as all else of a storage.
    from alembic.script import ScriptDirectory

    script = ScriptDirectory(str(folder))
    return script.get_current_head(), frozenset(each.revision for each in script.walk_revisions())


def _links(migration: Path) -> tuple[object, object]:
    """The revision that a migration makes and the one before it, as its file says; it is a program, and not run for this."""
    said: dict[str, object] = {}
    for line in ast.parse(migration.read_text(encoding="utf-8")).body:
        targets = line.targets if isinstance(line, ast.Assign) else [getattr(line, "target", None)]
        value = getattr(line, "value", None)
        if isinstance(value, ast.Constant):
            said |= {target.id: value.value for target in targets if isinstance(target, ast.Name)}
    return said.get("revision"), said.get("down_revision")


def make_tables(engine: Engine) -> None:
    """Make those of Optuna's tables that lack, and note their version, as Optuna's own storage does."""
    models.BaseModel.metadata.create_all(engine)
    _REVISION.create(engine, checkfirst=True)
    with engine.begin() as connection:
        if connection.execute(select(models.VersionInfoModel.library_version)).first() is None:
            row = {"schema_version": models.SCHEMA_VERSION, "library_version": optuna.__version__}
            connection.execute(insert(models.VersionInfoModel.__table__).values(row))
        if connection.execute(select(_REVISION)).first() is None:
            connection.execute(insert(_REVISION).values(version_num=_revisions()[0]))


def check_version(path: Path, maker: str, schema: int, version: str | None) -> None:
    """Refuse tables of an older or newer Optuna.

    Parameters
    ----------
    path : Path
    maker : str
        The Optuna that made the tables.
    schema : int
        Its number for them, which it gave up for revisions.
    version : str or None
        The revision.

    Raises
    ------
    StorageError
    """
    head, revisions = _revisions()
    if version == head or (version is None and schema == models.SCHEMA_VERSION):
        return
    known = version is None or version in revisions
    upgrade = f"optuna storage upgrade --storage {shlex.quote(f'sqlite:///{path}')}"
    remedy = f"upgrade it by: {upgrade}" if known else "update Optuna by: pip install -U optuna"
    raise StorageError(
        f"{path} was written by Optuna {maker}, whose tables Optuna {optuna.__version__} can't use; {remedy}"
    )

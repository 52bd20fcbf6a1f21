"""Studies as files of their own: to keep, to send, and to take in again."""

import os
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import DuplicatedStudyError
from optuna.storages import BaseStorage, _CachedStorage

from inna_tune.study.overview import load_study
from inna_tune.study.storage import StorageError, describe, open_storage, storage_errors


@dataclass(frozen=True)
class Transferred:
    """A study that was copied."""

    name: str
    n_trials: int


def export_study(
    storage: str, name: str, file: str | os.PathLike[str], *, replace: bool = False
) -> Transferred:
    """Write a study into an SQLite file of its own, which `import_studies` and Optuna read.

    Trials, their states, numbers, values, reports and attributes are copied as they are (`optuna.copy_study`), those that
    run now as running: whoever goes on with the copy takes them up again. The file appears complete or not at all.

    Parameters
    ----------
    storage : str
        URL of the database that has it.
    name : str
    file : path
        A single file: nothing else has to be kept with it.
    replace : bool
        Whether an existing file may be replaced.

    Raises
    ------
    StorageError
        If there is no such study, the file is there already, or its folder is missing.
    """
    target = Path(file)
    if target.is_dir():
        raise StorageError(f"{target} is a folder; name a file in it")
    if target.exists() and not replace:
        raise StorageError(f"{target} is there already; name another file, or replace it with --force")
    if not target.parent.is_dir():
        raise StorageError(f"there is no folder {target.parent}; make it first")
    study = load_study(storage, name)
    # Beside the target, so that it can be renamed into place; in a folder of its own, with its log and locks.
    with tempfile.TemporaryDirectory(prefix=".inna-tune-", dir=target.parent) as folder:
        written = Path(folder) / "study.db"
        copy = open_storage(f"sqlite:///{written}")
        try:
            found = _copy(study, copy, name)
        finally:
            _close(copy)
        # Without a write-ahead log the database is one file.
        with closing(sqlite3.connect(written)) as connection:
            connection.execute("PRAGMA journal_mode=DELETE")
        os.replace(written, target)
    return found


def import_studies(
    storage: str, file: str | os.PathLike[str], *, only: str | None = None, rename: str | None = None
) -> list[Transferred]:
    """Take the studies of an SQLite file into a database.

    Parameters
    ----------
    storage : str
        URL of the database; made if it is a missing SQLite file.
    file : path
        Written by `export_study`, or any of Optuna's.
    only : str, optional
        Name of the one study to take.
    rename : str, optional
        Its name there; only for a single study.

    Returns
    -------
    list of Transferred

    Raises
    ------
    StorageError
        If the file is no database, lacks the study, or a name is taken: then nothing is taken in.
    """
    source = open_storage(f"sqlite:///{Path(file).absolute()}", create=False)
    try:
        with storage_errors(source):
            names = sorted(optuna.get_all_study_names(source))
        if only is not None:
            if only not in names:
                raise StorageError(f"there is no study {only!r} in {file}; its studies: {_listed(names)}")
            names = [only]
        if not names:
            raise StorageError(f"{file} has no study")
        if rename is not None and len(names) > 1:
            raise StorageError(
                f"{file} has several studies ({_listed(names)}); name the one to take as {rename!r}"
            )
        target = open_storage(storage)
        with storage_errors(target):
            taken = sorted(set(optuna.get_all_study_names(target)) & {rename or name for name in names})
        if taken:
            raise StorageError(
                f"{describe(target)} has a study {_listed(taken)} already; take it in under another name with --as NAME"
            )
        found: list[Transferred] = []
        try:
            for name in names:
                study = optuna.load_study(study_name=name, storage=source)
                found.append(_copy(study, target, rename or name))
        except BaseException:
            for done in found:
                optuna.delete_study(study_name=done.name, storage=target)
            raise
        return found
    finally:
        _close(source)


def _copy(study: optuna.Study, target: BaseStorage, name: str) -> Transferred:
    """Copy a study; what was copied goes again if not all of it could be."""
    with storage_errors(study._storage), storage_errors(target):
        try:
            optuna.copy_study(
                from_study_name=study.study_name,
                from_storage=study._storage,
                to_storage=target,
                to_study_name=name,
            )
        except DuplicatedStudyError:
            raise StorageError(
                f"{describe(target)} has a study {name!r} already; take it in under another name with --as NAME"
            ) from None
        except BaseException:
            if name in optuna.get_all_study_names(target):
                optuna.delete_study(study_name=name, storage=target)
            raise
        copied = optuna.load_study(study_name=name, storage=target)
        return Transferred(name, len(copied.get_trials(deepcopy=False)))


def _close(storage: Any) -> None:
    if isinstance(storage, _CachedStorage):
        storage._backend.engine.dispose()


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, names[:10])) + (" …" if len(names) > 10 else "")

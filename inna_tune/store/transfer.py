"""Studies as files of their own: to keep, to send, and to take in again, whole or not at all."""

import os
import sqlite3
import uuid
from collections import Counter
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.storages import BaseStorage
from optuna.trial import TrialState
from sqlalchemy.engine import URL
from sqlalchemy.exc import IntegrityError

from inna_tune.files import publish, scratch_folder
from inna_tune.store.errors import StorageError, redact_url
from inna_tune.store.opening import MAX_STUDY_NAME, check_study_name, load_study, open_store
from inna_tune.store.quiet import without_messages
from inna_tune.store.sqlite import SQLiteFile
from inna_tune.store.store import OWNER, Store
from inna_tune.store.waiting import at_once, waiting_until

_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "left running",
    TrialState.WAITING: "waiting",
}


@dataclass(frozen=True)
class Transferred:
    """A study that was copied.

    Attributes
    ----------
    name : str
    n_trials : int
    states : dict of str to int
        How many of the trials are complete, pruned, failed, left running or waiting, of those states that there are.
    """

    name: str
    n_trials: int
    states: dict[str, int]

    @property
    def words(self) -> str:
        """Its trials and what they are: those that wait, or were left behind, are no results."""
        listed = ", ".join(f"{number} {state}" for state, number in self.states.items())
        return f"{self.n_trials} trials ({listed})" if self.n_trials != 1 else f"1 trial ({listed})"


def export_study(
    storage: str, name: str, file: str | os.PathLike[str], *, replace: bool = False
) -> Transferred:
    """Write a study into an SQLite file of its own, which `import_studies` and Optuna read.

    Trials, their states, times, numbers, values, reports and attributes are copied as they are (`optuna.copy_study`). Those
    that run now are in the copy left behind by their worker: whoever goes on with it takes them up again. The file appears
    complete or not at all. What trials have left in files stays where it is: checkpoints, and the nets that an ensemble is
    made of (``refit="ensemble"``).

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
        If there is no such study, the file is there already or can't be written, or its folder is missing.
    """
    target = Path(os.path.realpath(file))
    if target.is_dir():
        raise StorageError(f"{target} is a folder; name a file in it")
    if target.exists() and target.stat().st_size and not replace:
        raise _is_there(target)
    if not target.parent.is_dir():
        raise StorageError(f"there is no folder {target.parent}; make it first")
    with (
        waiting_until(at_once),
        closing(open_store(storage, create=False)) as source,
        source.errors(),
    ):
        if target.exists() and source.path is not None and target.samefile(source.path):
            raise StorageError(f"{target} is the database that the study is in; name another file")
        study = load_study(source.storage, name)
        try:
            # Beside the target, so that it can be renamed into place; in a folder of its own, with its log and locks.
            with scratch_folder(target.parent) as folder:
                written = folder / "study.db"
                try:
                    # SQLite's own files are never for a group to write, whatever the umask says.
                    written.touch()
                    url = URL.create("sqlite", database=str(written)).render_as_string()
                    with closing(open_store(url)) as copy, copy.errors():
                        states = _copy(study, copy.storage, name)
                    # Without a write-ahead log the database is one file.
                    with closing(sqlite3.connect(written)) as connection:
                        connection.execute("PRAGMA journal_mode=DELETE")
                except StorageError as error:
                    raise StorageError(str(error).replace(str(written), str(target))) from error
                # A file that holds nothing yet was made to be written to.
                publish(written, target, replace=replace or (target.is_file() and not target.stat().st_size))
        except FileExistsError:
            raise _is_there(target) from None
        except (OSError, sqlite3.Error) as error:
            raise StorageError(f"{target} can't be written: {error}") from error
    return _transferred(name, states)


def import_studies(
    storage: str, file: str | os.PathLike[str], *, only: str | None = None, rename: str | None = None
) -> list[Transferred]:
    """Take the studies of an SQLite file, which is only read, into a database.

    Until they are there to the last trial they have other names, so that nobody takes a half for the whole; a process that is
    killed leaves such a half, with "(importing …)" in its name.

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
    with (
        waiting_until(at_once),
        closing(SQLiteFile.reading(Path(file).absolute())) as source,
        source.errors(),
    ):
        names = sorted(optuna.get_all_study_names(source.storage))
        if only is not None:
            if only not in names:
                raise StorageError(
                    f"there is no study {only!r} in {file}; its studies: {_listed(names) or 'none'}"
                )
            names = [only]
        if not names:
            raise StorageError(f"{file} has no study; choose another file")
        if rename is not None and len(names) > 1:
            raise StorageError(
                f"{file} has several studies ({_listed(names)}); name the one to take as {rename!r} (--study NAME)"
            )
        finals = names if rename is None else [rename]
        for name in finals:
            check_study_name(name)
        with closing(open_store(storage)) as target, target.errors():
            if not target.lasts:
                raise StorageError(
                    f"{redact_url(storage)} is memory, which ends with this process; name a file or a server"
                )
            if target.path is not None and target.path.samefile(file):
                raise StorageError(
                    f"{file} is the database itself, which has the studies already; name another file"
                )
            _check_free(target, finals)
            studies = [_of_file(name, source.storage, file) for name in names]
            return _take_in(studies, target, finals)


def _of_file(name: str, storage: BaseStorage, file: str | os.PathLike[str]) -> optuna.Study:
    try:
        return optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        raise StorageError(
            f"the name of study {name} in {file} is no text; take another one (--study NAME)"
        ) from None


def _take_in(studies: Sequence[optuna.Study], target: Store, names: Sequence[str]) -> list[Transferred]:
    # NOTE: a study is made under a name and filled trial by trial (optuna.copy_study).
    halves = {f"{name[: MAX_STUDY_NAME - 24]} (importing {uuid.uuid4().hex[:10]})": name for name in names}
    try:
        found = [
            _transferred(name, _copy(study, target.storage, half))
            for study, (half, name) in zip(studies, halves.items(), strict=True)
        ]
        try:
            target.rename(halves)
        except IntegrityError:
            _check_free(target, names)  # one was taken meanwhile
            raise
    except BaseException:
        for half in halves:
            with suppress(Exception):  # perhaps not begun; the first error is the one to tell
                optuna.delete_study(study_name=half, storage=target.storage)
        raise
    return found


def _transferred(name: str, states: Counter[TrialState]) -> Transferred:
    found = {_STATES[state]: states[state] for state in _STATES if states[state]}
    return Transferred(name, states.total(), found)


def _copy(study: optuna.Study, target: BaseStorage, name: str) -> Counter[TrialState]:
    with without_messages():
        optuna.copy_study(
            from_study_name=study.study_name,
            from_storage=study._storage,
            to_storage=target,
            to_study_name=name,
        )
    trials = optuna.load_study(study_name=name, storage=target).get_trials(deepcopy=False)
    for trial in trials:
        owner = trial.system_attrs.get(OWNER)
        if trial.state == TrialState.RUNNING and isinstance(owner, dict):
            # In the copy nobody works on it, even if its worker lives.
            nobody = {key: value for key, value in owner.items() if key != "id"}
            target.set_trial_system_attr(trial._trial_id, OWNER, nobody)
    return Counter(trial.state for trial in trials)


def _check_free(target: Store, names: Sequence[str]) -> None:
    taken = sorted(set(optuna.get_all_study_names(target.storage)).intersection(names))
    if taken:
        raise StorageError(
            f"{target.words} has a study {_listed(taken)} already; take it in under another name with --as NAME"
        )


def _is_there(target: Path) -> StorageError:
    return StorageError(f"{target} is there already; name another file, or replace it with --force")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:10])) + (" …" if len(names) > 10 else "")

"""Workers that share a study: who is alive, and which trial each one runs next."""

import json
import os
import re
import socket
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import optuna
from filelock import FileLock, Timeout
from optuna.storages import BaseStorage, RDBStorage, _CachedStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial
from sqlalchemy import CursorResult, func, select, update
from sqlalchemy.orm import Session

from inna_tune.study.database import SYSTEM_ATTR, TRIAL, read_trials, transaction
from inna_tune.study.storage import locks_folder, remove_lock, sqlite_path, storage_errors

OWNER = "inna_tune:worker"  # the trial's system attribute that names its worker

_living: set[str] = set()  # the workers of this process
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_living.clear)
_claiming = threading.Lock()  # for storages without transactions


class Worker:
    """One runner of trials, alive from ``with`` to its end, or until its process dies.

    Others see whether it lives by an OS lock on a file of its own, which the operating system releases
    however the process ends: no heartbeat, no waiting. For an SQLite file the lock files lie in the folder
    ``<file>.locks``.

    Parameters
    ----------
    storage : optuna.storages.BaseStorage
        The storage of the study that it will work on.

    Attributes
    ----------
    id : str
        32 hexadecimal digits, never used twice.
    host, pid : str, int
        Where it runs, for a person to read.
    """

    def __init__(self, storage: BaseStorage) -> None:
        self.id = uuid.uuid4().hex
        self.host = socket.gethostname()
        self.pid = os.getpid()
        database = sqlite_path(storage)
        self._folder = None if database is None else locks_folder(database)
        self._lock: FileLock | None = None

    def __enter__(self) -> Self:
        if self._folder is not None:
            self._lock = FileLock(self._folder / self.id, thread_local=False)
            while not self._lock.is_locked:
                self._folder.mkdir(mode=0o700, exist_ok=True)
                try:
                    self._lock.acquire()
                except FileNotFoundError:  # its last user removed the folder between the two lines
                    continue
        _living.add(self.id)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _living.discard(self.id)
        if self._lock is not None:
            remove_lock(self._lock)

    def is_alive(self, owner: object) -> bool:
        """Say whether the worker of the owner record `owner`, read from a trial, still lives.

        A record that is missing or isn't one of ours counts as dead; its text never names a file outside
        the lock folder.
        """
        name = owner.get("id") if isinstance(owner, dict) else None
        if not isinstance(name, str) or not re.fullmatch("[0-9a-f]{32}", name):
            return False
        if name in _living:
            return True
        return self._folder is not None and _is_held(self._folder / name)

    def _record(self, previous: object) -> dict[str, Any]:
        attempt = previous.get("attempt", 0) if isinstance(previous, dict) else 0
        attempt = attempt if isinstance(attempt, int) else 0
        return {"id": self.id, "host": self.host, "pid": self.pid, "attempt": attempt + 1}


def ask(study: optuna.Study, worker: Worker, n_trials: int) -> Trial | None:
    """Return the next trial for `worker`, such that the study ends with exactly `n_trials`.

    First a trial left RUNNING by a dead worker is taken up again, under its own number and with the values
    it has; then a waiting one is claimed; then a new one is made. Each is decided in one transaction of the
    database, so that any number of workers share a study without a trial too many, too few or done twice.
    Its sampler and pruner see what `optuna.Study.ask` would show them.

    Parameters
    ----------
    study : optuna.Study
    worker : Worker
        Entered (``with``).
    n_trials : int
        The study's total over all workers and restarts. Complete, pruned, failed and running trials count;
        waiting ones don't, and remain waiting if there is no room for them.

    Returns
    -------
    optuna.trial.Trial or None
        None where nothing is left to start; other workers may still be running theirs. A RUNNING trial
        without an owner counts as left behind.

    Raises
    ------
    StorageError
        The database can't be read or written.
    """
    if worker.id not in _living:
        raise ValueError("worker isn't at work: enter it first, `with Worker(storage) as worker:`")
    storage, study_id = study._storage, study._study_id
    with storage_errors(storage):
        if isinstance(storage, _CachedStorage):
            trial_id = _claim_in_database(storage, study_id, worker, n_trials)
        else:
            trial_id = _claim_in_process(storage, study_id, worker, n_trials)
        if trial_id is None:
            return None
        # NOTE: what Study.ask does, with its own way to find the trial replaced by ours.
        study._thread_local.cached_all_trials = None
        return Trial(study, trial_id)


def _claim_in_database(storage: _CachedStorage, study_id: int, worker: Worker, n_trials: int) -> int | None:
    backend = storage._backend
    with transaction(backend) as session:
        # On a server this row is what every worker that creates or claims a trial of the study locks.
        models.StudyModel.find_or_raise_by_id(study_id, session, for_update=True)
        trial_id = _next_trial(backend, session, study_id, worker, n_trials)
        if trial_id is None:
            return None
        session.flush()
        [frozen] = read_trials(session, TRIAL.trial_id == trial_id)
    with storage._lock:
        if study_id not in storage._studies:
            storage._studies[study_id] = optuna.storages._cached_storage._StudyInfo()
        storage._add_trials_to_cache(study_id, [frozen])
    return frozen._trial_id


def _next_trial(
    backend: RDBStorage, session: Session, study_id: int, worker: Worker, n_trials: int
) -> int | None:
    ours = (SYSTEM_ATTR.trial_id == TRIAL.trial_id) & (SYSTEM_ATTR.key == OWNER)
    unfinished = session.execute(
        select(TRIAL.trial_id, TRIAL.state, SYSTEM_ATTR.value_json)
        .outerjoin(SYSTEM_ATTR, ours)
        .where(TRIAL.study_id == study_id, TRIAL.state.in_((TrialState.RUNNING, TrialState.WAITING)))
        .order_by(TRIAL.trial_id)
    ).all()

    def own(trial_id: int, previous: object) -> int:
        record = worker._record(previous)
        backend._set_trial_attr_without_commit(session, SYSTEM_ATTR, trial_id, OWNER, record)
        return trial_id

    for trial_id, state, value in unfinished:
        owner = None if value is None else json.loads(value)
        if state == TrialState.RUNNING and not worker.is_alive(owner):
            return own(trial_id, owner)
    started = session.execute(
        select(func.count()).where(TRIAL.study_id == study_id, TRIAL.state != TrialState.WAITING)
    ).scalar_one()
    if started >= n_trials:
        return None
    for trial_id, state, _ in unfinished:
        if state == TrialState.WAITING and _start_waiting(session, trial_id):
            return own(trial_id, None)
    template = create_trial(state=TrialState.RUNNING, system_attrs={OWNER: worker._record(None)})
    return cast(int, backend._get_prepared_new_trial(study_id, template, session).trial_id)


def _start_waiting(session: Session, trial_id: int) -> bool:
    """Set a trial from WAITING to RUNNING, by compare-and-swap against workers that don't use our lock."""
    result = session.execute(
        update(TRIAL.__table__)
        .where(TRIAL.trial_id == trial_id, TRIAL.state == TrialState.WAITING)
        .values(state=TrialState.RUNNING, datetime_start=datetime.now(UTC).replace(tzinfo=None))
    )
    return bool(cast("CursorResult[Any]", result).rowcount == 1)


def _claim_in_process(storage: BaseStorage, study_id: int, worker: Worker, n_trials: int) -> int | None:
    """Claim in a storage without transactions: exact among the threads of one process."""
    with _claiming:
        trials = storage.get_all_trials(study_id, deepcopy=False)
        for trial in trials:
            owner = trial.system_attrs.get(OWNER)
            if trial.state == TrialState.RUNNING and not worker.is_alive(owner):
                storage.set_trial_system_attr(trial._trial_id, OWNER, worker._record(owner))
                return trial._trial_id
        if sum(trial.state != TrialState.WAITING for trial in trials) >= n_trials:
            return None
        for trial in trials:
            if trial.state == TrialState.WAITING and storage.set_trial_state_values(
                trial._trial_id, TrialState.RUNNING
            ):
                storage.set_trial_system_attr(trial._trial_id, OWNER, worker._record(None))
                return trial._trial_id
        template = create_trial(state=TrialState.RUNNING, system_attrs={OWNER: worker._record(None)})
        return storage.create_new_trial(study_id, template)


def _is_held(path: Path) -> bool:
    """Say whether a living process holds the lock file `path`; remove the file of a dead one."""
    if not path.exists():
        return False
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except FileNotFoundError:  # the folder went meanwhile, and its holder before it
        return False
    remove_lock(lock)
    return False


@dataclass(frozen=True)
class ResumeSummary:
    """What a study holds when work on it begins or goes on."""

    complete: int
    failed: int
    pruned: int
    running: int
    left_behind: int
    left_to_do: int
    best_value: float | None
    best_number: int | None

    @property
    def finished(self) -> int:
        """Trials that are done: complete, failed and pruned."""
        return self.complete + self.failed + self.pruned

    def __str__(self) -> str:
        best = "none yet" if self.best_value is None else f"{self.best_value:.6g} (trial {self.best_number})"
        running = f"{self.running} running elsewhere, " if self.running else ""
        return (
            f"{self.finished} finished ({self.failed} failed, {self.pruned} pruned), {running}"
            f"{self.left_behind} to be taken up again, {self.left_to_do} left to do, best so far {best}"
        )


def resume_summary(study: optuna.Study, n_trials: int) -> ResumeSummary:
    """Say what `study` holds and what is left to do to reach `n_trials`.

    Returns
    -------
    ResumeSummary
        ``str()`` of it is one line. ``left_to_do`` counts the trials to be taken up again, too.
    """
    with storage_errors(study._storage):
        trials = study.get_trials(deepcopy=False)
    watcher = Worker(study._storage)

    def count(test: Callable[[FrozenTrial], bool]) -> int:
        return sum(map(test, trials))

    complete = count(lambda trial: trial.state == TrialState.COMPLETE)
    failed = count(lambda trial: trial.state == TrialState.FAIL)
    pruned = count(lambda trial: trial.state == TrialState.PRUNED)
    running = [trial for trial in trials if trial.state == TrialState.RUNNING]
    alive = sum(watcher.is_alive(trial.system_attrs.get(OWNER)) for trial in running)
    left_behind = len(running) - alive
    best = study.best_trial if complete else None
    return ResumeSummary(
        complete=complete,
        failed=failed,
        pruned=pruned,
        running=alive,
        left_behind=left_behind,
        left_to_do=max(left_behind, n_trials - complete - failed - pruned - alive),
        best_value=None if best is None else best.value,
        best_number=None if best is None else best.number,
    )

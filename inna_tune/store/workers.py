"""Workers that share a study: who is alive, which trial each one runs, and what is left to do."""

import getpass
import logging
import os
import re
import socket
import tempfile
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import optuna
from filelock import FileLock, Timeout
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage, _CachedStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from inna_tune.store.claims import OWNER, beat, claim_in_database, claim_in_process
from inna_tune.store.opening import (
    StorageError,
    gathered,
    locks_folder,
    remove_lock,
    sqlite_path,
    storage_errors,
    temporary_lock,
)

BEAT = 15.0  # seconds between the signs of life that other hosts see; a quarter of claims.LEASE

_logger = logging.getLogger("inna_tune.study")
_living: set[str] = set()  # the workers of this process
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_living.clear)


class Worker:
    """One runner of trials, alive from ``with`` to its end, or until its process dies.

    Others on the same host see whether it lives by an OS lock on a file of its own, which the operating
    system releases however the process ends: no waiting. For an SQLite file the lock files lie in the folder
    ``<file>.locks``, for other storages in a folder of the user's on each host. On a database server the
    worker also renews a lease on its trials, for the workers of other hosts to see.

    Parameters
    ----------
    storage : optuna.storages.BaseStorage
        The storage of the study that it will work on.

    Attributes
    ----------
    id : str
        32 hexadecimal digits, never used twice.
    record : dict
        What is stored in a trial to name its owner: `id`, and for a person to read, host and pid.
    trials : set of int
        Ids of the trials it was given.
    """

    def __init__(self, storage: BaseStorage) -> None:
        self.id = uuid.uuid4().hex
        self.record: dict[str, Any] = {"id": self.id, "host": socket.gethostname(), "pid": os.getpid()}
        self.trials: set[int] = set()
        self._server: RDBStorage | None = None
        self._folder: Path | None = None
        self._lock: FileLock | None = None
        self._ended = threading.Event()
        database = sqlite_path(storage)
        if database is not None:
            self._folder = locks_folder(database)
        elif not isinstance(storage, InMemoryStorage):
            self._folder = _host_folder()
            self.record["place"] = _place(self._folder)
            self._server = storage._backend if isinstance(storage, _CachedStorage) else None

    def __enter__(self) -> Self:
        if self._folder is not None:
            self._lock = FileLock(self._folder / self.id, thread_local=False)
            while not self._lock.is_locked:
                self._folder.mkdir(mode=0o700, exist_ok=True)
                # A worker that ends may remove the folder between the two lines.
                with suppress(FileNotFoundError):
                    self._lock.acquire()
        _living.add(self.id)
        if self._server is not None:
            threading.Thread(target=self._renew, args=(self._server,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._lock is not None and self.at_work():  # a forked child that unwinds mustn't end its parent
            remove_lock(self._lock)
        _living.discard(self.id)

    def is_alive(self, owner: object) -> bool | None:
        """Say whether the worker of the owner record `owner`, read from a trial, still lives.

        A record that is missing or isn't one of ours counts as dead; its text never names a file outside
        the lock folder. None: it runs on another host, where only its lease can tell.
        """
        name = owner.get("id") if isinstance(owner, dict) else None
        if not isinstance(owner, dict) or not isinstance(name, str) or not re.fullmatch("[0-9a-f]{32}", name):
            return False
        if name in _living:
            return True
        if owner.get("place") != self.record.get("place"):
            return None
        return self._folder is not None and _is_held(self._folder / name)

    def at_work(self) -> bool:
        """Say whether this worker was entered, and not left, in this process."""
        return self.id in _living

    def _renew(self, server: RDBStorage) -> None:
        while not self._ended.wait(BEAT):
            try:
                known = self.trials.copy()
                self.trials -= known - beat(server, known)
                if self._lock is not None:
                    os.utime(self._lock.lock_file)  # folders of temporary files are cleaned of old ones
            except Exception as error:  # the next beat may reach the server again
                _logger.warning("worker %s can't renew its lease: %s", self.id, type(error).__name__)


def ask(study: optuna.Study, worker: Worker, n_trials: int) -> Trial | None:
    """Return the next trial for `worker`, such that the study ends with exactly `n_trials`.

    First a trial left RUNNING by a dead worker is taken up again, under its own number and with the values
    it has, its reports forgotten; then a waiting one is claimed; then a new one is made. Each is decided in
    one transaction of the database, so that any number of workers share a study without a trial too many,
    too few or done twice. Sampler and pruner see what `optuna.Study.ask` would show them.

    Parameters
    ----------
    study : optuna.Study
    worker : Worker
        Entered (``with``). It may hold several trials at once.
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
    if not worker.at_work():
        raise ValueError("worker isn't at work: enter it first, `with Worker(storage) as worker:`")
    storage, study_id = study._storage, study._study_id
    with storage_errors(storage):
        if isinstance(storage, _CachedStorage):
            trial_id = claim_in_database(storage, study_id, worker, n_trials)
        else:
            trial_id = claim_in_process(storage, study_id, worker, n_trials)
        if trial_id is None:
            return None
        worker.trials.add(trial_id)
        # NOTE: what Study.ask does, with its own way to find the trial replaced by ours.
        study._thread_local.cached_all_trials = None
        return Trial(study, trial_id)


def tell(
    study: optuna.Study,
    worker: Worker,
    trial: Trial,
    values: float | Sequence[float] | None = None,
    state: TrialState | None = None,
    *,
    notes: Mapping[str, Any] | None = None,
) -> bool:
    """Tell a result, unless another worker took the trial over in the meantime.

    That happens only where this worker's lease ran out, on a database server it couldn't reach.

    Parameters
    ----------
    study : optuna.Study
    worker : Worker
    trial : optuna.trial.Trial
    values, state
        As for `optuna.Study.tell`.
    notes : mapping, optional
        User attributes of the trial, JSON-able, written with the result in one transaction.

    Returns
    -------
    bool
        Whether the result was stored.
    """
    stored = _end_own(study, worker, trial, notes or {}, lambda: study.tell(trial, values, state))
    if not stored:
        _logger.warning("trial %d was taken over by another worker, its result isn't stored", trial.number)
    return stored


def put_back(study: optuna.Study, worker: Worker, trial: Trial, *, notes: Mapping[str, Any]) -> bool:
    """Leave a trial unfinished for whoever has time: it waits, under its number and with the settings it has.

    Parameters
    ----------
    study : optuna.Study
    worker : Worker
    trial : optuna.trial.Trial
    notes : mapping
        User attributes of the trial, JSON-able.

    Returns
    -------
    bool
        Whether it was still this worker's.
    """
    storage = study._storage
    return _end_own(
        study,
        worker,
        trial,
        notes,
        lambda: storage.set_trial_state_values(trial._trial_id, TrialState.WAITING),
    )


def _end_own(
    study: optuna.Study,
    worker: Worker,
    trial: Trial,
    notes: Mapping[str, Any],
    end: Callable[[], object],
) -> bool:
    """Let a trial go by ``end``, with its notes in one transaction, if it is still this worker's; whether it was."""
    with storage_errors(study._storage):
        owner = study._storage.get_trial_system_attrs(trial._trial_id).get(OWNER)
        own = isinstance(owner, dict) and owner.get("id") == worker.id
        if own:
            try:
                with gathered(study):
                    for name, note in notes.items():
                        trial.set_user_attr(name, note)
                    end()
            except UpdateFinishedTrialError:
                own = False
    worker.trials.discard(trial._trial_id)
    return own


def _host_folder() -> Path:
    """Return this user's folder of lock files on this host, made if need be."""
    user = str(os.getuid()) if hasattr(os, "getuid") else getpass.getuser()
    folder = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / f"inna-tune-{user}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or (hasattr(os, "getuid") and folder.stat().st_uid != os.getuid()):
        raise StorageError(f"{folder} belongs to somebody else; set XDG_RUNTIME_DIR to a folder of your own")
    return folder


def _place(folder: Path) -> str:
    """Return the random name of a lock folder: workers that read the same name share the folder."""
    # NOTE: host names do for neither: containers share them, and one host's containers share no folder.
    path = folder / "place"
    with temporary_lock(folder / "opening"):
        if not path.exists():
            path.write_text(uuid.uuid4().hex, encoding="ascii")
        return path.read_text(encoding="ascii")


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
        ``str()`` of it is one line. ``left_to_do`` counts the trials to be taken up again, too. Workers
        of other hosts count as running, since only `ask` looks at their leases.
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
    alive = sum(watcher.is_alive(trial.system_attrs.get(OWNER)) is not False for trial in running)
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

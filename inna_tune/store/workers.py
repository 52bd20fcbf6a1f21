"""Workers that share a study: who is alive, and what is left to do."""

import os
import re
import socket
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import optuna
from filelock import FileLock
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from inna_tune.store.locks import is_held, place_of, remove_lock, take_lock
from inna_tune.store.opening import storage_errors, store_of
from inna_tune.store.store import OWNER
from inna_tune.visible import get_logger

BEAT = 15.0  # seconds between the signs of life that other hosts see; a quarter of sql.LEASE

_ID = "[0-9a-f]{32}"

_logger = get_logger("inna_tune.study")
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
    giver : dict, optional
        The record of the worker that started this one's process; while that one lives it can tell that only this one died.

    Attributes
    ----------
    id : str
        32 hexadecimal digits, never used twice.
    record : dict
        What is stored in a trial to name its owner: `id`, its giver's, and for a person to read, host and pid.
    trials : set of int
        Ids of the trials it was given.
    """

    def __init__(self, storage: BaseStorage, giver: Mapping[str, Any] | None = None) -> None:
        self.id = uuid.uuid4().hex
        self.record: dict[str, Any] = {"id": self.id, "host": socket.gethostname(), "pid": os.getpid()}
        if giver is not None:
            self.record["giver"] = {name: giver[name] for name in ("id", "place") if name in giver}
        self.trials: set[int] = set()
        self._store = store_of(storage)
        self._folder = self._store.locks
        if self._folder is not None and self._store.path is None:  # other hosts have a folder of their own
            self.record["place"] = place_of(self._folder)
        self._lock: FileLock | None = None
        self._ended = threading.Event()
        self._cut_off = float("-inf")  # when it last couldn't renew its lease

    def __enter__(self) -> Self:
        if self._folder is not None:
            self._lock = take_lock(self._folder / self.id)
        _living.add(self.id)
        if self._store.has_leases:
            threading.Thread(target=self._renew, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._lock is not None and self.at_work():  # a forked child that unwinds mustn't end its parent
            self.note_training(())
            remove_lock(self._lock)
        _living.discard(self.id)

    def is_alive(self, owner: object) -> bool | None:
        """Say whether the worker of the owner record `owner`, read from a trial, still lives.

        A record that is missing or isn't one of ours counts as dead; its text never names a file outside
        the lock folder. None: it runs on another host, where only its lease can tell.
        """
        name = owner.get("id") if isinstance(owner, dict) else None
        if not isinstance(owner, dict) or not isinstance(name, str) or not re.fullmatch(_ID, name):
            return False
        if name in _living:
            return True
        if owner.get("place") != self.record.get("place"):
            return None
        return self._folder is not None and is_held(self._folder / name)

    def note_training(self, trial_ids: Iterable[int]) -> None:
        """Note which trials train now, so that they are known if the process dies of it.

        That is in a file beside the lock, which the workers of this host read: the operating system keeps what is written
        there however the process ends.
        """
        if self._folder is None:
            return
        path, text = self._training_of(self.id), " ".join(map(str, trial_ids))
        with suppress(OSError):  # a disk that is full costs the note, not the trial
            if text:
                path.write_text(text, encoding="ascii")
            else:
                path.unlink(missing_ok=True)

    def has_died_in(self, owner: object, trial_id: int) -> bool:
        """Whether a worker that lives no more died while it trained a trial; asked once, as the note goes with the answer.

        One that ended in good order has left no note; of another host's there is none to be read.
        """
        name = owner.get("id") if isinstance(owner, dict) else None
        if self._folder is None or not isinstance(name, str) or not re.fullmatch(_ID, name):
            return False
        path = self._training_of(name)
        try:
            noted = path.read_text(encoding="ascii").split()
        except (OSError, ValueError):
            return False
        if str(trial_id) not in noted:
            return False
        left = [each for each in noted if each != str(trial_id)]
        with suppress(OSError):
            if left:
                path.write_text(" ".join(left), encoding="ascii")
            else:
                path.unlink(missing_ok=True)
                path.parent.rmdir()
        return True

    def _training_of(self, name: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{name}.training"

    @property
    def judges_leases(self) -> bool:
        """Whether it may take a lease that ran out for a death: not where the server was away, as nobody renewed then."""
        return time.monotonic() - self._cut_off > 2 * BEAT

    def at_work(self) -> bool:
        """Say whether this worker was entered, and not left, in this process."""
        return self.id in _living

    def _renew(self) -> None:
        while not self._ended.wait(BEAT):
            try:
                known = self.trials.copy()
                self.trials -= known - self._store.beat(known)
                if self._lock is not None:
                    os.utime(self._lock.lock_file)  # folders of temporary files are cleaned of old ones
            except Exception as error:  # the next beat may reach the server again
                self._cut_off = time.monotonic()
                _logger.warning("worker %s can't renew its lease: %s", self.id, type(error).__name__)


@dataclass(frozen=True)
class ResumeSummary:
    """What a study holds when work on it begins or goes on.

    ``left_behind`` are trials that were begun and are to be taken up again: their worker died, or put them back.
    """

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
    with storage_errors(study):
        trials = study.get_trials(deepcopy=False)
        best = study.best_trial if any(t.state == TrialState.COMPLETE for t in trials) else None
    watcher = Worker(study._storage)
    found = Counter(trial.state for trial in trials)
    owners = [trial.system_attrs.get(OWNER) for trial in trials if trial.state == TrialState.RUNNING]
    alive = sum(watcher.is_alive(owner) is not False for owner in owners)
    put_back = sum(OWNER in trial.system_attrs for trial in trials if trial.state == TrialState.WAITING)
    done = found[TrialState.COMPLETE], found[TrialState.FAIL], found[TrialState.PRUNED]
    return ResumeSummary(
        *done,
        running=alive,
        left_behind=len(owners) - alive + put_back,
        left_to_do=max(len(owners) - alive, n_trials - sum(done) - alive),
        best_value=None if best is None else best.value,
        best_number=None if best is None else best.number,
    )

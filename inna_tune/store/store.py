"""A place where studies are kept, and all that the rest has to know of it; each kind of place is a file."""

import os
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from inna_tune.store.errors import DATABASE_ERRORS, StorageError, cause_of
from inna_tune.store.locks import host_folder
from inna_tune.visible import get_logger

if TYPE_CHECKING:
    from inna_tune.store.workers import Worker

OWNER = "inna_tune:worker"  # the trial's system attribute that names its worker
QUEUED = "fixed_params"  # Optuna's own: the settings that a trial was queued with
RUNG = "completed_rung_"  # successive halving's own notes of a trial's reports

_logger = get_logger(__name__)
_claiming = threading.Lock()  # what storages without transactions have


def beside(path: Path, what: str) -> Path:
    """The folder beside the file of a storage for its `what`: locks, checkpoints or what was trained."""
    return path.with_name(f"{path.name}.{what}")


# Of processes in a row that trained a trial and came no further with it than the last: where another process, which had
# started one of them, saw it die and lived on, and where none did, so that all of them may have been killed from outside.
MAX_DEATHS, MAX_UNSEEN_DEATHS = 3, 10


def new_trials(
    settings: Sequence[Mapping[str, Any]], known: Sequence[Any], key: Callable[[Any], Hashable]
) -> Iterator[FrozenTrial]:
    """What waits to be tried, of settings that are none of the known ones."""
    keys = {key(each) for each in known}
    for each in settings:
        if key(each) not in keys:
            keys.add(key(each))
            yield create_trial(state=TrialState.WAITING, system_attrs={QUEUED: dict(each)})


def owner_record(
    worker: "Worker", previous: object, *, died: bool = False, reached: int | None = None
) -> dict[str, Any]:
    """What `worker` leaves in a trial.

    Parameters
    ----------
    worker : Worker
    previous : object
        The record of the one before, None if there was none.
    died : bool
        Whether that one died while it trained the trial, as far as can be known.
    reached : int or None
        The last step that it reported.
    """
    known = previous if isinstance(previous, dict) else {}
    record = {**worker.record, "attempt": _count(known, "attempt") + 1}
    counts = {name: _count(known, name) for name in ("deaths", "seen_deaths")}
    if died:
        # One that gets further each time is only unlucky in its hosts.
        if known.get("reached") != reached:
            counts = dict.fromkeys(counts, 0)
        counts["deaths"] += 1
        counts["seen_deaths"] += "giver" in known and worker.is_alive(known["giver"]) is True
        record["reached"] = reached
    elif "reached" in known:
        record["reached"] = known["reached"]
    return record | {name: count for name, count in counts.items() if count}


def _count(record: Mapping[str, Any], name: str) -> int:
    found = record.get(name, 0)
    return found if isinstance(found, int) else 0


def deaths_of(system_attrs: Mapping[str, Any]) -> int:
    """How many processes in a row died while they trained a trial, as far as can be known."""
    return _counted(system_attrs, "deaths")


def is_deadly(system_attrs: Mapping[str, Any]) -> bool:
    """Whether it is the trial that those processes died of."""
    least = MAX_DEATHS if _counted(system_attrs, "seen_deaths") else MAX_UNSEEN_DEATHS
    return deaths_of(system_attrs) >= least


def is_suspect(system_attrs: Mapping[str, Any]) -> bool:
    """Whether one more death will tell, if another process sees it."""
    return deaths_of(system_attrs) >= MAX_DEATHS - 1 and not is_deadly(system_attrs)


def _counted(system_attrs: Mapping[str, Any], name: str) -> int:
    record = system_attrs.get(OWNER)
    return _count(record, name) if isinstance(record, dict) else 0


class LeftBehind:
    """Stands for a storage that only the process that made it can use; ``kind``: the name of its class."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __repr__(self) -> str:
        return f"<a {self.kind} that stayed behind when the search was copied or pickled>"


class Store:
    """A place where studies are kept, opened: an Optuna storage, and what can be asked of it.

    The class itself tells what holds for any of Optuna's storages, such as a journal. A kind that can do more, or that has
    URLs, is a subclass in a file of its own, entered in `inna_tune.store.opening.KINDS`; it says what differs. Stores
    of one storage are equal in all they do, so that any part of the program makes its own by `store_of`.

    Parameters
    ----------
    storage : optuna.storages.BaseStorage

    Attributes
    ----------
    schemes : frozenset of str
        How the URLs begin that `open` understands, without a driver's name: "sqlite", "postgresql".
    lasts : bool
        Whether studies outlive the process.
    is_shared : bool
        Whether the storage, pickled, is the same one in another process, and `claim` is exact among them.
    has_leases : bool
        Whether `beat` shows to other hosts that a worker lives.
    """

    schemes: ClassVar[frozenset[str]] = frozenset()
    lasts: ClassVar[bool] = True
    is_shared: ClassVar[bool] = False
    has_leases: ClassVar[bool] = False

    def __init__(self, storage: BaseStorage) -> None:
        self.storage = storage

    @classmethod
    def open(cls, url: str, *, create: bool = True) -> "Store":
        """Open what a URL of these `schemes` names, made if it is missing and `create`.

        Raises
        ------
        StorageError
            It can't be used; nothing was made or changed then, and the message shows no password.
        """
        raise NotImplementedError(f"{cls.__name__} has no URLs")

    @classmethod
    def holds(cls, storage: BaseStorage) -> bool:
        """Whether this kind knows most of `storage`; asked in the order of `KINDS`."""
        return True

    @property
    def path(self) -> Path | None:
        """The file that holds it all, absolute; None where it isn't one file that all workers see."""
        return None

    @property
    def words(self) -> str:
        """What a person calls it: its path, its URL without password, or its class."""
        return type(self.storage).__name__ if self.path is None else str(self.path)

    @property
    def locks(self) -> Path | None:
        """The folder for the lock files of its workers, beside the file, or the user's on each host.

        None: all workers are in this process.
        """
        return host_folder() if self.path is None else beside(self.path, "locks")

    @property
    def checkpoints(self) -> Path | None:
        """The folder for the checkpoints of its trials; None where there is no local place.

        Beside a file it is ``<file>.checkpoints``. For a database server, and whatever else other hosts may see, it is a
        folder of the user's on this host, so that a trial goes on from its checkpoint only where it was begun.
        """
        return self._folder("checkpoints")

    @property
    def trained(self) -> Path | None:
        """The folder for what finished trials leave, their predictions and nets; where `checkpoints` has its own."""
        return self._folder("trained")

    def _folder(self, what: str) -> Path | None:
        if self.path is not None:
            return beside(self.path, what)
        try:
            root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        except RuntimeError:
            _logger.debug("no %s: this user has no home folder", what)
            return None
        return root / "inna-tune" / what

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn what a database raises inside the block into a one-line `StorageError`."""
        try:
            yield
        except DATABASE_ERRORS as error:
            raise StorageError(f"{self.words}: {cause_of(error)}") from error

    def gathered(self) -> AbstractContextManager[None]:
        """Write what this thread sets on trials within the block in one transaction, where there are any."""
        return nullcontext()

    def claim(self, study_id: int, worker: "Worker", n_trials: int) -> int | None:
        """Return the id of the trial that is `worker`'s from now on, None where nothing is left to start.

        A trial left behind by a dead worker comes first, then a waiting one, then a new one. Exact among the threads of
        this process; where `is_shared`, among all processes and hosts.
        """
        with _claiming:
            trials = self.storage.get_all_trials(study_id, deepcopy=False)
            for trial in trials:
                owner = trial.system_attrs.get(OWNER)
                if trial.state == TrialState.RUNNING and worker.is_alive(owner) is False:
                    died = worker.has_died_in(owner, trial._trial_id)
                    record = owner_record(worker, owner, died=died, reached=trial.last_step)
                    return self._own(trial, record)
            if sum(trial.state != TrialState.WAITING for trial in trials) >= n_trials:
                return None
            for trial in trials:
                if trial.state == TrialState.WAITING and self.storage.set_trial_state_values(
                    trial._trial_id, TrialState.RUNNING
                ):
                    record = owner_record(worker, trial.system_attrs.get(OWNER))
                    return self._own(self.storage.get_trial(trial._trial_id), record)
            record = owner_record(worker, None)
            template = create_trial(state=TrialState.RUNNING, system_attrs={OWNER: record})
            return self.storage.create_new_trial(study_id, template)

    def _own(self, trial: FrozenTrial, record: dict[str, Any]) -> int:
        self._forget_reports(trial)
        self.storage.set_trial_system_attr(trial._trial_id, OWNER, record)
        return trial._trial_id

    def _forget_reports(self, trial: FrozenTrial) -> None:
        """Delete what a trial reported when it was begun before, where a storage can forget."""

    def settle(self, study_id: int, name: str, value: Any) -> Any:
        """Give a study a user attribute unless it has it; what it has from then on, whoever came first.

        As exact as `claim`.
        """
        with _claiming:
            known = self.storage.get_study_user_attrs(study_id)
            if name not in known:
                self.storage.set_study_user_attr(study_id, name, value)
            return known.get(name, value)

    def queue_once(
        self, study_id: int, settings: Sequence[Mapping[str, Any]], key: Callable[[Any], Hashable]
    ) -> None:
        """Queue a trial for each of the settings, unless one was queued with settings of the same key.

        As exact as `claim`.
        """
        with _claiming:
            trials = self.storage.get_all_trials(study_id, deepcopy=False)
            known = [trial.system_attrs[QUEUED] for trial in trials if QUEUED in trial.system_attrs]
            for template in new_trials(settings, known, key):
                self.storage.create_new_trial(study_id, template)

    def beat(self, trial_ids: Set[int]) -> set[int]:
        """Renew the lease on those of the trials that still run; return them. Only where there are leases."""
        raise NotImplementedError(f"{type(self).__name__} has no leases")

    def queue_again(self, study_id: int, trial_ids: Sequence[int]) -> None:
        """Let failed trials wait, as if they had never begun, with the settings that they have."""
        raise StorageError(f"{self.words} can't queue a trial again; only a database can")

    def rename(self, names: Mapping[str, str]) -> None:
        """Give studies other names, all at once; IntegrityError of sqlalchemy if one is taken."""
        raise StorageError(f"{self.words} can't rename a study, so that none can be taken in whole")

    def stand_in(self) -> Any:
        """What stands for the storage in a pickle or a copy, where it is not open."""
        return LeftBehind(type(self.storage).__name__)

    def close(self) -> None:
        """End all connections."""

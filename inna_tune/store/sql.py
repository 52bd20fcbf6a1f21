"""Studies in a relational database, where every decision is one transaction: which trial a worker runs next."""

import json
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

from optuna.storages import BaseStorage, RDBStorage, _CachedStorage
from optuna.storages._cached_storage import _StudyInfo
from optuna.storages._rdb import models
from optuna.trial import TrialState, create_trial
from sqlalchemy import CursorResult, DateTime, delete, func, select, update
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.expression import FunctionElement

from inna_tune.store.cached import CachedDatabase
from inna_tune.store.database import StudyDatabase, transaction
from inna_tune.store.errors import StorageError, has_secret_before_host, redact_url
from inna_tune.store.reading import REPORT, SYSTEM_ATTR, TRIAL, USER_ATTR, VALUE, read_trials
from inna_tune.store.store import OWNER, QUEUED, RUNG, Store, new_trials, owner_record
from inna_tune.store.waiting import waited_for

if TYPE_CHECKING:
    from inna_tune.store.workers import Worker

_T = TypeVar("_T")

LEASE = timedelta(seconds=60)  # how long a worker of another host lives on without a sign of life

BEATS = models.TrialHeartbeatModel


class utc_now(FunctionElement[datetime]):  # noqa: N801, as SQL's own functions are called
    """The database's time in UTC, whatever the time zone of the session: what a column without a zone is compared with."""

    type = DateTime()
    inherit_cache = True


@compiles(utc_now)
def _utc_of_any(element: utc_now, compiler: Any, **kwargs: Any) -> str:
    return "CURRENT_TIMESTAMP"  # SQLite's is in UTC


@compiles(utc_now, "postgresql")
def _utc_of_postgresql(element: utc_now, compiler: Any, **kwargs: Any) -> str:
    return "TIMEZONE('utc', CURRENT_TIMESTAMP)"


@compiles(utc_now, "mysql")
@compiles(utc_now, "mariadb")
def _utc_of_mysql(element: utc_now, compiler: Any, **kwargs: Any) -> str:
    return "UTC_TIMESTAMP()"


def parse_url(url: str) -> URL:
    """Read the URL of a database.

    Raises
    ------
    StorageError
        It isn't one.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise StorageError(
            f"storage {redact_url(url)!r} is not a database URL; for a file write 'sqlite:///studies.db'"
        ) from None
    if parsed.get_backend_name() != "sqlite" and (
        "@" in f"{parsed.host}"
        or re.search("[@:]", f"{parsed.database}") is not None
        or has_secret_before_host(url)
    ):
        # It would be taken for the host or the database, and told to others as such.
        raise StorageError(
            f"storage {redact_url(url)!r}: its user name or password has a character that means something else in a URL; "
            "write / as %2F, : as %3A, @ as %40"
        )
    return parsed


def as_template(url: str) -> str:
    """A URL as Optuna takes it, which fills URLs by str.format, so that braces have to be doubled."""
    return url.replace("{", "{{").replace("}", "}}")


def url_of(storage: BaseStorage) -> URL | None:
    """The URL of the database behind a storage of Optuna's, None for every other kind."""
    backend = storage._backend if isinstance(storage, _CachedStorage) else storage
    return make_url(backend.url) if isinstance(backend, RDBStorage) else None


class Database(Store):
    """Optuna's storage in a relational database, behind its cache of finished trials.

    Parameters
    ----------
    storage : optuna.storages.RDBStorage or optuna.storages._CachedStorage
    """

    is_shared: ClassVar[bool] = True
    storage: _CachedStorage

    def __init__(self, storage: BaseStorage) -> None:
        super().__init__(CachedDatabase(storage) if isinstance(storage, RDBStorage) else storage)
        self.backend = self.storage._backend

    @classmethod
    def holds(cls, storage: BaseStorage) -> bool:
        """See `Store`."""
        url = url_of(storage)
        return url is not None and url.get_backend_name() in cls.schemes

    @property
    def words(self) -> str:
        """The path of the file, or the URL without password."""
        return redact_url(self.backend.url) if self.path is None else str(self.path)

    def _waiting(self, work: Callable[[], _T]) -> _T:
        """What comes of work in a transaction, once the database answers."""
        return waited_for(work, lambda: self.words)

    def gathered(self) -> AbstractContextManager[None]:
        """See `Store`."""
        return self.backend.gathered() if isinstance(self.backend, StudyDatabase) else nullcontext()

    def stand_in(self) -> str:
        """The URL, to be opened anew."""
        return str(self.backend.url)

    def close(self) -> None:
        """End all connections, so that a file's log goes with the last of them."""
        self.backend.engine.dispose()

    def rename(self, names: Mapping[str, str]) -> None:
        """See `Store`."""
        study = models.StudyModel

        def work() -> None:
            with transaction(self.backend) as session:
                for before, after in names.items():
                    session.execute(
                        update(study.__table__).where(study.study_name == before).values(study_name=after)
                    )

        self._waiting(work)

    def queue_again(self, study_id: int, trial_ids: Sequence[int]) -> None:
        """See `Store`."""

        def work() -> None:
            with transaction(self.backend, durable=True) as session:
                failed = select(TRIAL.trial_id).where(
                    TRIAL.trial_id.in_(trial_ids), TRIAL.study_id == study_id, TRIAL.state == TrialState.FAIL
                )
                for trial_id in session.execute(failed.with_for_update()).scalars().all():
                    _forget(session, trial_id)
                    session.execute(delete(VALUE).where(VALUE.trial_id == trial_id))
                    session.execute(delete(USER_ATTR).where(USER_ATTR.trial_id == trial_id))
                    owned = SYSTEM_ATTR.trial_id == trial_id, SYSTEM_ATTR.key == OWNER
                    session.execute(delete(SYSTEM_ATTR).where(*owned))
                    waiting = {"state": TrialState.WAITING, "datetime_complete": None}
                    session.execute(update(TRIAL.__table__).where(TRIAL.trial_id == trial_id).values(waiting))

        self._waiting(work)
        if isinstance(self.storage, CachedDatabase):
            self.storage.forget()

    def settle(self, study_id: int, name: str, value: Any) -> Any:
        """See `Store`."""
        return self._waiting(lambda: self._settle(study_id, name, value))

    def _settle(self, study_id: int, name: str, value: Any) -> Any:
        attribute = models.StudyUserAttributeModel
        with transaction(self.backend) as session:
            study = models.StudyModel.find_or_raise_by_id(study_id, session, for_update=True)
            stored = attribute.find_by_study_and_key(study, name, session)
            if stored is not None:
                return json.loads(str(stored.value_json))
            session.add(attribute(study_id=study_id, key=name, value_json=json.dumps(value)))
        return value

    def queue_once(
        self, study_id: int, settings: Sequence[Mapping[str, Any]], key: Callable[[Any], Hashable]
    ) -> None:
        """See `Store`."""

        def work() -> None:
            with transaction(self.backend) as session:
                models.StudyModel.find_or_raise_by_id(study_id, session, for_update=True)
                own = select(TRIAL.trial_id).where(TRIAL.study_id == study_id)
                queued = select(SYSTEM_ATTR.value_json).where(
                    SYSTEM_ATTR.key == QUEUED, SYSTEM_ATTR.trial_id.in_(own)
                )
                known = [json.loads(value) for value in session.execute(queued).scalars()]
                for template in new_trials(settings, known, key):
                    self.backend._get_prepared_new_trial(study_id, template, session)
                    session.flush()

        self._waiting(work)

    def claim(self, study_id: int, worker: "Worker", n_trials: int) -> int | None:
        """See `Store`."""
        return self._waiting(lambda: self._claim(study_id, worker, n_trials))

    def _claim(self, study_id: int, worker: "Worker", n_trials: int) -> int | None:
        with transaction(self.backend) as session:
            # On a server this row is what every worker that creates or claims a trial of the study locks.
            models.StudyModel.find_or_raise_by_id(study_id, session, for_update=True)
            trial_id = self._next_trial(session, study_id, worker, n_trials)
            if trial_id is None:
                return None
            session.flush()
            [frozen] = read_trials(session, TRIAL.trial_id == trial_id)
        with self.storage._lock:
            known = self.storage._studies.setdefault(study_id, _StudyInfo())
            self.storage._add_trials_to_cache(study_id, [frozen])
            known.unfinished_trial_ids.add(
                trial_id
            )  # it may be known as one that failed, and was queued again
        return trial_id

    def _next_trial(self, session: Session, study_id: int, worker: "Worker", n_trials: int) -> int | None:
        unfinished = session.execute(
            select(TRIAL.trial_id, TRIAL.state, SYSTEM_ATTR.value_json, BEATS.heartbeat)
            .outerjoin(SYSTEM_ATTR, (SYSTEM_ATTR.trial_id == TRIAL.trial_id) & (SYSTEM_ATTR.key == OWNER))
            .outerjoin(BEATS, BEATS.trial_id == TRIAL.trial_id)
            .where(TRIAL.study_id == study_id, TRIAL.state.in_((TrialState.RUNNING, TrialState.WAITING)))
            .order_by(TRIAL.trial_id)
        ).all()
        for trial_id, state, value, heartbeat in unfinished:
            owner = None if value is None else json.loads(value)
            if _was_taken(trial_id, owner, worker):
                return cast(int, trial_id)
            if (
                state == TrialState.RUNNING
                and not _lives(session, worker, owner, heartbeat)
                and _is_running(session, trial_id)
            ):
                record = owner_record(
                    worker,
                    owner,
                    died=worker.has_died_in(owner, trial_id),
                    reached=_last_step(session, trial_id),
                )
                _forget(session, trial_id)
                return self._take(session, trial_id, record)
        started = session.execute(
            select(func.count()).where(TRIAL.study_id == study_id, TRIAL.state != TrialState.WAITING)
        ).scalar_one()
        if started >= n_trials:
            return None
        for trial_id, state, value, _ in unfinished:
            if state == TrialState.WAITING and _start_waiting(session, trial_id):
                _forget(session, trial_id)  # it may have been begun, and put back
                before = None if value is None else json.loads(value)
                return self._take(session, trial_id, owner_record(worker, before))
        trial = self.backend._get_prepared_new_trial(
            study_id, create_trial(state=TrialState.RUNNING), session
        )
        return self._take(session, cast(int, trial.trial_id), owner_record(worker, None))

    def _take(self, session: Session, trial_id: int, record: dict[str, Any]) -> int:
        self.backend._set_trial_attr_without_commit(session, SYSTEM_ATTR, trial_id, OWNER, record)
        return trial_id


def _was_taken(trial_id: int, owner: object, worker: "Worker") -> bool:
    """Whether the worker has been given a trial without hearing of it, since the connection broke in that moment."""
    return isinstance(owner, dict) and owner.get("id") == worker.id and trial_id not in worker.trials


def _lives(session: Session, worker: "Worker", owner: object, heartbeat: datetime | None) -> bool:
    alive = worker.is_alive(owner)
    if alive is not None:
        return alive
    if heartbeat is None:
        return False
    if not worker.judges_leases:
        return True
    now: datetime = session.execute(select(utc_now())).scalar_one()
    return now.replace(tzinfo=None) - heartbeat <= LEASE


def _last_step(session: Session, trial_id: int) -> int | None:
    """Of what a trial reported when it was begun before."""
    found: int | None = session.execute(
        select(func.max(REPORT.step)).where(REPORT.trial_id == trial_id)
    ).scalar()
    return found


def _forget(session: Session, trial_id: int) -> None:
    """Delete what a trial reported when it was begun before."""
    session.execute(delete(REPORT).where(REPORT.trial_id == trial_id))
    rungs = SYSTEM_ATTR.key.startswith(RUNG, autoescape=True)
    session.execute(delete(SYSTEM_ATTR).where(SYSTEM_ATTR.trial_id == trial_id, rungs))


def _is_running(session: Session, trial_id: int) -> bool:
    """Say, with the row locked, whether a worker that is alive after all hasn't just told the trial."""
    state = session.execute(select(TRIAL.state).where(TRIAL.trial_id == trial_id).with_for_update())
    return bool(state.scalar_one() == TrialState.RUNNING)


def _start_waiting(session: Session, trial_id: int) -> bool:
    """Set a trial from WAITING to RUNNING, by compare-and-swap against workers that don't use our lock."""
    result = session.execute(
        update(TRIAL.__table__)
        .where(TRIAL.trial_id == trial_id, TRIAL.state == TrialState.WAITING)
        .values(state=TrialState.RUNNING, datetime_start=datetime.now(UTC).replace(tzinfo=None))
    )
    return bool(cast("CursorResult[Any]", result).rowcount == 1)

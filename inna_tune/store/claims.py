"""Decide, in one transaction, which trial a worker runs next."""

import json
import threading
from collections.abc import Set
from copy import copy
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, cast

from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage, _CachedStorage
from optuna.storages._cached_storage import _StudyInfo
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import CursorResult, delete, func, select, update
from sqlalchemy.orm import Session

from inna_tune.store.database import REPORT, SUPPORTED, SYSTEM_ATTR, TRIAL, read_trials, transaction, upsert

OWNER = "inna_tune:worker"  # the trial's system attribute that names its worker
LEASE = timedelta(seconds=60)  # how long a worker of another host lives on without a sign of life

_BEAT = models.TrialHeartbeatModel
_RUNG = "completed_rung_"  # successive halving's own notes of a trial's reports

_claiming = threading.Lock()  # for storages without transactions


class Claimant(Protocol):
    """What a claim has to know of a worker."""

    record: dict[str, Any]

    def is_alive(self, owner: object) -> bool | None:
        """Say whether the worker of an owner record lives; None: it runs on another host."""


def claim_in_database(storage: _CachedStorage, study_id: int, worker: Claimant, n_trials: int) -> int | None:
    """Return the id of the trial that is `worker`'s from now on, None where nothing is left to start.

    Exact among all threads, processes and hosts that share the database.
    """
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
        storage._studies.setdefault(study_id, _StudyInfo())
        storage._add_trials_to_cache(study_id, [frozen])
    return trial_id


def settle(storage: BaseStorage, study_id: int, name: str, value: Any) -> Any:
    """Give a study a user attribute unless it has it; what it has from then on, whoever came first.

    Exact among all threads, processes and hosts that share a database.
    """
    backend = storage._backend if isinstance(storage, _CachedStorage) else storage
    if not isinstance(backend, RDBStorage):
        with _claiming:
            known = storage.get_study_user_attrs(study_id)
            if name not in known:
                storage.set_study_user_attr(study_id, name, value)
            return known.get(name, value)
    with transaction(backend) as session:
        study = models.StudyModel.find_or_raise_by_id(study_id, session, for_update=True)
        stored = models.StudyUserAttributeModel.find_by_study_and_key(study, name, session)
        if stored is not None:
            return json.loads(str(stored.value_json))
        session.add(models.StudyUserAttributeModel(study_id=study_id, key=name, value_json=json.dumps(value)))
    return value


def _next_trial(
    backend: RDBStorage, session: Session, study_id: int, worker: Claimant, n_trials: int
) -> int | None:
    unfinished = session.execute(
        select(TRIAL.trial_id, TRIAL.state, SYSTEM_ATTR.value_json, _BEAT.heartbeat)
        .outerjoin(SYSTEM_ATTR, (SYSTEM_ATTR.trial_id == TRIAL.trial_id) & (SYSTEM_ATTR.key == OWNER))
        .outerjoin(_BEAT, _BEAT.trial_id == TRIAL.trial_id)
        .where(TRIAL.study_id == study_id, TRIAL.state.in_((TrialState.RUNNING, TrialState.WAITING)))
        .order_by(TRIAL.trial_id)
    ).all()
    for trial_id, state, value, heartbeat in unfinished:
        owner = None if value is None else json.loads(value)
        if (
            state == TrialState.RUNNING
            and not _lives(session, worker, owner, heartbeat)
            and _is_running(session, trial_id)
        ):
            _forget(session, trial_id)
            return _own(backend, session, trial_id, _record(worker, owner))
    started = session.execute(
        select(func.count()).where(TRIAL.study_id == study_id, TRIAL.state != TrialState.WAITING)
    ).scalar_one()
    if started >= n_trials:
        return None
    for trial_id, state, _, _ in unfinished:
        if state == TrialState.WAITING and _start_waiting(session, trial_id):
            _forget(session, trial_id)  # it may have been begun, and put back for want of time
            return _own(backend, session, trial_id, _record(worker, None))
    trial = backend._get_prepared_new_trial(study_id, create_trial(state=TrialState.RUNNING), session)
    return _own(backend, session, cast(int, trial.trial_id), _record(worker, None))


def _record(worker: Claimant, previous: object) -> dict[str, Any]:
    attempt = previous.get("attempt") if isinstance(previous, dict) else 0
    return {**worker.record, "attempt": attempt + 1 if isinstance(attempt, int) else 1}


def _own(backend: RDBStorage, session: Session, trial_id: int, record: dict[str, Any]) -> int:
    if backend.engine.name in SUPPORTED:
        row = {"trial_id": trial_id, "key": OWNER, "value_json": json.dumps(record)}
        upsert(session, SYSTEM_ATTR, [row])
    else:
        backend._set_trial_attr_without_commit(session, SYSTEM_ATTR, trial_id, OWNER, record)
    if backend.engine.name != "sqlite":
        session.execute(delete(_BEAT).where(_BEAT.trial_id == trial_id))
        session.add(_BEAT(trial_id=trial_id))
    return trial_id


def _lives(session: Session, worker: Claimant, owner: object, heartbeat: datetime | None) -> bool:
    alive = worker.is_alive(owner)
    if alive is not None:
        return alive
    if heartbeat is None:
        return False
    now: datetime = session.execute(select(func.now())).scalar_one()
    return now.replace(tzinfo=None) - heartbeat <= LEASE


def _forget(session: Session, trial_id: int) -> None:
    """Delete what a trial reported when it was begun before."""
    session.execute(delete(REPORT).where(REPORT.trial_id == trial_id))
    rungs = SYSTEM_ATTR.key.startswith(_RUNG, autoescape=True)
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


def beat(backend: RDBStorage, trial_ids: Set[int]) -> set[int]:
    """Renew the lease on those of the trials that still run, by the database's clock; return them."""
    with transaction(backend) as session:
        running = set(
            session.execute(
                select(TRIAL.trial_id).where(TRIAL.trial_id.in_(trial_ids), TRIAL.state == TrialState.RUNNING)
            ).scalars()
        )
        session.execute(
            update(_BEAT.__table__)
            .where(_BEAT.trial_id.in_(running))
            .values(heartbeat=func.current_timestamp())
        )
    return running


def claim_in_process(storage: BaseStorage, study_id: int, worker: Claimant, n_trials: int) -> int | None:
    """Claim in a storage without transactions: exact among the threads of one process."""
    with _claiming:
        trials = storage.get_all_trials(study_id, deepcopy=False)
        for trial in trials:
            owner = trial.system_attrs.get(OWNER)
            if trial.state == TrialState.RUNNING and worker.is_alive(owner) is False:
                _forget_reports(storage, trial)
                storage.set_trial_system_attr(trial._trial_id, OWNER, _record(worker, owner))
                return trial._trial_id
        if sum(trial.state != TrialState.WAITING for trial in trials) >= n_trials:
            return None
        record = _record(worker, None)
        for trial in trials:
            if trial.state == TrialState.WAITING and storage.set_trial_state_values(
                trial._trial_id, TrialState.RUNNING
            ):
                _forget_reports(storage, storage.get_trial(trial._trial_id))
                storage.set_trial_system_attr(trial._trial_id, OWNER, record)
                return trial._trial_id
        template = create_trial(state=TrialState.RUNNING, system_attrs={OWNER: record})
        return storage.create_new_trial(study_id, template)


def _forget_reports(storage: BaseStorage, trial: FrozenTrial) -> None:
    if isinstance(storage, InMemoryStorage):  # Optuna's other storages can't forget
        fresh = copy(trial)
        fresh.intermediate_values = {}
        fresh.system_attrs = {
            key: value for key, value in trial.system_attrs.items() if not key.startswith(_RUNG)
        }
        with storage._lock:
            storage._set_trial(trial._trial_id, fresh)

"""Optuna's database storage with fewer, plainer statements and every decision in one transaction.

NOTE: Optuna's own storage reads and writes through SQLAlchemy's object mapper, one object and one transaction
for each parameter, attribute and report; that is most of what a short trial costs. The tables are Optuna's,
so that every Optuna tool reads them, and `optuna.testing`'s storage contract guards the methods replaced.
"""

import json
import threading
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    check_distribution_compatibility,
    distribution_to_json,
    json_to_distribution,
)
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import ColumnElement, or_, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

TRIAL = models.TrialModel
_PARAM = models.TrialParamModel
_VALUE = models.TrialValueModel
REPORT = models.TrialIntermediateValueModel
_USER_ATTR = models.TrialUserAttributeModel
SYSTEM_ATTR = models.TrialSystemAttributeModel

_INSERT = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
SUPPORTED = frozenset(_INSERT)


@contextmanager
def transaction(database: RDBStorage) -> Iterator[Session]:
    """Open a transaction that on SQLite holds the write lock from its start.

    On a server, lock the rows that a decision rests on (``with_for_update``).
    """
    with _create_scoped_session(database.scoped_session) as session:
        if database.engine.name == "sqlite":
            session.execute(text("BEGIN IMMEDIATE"))
        yield session


class StudyDatabase(RDBStorage):
    """Optuna's storage in SQLite or PostgreSQL; takes the arguments of `optuna.storages.RDBStorage`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._local = threading.local()

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()
        del state["_local"]
        return state

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(state)
        self._local = threading.local()

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Write what this thread sets on trials within the block in one transaction.

        That is at the block's end, or sooner where the thread reads trials or changes a state.
        """
        if self._pending is not None:
            yield
            return
        self._local.pending = []
        try:
            yield
            self._flush()
        finally:
            self._local.pending = None

    @property
    def _pending(self) -> list[tuple[Any, dict[str, Any]]] | None:
        return getattr(self._local, "pending", None)

    def _write(self, model: Any, **row: Any) -> None:
        if self._pending is not None:
            self._pending.append((model, row))
            return
        with transaction(self) as session:
            self._write_rows(session, [(model, row)])

    def _flush(self) -> None:
        if self._pending:
            rows = self._pending.copy()
            self._pending.clear()
            with transaction(self) as session:
                self._write_rows(session, rows)

    def _write_rows(self, session: Session, rows: list[tuple[Any, dict[str, Any]]]) -> None:
        for trial_id in sorted({row["trial_id"] for _, row in rows}):  # one order, no deadlock
            self._check_running(session, trial_id)
        for model in dict.fromkeys(model for model, _ in rows):
            self._upsert(session, model, [row for each, row in rows if each is model])

    def _check_running(self, session: Session, trial_id: int) -> TrialState:
        state: TrialState | None = session.execute(
            select(TRIAL.state).where(TRIAL.trial_id == trial_id).with_for_update()
        ).scalar_one_or_none()
        if state is None:
            raise KeyError(models.NOT_FOUND_MSG)
        self.check_trial_is_updatable(trial_id, state)
        return state

    def _upsert(self, session: Session, model: Any, rows: list[dict[str, Any]]) -> None:
        keys = list(rows[0])[:2]  # every table is unique by trial and name, step or objective
        insert: Any = _INSERT[self.engine.name](model.__table__)
        values = {name: insert.excluded[name] for name in rows[0] if name not in keys}
        session.execute(insert.on_conflict_do_update(index_elements=keys, set_=values), rows)

    def _set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
        previous_distribution: BaseDistribution | None,
    ) -> None:
        if previous_distribution is None:
            previous_distribution = self._stored_distribution(trial_id, param_name)
        if previous_distribution is not None:
            try:
                check_distribution_compatibility(previous_distribution, distribution)
            except ValueError:
                with transaction(self) as session:  # that the trial is finished would be the greater fault
                    self._check_running(session, trial_id)
                raise
        self._write(
            _PARAM,
            trial_id=trial_id,
            param_name=param_name,
            param_value=param_value_internal,
            distribution_json=distribution_to_json(distribution),
        )

    def _stored_distribution(self, trial_id: int, param_name: str) -> BaseDistribution | None:
        study = select(TRIAL.study_id).where(TRIAL.trial_id == trial_id).scalar_subquery()
        query = (
            select(_PARAM.distribution_json)
            .join(TRIAL, TRIAL.trial_id == _PARAM.trial_id)
            .where(TRIAL.study_id == study, _PARAM.param_name == param_name)
            .limit(1)
        )
        with _create_scoped_session(self.scoped_session) as session:
            stored = session.execute(query).scalar_one_or_none()
        return None if stored is None else _distribution(stored)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """See `optuna.storages.BaseStorage`."""
        value, kind = REPORT.intermediate_value_to_stored_repr(intermediate_value)
        self._write(
            REPORT, trial_id=trial_id, step=step, intermediate_value=value, intermediate_value_type=kind
        )

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """See `optuna.storages.BaseStorage`."""
        self._write(_USER_ATTR, trial_id=trial_id, key=key, value_json=json.dumps(value))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """See `optuna.storages.BaseStorage`."""
        self._write(SYSTEM_ATTR, trial_id=trial_id, key=key, value_json=json.dumps(value))

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """See `optuna.storages.BaseStorage`; one caller alone gets a WAITING trial."""
        self._flush()
        with transaction(self) as session:
            stored = self._check_running(session, trial_id)
            if state == TrialState.RUNNING and stored != TrialState.WAITING:
                return False
            for objective, value in enumerate(values or ()):
                number, kind = _VALUE.value_to_stored_repr(value)
                row = {"trial_id": trial_id, "objective": objective, "value": number, "value_type": kind}
                self._upsert(session, _VALUE, [row])
            changes: dict[str, Any] = {"state": state}
            now = datetime.now(UTC).replace(tzinfo=None)
            if state == TrialState.RUNNING:
                changes["datetime_start"] = now
            elif state.is_finished():
                changes["datetime_complete"] = now
            session.execute(update(TRIAL.__table__).where(TRIAL.trial_id == trial_id).values(changes))
        return True

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """See `optuna.storages.BaseStorage`."""
        self._flush()
        with _create_scoped_session(self.scoped_session) as session:
            trials = read_trials(session, TRIAL.trial_id == trial_id)
        if not trials:
            raise KeyError(models.NOT_FOUND_MSG)
        return trials[0]

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        self._flush()
        chosen = [TRIAL.study_id == study_id]
        if states is not None:
            chosen.append(TRIAL.state.in_([state for state in TrialState if state in states]))
        if trial_id_greater_than > -1:
            newer = TRIAL.trial_id > trial_id_greater_than
            chosen.append(or_(TRIAL.trial_id.in_(included_trial_ids), newer) if included_trial_ids else newer)
        with _create_scoped_session(self.scoped_session) as session:
            trials = read_trials(session, *chosen)
            if not trials:  # is there such a study at all?
                models.StudyModel.find_or_raise_by_id(study_id, session)
            return trials


@lru_cache(maxsize=1024)
def _distribution(stored: str) -> BaseDistribution:
    return json_to_distribution(stored)


def _local_time(stored: datetime | None) -> datetime | None:
    return None if stored is None else stored.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)


def read_trials(session: Session, *chosen: ColumnElement[bool]) -> list[FrozenTrial]:
    """Read the trials that meet all conditions on `TRIAL`, in the order of their ids."""
    trials = {
        trial_id: FrozenTrial(
            number=number,
            trial_id=trial_id,
            state=state,
            value=None,
            datetime_start=_local_time(start),
            datetime_complete=_local_time(complete),
            params={},
            distributions={},
            user_attrs={},
            system_attrs={},
            intermediate_values={},
        )
        for trial_id, number, state, start, complete in session.execute(
            select(
                TRIAL.trial_id,
                TRIAL.number,
                TRIAL.state,
                TRIAL._datetime_start_utc,
                TRIAL._datetime_complete_utc,
            )
            .where(*chosen)
            .order_by(TRIAL.trial_id)
        )
    }
    if not trials:
        return []

    def rows(model: Any, *columns: Any) -> Iterator[tuple[FrozenTrial, Sequence[Any]]]:
        order = next(iter(model.__table__.primary_key))
        query = select(model.trial_id, *columns).join(TRIAL, TRIAL.trial_id == model.trial_id)
        # NOTE: another process may begin a trial between the statements; it is for the next reading.
        for trial_id, *values in session.execute(query.where(*chosen).order_by(order)):
            if trial_id in trials:
                yield trials[trial_id], values

    for trial, (name, value, distribution) in rows(
        _PARAM, _PARAM.param_name, _PARAM.param_value, _PARAM.distribution_json
    ):
        trial.distributions[name] = _distribution(distribution)
        trial.params[name] = trial.distributions[name].to_external_repr(value)
    for model, attribute in ((_USER_ATTR, "user_attrs"), (SYSTEM_ATTR, "system_attrs")):
        for trial, (key, value) in rows(model, model.key, model.value_json):
            getattr(trial, attribute)[key] = json.loads(value)
    for trial, (step, value, kind) in rows(
        REPORT, REPORT.step, REPORT.intermediate_value, REPORT.intermediate_value_type
    ):
        trial.intermediate_values[step] = REPORT.stored_repr_to_intermediate_value(value, kind)
    outcomes: dict[int, dict[int, float]] = {}
    for trial, (objective, value, kind) in rows(_VALUE, _VALUE.objective, _VALUE.value, _VALUE.value_type):
        outcomes.setdefault(trial._trial_id, {})[objective] = _VALUE.stored_repr_to_value(value, kind)
    for trial_id, by_objective in outcomes.items():
        trials[trial_id].values = [by_objective[objective] for objective in sorted(by_objective)]
    return list(trials.values())

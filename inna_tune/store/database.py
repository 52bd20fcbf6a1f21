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
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution, check_distribution_compatibility, distribution_to_json
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import or_, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session

from inna_tune.store.decoding import decoding
from inna_tune.store.errors import redact_url
from inna_tune.store.reading import (
    NOT_FINITE,
    PARAM,
    REPORT,
    SYSTEM_ATTR,
    TRIAL,
    USER_ATTR,
    VALUE,
    distribution_of,
    read_trials,
)
from inna_tune.store.waiting import waited_for
from inna_tune.strangers_json import loads

_INSERT = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}

_FULL = 2  # as SQLite numbers ``synchronous``


@contextmanager
def transaction(database: RDBStorage, *, durable: bool = False) -> Iterator[Session]:
    """Open a transaction that on SQLite holds the write lock from its start.

    On a server, lock the rows that a decision rests on (``with_for_update``).

    Parameters
    ----------
    database : RDBStorage
    durable : bool
        Whether what it writes is on the disk before it returns, so that a power cut leaves it there, and all before it. Else
        it is there for every process that is killed, and on the disk soon. A server does the former always.
    """
    with _create_scoped_session(database.scoped_session) as session:
        if database.engine.name == "sqlite":
            _set_durability(session, durable)
            session.execute(text("BEGIN IMMEDIATE"))
        yield session


def _set_durability(session: Session, durable: bool) -> None:
    # A connection has one level at a time, which can't change within a transaction.
    known = session.connection().info
    if "usual" not in known:
        known["usual"] = known["level"] = session.execute(text("PRAGMA synchronous")).scalar_one()
    level = max(known["usual"], _FULL) if durable else known["usual"]
    if level != known["level"]:
        session.execute(text(f"PRAGMA synchronous={level}"))
        known["level"] = level


def upsert(session: Session, model: Any, rows: list[dict[str, Any]]) -> None:
    """Insert rows, or overwrite those of the same trial and name, step or objective: the first two columns."""
    session.execute(_upsert_statement(session.get_bind().dialect.name, model, tuple(rows[0])), rows)


@lru_cache
def _upsert_statement(dialect: str, model: Any, columns: tuple[str, ...]) -> Any:
    insert: Any = _INSERT[dialect](model.__table__)
    values = {name: insert.excluded[name] for name in columns[2:]}
    return insert.on_conflict_do_update(index_elements=columns[:2], set_=values)


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

        That is at the block's end, or sooner where the thread reads all trials, or changes a state: then with that.
        """
        if self._pending is not None:
            yield
            return
        self._local.pending = []
        try:
            yield
            waited_for(self._flush, self.words)
        finally:
            self._local.pending = None

    def words(self) -> str:
        """What a person calls it: the path of its file, or its URL without password."""
        url = make_url(self.url)
        if url.get_backend_name() == "sqlite" and url.database is not None:
            return str(Path(url.database).absolute())
        return redact_url(self.url)

    @property
    def _pending(self) -> list[tuple[Any, dict[str, Any]]] | None:
        return getattr(self._local, "pending", None)

    def _write(self, model: Any, **row: Any) -> None:
        if self._pending is not None:
            self._pending.append((model, row))
            return
        with transaction(self) as session:
            self._write_rows(session, [(model, row)])

    @contextmanager
    def _taken(self) -> Iterator[list[tuple[Any, dict[str, Any]]]]:
        """What is gathered, which the block writes; where it raises, it is still to be written."""
        rows = list(self._pending or ())
        yield rows
        if rows and self._pending is not None:
            self._pending.clear()

    def _flush(self) -> None:
        if self._pending:
            with self._taken() as rows, transaction(self) as session:
                self._write_rows(session, rows)

    def _with_gathered(self, trial: FrozenTrial) -> FrozenTrial:
        """A trial as it will be when what this thread has gathered is written."""
        for model, row in self._pending or ():
            if row["trial_id"] != trial._trial_id:
                continue
            if model is PARAM:
                name, distribution = row["param_name"], distribution_of(row["distribution_json"])
                trial.distributions[name] = distribution
                trial.params[name] = distribution.to_external_repr(row["param_value"])
            elif model is REPORT:
                value = NOT_FINITE.get(row["intermediate_value_type"].name, row["intermediate_value"])
                trial.intermediate_values[row["step"]] = value
            else:
                attributes = trial.user_attrs if model is USER_ATTR else trial.system_attrs
                attributes[row["key"]] = loads(row["value_json"])
        return trial

    def _write_rows(self, session: Session, rows: list[tuple[Any, dict[str, Any]]]) -> None:
        for trial_id in sorted({row["trial_id"] for _, row in rows}):  # one order, no deadlock
            self._check_running(session, trial_id)
        for model in dict.fromkeys(model for model, _ in rows):
            upsert(session, model, [row for each, row in rows if each is model])

    def _check_running(self, session: Session, trial_id: int) -> TrialState:
        query = select(TRIAL.state).where(TRIAL.trial_id == trial_id).with_for_update()
        with decoding(f"the trial with id {trial_id}"):
            state: TrialState | None = session.execute(query).scalar_one_or_none()
        if state is None:
            raise KeyError(models.NOT_FOUND_MSG)
        self.check_trial_is_updatable(trial_id, state)
        return state

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
            PARAM,
            trial_id=trial_id,
            param_name=param_name,
            param_value=param_value_internal,
            distribution_json=distribution_to_json(distribution),
        )

    def _stored_distribution(self, trial_id: int, param_name: str) -> BaseDistribution | None:
        study = select(TRIAL.study_id).where(TRIAL.trial_id == trial_id).scalar_subquery()
        query = (
            select(PARAM.distribution_json)
            .join(TRIAL, TRIAL.trial_id == PARAM.trial_id)
            .where(TRIAL.study_id == study, PARAM.param_name == param_name)
            .limit(1)
        )
        with _create_scoped_session(self.scoped_session) as session:
            stored = session.execute(query).scalar_one_or_none()
        with decoding(f"parameter {param_name!r}"):
            return None if stored is None else distribution_of(stored)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """See `optuna.storages.BaseStorage`."""
        value, kind = REPORT.intermediate_value_to_stored_repr(intermediate_value)
        self._write(
            REPORT, trial_id=trial_id, step=step, intermediate_value=value, intermediate_value_type=kind
        )

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """See `optuna.storages.BaseStorage`."""
        self._write(USER_ATTR, trial_id=trial_id, key=key, value_json=json.dumps(value))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """See `optuna.storages.BaseStorage`."""
        self._write(SYSTEM_ATTR, trial_id=trial_id, key=key, value_json=json.dumps(value))

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """See `optuna.storages.BaseStorage`; one caller alone gets a WAITING trial."""
        with self._taken() as rows, transaction(self, durable=state.is_finished()) as session:
            stored = self._check_running(session, trial_id)
            if rows:
                self._write_rows(session, rows)
            if state == TrialState.RUNNING and stored != TrialState.WAITING:
                return False
            for objective, value in enumerate(values or ()):
                number, kind = VALUE.value_to_stored_repr(value)
                row = {"trial_id": trial_id, "objective": objective, "value": number, "value_type": kind}
                upsert(session, VALUE, [row])
            changes: dict[str, Any] = {"state": state}
            now = datetime.now(UTC).replace(tzinfo=None)
            if state == TrialState.RUNNING:
                changes["datetime_start"] = now
            elif state.is_finished():
                changes["datetime_complete"] = now
            session.execute(update(TRIAL.__table__).where(TRIAL.trial_id == trial_id).values(changes))
        return True

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """See `optuna.storages.BaseStorage`."""
        with decoding(f"the study with id {study_id}", missing=KeyError):
            return super().get_study_directions(study_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """See `optuna.storages.BaseStorage`."""
        return self._study_attributes(models.StudyUserAttributeModel, study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """See `optuna.storages.BaseStorage`."""
        return self._study_attributes(models.StudySystemAttributeModel, study_id)

    def _study_attributes(self, model: Any, study_id: int) -> dict[str, Any]:
        with _create_scoped_session(self.scoped_session) as session:
            models.StudyModel.find_or_raise_by_id(study_id, session)
            query = select(model.key, model.value_json).where(model.study_id == study_id)
            with decoding(f"the study with id {study_id}"):
                return {key: loads(value) for key, value in session.execute(query)}

    def get_all_studies(self) -> list[FrozenStudy]:
        """See `optuna.storages.BaseStorage`; a study that can't be read is there by its name alone."""
        with _create_scoped_session(self.scoped_session) as session:
            query = select(models.StudyModel.study_id, models.StudyModel.study_name)
            rows = session.execute(query.order_by(models.StudyModel.study_id)).all()
        # A stranger's name may be bytes, by which nothing finds it.
        return [
            self._frozen(study_id, name if isinstance(name, str) else str(name)) for study_id, name in rows
        ]

    def _frozen(self, study_id: int, name: str) -> FrozenStudy:
        try:
            directions = self.get_study_directions(study_id)
            own, system = self.get_study_user_attrs(study_id), self.get_study_system_attrs(study_id)
        except StorageInternalError:
            directions, own, system = [StudyDirection.NOT_SET], {}, {}
        return FrozenStudy(name, None, own, system, study_id, directions=directions)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """See `optuna.storages.BaseStorage`."""
        with _create_scoped_session(self.scoped_session) as session:
            trials = read_trials(session, TRIAL.trial_id == trial_id)
        if not trials:
            raise KeyError(models.NOT_FOUND_MSG)
        return self._with_gathered(trials[0])

    def get_trial_system_attrs(self, trial_id: int) -> dict[str, Any]:
        """See `optuna.storages.BaseStorage`."""
        self._flush()
        with _create_scoped_session(self.scoped_session) as session:
            query = select(SYSTEM_ATTR.key, SYSTEM_ATTR.value_json).where(SYSTEM_ATTR.trial_id == trial_id)
            with decoding(f"the trial with id {trial_id}"):
                attributes = {key: loads(value) for key, value in session.execute(query)}
            if not attributes:  # is there such a trial at all?
                models.TrialModel.find_or_raise_by_id(trial_id, session)
            return attributes

    def get_trial_user_attrs(self, trial_id: int) -> dict[str, Any]:
        """See `optuna.storages.BaseStorage`."""
        return self.get_trial(trial_id).user_attrs

    def get_trial_param(self, trial_id: int, param_name: str) -> float:
        """See `optuna.storages.BaseStorage`."""
        self._flush()
        return super().get_trial_param(trial_id, param_name)

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

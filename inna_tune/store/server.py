"""Studies on a database server, for workers on many hosts."""

from collections.abc import Set
from typing import Any, ClassVar

import sqlalchemy
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import TrialState
from sqlalchemy import delete, select, update
from sqlalchemy.engine import URL
from sqlalchemy.exc import NoSuchModuleError
from sqlalchemy.orm import Session

from inna_tune.store.database import transaction
from inna_tune.store.errors import (
    DATABASE_ERRORS,
    StorageError,
    cause_of,
    may_pass,
    redact_url,
    without_secrets,
)
from inna_tune.store.reading import TRIAL
from inna_tune.store.sql import BEATS, Database, as_template, parse_url, url_of, utc_now
from inna_tune.store.waiting import waited_for


class Server(Database):
    """Any server that Optuna can use.

    Attributes
    ----------
    storage_class : type
        Optuna's storage, or one that does more.
    creation_lock : SQL expression or None
        Takes a lock for the time of a connection, under which the tables are made.
    """

    has_leases: ClassVar[bool] = True
    storage_class: ClassVar[type[RDBStorage]] = RDBStorage
    creation_lock: ClassVar[Any] = None

    @classmethod
    def holds(cls, storage: BaseStorage) -> bool:
        """See `Store`; without `schemes` it is for what no other kind knows."""
        return super().holds(storage) if cls.schemes else url_of(storage) is not None

    @classmethod
    def open(cls, url: str, *, create: bool = True) -> "Server":
        """See `Store`; a database is never made, its tables are.

        One that does not answer is refused at once, since its address may be wrong; one that has answered is waited for.
        """
        parsed = parse_url(url)
        given = parsed.render_as_string(hide_password=False)
        shown = redact_url(given)
        has_answered = False

        def opened() -> Server:
            nonlocal has_answered
            with engine.connect() as connection:
                has_answered = True
                if cls.creation_lock is not None:
                    connection.execute(sqlalchemy.select(cls.creation_lock))
                kwargs = {"pool_pre_ping": True, "connect_args": connect_args}
                return cls(cls.storage_class(as_template(given), engine_kwargs=kwargs))

        try:
            connect_args = cls.connect_args(parsed)
            engine = sqlalchemy.create_engine(parsed, connect_args=connect_args)
            try:
                return opened()
            except DATABASE_ERRORS as error:
                if not (has_answered and may_pass(error)):
                    raise
                return waited_for(opened, lambda: shown)
            finally:
                engine.dispose()
        except NoSuchModuleError:
            raise StorageError(
                f"storage {shown!r} names no known kind of database; use sqlite:/// or postgresql+psycopg://"
            ) from None
        except ImportError as error:
            raise StorageError(
                f"storage {shown!r} needs a database driver that isn't installed ({error}); "
                "for PostgreSQL: pip install 'psycopg[binary]'"
            ) from None
        except RuntimeError as error:  # Optuna's schema check, which names no URL
            remedy = str(error).split("Please ")[-1].replace("$STORAGE_URL", shown)
            raise StorageError(f"{shown} has tables of another Optuna; {remedy}") from None
        except DATABASE_ERRORS as error:
            raise StorageError(f"{shown}: {without_secrets(cause_of(error), parsed)}") from None

    @classmethod
    def connect_args(cls, url: URL) -> dict[str, Any]:
        """What the driver is told beside the URL."""
        return {}

    def _take(self, session: Session, trial_id: int, record: dict[str, Any]) -> int:
        session.execute(delete(BEATS).where(BEATS.trial_id == trial_id))
        session.add(BEATS(trial_id=trial_id, heartbeat=utc_now()))
        return super()._take(session, trial_id, record)

    def beat(self, trial_ids: Set[int]) -> set[int]:
        """See `Store`; by the database's clock."""
        with transaction(self.backend) as session:
            chosen = TRIAL.trial_id.in_(trial_ids), TRIAL.state == TrialState.RUNNING
            running = set(session.execute(select(TRIAL.trial_id).where(*chosen)).scalars())
            session.execute(
                update(BEATS.__table__).where(BEATS.trial_id.in_(running)).values(heartbeat=utc_now())
            )
        return running

"""Studies on a PostgreSQL server."""

from typing import Any, ClassVar

from optuna.storages import RDBStorage
from sqlalchemy import func

from inna_tune.store.database import StudyDatabase
from inna_tune.store.server import Server


class PostgreSQL(Server):
    """A server whose tables any number of processes may make at once."""

    schemes: ClassVar[frozenset[str]] = frozenset({"postgresql"})
    storage_class: ClassVar[type[RDBStorage]] = StudyDatabase
    creation_lock: ClassVar[Any] = func.pg_advisory_lock(
        0x696E6E61
    )  # a key of our own, released with the connection

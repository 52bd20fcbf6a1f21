"""Studies on a PostgreSQL server."""

from typing import Any, ClassVar

from optuna.storages import RDBStorage
from sqlalchemy import func
from sqlalchemy.engine import URL

from inna_tune.store.database import StudyDatabase
from inna_tune.store.server import Server

# Of libpq, in seconds, and milliseconds: https://www.postgresql.org/docs/current/libpq-connect.html
_SIGNS_OF_LIFE = {
    "connect_timeout": 10,
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 50_000,
}


class PostgreSQL(Server):
    """A server whose tables any number of processes may make at once."""

    schemes: ClassVar[frozenset[str]] = frozenset({"postgresql"})
    storage_class: ClassVar[type[RDBStorage]] = StudyDatabase
    creation_lock: ClassVar[Any] = func.pg_advisory_lock(
        0x696E6E61
    )  # a key of our own, released with the connection

    @classmethod
    def connect_args(cls, url: URL) -> dict[str, Any]:
        """Let a connection to a host that is gone without a word be found so within a minute, unless the URL says more."""
        if url.get_driver_name() not in ("psycopg", "psycopg2"):
            return {}
        return {name: value for name, value in _SIGNS_OF_LIFE.items() if name not in url.query}

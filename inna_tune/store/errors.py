"""What goes wrong with a storage, in one line that says which, why and what to do, and never a password."""

import re
import sqlite3

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

BUSY_TIMEOUT = 5.0  # seconds a connection to an SQLite file waits for another's write lock, before it says so
DATABASE_ERRORS = (StorageInternalError, SQLAlchemyError, sqlite3.Error)
# Codes of SQLite: https://www.sqlite.org/rescode.html. The file is busy, its disk full or failing, its folder not mounted.
_PASSING = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
    }
)


class StorageError(ValueError):
    """A storage or study can't be used; the one-line message says which, why, and what to do."""


class MissingError(StorageError):
    """There is no such file."""


class UnreachableError(StorageError):
    """A database that was in use is away, locked or full, and was so for too long; nothing that it holds is lost."""


def may_pass(error: BaseException) -> bool:
    """Whether what a database driver raised may be over in a while: the database was busy, full or out of reach."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, sqlite3.Error):
            # The lower byte; the others say more.
            return (getattr(cause, "sqlite_errorcode", None) or 0) & 0xFF in _PASSING
        if isinstance(cause, DBAPIError) and isinstance(cause.orig, sqlite3.Error):
            return may_pass(cause.orig)
        if isinstance(cause, OperationalError | InterfaceError | PoolTimeoutError):
            return True
        if isinstance(cause, DBAPIError) and cause.connection_invalidated:
            return True
        cause = cause.__cause__
    return False


def redact_url(url: str) -> str:
    """Return `url` with every password replaced by ``***``, whether or not it can be parsed."""
    url = re.sub(r"(//[^:/?#@]*):.*@", r"\1:***@", url)
    return re.sub(r"([?&][^=&]*(?:password|passwd|secret)[^=&]*=)[^&]*", r"\1***", url, flags=re.IGNORECASE)


def cause_of(error: BaseException) -> str:
    """Say in one line what the database driver said, and what to do where we know it."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split()) or type(error).__name__
    if "malformed" in text or "not a database" in text:
        return f"the file is damaged or not a database ({text}); restore a copy or choose another file"
    if "is full" in text or "disk I/O" in text:
        return f"the disk is full or failing ({text}); free some space and resume, finished trials are safe"
    if "readonly" in text:
        return f"the file is read-only ({text}); make it and its folder writable, or choose another file"
    if "is locked" in text:
        return f"another process holds the file ({text}); end it and resume"
    return text

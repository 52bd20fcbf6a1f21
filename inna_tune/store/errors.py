"""What goes wrong with a storage, in one line that says which, why and what to do, and never a password."""

import re
import sqlite3

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import SQLAlchemyError

BUSY_TIMEOUT = 60.0  # seconds a connection to an SQLite file waits for another's write lock
DATABASE_ERRORS = (StorageInternalError, SQLAlchemyError, sqlite3.Error)


class StorageError(ValueError):
    """A storage or study can't be used; the one-line message says which, why, and what to do."""


class MissingError(StorageError):
    """There is no such file."""


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
        return f"another process held the file for over {BUSY_TIMEOUT:.0f} s ({text}); end it and resume"
    return text

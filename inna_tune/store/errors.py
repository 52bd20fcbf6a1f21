"""What goes wrong with a storage, in one line that says which, why and what to do, and never a password."""

import re
import shlex
import sqlite3
from urllib.parse import quote, quote_plus, unquote

from optuna.exceptions import StorageInternalError
from sqlalchemy.engine import URL
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


# Where a person keeps the URL of a database whose password is not to be seen; commands that we print name it.
STORAGE_VARIABLE = "INNA_TUNE_STORAGE"
_SECRET_NAMES = re.compile("pass|pwd|secret|token|odbc", re.IGNORECASE)
_HIDDEN = "***"


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
    """Return `url` with every password replaced by ``***``, whether or not it can be parsed.

    What may be a part of a password goes, too: rather too much is hidden than too little.
    """
    if re.match(r"sqlite(\+\w+)?:///", url) and "?" not in url:
        return url  # a path, whatever it holds
    hidden = [where for where in (_user_part(url), _port_part(url), _query_part(url)) if where is not None]
    if not hidden:
        return url
    # Where they overlap they are one.
    begins, ends = min(begin for begin, _ in hidden), max(end for _, end in hidden)
    return url[:begins] + _HIDDEN + url[ends:]


def has_password(url: str) -> bool:
    """Whether `redact_url` hides something of a URL."""
    return redact_url(url) != url


def storage_word(url: str) -> str:
    """A database's URL as a word of a command in a shell; where it has a password, the variable that is to hold it."""
    return f'"${STORAGE_VARIABLE}"' if _HIDDEN in redact_url(url) else shlex.quote(url)


def _user_part(url: str) -> tuple[int, int] | None:
    """Where the password stands that belongs to a user's name: up to the last @, as passwords may have some."""
    at = url.rfind("@")
    if at < 0:
        return None
    scheme = re.match(r"[A-Za-z][\w+.-]*:(/*)", url)
    begin = 0 if scheme is None else scheme.end()
    if scheme is not None and len(scheme[1]) < 2:
        return begin, at  # no URL, so that what seems its scheme may be the name
    colon = url.find(":", begin, at)
    return None if colon < 0 else (colon + 1, at)


def _port_part(url: str) -> tuple[int, int] | None:
    """What follows the host and a colon and is no port: the password, where the host was forgotten."""
    if url.startswith("sqlite"):
        return None
    slashes = re.match(r"([A-Za-z][\w+.-]*:)?//+", url)
    begin = url.rfind("@") + 1 or (0 if slashes is None else slashes.end())
    if begin == 0:  # no URL at all: a name and its password, or a scheme
        found = re.match(r"[^:]{2,}:", url)
    else:
        host = re.compile(r"(\[[^\]]*\]|[^/:?#]*)(:\d{0,5}(?=[/?#]|$))?").match(url, begin)
        found = None if host is None else re.compile("[^?#:]*:").match(url, host.end())
    return None if found is None else (found.end(), len(url))


def _query_part(url: str) -> tuple[int, int] | None:
    """From the first parameter with a secret to the end, since what is in it may look like others."""
    for found in re.finditer(r"[?&;]([^=&;]*)=", url):
        if _SECRET_NAMES.search(unquote(found[1])):
            return found.end(), len(url)
    return None


def has_secret_before_host(url: str) -> bool:
    """Whether a parameter with a secret seems to stand before a host: it has an @, and the rest of it would be the host."""
    found = _query_part(url)
    return found is not None and found[0] <= url.rfind("@")


def without_secrets(text: str, url: URL) -> str:
    """A text of others, such as a driver's, without the passwords of a URL."""
    queried = [
        v for name, values in url.normalized_query.items() if _SECRET_NAMES.search(name) for v in values
    ]
    for secret in filter(None, [*queried, None if url.password is None else str(url.password)]):
        for form in (secret, quote(secret, safe=""), quote(secret), quote_plus(secret)):
            text = text.replace(form, _HIDDEN)
    return text


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

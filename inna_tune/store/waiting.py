"""A database that is away, locked or full is waited for: what was asked of it is asked again until it answers."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy.exc import IntegrityError

from inna_tune.store.errors import DATABASE_ERRORS, StorageError, UnreachableError, cause_of, may_pass

PATIENCE = 600.0  # seconds that a database may be away
_FIRST, _LONGEST = 0.05, 5.0  # seconds between two attempts: twice as many each time
_SILENT = 3.0  # seconds of waiting that are worth no word

_logger = logging.getLogger("inna_tune.store")
_T = TypeVar("_T")


class _OfThread(threading.local):
    """What ends the waiting of a thread early."""

    stop: Callable[[], bool] = staticmethod(lambda: False)


_of_thread = _OfThread()


@contextmanager
def waiting_until(stop: Callable[[], bool]) -> Iterator[None]:
    """Within the block this thread waits for no database once ``stop`` says so, such as after a signal."""
    before = _of_thread.stop
    _of_thread.stop = lambda: before() or stop()
    try:
        yield
    finally:
        _of_thread.stop = before


def at_once() -> bool:
    """A ``stop`` of `waiting_until` for what is better refused than waited for."""
    return True


def waited_for(work: Callable[[], _T], words: Callable[[], str]) -> _T:
    """What comes of work on a database, which is done again where the database was away, locked or full.

    Parameters
    ----------
    work : callable
        Leaves nothing half done where it raises: one transaction.
    words : callable
        What a person calls the database.

    Raises
    ------
    UnreachableError
        It was so for `PATIENCE`, or until the thread was told to wait no longer.
    StorageError
        The database refuses for a reason that no waiting mends.
    IntegrityError
        Of sqlalchemy: what was to be written contradicts what is there.
    """
    began, pause, say_at = time.monotonic(), _FIRST, _SILENT
    while True:
        try:
            found = work()
        except DATABASE_ERRORS as error:
            if isinstance(error, IntegrityError):
                raise
            if not may_pass(error):
                raise StorageError(f"{words()}: {cause_of(error)}") from error
            waited = time.monotonic() - began
            if _of_thread.stop():
                raise UnreachableError(f"{words()}: {cause_of(error)}") from error
            if waited >= PATIENCE:
                raise UnreachableError(
                    f"{words()}: waited {_in_words(waited)} for the database: {cause_of(error)}"
                ) from error
            if waited >= say_at:
                _logger.warning(
                    "waiting for the database, %s of at most %s: %s: %s",
                    _in_words(waited),
                    _in_words(PATIENCE),
                    words(),
                    cause_of(error),
                )
                say_at = 2 * waited
            time.sleep(min(pause, max(PATIENCE - waited, 0.0)))
            pause = min(2 * pause, _LONGEST)
        else:
            if say_at > _SILENT:
                _logger.warning("the database is back after %s", _in_words(time.monotonic() - began))
            return found


def _in_words(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"

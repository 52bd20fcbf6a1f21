"""What Optuna says of studies that we make, kept back: our own messages say it, to those who have asked for any."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_SPEAKERS = (
    "optuna.study.study",
    "optuna.storages._in_memory",
    "optuna.storages._rdb.storage",
    "optuna.storages.journal._storage",
)
_changing = threading.Lock()


class _OfOneThread(logging.Filter):
    """Keeps back what the thread that made it says, warnings and errors aside."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING or threading.get_ident() != self._thread


@contextmanager
def without_messages() -> Iterator[None]:
    """Keep back Optuna's messages of this thread within the block; levels, and all other threads, stay as they are."""
    own = _OfOneThread()
    loggers = [logging.getLogger(name) for name in _SPEAKERS]
    # NOTE: new lists, since another thread's message may be on its way through the old ones.
    with _changing:
        for logger in loggers:
            logger.filters = [*logger.filters, own]
    try:
        yield
    finally:
        with _changing:
            for logger in loggers:
                logger.filters = [each for each in logger.filters if each is not own]

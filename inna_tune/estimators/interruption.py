"""What Ctrl-C does to a fit: alone it keeps the best so far, within a search it ends the search."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_keeps_best: ContextVar[bool] = ContextVar("inna_tune_keeps_best", default=True)


def keeps_best() -> bool:
    """Whether a fit that is interrupted here ends with the best weights it had, as who waits for it alone expects."""
    return _keeps_best.get()


@contextmanager
def interrupts_end_all() -> Iterator[None]:
    """Within, a fit that is interrupted raises KeyboardInterrupt: a stunted model must not stand for a whole one."""
    token = _keeps_best.set(False)
    try:
        yield
    finally:
        _keeps_best.reset(token)

"""Ending before the work is done: because of a signal, or because whoever gave the work has gone."""

import contextlib
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Self

from inna_tune.store.workers import Worker
from inna_tune.visible import get_logger

logger = get_logger(__name__)

_LOOK_EVERY = 1.0  # seconds between looks at whether whoever gave the work is alive


class Stopped(BaseException):
    """Work ended early because it was asked to; unfinished trials are to be taken up again."""


# Of a terminal that goes away, which not every system tells.
_HANG_UP: int | None = getattr(signal, "SIGHUP", None)


class Signals:
    """Within: the first Ctrl-C, SIGTERM or SIGHUP asks for a clean end, the next one ends at once.

    Only where Python's or the system's own handlers are in place, and only in the main thread; elsewhere signals do what
    they did. The handlers are put back.

    Attributes
    ----------
    received : int or None
        Number of the first signal.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number, usual in (
                (signal.SIGINT, signal.default_int_handler),
                (signal.SIGTERM, signal.SIG_DFL),
                (_HANG_UP, signal.SIG_DFL),
            ):
                if number is not None and signal.getsignal(number) == usual:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise _ending(number)
        self.received = number
        # NOTE: a signal that comes while standard error is written to finds it locked: "reentrant call".
        with contextlib.suppress(RuntimeError):
            logger.warning(
                "ending with the present epoch, since signal %d came; once more ends at once", number
            )

    def check(self) -> None:
        """Raise what the signal that came stands for: KeyboardInterrupt, or SystemExit(128 + its number) for the others."""
        if self.received is not None:
            raise _ending(self.received)


def _ending(number: int) -> BaseException:
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)


class Abandonment:
    """Tells, when called, whether the worker of an owner record has died on this host; looks once a second."""

    def __init__(self, worker: Worker, giver: dict[str, Any]) -> None:
        self._worker, self._giver = worker, giver
        self._looked, self._gone = float("-inf"), False

    def __call__(self) -> bool:
        now = time.monotonic()
        if not self._gone and now - self._looked > _LOOK_EVERY:
            self._looked, self._gone = now, self._worker.is_alive(self._giver) is False
        return self._gone

"""The clock of deadlines, in one place, so that a test can hold it."""

import time


def now() -> float:
    """Seconds of ``time.monotonic()``."""
    return time.monotonic()

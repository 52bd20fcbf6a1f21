"""How many threads a fit may use, and that nothing of it is left when it ends."""

from collections.abc import Iterator
from contextlib import contextmanager

import joblib
from threadpoolctl import threadpool_limits

from inna_tune.engine.threads import torch_threads


def n_threads(n_jobs: int | None) -> int | None:
    """What ``n_jobs`` comes to on this machine: -1 is one a core, -2 one less; None stays, which leaves torch as it is."""
    if n_jobs is None or n_jobs > 0:
        return n_jobs
    return max(1, int(joblib.cpu_count()) + 1 + n_jobs)


@contextmanager
def threads_of(n_jobs: int | None) -> Iterator[None]:
    """Let torch and the linear algebra of numpy use so many threads within; what they used before is put back."""
    number = n_threads(n_jobs)
    if number is None:
        yield
        return
    with threadpool_limits(number, user_api="blas"), torch_threads(number):
        yield

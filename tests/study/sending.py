"""A search by processes whose workers are threads of this one: each is sent its order, as a process is, but loads nothing."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
from joblib.externals.loky.backend.reduction import dumps

from inna_tune.study import parallel


def _in_threads(crew, order):
    content = dumps(order)
    with ThreadPoolExecutor(order.n_workers) as pool:
        yield from pool.map(lambda _: parallel._work(pickle.loads(content)), range(order.n_workers))


@pytest.fixture
def sent(monkeypatch):
    """Within a test, what goes to processes is worked on here. That processes do work, tests/study/test_parallel.py has."""
    monkeypatch.setattr(parallel._Crew, "_in_processes", _in_threads)

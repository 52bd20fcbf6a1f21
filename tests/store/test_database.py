"""Our database keeps Optuna's storage contract; what a block gathers in one transaction is in test_workers.py."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from optuna.storages import BaseStorage
from optuna.testing.pytest_storages import StorageTestCase

from inna_tune.store.opening import open_storage


def close(storage: BaseStorage) -> None:
    storage._backend.engine.dispose()  # type: ignore[attr-defined]


class TestContract(StorageTestCase):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Iterator[BaseStorage]:
        storage = open_storage(f"sqlite:///{tmp_path}/studies.db")
        yield storage
        close(storage)

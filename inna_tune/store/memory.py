"""Studies in the memory of this process."""

from copy import copy
from typing import ClassVar

from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import FrozenTrial

from inna_tune.store.store import RUNG, Store


class Memory(Store):
    """Studies that end with this process; nothing of them lies in files."""

    lasts: ClassVar[bool] = False
    locks = None
    checkpoints = None
    trained = None
    words = "memory"
    storage: InMemoryStorage

    @classmethod
    def holds(cls, storage: BaseStorage) -> bool:
        """See `Store`."""
        return isinstance(storage, InMemoryStorage)

    def stand_in(self) -> InMemoryStorage:
        """The storage itself, which is pickled with all it holds."""
        return self.storage

    def _forget_reports(self, trial: FrozenTrial) -> None:
        fresh = copy(trial)
        fresh.intermediate_values = {}
        fresh.system_attrs = {k: v for k, v in trial.system_attrs.items() if not k.startswith(RUNG)}
        with self.storage._lock:
            self.storage._set_trial(trial._trial_id, fresh)

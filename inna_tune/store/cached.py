"""Optuna's cache of what a database holds, which waits for a database that is away."""

from collections.abc import Sequence
from functools import partial, wraps
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import _CachedStorage
from optuna.trial import TrialState

from inna_tune.store.database import StudyDatabase
from inna_tune.store.errors import redact_url
from inna_tune.store.waiting import waited_for


class CachedDatabase(_CachedStorage):
    """Optuna's cache of finished trials, which reads no whole trial for its system attributes.

    A database that is away is waited for, and what it raises is a `StorageError` (see `inna_tune.store.waiting`).
    """

    def words(self) -> str:
        """What a person calls the database."""
        backend = self._backend
        return backend.words() if isinstance(backend, StudyDatabase) else redact_url(backend.url)

    def forget(self) -> None:
        """Read all trials anew, the finished ones, too."""
        with self._lock:
            self._studies.clear()
            self._trial_id_to_study_id_and_number.clear()
            self._study_id_and_number_to_trial_id.clear()

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """See `optuna.storages.BaseStorage`."""
        begun = 0

        def work() -> bool:
            nonlocal begun
            begun += 1
            try:
                return super(CachedDatabase, self).set_trial_state_values(trial_id, state, values)
            except UpdateFinishedTrialError:
                # Where the connection broke after it was written, it is there at the second attempt.
                stored = self._backend.get_trial(trial_id)
                if begun > 1 and stored.state == state and _are_equal(stored.values, values):
                    return True
                raise

        return waited_for(work, self.words)

    def get_trial_system_attrs(self, trial_id: int) -> dict[str, Any]:
        """See `optuna.storages.BaseStorage`."""
        with self._lock:
            trial = self._get_cached_trial(trial_id)
        return self._backend.get_trial_system_attrs(trial_id) if trial is None else trial.system_attrs


def _are_equal(stored: Sequence[float] | None, values: Sequence[float] | None) -> bool:
    return list(stored or ()) == list(values or ())


def _patient(method: Any) -> Any:
    """A method of `CachedDatabase` that waits for the database."""

    @wraps(method)
    def patient(self: CachedDatabase, *args: Any, **kwargs: Any) -> Any:
        return waited_for(partial(method, self, *args, **kwargs), self.words)

    return patient


# What is left of the base class is made of these.
for _name in {*vars(_CachedStorage), "get_trial_system_attrs"} - {"set_trial_state_values"}:
    if not _name.startswith("_"):
        setattr(CachedDatabase, _name, _patient(getattr(CachedDatabase, _name)))

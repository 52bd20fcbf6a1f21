"""What finished trials leave to an ensemble: out-of-fold predictions of each, and the nets of the best.

They lie as files in a folder beside the study, as checkpoints do, or in memory where the study does. A trial's are written
before it is told, so that one that is told has them; where they can't be written or read, the trial is in no ensemble, and
nothing else is lost.
"""

import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import optuna
import torch
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState
from safetensors import SafetensorError

from inna_tune.estimators.saving import Tensors
from inna_tune.records.record import value_of
from inna_tune.store.errors import StorageError
from inna_tune.store.opening import storage_errors, store_of
from inna_tune.store.store import QUEUED
from inna_tune.study.beside import FilesBeside
from inna_tune.study.checkpoints import Checkpoint, from_plain, to_plain
from inna_tune.visible import get_logger

logger = get_logger(__name__)

FORMAT = "inna-tune trained 1"
# Trials whose nets are kept: an ensemble of more gains nothing that can be measured, and a net may be large.
N_BEST = 10
# Of a trial's nets. What has many members for each fold is larger, and as quickly fitted once more; a trial that is one fit
# would be that fit once more.
_MOST_BYTES, _MOST_BYTES_OF_A_FIT = 2**23, 2**25
_PREDICTIONS, _NETS = "predictions", "nets"

Predictions = list[npt.NDArray[np.float64]]

# Of studies in memory, by their storage: (study, trial, what) -> what a file would hold.
_in_memory: WeakKeyDictionary[BaseStorage, dict[tuple[str, int, str], tuple[dict[str, Any], Tensors]]] = (
    WeakKeyDictionary()
)


@dataclass(frozen=True)
class Left:
    """What a trial leaves.

    Attributes
    ----------
    identity : str
        Of all that determines its training, as a checkpoint's.
    value : float
        The trial's, whole or cut off: of another value they are of another life of the trial.
    predictions : list of ndarray
        As `inna_tune.study.evaluation.Cohort.predictions` gives them.
    """

    identity: str
    value: float
    predictions: Predictions


def is_start(trial: FrozenTrial) -> bool:
    """Whether a trial is what the study was told to begin with: the untuned setting, unless the person gave others."""
    return trial.number == 0 and QUEUED in trial.system_attrs


def contributors(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Trials whose nets are kept: the best that are complete, what the study began with, and those that time cut off.

    As long as trials are only added, one that is no longer among them never is again, so that which are kept does not
    depend on the order in which workers end theirs.
    """
    scored = [t for t in trials if (v := value_of(t)) is not None and math.isfinite(v)]
    complete = sorted(
        (t for t in scored if t.state == TrialState.COMPLETE), key=lambda t: (-(t.value or 0.0), t.number)
    )
    kept = complete[:N_BEST] + [t for t in complete[N_BEST:] if is_start(t)]
    return sorted([*kept, *(t for t in scored if not t.state.is_finished())], key=lambda t: t.number)


class Kept:
    """What the trials of one study have left.

    Parameters
    ----------
    study : optuna.Study
    """

    def __init__(self, study: optuna.Study) -> None:
        self._study, store = study, store_of(study)
        self._files = FilesBeside(study, store.trained, FORMAT, (_PREDICTIONS, _NETS))
        self.lasts = store.lasts and store.trained is not None
        self._memory = None if store.lasts else _in_memory.setdefault(study._storage, {})

    # ------------------------------------------------------------------ places

    def _write(self, number: int, what: str, content: dict[str, Any], tensors: Tensors) -> None:
        if self._memory is not None:
            self._memory[self._study.study_name, number, what] = content, tensors
        else:
            self._files.write(number, content, tensors, kind=what)

    def _read(self, number: int, what: str) -> tuple[dict[str, Any], Tensors] | None:
        if self._memory is not None:
            return self._memory.get((self._study.study_name, number, what))
        return self._files.read(number, kind=what)

    def _remove(self, number: int, what: str) -> None:
        if self._memory is not None:
            self._memory.pop((self._study.study_name, number, what), None)
        else:
            self._files.remove(number, kind=what)

    def _there(self) -> list[tuple[int, str]]:
        """Trials' numbers, and what there is of them."""
        if self._memory is not None:
            return [(n, what) for name, n, what in self._memory if name == self._study.study_name]
        return self._files.there()

    # ------------------------------------------------------------------ trials

    def save(self, number: int, left: Left, nets: Checkpoint, *, is_a_fit: bool = False) -> None:
        """Keep what a trial leaves before it is told; its nets only if they are among those that are kept, and not too large.

        ``is_a_fit`` says that they are a fit on all rows.
        """
        most_bytes = _MOST_BYTES_OF_A_FIT if is_a_fit else _MOST_BYTES
        said: dict[str, Any] = {"identity": left.identity, "value": left.value}
        folds: Tensors = {f"fold.{k}": torch.from_numpy(p) for k, p in enumerate(left.predictions)}
        try:
            self._write(number, _PREDICTIONS, said | {"folds": len(folds)}, folds)
            if self._is_worth_nets(number, left.value):
                content, tensors = to_plain(nets)
                if sum(t.nbytes for t in tensors.values()) <= most_bytes:
                    self._write(number, _NETS, said | {"nets": content}, tensors)
                else:
                    logger.info("trial %d: its nets are too large to be kept for an ensemble", number)
        except StorageError:
            raise  # nothing that is kept is to blame
        except (OSError, SafetensorError, ValueError, TypeError) as error:
            # A study does not end for want of them.
            logger.warning("trial %d leaves nothing: %s: %s", number, type(error).__name__, error)

    def _is_worth_nets(self, number: int, value: float) -> bool:
        if number == 0:
            return True
        others = [t for t in self._trials() if t.number != number]
        complete = [t for t in others if t.state == TrialState.COMPLETE]
        return sum((-(t.value or 0.0), t.number) < (-value, number) for t in complete) < N_BEST

    def _trials(self) -> list[FrozenTrial]:
        with storage_errors(self._study):
            return self._study.get_trials(deepcopy=False)

    def trim(self) -> None:
        """Delete the nets of finished trials that are not among the best, and all of those that came to nothing."""
        trials = {t.number: t for t in self._trials()}
        wanted = {t.number for t in contributors(trials.values())}
        for number, what in self._there():
            trial = trials.get(number)
            # One that runs has perhaps written what it leaves, and is about to be told.
            if trial is None or not trial.state.is_finished():
                continue
            came_to_nothing = trial.state != TrialState.COMPLETE
            if came_to_nothing or (what == _NETS and number not in wanted):
                self._remove(number, what)
        self._files.sweep()

    def predictions(self, number: int, identity: str, value: float) -> Predictions | None:
        """The out-of-fold predictions that a trial left, fold by fold; None where there are none that can be used."""
        found = self._usable(number, _PREDICTIONS, identity, value)
        if found is None:
            return None
        content, tensors = found
        try:
            return [tensors[f"fold.{k}"].numpy() for k in range(int(content["folds"]))]
        except (KeyError, TypeError, ValueError) as error:
            logger.warning("trial %d: its predictions are of no use: %s", number, error)
            return None

    def nets(
        self, number: int, identity: str, value: float, sizes: Sequence[Sequence[int]]
    ) -> Checkpoint | None:
        """The nets that a trial left, as a checkpoint in which all have ended; None where there are none that can be used.

        Parameters
        ----------
        number : int
        identity : str
        value : float
        sizes : sequence of sequences of int
            Numbers in each tensor of the net, of each member of the trial.
        """
        found = self._usable(number, _NETS, identity, value)
        if found is None:
            return None
        content, tensors = found
        try:
            return from_plain(content["nets"], tensors, sizes)
        except Exception as error:  # whatever is in the file
            logger.warning("trial %d: its nets are of no use: %s", number, error)
            return None

    def _usable(
        self, number: int, what: str, identity: str, value: float
    ) -> tuple[dict[str, Any], Tensors] | None:
        try:
            found = self._read(number, what)
            if found is None:
                return None
            if found[0]["identity"] != identity:
                raise ValueError("they are of other data, settings or versions")
            if found[0]["value"] != value:
                raise ValueError("they are of another life of the trial")
        except Exception as error:  # whatever is in the file
            logger.warning("trial %d: its %s are of no use: %s", number, what, error)
            return None
        return found

    def copy_to(self, other: "Kept") -> None:
        """Copy all there is to another place."""
        for number, what in self._there():
            with suppress(OSError, SafetensorError, ValueError, KeyError):
                found = self._read(number, what)
                if found is not None:
                    other._write(number, what, *found)

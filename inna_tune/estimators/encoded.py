"""A table as the engine takes it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from inna_tune.engine import TableTensors
from inna_tune.estimators.columns import Matrix
from inna_tune.estimators.frames import Weights


@dataclass
class EncodedTable:
    """A table ready for the engine.

    Attributes
    ----------
    x : ndarray of float32 or float64, shape [n_samples, n_columns]
        Its type is that of the training.
    target : ndarray, [n_samples] int64 classes or [n_samples, n_targets] float64
    weight : ndarray of float64 [n_samples] or None
        With what the targets add.
    sample_weight : ndarray of float64 [n_samples] or None
        As they were given.
    n_validation : int
        How many of the last rows are there to be watched, and not to be trained on.
    """

    x: Matrix
    target: npt.NDArray[Any]
    weight: Weights | None
    sample_weight: Weights | None = None
    n_validation: int = 0

    @property
    def n_train(self) -> int:
        """Rows to train on."""
        return len(self.target) - self.n_validation

    def followed_by(self, validation: "EncodedTable") -> "EncodedTable":
        """The same table with rows to be watched at its end."""
        weights = [
            None
            if own is None and other is None
            else np.concatenate(
                [np.ones(len(t.target)) if w is None else w for t, w in ((self, own), (validation, other))]
            )
            for own, other in (
                (self.weight, validation.weight),
                (self.sample_weight, validation.sample_weight),
            )
        ]
        return EncodedTable(
            np.concatenate([self.x, validation.x]),
            np.concatenate([self.target, validation.target]),
            *weights,
            n_validation=len(validation.target),
        )

    def tensors(self, device: torch.device) -> TableTensors:
        """The same on a device."""
        target = self.target if self.target.dtype.kind == "i" else self.target.astype(self.x.dtype)
        weight = None if self.weight is None else self.weight.astype(self.x.dtype)
        return TableTensors(
            torch.from_numpy(self.x).to(device),
            torch.from_numpy(target).to(device),
            None if weight is None else torch.from_numpy(weight).to(device),
        )

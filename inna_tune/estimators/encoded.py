"""A table as the engine takes it."""

from dataclasses import dataclass
from typing import Any

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
    """

    x: Matrix
    target: npt.NDArray[Any]
    weight: Weights | None

    def tensors(self, device: torch.device) -> TableTensors:
        """The same on a device."""
        target = self.target if self.target.dtype.kind == "i" else self.target.astype(self.x.dtype)
        weight = None if self.weight is None else self.weight.astype(self.x.dtype)
        return TableTensors(
            torch.from_numpy(self.x).to(device),
            torch.from_numpy(target).to(device),
            None if weight is None else torch.from_numpy(weight).to(device),
        )

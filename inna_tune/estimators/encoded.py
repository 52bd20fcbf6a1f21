"""A table as the engine takes it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from inna_tune.engine import TableTensors
from inna_tune.estimators.tables import Weights


@dataclass
class EncodedTable:
    """A table ready for the engine.

    Attributes
    ----------
    x : ndarray of float32, shape [n_samples, n_columns]
    target : ndarray, [n_samples] int64 classes or [n_samples, n_targets] float32
    weight : ndarray of float64 [n_samples] or None
    """

    x: npt.NDArray[np.float32]
    target: npt.NDArray[Any]
    weight: Weights | None

    def tensors(self, device: torch.device) -> TableTensors:
        """The same on a device."""
        weight = None if self.weight is None else torch.from_numpy(self.weight.astype(np.float32)).to(device)
        return TableTensors(
            torch.from_numpy(self.x).to(device), torch.from_numpy(self.target).to(device), weight
        )

"""A table as the engine takes it."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from inna_tune.engine import TableTensors
from inna_tune.estimators.columns import Matrix
from inna_tune.estimators.frames import Weights
from inna_tune.estimators.metrics import Judged
from inna_tune.nets import LinearStart


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
        As they were given; None where rows follow.
    n_validation : int
        How many of the last rows are there to be watched, and not to be trained on.
    judged : Judged or None
        What a scorer has to know of it, where one is to judge.
    sections : tuple of three int, or None
        Widths of numbers, other floats and codes; None where nobody asks.
    categories : tuple of int
        Numbers of codes.
    linear_models : dict
        Those that were fitted to its rows, see `inna_tune.estimators.linear_start`.
    """

    x: Matrix
    target: npt.NDArray[Any]
    weight: Weights | None
    sample_weight: Weights | None = None
    n_validation: int = 0
    judged: Judged | None = None
    sections: tuple[int, int, int] | None = None
    categories: tuple[int, ...] = ()
    linear_models: dict[bytes, list[LinearStart]] = field(default_factory=dict, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"linear_models": {}}

    @property
    def n_train(self) -> int:
        """Rows to train on."""
        return len(self.target) - self.n_validation

    def followed_by(self, validation: "EncodedTable") -> "EncodedTable":
        """The same table with rows to be watched at its end."""
        weight = None
        if self.weight is not None or validation.weight is not None:
            weight = np.concatenate(
                [np.ones(len(t.target)) if t.weight is None else t.weight for t in (self, validation)]
            )
        judged = self.judged
        if judged is not None and validation.judged is not None:
            judged = judged.followed_by(validation.judged)
        return EncodedTable(
            np.concatenate([self.x, validation.x]),
            np.concatenate([self.target, validation.target]),
            weight,
            n_validation=len(validation.target),
            judged=judged,
            sections=self.sections,
            categories=self.categories,
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

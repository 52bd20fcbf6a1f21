"""The training losses, row by row, over a stacked population."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Loss(Protocol):
    """A loss that is a mean over rows.

    ``scaled_alpha`` is the friction, in units of the curvature, that serves it best (studies/edge_of_stability.py).
    """

    scaled_alpha: ClassVar[float]

    def per_row(self, output: Tensor, target: Tensor, label_smoothing: Tensor | None = None) -> Tensor:
        """Loss of every row of every member, shape [P, B]."""
        ...


@dataclass(frozen=True)
class CrossEntropy:
    """Cross-entropy of a softmax, for two classes or more.

    ``output`` is ``[P, B, K]`` logits, ``target`` ``[P, B]`` class numbers, ``label_smoothing`` ``[P, 1]`` or None.
    """

    scaled_alpha: ClassVar[float] = 0.24

    def per_row(self, output: Tensor, target: Tensor, label_smoothing: Tensor | None = None) -> Tensor:
        """Negative log-likelihood of every row, shape [P, B]."""
        log_probability = F.log_softmax(output, dim=-1)
        loss = -log_probability.gather(-1, target.unsqueeze(-1)).squeeze(-1)
        if label_smoothing is None:
            return loss
        return torch.lerp(loss, -log_probability.mean(-1), label_smoothing.expand_as(loss))


@dataclass(frozen=True)
class SquaredError:
    """Squared error, averaged over the targets; ``output`` and ``target`` are ``[P, B, K]``."""

    scaled_alpha: ClassVar[float] = 0.06

    def per_row(self, output: Tensor, target: Tensor, label_smoothing: Tensor | None = None) -> Tensor:
        """Mean squared error of every row, shape [P, B]. Label smoothing has no meaning here and is ignored."""
        return (output - target).square().mean(-1)

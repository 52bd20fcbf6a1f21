"""The training losses, row by row, over a stacked population."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Loss(Protocol):
    """A loss that is a mean over rows.

    ``scaled_alpha`` is the friction, in units of the curvature, that serves it best where steps are held (studies/friction.py),
    and ``most_scaled_alpha`` that of few rows, see `inna_tune.engine.calibrating.usual_friction`;
    ``column_factor`` is what steps of weights that read small columns are lengthened by at most (`inna_tune.engine.factors`).
    """

    scaled_alpha: ClassVar[float]
    most_scaled_alpha: ClassVar[float]
    column_factor: ClassVar[float]

    @property
    def calibrated_by(self) -> "Loss":
        """The loss whose curvature sets the steps: itself, where it has one."""
        ...

    def per_row(self, output: Tensor, target: Tensor, label_smoothing: Tensor | None = None) -> Tensor:
        """Loss of every row of every member, shape [P, B]."""
        ...

    def pooled(self, output: Tensor) -> Tensor:
        """What is averaged over members that are judged together; the mean is an output again."""
        ...

    def with_slope(
        self, output: Tensor, target: Tensor, coefficient: Tensor, label_smoothing: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Sum over rows of coefficient [P, B] × loss, [P], and its derivative with respect to the outputs, [P, B, K]."""
        ...


@dataclass(frozen=True)
class CrossEntropy:
    """Cross-entropy of a softmax, for two classes or more.

    ``output`` is ``[P, B, K]`` logits, ``target`` ``[P, B]`` class numbers, ``label_smoothing`` ``[P, 1]`` or None.
    """

    scaled_alpha: ClassVar[float] = 0.06
    most_scaled_alpha: ClassVar[float] = 0.24
    # Of classes the net soon learns rare levels by heart: with longer steps the loss rose on adult and churn, by 2 and 12%.
    column_factor: ClassVar[float] = 1.0

    @property
    def calibrated_by(self) -> Loss:
        """Itself."""
        return self

    def per_row(self, output: Tensor, target: Tensor, label_smoothing: Tensor | None = None) -> Tensor:
        """Negative log-likelihood of every row, shape [P, B]."""
        log_probability = F.log_softmax(output, dim=-1)
        loss = -log_probability.gather(-1, target.unsqueeze(-1)).squeeze(-1)
        if label_smoothing is None:
            return loss
        return torch.lerp(loss, -log_probability.mean(-1), label_smoothing.expand_as(loss))

    def pooled(self, output: Tensor) -> Tensor:
        """Logarithms of the probabilities: the logarithmic opinion pool (Genest and Zidek, 1986)."""
        return F.log_softmax(output, dim=-1)

    def with_slope(
        self, output: Tensor, target: Tensor, coefficient: Tensor, label_smoothing: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Loss and slope in closed form: probabilities less the (smoothed) labels."""
        if not output.is_cpu and label_smoothing is None:
            return self._in_few_operations(output, target, coefficient)
        # NOTE: classes first, since log_softmax over a short last dimension takes 20 times as long on a CPU.
        log_probability = torch.log_softmax(output.transpose(1, 2).contiguous(), 1)
        label = target.unsqueeze(1)
        loss = log_probability.gather(1, label).squeeze(1).neg_()
        rows = coefficient.unsqueeze(1)
        if label_smoothing is None:
            slope = log_probability.exp_().mul_(rows)
            slope.scatter_add_(1, label, -rows)
        else:
            loss = torch.lerp(loss, -log_probability.mean(1), label_smoothing.expand_as(loss))
            spread = label_smoothing.unsqueeze(2)
            slope = (log_probability.exp_() - spread / output.shape[2]).mul_(rows)
            slope.scatter_add_(1, label, (spread - 1.0) * rows)
        return (loss * coefficient).sum(1), slope.transpose(1, 2).contiguous()

    @staticmethod
    def _in_few_operations(output: Tensor, target: Tensor, coefficient: Tensor) -> tuple[Tensor, Tensor]:
        """The same where an operation costs its launch, and the layout of small tensors nothing."""
        log_probability, label = torch.log_softmax(output, 2), target.unsqueeze(2)
        picked, rows = log_probability.gather(2, label).transpose(1, 2), coefficient.unsqueeze(2)
        loss = torch.baddbmm(rows[:, :1], picked, rows, beta=0.0, alpha=-1.0)[:, 0, 0]
        slope = log_probability.exp_().scatter_(2, label, -1.0, reduce="add")
        return loss, slope.mul_(rows)


@dataclass(frozen=True)
class SquaredError:
    """Squared error, averaged over the targets; ``output`` and ``target`` are ``[P, B, K]``."""

    scaled_alpha: ClassVar[float] = 0.03
    most_scaled_alpha: ClassVar[float] = 0.06
    column_factor: ClassVar[float] = 25.0

    @property
    def calibrated_by(self) -> Loss:
        """Itself."""
        return self

    def per_row(self, output: Tensor, target: Tensor, label_smoothing: Tensor | None = None) -> Tensor:
        """Mean squared error of every row, shape [P, B]. Label smoothing has no meaning here and is ignored."""
        return (output - target).square().mean(-1)

    def pooled(self, output: Tensor) -> Tensor:
        """The outputs themselves."""
        return output

    def with_slope(
        self, output: Tensor, target: Tensor, coefficient: Tensor, label_smoothing: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Loss and slope in closed form."""
        error = output - target
        square = error * error
        row_loss = square.squeeze(-1) if square.shape[2] == 1 else square.mean(-1)
        loss = row_loss.mul_(coefficient).sum(1)
        return loss, error.mul_((2.0 / error.shape[2]) * coefficient.unsqueeze(2))


@dataclass(frozen=True)
class Pinball:
    """Pinball loss of quantiles, averaged over them; ``output`` is ``[P, B, Q]``, ``target`` ``[P, B, 1]``.

    Its expectation is least where output q is that quantile of the target, given the row (Koenker and Bassett, Regression
    Quantiles, Econometrica 46, 1978).

    Parameters
    ----------
    quantiles : tuple of float
        Between 0 and 1.
    """

    quantiles: tuple[float, ...]

    scaled_alpha: ClassVar[float] = 0.06
    most_scaled_alpha: ClassVar[float] = 0.06
    column_factor: ClassVar[float] = 25.0

    @property
    def calibrated_by(self) -> Loss:
        """Half of the squared error: of straight lines no curvature can be measured, and their expectation's is of its size."""
        return HalfSquaredError()

    def _shares(self, like: Tensor) -> Tensor:
        return torch.tensor(self.quantiles, dtype=like.dtype, device=like.device)

    def per_row(self, output: Tensor, target: Tensor, label_smoothing: Tensor | None = None) -> Tensor:
        """Mean pinball loss of every row, shape [P, B]."""
        error, shares = target - output, self._shares(output)
        return torch.maximum(shares * error, (shares - 1.0) * error).mean(-1)

    def pooled(self, output: Tensor) -> Tensor:
        """The outputs themselves."""
        return output

    def with_slope(
        self, output: Tensor, target: Tensor, coefficient: Tensor, label_smoothing: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Loss and slope in closed form."""
        slope = (target < output).to(output.dtype) - self._shares(output)
        rows = coefficient.unsqueeze(2) / output.shape[2]
        loss = ((output - target) * slope * rows).sum((1, 2))
        return loss, slope.mul_(rows)


@dataclass(frozen=True)
class HalfSquaredError(SquaredError):
    """Half of the squared error of every output against one target, averaged; to measure curvatures by."""

    def per_row(self, output: Tensor, target: Tensor, label_smoothing: Tensor | None = None) -> Tensor:
        """Half of the mean squared error of every row, shape [P, B]."""
        return 0.5 * super().per_row(output, target)

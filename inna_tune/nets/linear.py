"""A linear model beside the trunk: fixed weights from the encoded columns straight to the outputs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inna_tune.nets.categorical import first_codes
from inna_tune.nets.products import affine, spaced
from inna_tune.nets.signed import signed

WEIGHT, BIAS, SCALE = "linear.weight", "linear.bias", "linear.scale"
NAMES = frozenset({WEIGHT, BIAS, SCALE})

# Encoded numbers lie between -3 and 3; beyond this a straight line no longer follows them.
_END = 2.9


@dataclass(frozen=True, eq=False)
class LinearStart:
    """A linear model of a member's rows, which its net begins as.

    Attributes
    ----------
    weight : Tensor of float64, shape [n_numeric + n_others + n_codes, out_features]
        Of the member's own numbers, other columns and codes, see `LinearPath.columns`.
    bias : Tensor of float64, shape [out_features]
    scale : float
        What the outputs of the trunk are multiplied by: how much the model leaves to it.
    """

    weight: Tensor
    bias: Tensor
    scale: float


@dataclass(frozen=True)
class LinearPath:
    """A linear model of a row, beside which a net has what is left to learn: outputs are ``linear + scale · trunk``.

    Its tensors are trained by no optimizer. Where nobody gives a model, it is zero and the scale one, so that the net is the
    trunk alone.

    Parameters
    ----------
    n_numeric, n_others : int
        Leading columns of the table that are numbers, and of those behind them that are other floats.
    categories : tuple of int
        Number of codes of each of the last columns.
    out_features : int

    Notes
    -----
    A trunk whose outputs are scaled by s has a curvature that is s² times its own, so that a step which suits it would suit no
    other. It learns by the slope of the loss in units of s, which is 1/s² times that of its weights: the same steps then suit
    every member, as if each had its own share of the target to learn.

    Numbers are encoded as x / √(1 + (x/3)²), which bends every straight line; here they are unbent up to ±11 interquartile
    ranges (over 1.349), beyond which they are clipped. A code is a column of zeros and a one.
    """

    n_numeric: int
    n_others: int
    categories: tuple[int, ...]
    out_features: int

    @property
    def width(self) -> int:
        """Columns that the model reads."""
        return self.n_numeric + self.n_others + sum(self.categories)

    @property
    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor of one member, by name."""
        return {WEIGHT: (self.width, self.out_features), BIAS: (1, self.out_features), SCALE: (1, 1)}

    def initialize(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """The model of nothing."""
        found = {
            name: torch.zeros(shape, dtype=dtype, device="cpu")
            for name, shape in self.parameter_shapes.items()
        }
        return found | {SCALE: torch.ones(1, 1, dtype=dtype, device="cpu")}

    def values(self, start: LinearStart, used: tuple[int, int], dtype: torch.dtype) -> dict[str, Tensor]:
        """A member's tensors, of whose columns ``used`` numbers and others are its own, the rest being padding."""
        found = self.initialize(dtype)
        # Where there are more outputs than targets, as of quantiles, all begin as the same.
        found[WEIGHT][self.used_rows(used)] = start.weight.to(dtype)
        found[BIAS][:] = start.bias.to(dtype)
        found[SCALE][:] = start.scale
        return found

    def used_rows(self, used: tuple[int, int]) -> Tensor:
        """Which rows of the weights are of columns that a member has, [width] bool."""
        place = torch.arange(self.width, device="cpu")
        numeric, others = used
        is_padding = (place >= numeric) & (place < self.n_numeric)
        is_padding |= (place >= self.n_numeric + others) & (place < self.n_numeric + self.n_others)
        return ~is_padding

    def floats(self, x: Tensor) -> Tensor:
        """What the model reads of numbers and others, [..., n_numeric + n_others], of rows [..., in_features]."""
        numbers = x[..., : self.n_numeric].clamp(-_END, _END)
        numbers = numbers / torch.sqrt(1.0 - (numbers / 3.0).square())
        return torch.cat([numbers, x[..., self.n_numeric : self.n_numeric + self.n_others]], -1)

    def columns(self, x: Tensor) -> Tensor:
        """All that the model reads, [B, width], of rows [B, in_features]: a code is a one among zeros."""
        parts = [self.floats(x)]
        codes = x[:, self.n_numeric + self.n_others :].long()
        for column, n_codes in zip(codes.unbind(1), self.categories, strict=True):
            parts.append(torch.nn.functional.one_hot(column, n_codes).to(x))
        return torch.cat(parts, 1)

    def __call__(self, parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Outputs of the model, [P, B, out_features], of rows [P, B, in_features]; a member's are the same in any company."""
        # In fewer digits its error would be what a small scale leaves the trunk to learn.
        with torch.autocast(x.device.type, enabled=False):
            return self._outputs(parameters, x)

    def _outputs(self, parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
        weight, n_floats = parameters[WEIGHT], self.n_numeric + self.n_others
        # With the rows innermost, as in the head of the net.
        floats = self.floats(x).transpose(1, 2)
        floats = spaced(floats.shape, floats).copy_(floats)
        turned = weight[:, :n_floats].transpose(1, 2)
        found = affine(parameters[BIAS].transpose(1, 2), turned, floats).transpose(1, 2)
        if not self.categories:
            return found
        codes = x[..., n_floats:].long() + first_codes(self.categories, x.device) + n_floats
        for column in codes.unbind(2):
            found = found + weight.gather(1, column[..., None].expand(-1, -1, self.out_features))
        return found

    @staticmethod
    def beside(linear: Tensor, output: Tensor, scale: Tensor, *, training: bool = False) -> Tensor:
        """Outputs of the net, by the model's and the trunk's; in ``training`` with the slope that the trunk learns by."""
        if training:
            scaled: Tensor = _InOwnUnits.apply(output, scale)  # type: ignore[no-untyped-call]
            return scaled + linear
        return output * scale + linear

    @staticmethod
    def nothing(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors like these of a net that is its trunk alone."""
        found = {name: torch.zeros_like(parameters[name]) for name in (WEIGHT, BIAS)}
        return found | {SCALE: torch.ones_like(parameters[SCALE])}

    @staticmethod
    def is_used(parameters: Mapping[str, Tensor]) -> bool:
        """Whether any member has a model, or a scale."""
        return bool(parameters[WEIGHT].any() or parameters[BIAS].any() or (parameters[SCALE] != 1.0).any())


class _InOwnUnits(torch.autograd.Function):
    """A product with s whose slope is divided by s."""

    generate_vmap_rule = True

    @staticmethod
    @signed
    def forward(output: Tensor, scale: Tensor) -> Tensor:
        return output * scale

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        (scale,) = ctx.saved_tensors
        return slope / scale, None

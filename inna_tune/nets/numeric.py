"""Embeddings of numeric columns: each number becomes a short vector, by a map of its column's own.

A net reads one number through straight lines only; an embedding lets its first layer see bumps and steps
(Gorishniy, Rubachev and Babenko, "On Embeddings for Numerical Features in Tabular Deep Learning", NeurIPS 2022).
Every embedding here has two parts, a few fixed-form features of the number and a linear map of them for each column.
All columns of all members go through one batched product with the rows innermost: on a CPU up to 20% faster than with the
rows outermost, and at 50 columns in half the time of a block-diagonal matrix.

**Start.** INNA takes one step size for all tensors, from the curvature of the loss at the start, so every embedding starts
at a common scale: over a standard normal column its outputs have mean 0 and variance 1, averaged over the draw of the
weights (before a ReLU variance 2, and so about second moment 1 behind it). The published starts leave small outputs of
large mean; what can be learned is the same.

**Padding.** A padded column's number is 0, but cos(0) = 1: what its features are must not matter. Its linear map starts at
zero, so its outputs are zero; the weights that read these outputs in the next layer start at zero too. Then the
gradient of the former (features × gradient of the outputs, which passes the latter) and of the latter (outputs × …) are
both exactly zero, and stay so.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor

from inna_tune.nets.products import affine, product
from inna_tune.nets.signed import applied, signed

PREFIX = "numeric"

# Encoded numbers lie between minus this and this.
_END = 3.0


@dataclass(frozen=True)
class NumericEmbedding(ABC):
    """What the embeddings have in common: a linear map of some features, one for each column.

    Parameters
    ----------
    n_columns : int
        Numeric columns F.
    dim : int
        Outputs d of a column.
    n_frequencies : int
        Resolution K: frequencies of a column, or linear pieces.
    frequency_scale : float
        Standard deviation of the initial frequencies, in periods per unit of the column.
    evenness : float
        How much of the linear pieces' law is an even one, the rest a normal law.

    Notes
    -----
    Shapes, with ``P`` members, ``B`` rows and k features a column: frequency and phase ``[P, F, K]``, weight
    ``[P, F, k, d]``, bias ``[P, F, d]``, numbers ``[P, F, B]``, outputs ``[P, F d, B]``.
    """

    n_columns: int
    dim: int
    n_frequencies: int
    frequency_scale: float
    evenness: float = 0.0

    # Whether the net reads the numbers themselves beside this embedding.
    keeps_numbers = False

    @property
    @abstractmethod
    def n_features(self) -> int:
        """Features of a column, k."""

    @property
    @abstractmethod
    def feature_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the parameters that the features have, by name."""

    @abstractmethod
    def features(self, parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Features [P F, k, B] of numbers [P, F, B]."""

    @abstractmethod
    def _draw(self, generator: torch.Generator, n_columns: int) -> dict[str, Tensor]:
        """Initial values in float64 for ``n_columns`` columns."""

    @property
    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each parameter of one member, by name."""
        return self.feature_shapes | {
            f"{PREFIX}.weight": (self.n_columns, self.n_features, self.dim),
            f"{PREFIX}.bias": (self.n_columns, self.dim),
        }

    @property
    def width(self) -> int:
        """Outputs of all columns; those of the first column come first."""
        return self.n_columns * self.dim

    @property
    def widest(self) -> int:
        """Most numbers that a row has inside the embedding."""
        return self.n_columns * max(self.n_features, self.dim)

    def initialize(
        self, generator: torch.Generator, *, n_used: int, dtype: torch.dtype = torch.float32
    ) -> dict[str, Tensor]:
        """Draw one member's initial parameters.

        Parameters
        ----------
        generator : torch.Generator
            The member's own stream.
        n_used : int
            How many leading columns are the member's own. What belongs to the others is zero, and what is drawn is what
            an embedding of ``n_used`` columns would draw.
        dtype : torch.dtype, default=torch.float32
            Type of the parameters.
        """
        # Drawn in float64 and rounded, so that a member starts at the same point in every dtype.
        values = self._draw(generator, n_used)
        padded = {}
        for name, shape in self.parameter_shapes.items():
            padded[name] = torch.zeros(shape, dtype=dtype, device="cpu")
            padded[name][:n_used] = values[name].to(dtype)
        return padded

    def __call__(self, parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Outputs [P, F d, B] of numbers [P, F, B]."""
        n_members, n_columns, n_rows = x.shape
        # NOTE: in one layout, forward and backward, whatever the number of members: a product of a transposed matrix may
        # round another way, and what a member learns would depend on its company in the last bit.
        x = x.contiguous()
        weight = parameters[f"{PREFIX}.weight"].reshape(-1, self.n_features, self.dim)
        bias = parameters[f"{PREFIX}.bias"].reshape(-1, self.dim, 1)
        out = affine(bias, weight.transpose(1, 2), self.features(parameters, x))
        embedded: Tensor = applied(_ContiguousGradient, out).reshape(n_members, n_columns * self.dim, n_rows)
        return embedded


class _ContiguousGradient(torch.autograd.Function):
    """The identity, with a gradient that lies in memory as its shape says."""

    generate_vmap_rule = True

    @staticmethod
    @signed
    def forward(x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.contiguous()


@dataclass(frozen=True)
class _Waves(NumericEmbedding):
    """Features made of waves of trained frequencies.

    The parameter ``frequency`` is in units of ``frequency_scale``, so it starts from N(0, 1) at any scale. For a method
    without a step size for each coordinate this matters: in periods per unit a frequency of scale 0.01 would have 10⁴ times
    the curvature and force its small steps on the whole net (the largest Hessian eigenvalue of a net with periodic embeddings
    fell from 740 to 74).
    """

    # Variance that the linear map starts with.
    start_variance = 1.0

    @abstractmethod
    def _draw_waves(
        self, generator: torch.Generator, n_columns: int
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Values of the features' parameters; mean and variance [n_columns, k] of the features of x from N(0, 1)."""

    @property
    def _angular_scale(self) -> float:
        return 2.0 * math.pi * self.frequency_scale

    @property
    def feature_shapes(self) -> dict[str, tuple[int, ...]]:
        return {f"{PREFIX}.frequency": (self.n_columns, self.n_frequencies)}

    def _angles(self, parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """2π c x, [P F, K, B]: an outer product for each column."""
        frequency = self._angular_scale * parameters[f"{PREFIX}.frequency"].reshape(-1, self.n_frequencies, 1)
        numbers = x.reshape(-1, 1, x.shape[-1])
        return product(frequency, numbers)

    def _draw_frequency(self, generator: torch.Generator, n_columns: int) -> tuple[Tensor, Tensor]:
        """The parameter, and ω² = (2π c)², each [n_columns, K]."""
        frequency = torch.randn(
            n_columns, self.n_frequencies, generator=generator, dtype=torch.float64, device="cpu"
        )
        return frequency, (self._angular_scale * frequency) ** 2

    def _draw(self, generator: torch.Generator, n_columns: int) -> dict[str, Tensor]:
        values, mean, variance = self._draw_waves(generator, n_columns)
        weight = torch.randn(
            n_columns, self.n_features, self.dim, generator=generator, dtype=torch.float64, device="cpu"
        )
        weight *= (self.start_variance / variance.sum(1)).sqrt()[:, None, None]
        return values | {f"{PREFIX}.weight": weight, f"{PREFIX}.bias": -(mean[:, None] @ weight)[:, 0]}


@dataclass(frozen=True)
class PeriodicEmbedding(_Waves):
    """PLR: ReLU(Linear([sin 2πcx, cos 2πcx])), c trained from N(0, frequency_scale²) (Gorishniy et al., 2022, section 3.3)."""

    start_variance = 2.0

    @property
    def n_features(self) -> int:
        return 2 * self.n_frequencies

    def features(self, parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
        angles = self._angles(parameters, x)
        return torch.cat([torch.sin(angles), torch.cos(angles)], 1)

    def _draw_waves(
        self, generator: torch.Generator, n_columns: int
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        frequency, square = self._draw_frequency(generator, n_columns)
        # For x from N(0, 1): E cos ωx = exp(-ω²/2) and E cos² ωx = (1 + exp(-2ω²)) / 2; expm1 keeps small ω exact.
        mean = torch.cat([torch.zeros_like(square), torch.exp(-square / 2)], 1)
        variance = torch.cat([-torch.expm1(-2 * square) / 2, torch.expm1(-square) ** 2 / 2], 1)
        return {f"{PREFIX}.frequency": frequency}, mean, variance

    def __call__(self, parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
        return torch.relu(super().__call__(parameters, x))


@dataclass(frozen=True)
class PBLDEmbedding(_Waves):
    """PBLD, periodic bias linear DenseNet: [x, Linear(cos(2πcx + b))], b from U(−π, π).

    As in RealMLP (Holzmüller, Grinsztajn and Steinwart, "Better by Default", NeurIPS 2024). The net reads the number itself
    beside the ``dim`` outputs made here. Both c and b are trained.
    """

    keeps_numbers = True

    @property
    def n_features(self) -> int:
        return self.n_frequencies

    @property
    def feature_shapes(self) -> dict[str, tuple[int, ...]]:
        return super().feature_shapes | {f"{PREFIX}.phase": (self.n_columns, self.n_frequencies)}

    @property
    def _phase_scale(self) -> float:
        """What the parameter ``phase`` counts in.

        Slow waves have a large linear map, and so too large a curvature in the phase, unless it counts in their own scale.
        """
        return min(1.0, self._angular_scale)

    def features(self, parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
        phase = self._phase_scale * parameters[f"{PREFIX}.phase"].reshape(-1, self.n_frequencies, 1)
        return torch.cos(self._angles(parameters, x) + phase)

    def _draw_waves(
        self, generator: torch.Generator, n_columns: int
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        frequency, square = self._draw_frequency(generator, n_columns)
        uniform = torch.rand(
            n_columns, self.n_frequencies, generator=generator, dtype=torch.float64, device="cpu"
        )
        phase = math.pi * (2 * uniform - 1)
        cos, sin = torch.cos(phase), torch.sin(phase)
        mean = cos * torch.exp(-square / 2)
        variance = ((cos * torch.expm1(-square)) ** 2 - sin**2 * torch.expm1(-2 * square)) / 2
        values = {f"{PREFIX}.frequency": frequency, f"{PREFIX}.phase": phase / self._phase_scale}
        return values, mean, variance


@dataclass(frozen=True)
class PiecewiseEmbedding(NumericEmbedding):
    """Piecewise-linear: Linear(PLE(x)), a trained continuous piecewise-linear function on fixed knots for each output.

    PLE (Gorishniy et al., 2022, section 3.2) gives for each of K pieces how much of it lies below x, from 0 to 1. The
    K + 1 knots part a law between −3 and 3 into equal shares, for numbers that the encoder has brought between these; beyond
    ±3 the function is constant. So the knots are the same for all members, whichever rows they train on. The law is a mixture
    of the standard normal one, where most numbers are, and to the share ``evenness`` of an even one: of counts, most of which
    are 0 or 1, the few large ones lie beyond 2, where a normal law has one piece in forty.

    Every output starts as a random multiple of the number, so that the net starts like one without the embedding. (From
    independent weights, a random walk over the pieces, nets overfitted: the validation loss was higher on five of six
    tables, by a tenth to a half.)
    """

    @property
    def n_features(self) -> int:
        return self.n_frequencies

    @property
    def feature_shapes(self) -> dict[str, tuple[int, ...]]:
        return {}

    @cached_property
    def knots(self) -> tuple[float, ...]:
        """The K + 1 knots."""
        return _knots(self.n_frequencies, self.evenness)

    def features(self, parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
        first, slope = self.pieces(x)
        return self.shares(x, first, slope)

    def pieces(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Where each piece begins, and what of it a unit is, each [K, 1] and like ``like``."""
        return _pieces(self.knots, like.dtype, like.device)

    @staticmethod
    def shares(x: Tensor, first: Tensor, slope: Tensor, out: Tensor | None = None) -> Tensor:
        """The features, of what `pieces` gave, in a place of theirs."""
        # NOTE: one operation after the other; torch is slower to do two at once where both sides are repeated.
        return torch.sub(x.reshape(-1, 1, x.shape[-1]), first, out=out).mul_(slope).clamp_(0.0, 1.0)

    def _draw(self, generator: torch.Generator, n_columns: int) -> dict[str, Tensor]:
        multiple = torch.randn(n_columns, 1, self.dim, generator=generator, dtype=torch.float64, device="cpu")
        knots = torch.tensor(self.knots, dtype=torch.float64, device="cpu")
        # The weights are the changes over the pieces, the bias is the value at the first knot.
        return {
            f"{PREFIX}.weight": multiple * knots.diff()[:, None],
            f"{PREFIX}.bias": multiple[:, 0] * knots[0],
        }


@lru_cache(maxsize=64)
def _knots(n_pieces: int, evenness: float) -> tuple[float, ...]:
    """Knots that part a mixture of a normal and an even law between −3 and 3 into equal shares."""
    normal = NormalDist()
    below = normal.cdf(-_END)
    if evenness == 0.0:
        shares = (i / n_pieces for i in range(1, n_pieces))
        return (-_END, *(normal.inv_cdf(below + share * (1 - 2 * below)) for share in shares), _END)

    from scipy.optimize import brentq  # heavy

    def share_below(x: float) -> float:
        of_normal = (normal.cdf(x) - below) / (1 - 2 * below)
        return (1.0 - evenness) * of_normal + evenness * (x + _END) / (2 * _END)

    inside = (brentq(lambda x, i=i: share_below(x) - i / n_pieces, -_END, _END) for i in range(1, n_pieces))
    # Rounded, so that they are the same wherever the last bits of the normal law are not.
    return (-_END, *(round(float(x), 9) for x in inside), _END)


# Remembered, since a step that brings numbers from the host can be no CUDA graph.
@lru_cache(maxsize=64)
def _pieces(knots: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    ends = torch.tensor(knots, dtype=torch.float64, device="cpu")
    first, slope = (t.to(device, dtype)[:, None] for t in (ends[:-1], 1 / ends.diff()))
    return first, slope


NUMERIC_EMBEDDINGS: dict[str, type[NumericEmbedding] | None] = {
    "none": None,
    "periodic": PeriodicEmbedding,
    "pbld": PBLDEmbedding,
    "piecewise": PiecewiseEmbedding,
}

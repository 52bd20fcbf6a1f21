"""The tabular net: embeddings, a trunk of dense layers and a linear head, all carrying the member axis."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property, partial
from itertools import accumulate, pairwise
from numbers import Integral

import torch
from torch import Tensor

from inna_tune.nets.activations import ACTIVATIONS, Activation
from inna_tune.nets.categorical import CategoricalEmbedding
from inna_tune.nets.layers import MemberLinear
from inna_tune.nets.linear import NAMES, SCALE, WEIGHT, LinearPath, LinearStart
from inna_tune.nets.numeric import NUMERIC_EMBEDDINGS, PREFIX, NumericEmbedding
from inna_tune.nets.protocol import Matrix, PlainColumns

_BLOCKS = ("plain", "residual")

# Floats of single precision hold every whole number up to here.
_MOST_CODES = 2**24


@dataclass(frozen=True)
class TabularNet:
    """Architecture of a net for tables; the weights live outside.

    A row is ``[n_numeric numeric columns | other columns | one column of codes for each of categories]``. The numeric
    columns may be embedded, the codes always are; the first layer reads both and the other columns as they are.

    Parameters
    ----------
    in_features : int
        Width of the encoded table.
    hidden_layer_sizes : tuple of int
        Widths of the hidden layers; empty means a linear head on the embeddings. With residual blocks the first is the
        width of the trunk and each further one that inside a block.
    out_features : int
        Number of classes, or of regression targets.
    n_numeric : int, default=0
        How many leading columns are numeric.
    categories : tuple of int, default=()
        Number of codes of each of the last ``len(categories)`` columns, which hold whole numbers from 0 on.
    numeric_embedding : {"none", "periodic", "pbld", "piecewise"}, default="none"
        What the numeric columns go through, see ``inna_tune.nets.numeric``.
    embedding_dim : int, default=4
        Outputs of an embedded numeric column (with "pbld" the number itself is one of them).
    n_frequencies : int, default=16
        Frequencies of an embedded numeric column, or linear pieces ("piecewise").
    frequency_scale : float, default=0.1
        Standard deviation of the initial frequencies, in periods per unit. These three defaults are RealMLP's.
    evenness : float, default=0.0
        From 0 to 1, where the ends of linear pieces lie: as a normal law has numbers, or evenly.
    block : {"plain", "residual"}, default="plain"
        What the hidden layers form, see the Notes.
    activation : {"relu", "gelu", "silu", "mish", "selu"}, default="relu"
    linear_path : bool, default=False
        Whether there is a linear model beside the trunk, see `inna_tune.nets.linear.LinearPath`.

    Raises
    ------
    ValueError
        If an argument makes no sense.

    Notes
    -----
    A plain trunk is h ← φ(W h + b), layer by layer. A residual trunk is h = W x + b, then in each block
    h ← h + V φ(W h + b) + c, and φ(h) before the head: the identity path is linear throughout (He et al., "Identity
    Mappings in Deep Residual Networks", 2016). V starts at zero, so the net starts as that with one hidden layer: its
    outputs do not grow with depth, and the curvature that sets INNA's step grows half as fast as a plain trunk's, which
    normalisation layers would otherwise have to see to (Zhang, Dauphin and Ma, "Fixup Initialization", 2019). With one
    hidden layer both are the same net.
    """

    in_features: int
    hidden_layer_sizes: tuple[int, ...]
    out_features: int
    _: KW_ONLY
    n_numeric: int = 0
    categories: tuple[int, ...] = ()
    numeric_embedding: str = "none"
    embedding_dim: int = 4
    n_frequencies: int = 16
    frequency_scale: float = 0.1
    block: str = "plain"
    activation: str = "relu"
    linear_path: bool = False
    evenness: float = 0.0

    def __post_init__(self) -> None:
        for name, value, least in (
            ("in_features", self.in_features, 0),
            ("out_features", self.out_features, 1),
            ("n_numeric", self.n_numeric, 0),
            ("embedding_dim", self.embedding_dim, 2 if self.numeric_embedding == "pbld" else 1),
            ("n_frequencies", self.n_frequencies, 1),
            *((f"hidden_layer_sizes[{i}]", h, 1) for i, h in enumerate(self.hidden_layer_sizes)),
            *((f"categories[{i}]", n, 1) for i, n in enumerate(self.categories)),
        ):
            if not _is_whole(value) or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}.")
        for name, choice, choices in (
            ("numeric_embedding", self.numeric_embedding, tuple(NUMERIC_EMBEDDINGS)),
            ("block", self.block, _BLOCKS),
            ("activation", self.activation, tuple(ACTIVATIONS)),
        ):
            if choice not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {choice!r}.")
        if not 0 < self.frequency_scale < math.inf:
            raise ValueError(
                f"frequency_scale must be positive and finite, got {self.frequency_scale}; try 0.1."
            )
        if not 0 <= self.evenness <= 1:
            raise ValueError(f"evenness must lie between 0 and 1, got {self.evenness!r}.")
        for i, n in enumerate(self.categories):
            if n > _MOST_CODES:
                raise ValueError(
                    f"categories[{i}] must be at most 2**24, the codes that a float32 can hold, got {n}. "
                    "Let rare categories share a code."
                )
        if self.n_numeric + len(self.categories) > self.in_features:
            raise ValueError(
                f"n_numeric={self.n_numeric} and {len(self.categories)} categories are more than "
                f"in_features={self.in_features} columns. Make in_features their sum or larger."
            )

    # ------------------------------------------------------------------ parts

    @property
    def n_others(self) -> int:
        """Columns that are neither numeric nor codes."""
        return self.in_features - self.n_numeric - len(self.categories)

    @cached_property
    def numeric(self) -> NumericEmbedding | None:
        """The embedding of the numeric columns, if they have one."""
        kind = NUMERIC_EMBEDDINGS[self.numeric_embedding]
        if kind is None or self.n_numeric == 0:
            return None
        dim = self.embedding_dim - 1 if kind.keeps_numbers else self.embedding_dim
        return kind(self.n_numeric, dim, self.n_frequencies, self.frequency_scale, self.evenness)

    @cached_property
    def categorical(self) -> CategoricalEmbedding | None:
        """The embedding of the codes, if there are any."""
        return CategoricalEmbedding(self.categories) if self.categories else None

    @cached_property
    def linear(self) -> LinearPath | None:
        """The linear model beside the trunk, if there is one."""
        if not self.linear_path:
            return None
        return LinearPath(self.n_numeric, self.n_others, self.categories, self.out_features)

    def linear_outputs(self, parameters: Mapping[str, Tensor]) -> Callable[[Tensor], Tensor] | None:
        """What the linear model of stacked members tells of rows [P, B, in_features]; None where no member has one."""
        if self.linear is None or not self.linear.is_used(parameters):
            return None
        return partial(self.linear, {name: parameters[name].detach() for name in NAMES})

    def needed(self, parameters: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Stacked parameters without the linear model's, where no member has one: calls then do without it."""
        if self.linear is None or self.linear.is_used(parameters):
            return parameters
        return {name: tensor for name, tensor in parameters.items() if name not in NAMES}

    @cached_property
    def layers(self) -> tuple[MemberLinear, ...]:
        """The affine layers, input to output; the last is the head."""
        gain = self._activation.gain
        sizes = self.hidden_layer_sizes
        in_features = sum(len(used) for used in self._used_inputs(self.n_numeric, self.n_others))
        if self.block == "plain" or not sizes:
            widths = [in_features, *sizes, self.out_features]
            shapes = [(a, b, gain) for a, b in pairwise(widths)]
            shapes[-1] = (*shapes[-1][:2], 1.0)
        else:
            shapes = [(in_features, sizes[0], gain)]
            for inner in sizes[1:]:
                # The trunk already has the second moment gain².
                shapes += [(sizes[0], inner, 1.0), (inner, sizes[0], 0.0)]
            shapes.append((sizes[0], self.out_features, 1.0))
        return tuple(MemberLinear(f"layers.{i}", a, b, gain=g) for i, (a, b, g) in enumerate(shapes))

    @property
    def _activation(self) -> Activation:
        return ACTIVATIONS[self.activation]

    def _used_inputs(self, numeric: int, others: int) -> list[Tensor]:
        """For each part of the first layer's input, which of it a member with so many columns really has."""
        columns = [(self.n_numeric, numeric, 1), (self.n_others, others, 1)]
        if self.numeric is not None:
            embedded = (self.n_numeric, numeric, self.numeric.dim)
            columns = [embedded, *columns] if self.numeric.keeps_numbers else [embedded, columns[1]]
        if self.categorical is not None:
            columns.append((len(self.categories), len(self.categories), self.categorical.dim))
        return [torch.arange(total * width, device="cpu") < used * width for total, used, width in columns]

    # ------------------------------------------------------------------ the engine's questions

    @cached_property
    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each parameter of one member, by name, in the order of the flat vector."""
        parts = (self.numeric, self.categorical, *self.layers, self.linear)
        return {
            name: shape for part in parts if part is not None for name, shape in part.parameter_shapes.items()
        }

    @property
    def buffers(self) -> frozenset[str]:
        """The linear model's; all others are trained, frequencies too."""
        return frozenset() if self.linear is None else NAMES

    @property
    def matrices(self) -> dict[str, Matrix]:
        """Weights of all layers but the head."""
        return {
            f"{layer.name}.weight": Matrix((layer.in_features, layer.out_features), 0, is_padded=i == 0)
            for i, layer in enumerate(self.layers[:-1])
        }

    @property
    def scaled(self) -> tuple[str, ...]:
        """Weights of the layers; embeddings have curvatures a hundred times smaller, and gain nothing by a factor."""
        return tuple(f"{layer.name}.weight" for layer in self.layers)

    @property
    def plain_columns(self) -> PlainColumns | None:
        """Those that are neither numeric nor codes."""
        if not self.n_others:
            return None
        numeric = self.n_numeric
        first = numeric if self.numeric is None else self.numeric.width + numeric * self.numeric.keeps_numbers
        return PlainColumns(
            f"{self.layers[0].name}.weight",
            slice(first, first + self.n_others),
            slice(numeric, numeric + self.n_others),
        )

    @property
    def widest(self) -> int:
        """Most numbers that a row has in any layer."""
        embedded = 0 if self.numeric is None else self.numeric.widest
        ends = (width for layer in self.layers for width in (layer.in_features, layer.out_features))
        return max(self.in_features, embedded, *ends, 1)

    @property
    def is_trunk_plain(self) -> bool:
        """Whether behind the embeddings there is nothing but what `ExplicitGradient` computes."""
        return self.block == "plain"

    @property
    def draws(self) -> bool:
        """No: the dropout mask comes from outside."""
        return False

    @property
    def minimum_rows(self) -> int:
        """One."""
        return 1

    @property
    def dropout_width(self) -> int:
        """How many units a row can drop: one column of the dropout mask each, in the order of ``hidden_layer_sizes``."""
        return sum(self.hidden_layer_sizes)

    def initialize(
        self,
        generator: torch.Generator,
        *,
        used_features: tuple[int, int] | int | None = None,
        dtype: torch.dtype = torch.float32,
        linear: LinearStart | None = None,
    ) -> dict[str, Tensor]:
        """Draw one member's initial parameters.

        Parameters
        ----------
        generator : torch.Generator
            The member's own stream, on the CPU.
        used_features : tuple of two int, or int, optional
            How many of the leading numeric columns, and of the leading other columns, are the member's own; the rest is
            padding and must hold zeros. An int counts from the first column of the table on. What is drawn is what a net
            without the padding would draw, and the padding never has any influence: the weights that read it and those
            that read its embedding are both zero, and so are the gradients of both.
        dtype : torch.dtype, default=torch.float32
            Type of the parameters.
        linear : LinearStart, optional
            What the linear model is, where there is one.

        Returns
        -------
        dict of str to Tensor
            Values of the shapes in ``parameter_shapes``.

        Raises
        ------
        ValueError
            If ``used_features`` does not fit the columns.
        """
        numeric, others = self._check_used(used_features)
        values: dict[str, Tensor] = {}
        if self.numeric is not None:
            values |= self.numeric.initialize(generator, n_used=numeric, dtype=dtype)
        if self.categorical is not None:
            values |= self.categorical.initialize(generator, dtype=dtype)
        used: Tensor | None = torch.cat(self._used_inputs(numeric, others))
        for layer in self.layers:
            values |= layer.initialize(generator, used=used, dtype=dtype)
            used = None
        if self.linear is not None:
            values |= (
                self.linear.initialize(dtype)
                if linear is None
                else self.linear.values(linear, (numeric, others), dtype)
            )
        return values

    def _check_used(self, used_features: tuple[int, int] | int | None) -> tuple[int, int]:
        total = (self.n_numeric, self.n_others)
        if used_features is None:
            return total
        if isinstance(used_features, tuple):
            numeric, others = used_features
        else:
            numeric = min(used_features, self.n_numeric)
            others = used_features - numeric
        if not (0 <= numeric <= total[0] and 0 <= others <= total[1]):
            raise ValueError(
                f"used_features={used_features} does not fit {total[0]} numeric and {total[1]} other columns. "
                "Give at most as many of each."
            )
        return numeric, others

    def used_entries(self, used_features: tuple[int, int]) -> Tensor:
        """Which entries of the flat vector of weights are those of a net without the padding, in the same order.

        Parameters
        ----------
        used_features : tuple of two int
            As for `initialize`.

        Returns
        -------
        Tensor of bool, shape [n]
        """
        numeric, others = self._check_used(used_features)
        first = torch.cat(self._used_inputs(numeric, others))
        parts = []
        for name, shape in self.parameter_shapes.items():
            mask = torch.ones(shape, dtype=torch.bool, device="cpu")
            if name.startswith(f"{PREFIX}."):
                mask[numeric:] = False
            elif name == f"{self.layers[0].name}.weight":
                mask[~first] = False
            elif self.linear is not None and name == WEIGHT:
                mask[~self.linear.used_rows((numeric, others))] = False
            parts.append(mask.reshape(-1))
        return torch.cat(parts)

    def inputs(self, parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """What the first layer reads, [P, B, width]."""
        floats = x[..., : self.n_numeric + self.n_others]
        parts = [floats]
        if self.numeric is not None:
            embedded = self.numeric(parameters, x[..., : self.n_numeric].transpose(1, 2)).transpose(1, 2)
            parts = [embedded, floats if self.numeric.keeps_numbers else floats[..., self.n_numeric :]]
        if self.categorical is not None:
            parts.append(self.categorical(parameters, x[..., self.n_numeric + self.n_others :]))
        return parts[0] if len(parts) == 1 else torch.cat(parts, 2)

    def __call__(
        self,
        parameters: Mapping[str, Tensor],
        x: Tensor,
        dropout_mask: Tensor | None = None,
        *,
        training: bool = False,
        counts: Sequence[int] | None = None,
    ) -> Tensor:
        """Outputs of every member on its own batch.

        Parameters
        ----------
        parameters : mapping of str to Tensor
            Stacked parameters, each ``[P, *parameter_shapes[name]]``; those that are `needed` are enough.
        x : Tensor of shape [P, B, in_features]
            Encoded rows.
        dropout_mask : Tensor of shape [P, B, dropout_width], optional
            Factor of every hidden unit, applied behind its activation: 0 or 1 / (1 - rate). None keeps all units.
        training : bool, default=False
            Whether the slope is that by which the trunk learns beside a linear model, see `LinearPath`.
        counts
            Makes no difference here: rows do not meet.

        Returns
        -------
        Tensor of shape [P, B, out_features]
        """
        linear = None if self.linear is None or WEIGHT not in parameters else self.linear(parameters, x)
        x = self.inputs(parameters, x)
        *hidden, head = self.layers
        sizes = self.hidden_layer_sizes
        masks = [
            None if dropout_mask is None else dropout_mask[..., end - size : end]
            for size, end in zip(sizes, accumulate(sizes), strict=True)
        ]

        def activate(z: Tensor, mask: Tensor | None) -> Tensor:
            z = self._activation.function(z)
            return z if mask is None else z * mask

        if self.block == "plain" or not sizes:
            for layer, mask in zip(hidden, masks, strict=True):
                x = activate(layer(parameters, x), mask)
        else:
            x = hidden[0](parameters, x)
            for first, second, mask in zip(hidden[1::2], hidden[2::2], masks[1:], strict=True):
                x = x + second(parameters, activate(first(parameters, x), mask))
            x = activate(x, masks[0])
        output = head(parameters, x)
        if linear is None:
            return output
        return LinearPath.beside(linear, output, parameters[SCALE], training=training)


def _is_whole(value: object) -> bool:
    """Whether a value is an integer, of Python's or numpy's kind."""
    return isinstance(value, Integral)

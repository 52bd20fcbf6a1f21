"""The tabular net: a multi-layer perceptron whose every layer carries the member axis."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from inna_tune.nets.layers import MemberLinear


@dataclass(frozen=True)
class TabularNet:
    """Architecture of a multi-layer perceptron with ReLU and dropout; the weights live outside.

    Parameters
    ----------
    in_features : int
        Width of the encoded table.
    hidden_layer_sizes : tuple of int
        Widths of the hidden layers; empty means a linear model.
    out_features : int
        Number of classes, or of regression targets.
    """

    in_features: int
    hidden_layer_sizes: tuple[int, ...]
    out_features: int

    @cached_property
    def layers(self) -> tuple[MemberLinear, ...]:
        """The affine layers, input to output."""
        widths = (self.in_features, *self.hidden_layer_sizes, self.out_features)
        last = len(widths) - 2
        return tuple(
            MemberLinear(f"layers.{i}", a, b, gain=1.0 if i == last else math.sqrt(2.0))
            for i, (a, b) in enumerate(pairwise(widths))
        )

    @cached_property
    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each parameter of one member, by name, in the order of the flat vector."""
        return {name: shape for layer in self.layers for name, shape in layer.parameter_shapes.items()}

    @property
    def buffers(self) -> frozenset[str]:
        """None: every tensor is trained."""
        return frozenset()

    @property
    def widest(self) -> int:
        """Most numbers that a row has in any layer."""
        return max(self.in_features, self.out_features, *self.hidden_layer_sizes, 1)

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
        """How many units a row can drop: one column of the dropout mask each."""
        return sum(self.hidden_layer_sizes)

    def initialize(
        self,
        generator: torch.Generator,
        *,
        used_features: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> dict[str, Tensor]:
        """Draw one member's initial parameters.

        Parameters
        ----------
        generator : torch.Generator
            The member's own stream, on the CPU.
        used_features : int, optional
            Number of leading input columns that are not padding.
        dtype : torch.dtype, default=torch.float32
            Type of the parameters.

        Returns
        -------
        dict of str to Tensor
            Values of the shapes in ``parameter_shapes``.
        """
        values: dict[str, Tensor] = {}
        for i, layer in enumerate(self.layers):
            values |= layer.initialize(
                generator, used_features=used_features if i == 0 else None, dtype=dtype
            )
        return values

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
            Stacked parameters, each ``[P, *parameter_shapes[name]]``.
        x : Tensor of shape [P, B, in_features]
            Encoded rows.
        dropout_mask : Tensor of shape [P, B, dropout_width], optional
            Factor of every hidden unit: 0 or 1 / (1 - rate). None keeps all units.
        training, counts
            Make no difference here: what differs in training is the mask, and rows do not meet.

        Returns
        -------
        Tensor of shape [P, B, out_features]
        """
        start = 0
        for layer in self.layers[:-1]:
            x = torch.relu(layer(parameters, x))
            if dropout_mask is not None:
                x = x * dropout_mask[..., start : start + layer.out_features]
                start += layer.out_features
        return self.layers[-1](parameters, x)

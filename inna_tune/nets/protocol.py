"""What the engine asks of a net."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Matrix:
    """The weights of a hidden layer.

    Parameters
    ----------
    shape : tuple of two int
    input_axis : int
        Of the layer's inputs: 1 as torch has them, or 0.
    is_padded : bool, default=False
        Whether some of the inputs may be padding, which a member has not.
    """

    shape: tuple[int, int]
    input_axis: int
    is_padded: bool = False


@dataclass(frozen=True)
class PlainColumns:
    """Columns of the table that a layer reads as they are.

    Parameters
    ----------
    name : str
        Of the layer's weights, with the inputs along the first axis.
    inputs : slice
        Which of these inputs the columns are.
    columns : slice
        Which columns of the encoded table.
    """

    name: str
    inputs: slice
    columns: slice


class Net(Protocol):
    """An architecture: it owns no tensors, and maps the stacked weights of P members to stacked outputs."""

    @property
    def in_features(self) -> int:
        """Width of the encoded table."""
        ...

    @property
    def out_features(self) -> int:
        """Number of classes, or of regression targets."""
        ...

    @property
    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor of one member, by name, in the order of the flat vector."""
        ...

    @property
    def buffers(self) -> frozenset[str]:
        """Names among ``parameter_shapes`` that no optimizer steps: running statistics and the like."""
        ...

    @property
    def scaled(self) -> Sequence[str]:
        """Names of the tensors whose steps a factor may scale, from input to output: the weights of the layers."""
        ...

    @property
    def plain_columns(self) -> PlainColumns | None:
        """Columns of levels and the like that the first layer reads as they are, each by a row of weights; None: unknown."""
        ...

    @property
    def matrices(self) -> Mapping[str, Matrix]:
        """The weights of hidden layers among ``parameter_shapes``: what an optimizer of matrices steps."""
        ...

    @property
    def dropout_width(self) -> int:
        """How many units a row can drop: one column of the dropout mask each."""
        ...

    @property
    def widest(self) -> int:
        """Most numbers that a row has in any layer: it bounds the memory of a forward pass."""
        ...

    @property
    def draws(self) -> bool:
        """Whether a forward pass draws from torch's global stream."""
        ...

    @property
    def minimum_rows(self) -> int:
        """Least number of rows of a member in a training batch, where it has any."""
        ...

    def initialize(
        self,
        generator: torch.Generator,
        *,
        used_features: tuple[int, int] | int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> dict[str, Tensor]:
        """One member's initial tensors, drawn from its own stream.

        ``used_features`` says how many of the leading numeric columns and of the leading other columns are the
        member's own (an int counts from the first column of the table on); the rest is padding and holds zeros.
        """
        ...

    def __call__(
        self,
        parameters: Mapping[str, Tensor],
        x: Tensor,
        dropout_mask: Tensor | None = None,
        *,
        training: bool = False,
        counts: Sequence[int] | None = None,
    ) -> Tensor:
        """Outputs [P, B, out] of rows [P, B, in], of which the leading ``counts`` are a member's own.

        In training, buffers may be written in place.
        """
        ...

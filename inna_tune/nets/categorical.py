"""Embeddings of categorical columns: each code becomes a learned vector."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import torch
from torch import Tensor

CATEGORIES = "categories.weight"

# RealMLP's width for every column (Holzmüller et al., 2024), which keeps one table for all columns.
_DIM = 8

_INITIAL_SCALE = 0.1


@dataclass(frozen=True)
class CategoricalEmbedding:
    """One learned vector for each code of each column, all columns in one table.

    Every column's vectors have 8 entries, as in RealMLP, or as many as the largest column has codes where that is
    fewer. They start from N(0, 0.1²): a rare code's vector hardly moves while training, and from a larger start it keeps
    noise (among 20,000 codes of a made-up table, a start from N(0, 1) trebled the validation error; smaller ones than
    0.1 gained nothing on real tables).

    Parameters
    ----------
    categories : tuple of int
        Number of codes of each column, C columns in all.

    Notes
    -----
    Shapes, with ``P`` members, ``B`` rows, ``C`` columns and ``S`` codes in all: weight ``[P, S, dim]``, codes ``[P, B, C]``,
    outputs ``[P, B, C dim]``. A column's codes lie behind those of the columns before it. A code outside its column's
    range is not noticed: it reads another column's vector, or fails.
    """

    categories: tuple[int, ...]

    @property
    def dim(self) -> int:
        """Entries of a vector."""
        return min(_DIM, max(self.categories))

    @property
    def width(self) -> int:
        """Outputs of all columns."""
        return len(self.categories) * self.dim

    @property
    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each parameter of one member, by name."""
        return {CATEGORIES: (sum(self.categories), self.dim)}

    def initialize(
        self, generator: torch.Generator, *, dtype: torch.dtype = torch.float32
    ) -> dict[str, Tensor]:
        """Draw one member's initial vectors from its own stream."""
        drawn = torch.randn(
            self.parameter_shapes[CATEGORIES], generator=generator, dtype=torch.float64, device="cpu"
        )
        return {CATEGORIES: (_INITIAL_SCALE * drawn).to(dtype)}

    def __call__(self, parameters: Mapping[str, Tensor], codes: Tensor) -> Tensor:
        """Outputs [P, B, C dim] of codes [P, B, C], whole numbers stored as floats."""
        n_members, n_rows, n_columns = codes.shape
        index = (codes.long() + self.starts(codes)).view(n_members, n_rows * n_columns, 1)
        # gather reads the members' tables where they lie, views into one tensor of all weights; index_select and
        # functional.embedding would copy them first, 20,000 codes a member.
        vectors = parameters[CATEGORIES].gather(1, index.expand(-1, -1, self.dim))
        return vectors.view(n_members, n_rows, n_columns * self.dim)

    def starts(self, like: Tensor) -> Tensor:
        """First code of each column in the table of all, [C] int64, on the device of ``like``."""
        return first_codes(self.categories, like.device)


# Remembered, since a step that brings numbers from the host can be no CUDA graph.
@lru_cache(maxsize=64)
def first_codes(categories: tuple[int, ...], device: torch.device) -> Tensor:
    """Of each column, where its codes begin among those of all, [C] int64."""
    return torch.tensor([0, *accumulate(categories[:-1])], device=device)

"""Layers that carry the member axis.

A layer here is a description: it owns no tensors. It names its parameters and their shapes for one member,
draws the initial values of one member, and maps the stacked parameters of ``P`` members and a stacked batch
to a stacked output. One member is simply ``P = 1``.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from inna_tune.nets.products import affine


@dataclass(frozen=True)
class MemberLinear:
    """An affine map per member, computed for all members by one ``baddbmm``.

    Parameters
    ----------
    name : str
        Prefix of the parameters' names.
    in_features, out_features : int
        Widths.
    gain : float, default=1.0
        Weights are drawn from N(0, gain² / fan-in); √2 keeps the second moment through a ReLU (He et al., 2015).
        0 starts the map at zero.

    Notes
    -----
    Shapes, with ``P`` members and ``B`` rows: weight ``[P, in, out]``, bias ``[P, 1, out]``,
    input ``[P, B, in]``, output ``[P, B, out]``.
    """

    name: str
    in_features: int
    out_features: int
    gain: float = 1.0

    @property
    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each parameter of one member, by name."""
        return {
            f"{self.name}.weight": (self.in_features, self.out_features),
            f"{self.name}.bias": (1, self.out_features),
        }

    def initialize(
        self,
        generator: torch.Generator,
        *,
        used: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> dict[str, Tensor]:
        """Draw one member's initial parameters.

        Parameters
        ----------
        generator : torch.Generator
            The member's own stream.
        used : Tensor of bool, shape [in_features], optional
            Which inputs this member really has. The rest is padding, made so that members of different widths fit
            one stack: its weights are zero, and what is drawn is what the unpadded layer would draw.
        dtype : torch.dtype, default=torch.float32
            Type of the parameters.
        """
        if used is None:
            used = torch.ones(self.in_features, dtype=torch.bool, device="cpu")
        fan_in = int(used.sum())
        weight = torch.zeros(self.in_features, self.out_features, dtype=dtype, device="cpu")
        # Drawn in float64 and rounded, so that a member starts at the same point in every dtype.
        drawn = torch.randn(fan_in, self.out_features, generator=generator, dtype=torch.float64, device="cpu")
        weight[used] = (self.gain / math.sqrt(max(fan_in, 1)) * drawn).to(dtype)
        return {
            f"{self.name}.weight": weight,
            f"{self.name}.bias": torch.zeros(1, self.out_features, dtype=dtype, device="cpu"),
        }

    def __call__(self, parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Outputs [P, B, out] of inputs [P, B, in]."""
        return affine(parameters[f"{self.name}.bias"], x, parameters[f"{self.name}.weight"])

"""How all members of a population are trained, whatever their own settings."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch

from inna_tune.engine.updates import check_optimizer
from inna_tune.optim.optimizers import DEFAULT, Kind, record_of

Precision = Literal["float32", "tf32", "bf16"]


@dataclass(frozen=True)
class Method:
    """What the members of a population share besides architecture, batch size and epochs.

    Parameters
    ----------
    optimizer : str or subclass of torch.optim.Optimizer
        One of `inna_tune.optim.optimizers.OPTIMIZERS`, or a class of torch, which steps each member by itself.
    optimizer_params : mapping
        Further arguments of the optimizer.
    gradient_clip : float, optional
        Longest gradient of a member, by the Euclidean norm over all its weights.
    longest_step : float, optional
        How far a gradient may carry a member's weights, as a share of their length, by INNA and SGD: see
        `inna_tune.engine.reach`.
    averaging : float, optional
        Decay a step of an exponential average of the weights, in [0, 1): it is what is validated and kept. In the first
        steps the average is shorter, (1 + k) / (10 + k) after k of them.
    precision : str
        "float32"; "tf32" lets matrix products on CUDA round their factors to TF32; "bf16" computes outputs and gradients
        of layers in bfloat16, weights and steps stay float32.
    scale_tensors : bool
        Give every weight matrix a factor of its step by the curvature of its own block of the Hessian, and weights that read
        small columns one by these, where the curvature sets the optimizer's steps; the others know no difference.

    Raises
    ------
    ValueError
        If a value makes no sense.
    """

    optimizer: Kind = DEFAULT
    optimizer_params: Mapping[str, Any] = field(default_factory=dict)
    gradient_clip: float | None = None
    longest_step: float | None = None
    averaging: float | None = None
    precision: Precision = "float32"
    scale_tensors: bool = False

    def __post_init__(self) -> None:
        check_optimizer(self.optimizer, self.optimizer_params)
        if self.gradient_clip is not None and not 0 < self.gradient_clip < float("inf"):
            raise ValueError(f"gradient_clip={self.gradient_clip!r}: must be a positive number, or None.")
        if self.longest_step is not None and not 0 < self.longest_step < float("inf"):
            raise ValueError(f"longest_step={self.longest_step!r}: must be a positive number, or None.")
        if self.averaging is not None and not 0 <= self.averaging < 1:
            raise ValueError(f"averaging={self.averaging!r}: must lie in [0, 1), or be None.")
        if self.precision not in get_args(Precision):
            raise ValueError(
                f"precision={self.precision!r}: must be one of {', '.join(get_args(Precision))}."
            )

    @property
    def is_scaled(self) -> bool:
        """Whether tensors have factors of their steps."""
        return self.scale_tensors and record_of(self.optimizer).is_calibrated

    @property
    def is_plain(self) -> bool:
        """Whether layers compute in the type of the weights."""
        return self.precision != "bf16"


@contextmanager
def matrix_products(precision: Precision, device: torch.device) -> Iterator[None]:
    """Let float32 products on CUDA use TF32 within, if ``precision`` says so; the setting is put back."""
    if precision != "tf32" or device.type != "cuda":
        yield
        return
    settings = torch.backends.cuda.matmul
    before = settings.fp32_precision
    settings.fp32_precision = "tf32"
    try:
        yield
    finally:
        settings.fp32_precision = before

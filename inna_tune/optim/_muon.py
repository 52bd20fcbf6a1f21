"""Muon for stacked members: the matrices of hidden layers by orthogonalised momentum, all else by AdamW."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from inna_tune.optim._stacked import StackedAdamW

# Rows of so many numbers keep every member's matrix aligned as the first one is, in float32 and float64: products round by
# how their factors lie in memory.
_ALIGNED = 16

_EPS_OF_ADAMW = 1e-8

# The factor of the step, from Jordan's post and from Moonshot's paper, by a matrix's numbers of outputs and inputs.
_FACTORS = {
    "original": lambda outputs, inputs: max(1.0, outputs / inputs) ** 0.5,
    "match_rms_adamw": lambda outputs, inputs: 0.2 * max(outputs, inputs) ** 0.5,
}


class StackedMuon(StackedAdamW):
    """Muon, as torch has it, on the matrices of hidden layers, and AdamW on the rest, with one step size.

    Parameters
    ----------
    rows : sequence of Tensor
        Each [P, n]; changed in place.
    matrices : mapping of int to Matrix
        Which of the rows are such matrices, by their numbers; see `inna_tune.nets.protocol.Matrix`.
    **settings
        ``lr`` and ``weight_decay``, numbers or [P, 1], and all options: ``momentum``, ``nesterov``, ``ns_coefficients``,
        ``ns_steps``, ``eps`` and ``adjust_lr_fn`` as in ``torch.optim.Muon``, ``betas`` of AdamW.

    Raises
    ------
    ValueError
        If an option is out of its range.

    Notes
    -----
    ``adjust_lr_fn`` is "match_rms_adamw" by default, which makes Muon's steps as long as AdamW's, so that one step size does
    for both (Liu et al., "Muon is Scalable for LLM Training", arXiv:2502.16982, 2025). torch computes the products in
    bfloat16; here they have the type of the weights, which makes the same steps on every processor.

    References
    ----------
    K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024.
    """

    def __init__(self, rows: Sequence[Tensor], *, matrices: Mapping[int, Any], **settings: Any) -> None:
        super().__init__(rows, **settings | {"ns_eps": settings["eps"], "eps": _EPS_OF_ADAMW})
        (group,) = self.param_groups
        _check(group)
        adjust = _FACTORS[group["adjust_lr_fn"] or "original"]
        self._matrices = {
            id(row): (matrices[i], _factor(adjust, row, matrices[i]))
            for i, row in enumerate(group["params"])
            if i in matrices
        }

    def _update(
        self, group: dict[str, Any], p: Tensor, grad: Tensor, state: dict[str, Any], moving: Tensor | None
    ) -> None:
        if id(p) not in self._matrices:
            super()._update(group, p, grad, state, moving)
            return
        matrix, factor = self._matrices[id(p)]
        momentum = group["momentum"]
        if "buffer" not in state:
            state["buffer"] = torch.zeros_like(p)
        buffer = state["buffer"]
        fresh = momentum * buffer + (1.0 - momentum) * grad
        buffer.copy_(fresh if moving is None else torch.where(moving, fresh, buffer))
        update = (1.0 - momentum) * grad + momentum * buffer if group["nesterov"] else buffer
        direction = orthogonalized(
            update.view(len(p), *matrix.shape),
            steps=group["ns_steps"],
            coefficients=group["ns_coefficients"],
            eps=group["ns_eps"],
        )
        decay = group["weight_decay"]
        if isinstance(decay, Tensor) or decay != 0.0:
            p.mul_(1.0 - group["lr"] * decay)
        p.sub_(group["lr"] * factor * direction.reshape(p.shape))


def orthogonalized(
    matrices: Tensor,
    *,
    steps: int = 5,
    coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315),
    eps: float = 1e-7,
) -> Tensor:
    """Bring the singular values of matrices near to one, by a Newton–Schulz iteration of the fifth order.

    Parameters
    ----------
    matrices : Tensor of shape [P, rows, columns]
    steps : int
    coefficients : tuple of three floats
        a, b and c: in each step a singular value s becomes as + bs³ + cs⁵.
    eps : float
        Least length by which a matrix is divided before.

    Returns
    -------
    Tensor of shape [P, rows, columns]
        Rows and columns of zeros stay exactly zero. What becomes of a matrix does not depend on the others.
    """
    count, n_rows, n_columns = matrices.shape
    length = matrices.reshape(count, -1).square().sum(1).sqrt().clamp(min=eps)[:, None, None]
    upright = n_rows > n_columns
    small, large = sorted((n_rows, n_columns))
    padded = matrices.new_zeros(count, -(-small // _ALIGNED) * _ALIGNED, -(-large // _ALIGNED) * _ALIGNED)
    padded[:, :small, :large] = (matrices.transpose(1, 2) if upright else matrices) / length
    a, b, c = coefficients
    for _ in range(steps):
        gram = torch.bmm(padded, padded.transpose(1, 2))
        padded = a * padded + torch.bmm(b * gram + c * torch.bmm(gram, gram), padded)
    found = padded[:, :small, :large]
    return found.transpose(1, 2) if upright else found


def _factor(adjust: Any, row: Tensor, matrix: Any) -> Tensor:
    """Factor of each member's step, [P, 1]."""
    sizes = list(matrix.shape)
    outputs = sizes[1 - matrix.input_axis]
    inputs = [sizes[matrix.input_axis]] * len(row)
    if matrix.is_padded:
        # What a member lacks of the inputs has weights of zero, and always will.
        weights = row.detach().view(len(row), *matrix.shape)
        inputs = (weights != 0).any(2 - matrix.input_axis).sum(1).tolist()
    return row.new_tensor([[adjust(outputs, max(1, own))] for own in inputs])


def _check(group: Mapping[str, Any]) -> None:
    """Refuse options that are out of their range."""
    for name, value, low, high in (
        ("momentum", group["momentum"], 0, 1),
        ("eps", group["ns_eps"], 0, 1),
        ("ns_steps", group["ns_steps"], 1, 100),
    ):
        if not low <= value < high:
            raise ValueError(f"{name}={value!r} must lie in [{low}, {high})")
    if len(group["ns_coefficients"]) != 3:
        raise ValueError(f"ns_coefficients={group['ns_coefficients']!r} must be three numbers")
    if (group["adjust_lr_fn"] or "original") not in _FACTORS:
        raise ValueError(
            f"adjust_lr_fn={group['adjust_lr_fn']!r} must be one of {', '.join(_FACTORS)}, or None"
        )

"""The Hessian of a loss by products with vectors, and the largest of its eigenvalues by Lanczos iterations.

A stack of members has as many Hessians: every function here treats each member by itself.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel


def seeds_for(n_members: int, seed: int | Sequence[int]) -> list[int]:
    """One seed a member."""
    seeds = [seed] * n_members if isinstance(seed, int) else list(seed)
    if len(seeds) != n_members:
        raise ValueError(
            f"seed: {len(seeds)} seeds for {n_members} members; pass one for each, or a single int"
        )
    return seeds


def check_iterations(n_iterations: int) -> None:
    """Refuse to measure by no product at all."""
    if n_iterations < 1:
        raise ValueError(f"n_iterations={n_iterations!r} must be at least 1")


def check_loss(loss: object, name: str) -> Tensor:
    """The loss, refused where it has no gradient."""
    if not isinstance(loss, Tensor):
        raise TypeError(f"{name} must be a tensor, got {loss!r}; give the loss itself, not loss.item()")
    if loss.numel() != 1:
        raise ValueError(
            f"{name} must be a scalar, got shape {tuple(loss.shape)}; reduce by .mean(), and over members by .sum()"
        )
    if not loss.requires_grad:
        raise ValueError(
            f"{name} carries no gradient; compute it with `params`, outside of torch.no_grad(), and do not detach it"
        )
    return loss


def slopes_of(loss_fn: Callable[[], Tensor], params: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The gradient, with the graph by which it depends on the parameters."""
    # Of the kernels of attention only the plain one can be differentiated twice.
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        loss = check_loss(loss_fn(), "what loss_fn returns")
        return torch.autograd.grad(loss, params, create_graph=True, allow_unused=True, materialize_grads=True)


class _Given(torch.autograd.Function):
    """A number whose gradient with respect to tensors is what is given."""

    @staticmethod
    def forward(ctx: Any, n_outputs: int, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors[n_outputs:])
        return tensors[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor | None, ...]:
        given = ctx.saved_tensors
        return None, *given, *([None] * len(given))


def pulled_back(
    outputs: Sequence[Tensor],
    params: Sequence[Tensor],
    vectors: Sequence[Tensor],
    *,
    retain_graph: bool = True,
) -> tuple[Tensor | None, ...]:
    """The products of vectors, shaped as the outputs, with the outputs' Jacobians; None where there is no dependence.

    What `torch.autograd.grad` with ``grad_outputs`` finds, which loads all of sympy to compare shapes: that takes longer than
    a small fit.
    """
    if not outputs:
        return (None,) * len(params)
    with torch.enable_grad():
        number = _Given.apply(len(outputs), *outputs, *vectors)  # type: ignore[no-untyped-call]
    return torch.autograd.grad(number, params, retain_graph=retain_graph, allow_unused=True)


def join(tensors: Iterable[Tensor], n_members: int) -> Tensor:
    """Tensors of members [P, ...] as one matrix [P, D]."""
    return torch.cat([tensor.reshape(n_members, -1) for tensor in tensors], dim=1)


def split(matrix: Tensor, params: Sequence[Tensor]) -> list[Tensor]:
    # NOTE: copies, since where a view begins in memory depends on the number of members, and on that how a CPU rounds.
    widths = [param.numel() // len(matrix) for param in params]
    return [
        part.clone(memory_format=torch.contiguous_format).view(param.shape)
        for part, param in zip(torch.split_with_sizes(matrix, widths, dim=1), params, strict=True)
    ]


def start(params: Sequence[Tensor], seeds: Sequence[int]) -> Tensor:
    """Random unit vectors [P, D], each from its own seed: drawn on the CPU, so the same on every device."""
    width = sum(param.numel() for param in params) // len(seeds)
    rows = [torch.randn(width, generator=torch.Generator().manual_seed(seed), device="cpu") for seed in seeds]
    return torch.nn.functional.normalize(torch.stack(rows).to(params[0]), dim=1)


# So few products say nothing: what a random vector has of the steepest direction is next to nothing.
_LEAST_PRODUCTS = 3


def largest_ritz_value(
    matvec: Callable[[Tensor], Tensor],
    start: Tensor,
    n_iterations: int,
    *,
    stop: Callable[[], bool] | None = None,
) -> Tensor:
    """Largest eigenvalue of the Lanczos tridiagonal of P symmetric operators, [P, D] -> [P].

    ``stop`` is asked after every product but the last whether to make do with those so far. What the largest eigenvalue may
    have above the one found is then added, by the norm of what is left of the last product (Zhou, Li (2011), Bounding the
    spectrum of large Hermitian matrices); NaN where there are too few products even for that.
    """
    previous, vector = torch.zeros_like(start), start
    off_diagonal = start.new_zeros(len(start), 1)
    diagonals: list[Tensor] = []
    off_diagonals: list[Tensor] = []
    most, is_cut = min(n_iterations, start.shape[1]), False
    for _ in range(most):
        product = matvec(vector) - off_diagonal * previous
        diagonal = (product * vector).sum(1, keepdim=True)
        if diagonals:
            # A member whose Krylov space is exhausted goes on with zero vectors; its first Rayleigh quotient stands in
            # for their zero eigenvalues, which might exceed all true ones.
            diagonal = torch.where(off_diagonal > 0, diagonal, diagonals[0])
        product = product - diagonal * vector
        off_diagonal = product.norm(dim=1, keepdim=True)
        previous, vector = vector, product / off_diagonal.clamp(min=torch.finfo(start.dtype).tiny)
        diagonals.append(diagonal)
        off_diagonals.append(off_diagonal)
        if stop is not None and len(diagonals) < most and stop():
            is_cut = True
            break
    if is_cut and len(diagonals) < _LEAST_PRODUCTS:
        return torch.full_like(start[:, 0], math.nan)
    tridiagonal = torch.diag_embed(torch.cat(diagonals, 1).double())
    side = (
        torch.diag_embed(torch.cat(off_diagonals[:-1], 1).double(), offset=1) if len(off_diagonals) > 1 else 0
    )
    tridiagonal = (tridiagonal + side).cpu()
    finite = tridiagonal.isfinite().all(dim=(1, 2))
    spectrum = torch.linalg.eigvalsh(torch.where(finite[:, None, None], tridiagonal, 0.0), UPLO="U")
    largest = spectrum[:, -1]
    # An eigenvalue lost in the rounding of the others is a zero, of no sign.
    noise = torch.finfo(start.dtype).eps * spectrum.abs().amax(1)
    largest = torch.where(largest.abs() > noise, largest, 0.0)
    if is_cut:
        largest = largest + off_diagonals[-1][:, 0].double().cpu()
    return torch.where(finite, largest, math.nan).to(start)

"""A step a tensor: the curvature of each tensor's own block of the Hessian, and the factors of INNA's step from it."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from inna_tune.optim._checks import Bound, check_number, trained
from inna_tune.optim._hessian import (
    check_iterations,
    largest_ritz_value,
    pulled_back,
    seeds_for,
    slopes_of,
    start,
)

VECTORS = ("one", "follow", "measure")
STARTS = ("random", "gradient")


def block_curvatures(
    loss_fn: Callable[[], Tensor],
    params: Iterable[Tensor],
    *,
    n_iterations: int = 6,
    seed: int | Sequence[int] = 0,
    first: str = "random",
    member_axis: bool = False,
) -> list[Any]:
    """Largest Hessian eigenvalue of a loss over each tensor alone, the others held where they are.

    Parameters
    ----------
    loss_fn, seed, member_axis
        As for `inna_tune.optim.curvature`; the loss is computed once.
    params : iterable of Tensor
    n_iterations : int, default 6
        Products of a vector with each tensor's block of the Hessian.
    first : {"random", "gradient"}, default "random"
        The first vector. A net's gradient is drawn to the direction of the largest curvature: from it four products find
        as much as six from a random vector (27 weight matrices of nine tables: 98% and more of all but one). Nor does it
        ask for a seed, or know of inputs that are always zero. It may miss the largest curvature where it lies in a
        subspace that the Hessian keeps, as on a quadratic.

    Returns
    -------
    list of float, or of Tensor of shape [P] with `member_axis`
        One for each of `params`; may be zero or negative. NaN for those that require no gradient, and where second
        derivatives do not exist.

    Raises
    ------
    ValueError
        As `inna_tune.optim.curvature`.

    Notes
    -----
    One graph of the gradient serves all blocks. A product with a block walks through that part of it by which the tensor's
    own gradient depends on the tensor: for the last layer that is the last layer alone. One pass for the products of all
    blocks would walk through the whole for each of them, and give products across blocks that nobody wants.

    Examples
    --------
    >>> first, second = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
    >>> loss_fn = lambda: (first**2).sum() + 5 * (second**2).sum() + 100 * first.sum() * second.sum()
    >>> [round(value, 4) for value in block_curvatures(loss_fn, [first, second])]
    [2.0, 10.0]
    """
    check_iterations(n_iterations)
    params = list(params)
    if first not in STARTS:
        raise ValueError(f"first={first!r} must be one of {', '.join(map(repr, STARTS))}")
    varied, n_members = trained(params, member_axis=member_axis)
    seeds = seeds_for(n_members, seed)
    slopes = iter(slopes_of(loss_fn, varied))
    found = [
        _block_curvature(next(slopes), param, seeds if first == "random" else None, n_iterations, n_members)
        if param.requires_grad
        else torch.full((n_members,), math.nan, dtype=varied[0].dtype, device=varied[0].device)
        for param in params
    ]
    return found if member_axis else [values.item() for values in found]


def _block_curvature(
    slope: Tensor, param: Tensor, seeds: Sequence[int] | None, n_iterations: int, n_members: int
) -> Tensor:
    """Of each member, shape [P] (P = 1 without member axis); without seeds from the slope on."""

    def block_times(vectors: Tensor) -> Tensor:
        (product,) = pulled_back([slope], [param], [vectors.view(param.shape)])
        return torch.zeros_like(vectors) if product is None else product.reshape(vectors.shape)

    # A slope that does not vary with the parameters has no graph, which autograd would refuse.
    if not slope.requires_grad or not param.numel():
        return torch.zeros(n_members, dtype=param.dtype, device=param.device)
    try:
        if seeds is None:
            own = slope.detach().reshape(n_members, -1)
            vectors = torch.nn.functional.normalize(own, dim=1, eps=torch.finfo(own.dtype).tiny)
        else:
            vectors = start([param], seeds)
        return largest_ritz_value(block_times, vectors, n_iterations)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        return torch.full((n_members,), math.nan, dtype=param.dtype, device=param.device)


def step_factors(
    loss_fn: Callable[[], Tensor],
    params: Iterable[Tensor],
    *,
    power: float = 1.0,
    vectors: str = "one",
    lowest: float = 1e-3,
    n_iterations: int = 6,
    seed: int | Sequence[int] = 0,
    first: str = "gradient",
    member_axis: bool = False,
) -> list[Any]:
    r"""Factors of INNA's step, one a tensor, that keep the steepest tensors from holding back the others.

    The largest curvature of all tensors together sets INNA's step, and often the last layer sets that curvature. With
    λ_k the curvature of tensor k's own block of the Hessian (`block_curvatures`) and λ₁ that of the first weight matrix,
    tensor k gets the factor

    .. math:: f_k = \min(1, \lambda_1 / \lambda_k)^p .

    `INNA` takes it as a group's ``step_factor``, and `inna_tune.optim.calibrate` all of them as ``step_factors``.

    Parameters
    ----------
    loss_fn, seed, member_axis
        As for `inna_tune.optim.curvature`; the loss is computed once, or not at all where nothing is to be measured.
    params : iterable of Tensor
        From the first layer to the last. A tensor of two dimensions or more, the members' axis not counted, is a weight
        matrix, others are vectors. Those that require no gradient get 1.
    power : float, default 1.0
        p ≥ 0; 1 gives every steeper tensor the first one's curvature, 0 changes nothing.
    vectors : {"one", "follow", "measure"}, default "one"
        Factor of biases and other vectors: 1, that of the matrix before them (1 where there is none), or measured, too.
    lowest : float, default 1e-3
        Least factor, positive and at most 1.
    n_iterations : int, default 6
        Products of a vector with each block, of which the quotient of two curvatures needs fewer than a step needs.
    first : {"gradient", "random"}, default "gradient"
        The vector that each block's products begin with, see `block_curvatures`.

    Returns
    -------
    list of float, or of Tensor of shape [P] with `member_axis`
        One for each of `params`. 1 where a tensor's curvature or the first matrix' is not positive and finite;
        `inna_tune.optim.calibrate` warns of a loss that has none.

    Raises
    ------
    ValueError
        If `power`, `vectors` or `lowest` is out of range, or as `inna_tune.optim.curvature`.

    Notes
    -----
    For the three weight matrices of a 50-256-256-10 net the six products cost 9 gradients of the loss, against 29 of
    `inna_tune.optim.calibrate`, and find 82, 98 and 99% of the curvatures.

    Examples
    --------
    >>> weight, head = torch.ones(2, 3, requires_grad=True), torch.ones(3, 1, requires_grad=True)
    >>> bias = torch.zeros(1, requires_grad=True)
    >>> loss_fn = lambda: (weight**2).sum() + 8 * ((head + bias) ** 2).sum()
    >>> [round(factor, 4) for factor in step_factors(loss_fn, [weight, head, bias])]
    [1.0, 0.125, 1.0]
    """
    params = list(params)
    power = check_number("power", power, Bound(0.0))
    if not 0 < lowest <= 1:
        raise ValueError(f"lowest={lowest!r} must be positive and at most 1; 1e-3 is usual")
    if vectors not in VECTORS:
        raise ValueError(f"vectors={vectors!r} must be one of {', '.join(map(repr, VECTORS))}")
    check_iterations(n_iterations)
    _, n_members = trained(params, member_axis=member_axis)
    ones = [1.0] * n_members
    is_matrix = [param.requires_grad and param.dim() - member_axis >= 2 for param in params]
    measured = [i for i, p in enumerate(params) if is_matrix[i] or (p.requires_grad and vectors == "measure")]
    found: dict[int, list[float]] = {}
    if measured:
        curvatures = block_curvatures(
            loss_fn,
            [params[i] for i in measured],
            n_iterations=n_iterations,
            seed=seed,
            first=first,
            member_axis=member_axis,
        )
        # NOTE: on the host, since a power of a torch tensor may round by the number of members.
        by_tensor = {
            i: values.tolist() if member_axis else [values]
            for i, values in zip(measured, curvatures, strict=True)
        }
        reference = by_tensor[next((i for i in measured if is_matrix[i]), measured[0])]
        for i, own in by_tensor.items():
            found[i] = [_factor(a, b, power, lowest) for a, b in zip(reference, own, strict=True)]
    factors, before = [], ones
    for i in range(len(params)):
        before = found[i] if i in found and is_matrix[i] else before
        factors.append(found.get(i, before if vectors == "follow" and params[i].requires_grad else ones))
    if not member_axis:
        return [values[0] for values in factors]
    return [
        torch.tensor(values, dtype=p.dtype, device=p.device)
        for values, p in zip(factors, params, strict=True)
    ]


def _factor(first: float, own: float, power: float, lowest: float) -> float:
    if not (0 < first < math.inf and 0 < own < math.inf):
        return 1.0
    return float(max(min(1.0, first / own) ** power, lowest))

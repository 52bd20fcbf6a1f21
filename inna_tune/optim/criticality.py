"""How far the generalized gradients of all batches are from cancelling: the stationarity that backpropagation sees."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from inna_tune.optim._checks import trained
from inna_tune.optim._hessian import check_loss


def stationarity(
    loss_per_batch: Iterable[Tensor], params: Iterable[Tensor], *, member_axis: bool = False
) -> Any:
    r"""Norm of the sum, over all batches, of the generalized gradients that backpropagation returns.

    With batches :math:`b` whose losses :math:`J_b` add up to :math:`J`, the norm of :math:`\sum_b g_b`, :math:`g_b` being
    what autograd returns for :math:`J_b` at the present parameters.

    Parameters
    ----------
    loss_per_batch : iterable of Tensor
        The scalar loss of each batch, computed with `params`; each batch once. A generator is best, as it holds one
        batch's graph at a time: ``(loss_fn(model(x), y) for x, y in loader)``. Losses are summed as they are: where each
        is a mean over its batch and the mean over all rows is meant, give every loss times its batch's share of the rows.
    params : iterable of Tensor
        Those that require no gradient are left out.
    member_axis : bool, default False
        Parameters carry a leading axis of P members and each loss is the sum of the members' losses, each of which
        depends on its own slice only.

    Returns
    -------
    float, or Tensor of shape [P] with `member_axis`
        Zero at a point where the generalized gradients cancel; NaN or infinite where one of them is.

    Raises
    ------
    ValueError
        If no parameter requires a gradient, there is no batch, a loss is not a scalar or carries no gradient, or leading
        axes differ in number.

    Notes
    -----
    What it proves. The paper calls a point D-critical if zero lies in :math:`D(\theta) = \sum_b \partial J_b(\theta)`, the
    sum of the batches' generalized gradients, and proves that the limit points of INNA are D-critical. Where autograd
    returns an element of each :math:`\partial J_b`, a value of zero shows that the point is D-critical. Where every
    :math:`J_b` is differentiable, it is :math:`\lVert\nabla J(\theta)\rVert`, and small values mean what they always mean.

    What it does not prove:

    - That the point is critical for :math:`J`. At kinks :math:`D(\theta)` can be larger than the generalized gradient of
      the sum: ``relu(t)`` and ``-relu(-t)`` have the sum :math:`t`, of slope 1, but autograd returns 0 for both at 0. Such
      points are called spurious; studies/paper/spurious.py has examples.
    - That a point with a large value is not critical, or not near to a critical one: autograd returns one element of a set
      that may hold zero, and next to a kink the value does not become small (:math:`|t|` has slope 1 up to 0).
    - That the point is a minimum. Saddle points are critical too.
    - The same for other batches: :math:`D` depends on how the rows are grouped, and on how functions are spelled, since
      autograd returns different elements at the kinks of, say, ``relu(t)`` and ``t.clamp(min=0)``.

    ``.grad`` is not touched. Of a module in training mode, dropout and the statistics of batches are part of the losses;
    those of ``module.eval()`` are what is usually meant.

    References
    ----------
    Castera, Bolte, Févotte, Pauwels (2021). An inertial Newton algorithm for deep learning. JMLR 22(134), section 3.

    Examples
    --------
    >>> point = torch.zeros(1, requires_grad=True)
    >>> stationarity([point.relu().sum(), -(-point).relu().sum()], [point])
    0.0
    >>> stationarity([point.sum()], [point])
    1.0
    """
    params, n_members = trained(params, member_axis=member_axis)
    totals: list[Tensor] | None = None
    # Entered before the first loss is asked for, as a generator computes it only then.
    with torch.enable_grad():
        for number, loss in enumerate(loss_per_batch):
            check_loss(loss, f"loss_per_batch: loss {number}")
            slopes = torch.autograd.grad(loss, params, allow_unused=True, materialize_grads=True)
            # Sums that all but cancel are taken in float32 at least.
            wide = [slope.to(torch.promote_types(slope.dtype, torch.float32)) for slope in slopes]
            # Not in place: what autograd returns may be a view that repeats one number.
            totals = wide if totals is None else [t + s for t, s in zip(totals, wide, strict=True)]
    if totals is None:
        raise ValueError(
            "loss_per_batch: there is no batch; a generator can be used up only once, make a new one"
        )
    norms = torch.stack([total.reshape(n_members, -1).norm(dim=1) for total in totals]).norm(dim=0)
    return norms if member_axis else norms.item()

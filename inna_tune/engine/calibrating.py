"""What the curvature of a population's losses at the initial weights sets: INNA's settings, and a scale a tensor."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

import torch
from torch import Tensor

from inna_tune.engine.batches import Batch
from inna_tune.engine.losses import Loss
from inna_tune.engine.members import Member
from inna_tune.engine.method import Method
from inna_tune.nets import Net, TabularNet
from inna_tune.optim.calibration import calibrate
from inna_tune.optim.dynamics import (
    DAMPING_RATIO,
    STABLE_STEP_RATIO,
    largest_stable_step,
    settings_from_curvature,
)
from inna_tune.optim.factors import step_factors
from inna_tune.optim.optimizers import PURE, record_of

# A product of the Hessian holds the layers of a thousand rows, which of wide tables is a gigabyte a member. Members of whom
# a layer has so many numbers are measured at once, or one alone; it changes nothing, as each is measured by itself.
_AT_ONCE = 2**25

# Steps of an epoch from which friction is a loss's own.
_STEPS_OF_MANY = 32


def measured_at_once(widest: int, n_rows: int) -> int:
    """Members that are measured together, of nets with so many numbers a row in a layer, by so many rows."""
    return max(1, _AT_ONCE // (widest * n_rows))


class Calibrator:
    """Measures members at their present weights, each by its own rows and seed alone.

    Parameters
    ----------
    net : Net
    loss : Loss
    method : Method
    tensors : mapping of str to Tensor
        Everything that the net holds, each [P, *shape]; not changed.
    batch : Batch
        On which the losses are computed.
    seeds : sequence of int
        One a member, of the vectors that the measuring begins with.
    own_stream : callable
        Context in which a net may draw from torch's global stream.
    stop : callable, optional
        Asked after each product of the Hessian whether time is up; see `inna_tune.optim.calibrate`.
    """

    def __init__(
        self,
        net: Net,
        loss: Loss,
        method: Method,
        tensors: Mapping[str, Tensor],
        batch: Batch,
        seeds: Sequence[int],
        own_stream: Callable[[], AbstractContextManager[object]],
        stop: Callable[[], bool] | None = None,
    ) -> None:
        self._net, self._given, self._loss, self._method = net, loss, loss.calibrated_by, method
        self._batch, self._seeds, self._own_stream, self._stop = batch, list(seeds), own_stream, stop
        # The trunk's own curvature: where a linear model is sure of its classes there is none, and the first steps would leave
        # that place.
        self._fixed = {name: tensor.detach() for name, tensor in tensors.items()}
        if isinstance(net, TabularNet) and net.linear is not None:
            self._fixed |= net.linear.nothing(self._fixed)

    def _parts(self) -> list[tuple[slice, "Calibrator"]]:
        """The members by so many as are measured at once; all of them, where time decides how well they are measured."""
        n_members = len(self._seeds)
        n_at_once = measured_at_once(self._net.widest, self._batch.x.shape[-2])
        if n_at_once >= n_members or self._stop is not None or self._net.draws:
            return []
        found = []
        for start in range(0, n_members, n_at_once):
            own = slice(start, start + n_at_once)
            batch = self._batch
            # Copies, since how a CPU rounds depends on where a tensor begins.
            part = replace(
                batch,
                **{
                    name: getattr(batch, name)[own].clone()
                    for name in ("x", "target", "coefficient", "count", "rows")
                },
                counts=batch.counts[own],
                mask=None,
            )
            tensors = {name: tensor[own].clone() for name, tensor in self._fixed.items()}
            calibrator = Calibrator(
                self._net, self._given, self._method, tensors, part, self._seeds[own], self._own_stream
            )
            found.append((own, calibrator))
        return found

    def _leaves(self, names: Sequence[str]) -> dict[str, Tensor]:
        return {name: self._fixed[name].clone().requires_grad_() for name in names}

    def _loss_of(self, leaves: Mapping[str, Tensor]) -> Callable[[], Tensor]:
        # Statistics of the batch belong to the loss that is trained; what is written here are copies.
        training, batch = bool(self._net.buffers), self._batch

        def loss_fn() -> Tensor:
            counts = batch.counts if training else None
            output = self._net({**self._fixed, **leaves}, batch.x, training=training, counts=counts)
            return (self._loss.per_row(output, batch.target) * batch.coefficient).sum()

        return loss_fn

    def factors(self) -> dict[str, Tensor]:
        """Factors of the steps of the net's scaled tensors, each [P, 1]; see `inna_tune.optim.step_factors`."""
        if parts := self._parts():
            measured = [part.factors() for _, part in parts]
            return {name: torch.cat([own[name] for own in measured]) for name in measured[0]}
        leaves = self._leaves(self._net.scaled)
        if not leaves:
            return {}
        # Measured from the gradient on, which is zero in padding; a random first vector would know how wide that is.
        with self._own_stream():
            found = step_factors(self._loss_of(leaves), leaves.values(), member_axis=True)
        return {name: factor[:, None] for name, factor in zip(leaves, found, strict=True)}

    def curvature(self, factors: Mapping[str, Tensor]) -> Tensor:
        """Curvature in the coordinates that the factors stretch, [P, 1]; where there is none what stands in for it.

        Parameters
        ----------
        factors : mapping of str to Tensor
            By name of the tensor [P, *shape], each of as many axes, against which it broadcasts.
        """
        if parts := self._parts():
            n_members = len(self._seeds)
            return torch.cat(
                [
                    part.curvature(
                        {name: f[own] if len(f) == n_members else f for name, f in factors.items()}
                    )
                    for own, part in parts
                ]
            )
        leaves = self._leaves([name for name in self._fixed if name not in self._net.buffers])
        first = next(iter(leaves.values()))
        ones = first.new_ones(len(first))
        with self._own_stream():
            found = calibrate(
                self._loss_of(leaves),
                leaves.values(),
                member_axis=True,
                seed=self._seeds,
                step_factors=[factors.get(n, ones) for n in leaves] if factors else None,
                stop=self._stop,
            )
        return torch.as_tensor(found.curvature, device=first.device).to(first).view(-1, 1)


def usual_friction(loss: Loss, steps: float, damping: float | None = None) -> float:
    """The friction of who names none, in units of the curvature, where an epoch has so many steps.

    Velocity is a mean of the gradients of the last 1/α̃ steps or so. Of more than half an epoch (classes) or one (numbers) a
    mean tells nothing new, and steps overshoot. So it is the loss's own (`Loss.scaled_alpha`) from about 4,000 rows on, and
    rises to `Loss.most_scaled_alpha` where there are fewer. A damping ratio that is given bounds it, so that there is a beta.
    """
    most = min(loss.most_scaled_alpha, DAMPING_RATIO if damping is None else damping)
    return max(loss.scaled_alpha, min(loss.scaled_alpha * _STEPS_OF_MANY / max(steps, 1), most))


def settings_at(
    curvature: Tensor,
    members: Sequence[Member],
    given: Mapping[str, Sequence[float | None]],
    steps: Sequence[int],
    *,
    loss: Loss,
    method: Method,
) -> dict[str, Tensor]:
    """``lr``, ``alpha`` and ``beta`` of members at a curvature, each [P, 1]: as given, else by pure numbers.

    Parameters
    ----------
    curvature : Tensor of shape [P, 1]
    members : sequence of P Member
        Their pure numbers count; those that are None are the usual ones.
    given : mapping of str to sequences of P float or None
        ``lr``, ``alpha`` and ``beta``. What is None follows from the pure numbers. The step of a member that has one is the
        largest that is stable with the friction and damping in use; of others, with the usual ones, whatever is given.
    steps : sequence of P int
        In an epoch; see `usual_friction`.
    loss : Loss
    method : Method

    Raises
    ------
    ValueError
        If a damping ratio asks for a damping that is not positive.
    """

    def column(values: Sequence[float | None], otherwise: float) -> Tensor:
        return curvature.new_tensor([otherwise if v is None else v for v in values])[:, None]

    def said(values: Sequence[float | None]) -> Tensor:
        return torch.tensor([v is not None for v in values], device=curvature.device)[:, None]

    own = {name: [getattr(m, name) for m in members] for name in PURE}
    damping = column(own["damping"], DAMPING_RATIO)
    frictions = [
        usual_friction(loss, own_steps, m.damping) if m.friction is None else m.friction
        for own_steps, m in zip(steps, members, strict=True)
    ]
    friction = column(frictions, math.nan)
    ratio = column(own["step_ratio"], STABLE_STEP_RATIO)
    record = record_of(method.optimizer)
    if record.step_at is not None:
        options = {**record.options, **method.optimizer_params}
        step = record.step_at(curvature, options, ratio)
        lr = torch.where(said(given["lr"]), column(given["lr"], 0.0), step)
        return {"lr": lr} | {name: column(given[name], math.nan) for name in ("alpha", "beta")}
    has_alpha, has_beta = said(given["alpha"]), said(given["beta"])
    # Where beta is given no damping ratio has to be reached.
    reached = torch.where(has_beta, torch.maximum(damping, friction), damping)
    usual = settings_from_curvature(
        curvature, scaled_alpha=friction, damping_ratio=reached, stable_step_ratio=ratio
    )
    alpha = torch.where(has_alpha, column(given["alpha"], 0.0), usual.alpha)
    root = curvature.sqrt()
    of_both = torch.where(has_alpha & said(own["damping"]), (2 * damping - alpha / root) / root, usual.beta)
    beta = torch.where(has_beta, column(given["beta"], 0.0), of_both)
    if not bool((beta > 0).all()):
        i = int((beta <= 0).nonzero()[0, 0])
        raise ValueError(
            f"damping={own['damping'][i]!r}: no beta has this damping ratio with alpha={float(alpha[i]):.4g} at the "
            f"curvature {float(curvature[i]):.4g}; give more than alpha / (2 √curvature)."
        )
    in_use = torch.minimum(largest_stable_step(alpha, beta, ratio * curvature), 2 / alpha)
    is_pure = said(own["step_ratio"]) | said(own["friction"]) | said(own["damping"])
    step = torch.where(is_pure, in_use, usual.lr)
    return {
        "lr": torch.where(said(given["lr"]), column(given["lr"], 0.0), step),
        "alpha": alpha,
        "beta": beta,
    }

"""What the curvature of a population's losses at the initial weights sets: INNA's settings, and a scale a tensor."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from inna_tune.engine.batches import Batch
from inna_tune.engine.losses import Loss
from inna_tune.engine.method import Method
from inna_tune.nets import Net
from inna_tune.optim.calibration import calibrate
from inna_tune.optim.factors import step_factors
from inna_tune.optim.optimizers import record_of


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
    ) -> None:
        self._net, self._loss, self._method = net, loss, method
        self._batch, self._seeds, self._own_stream = batch, list(seeds), own_stream
        self._fixed = {name: tensor.detach() for name, tensor in tensors.items()}

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
        leaves = self._leaves(self._net.scaled)
        if not leaves:
            return {}
        # Measured from the gradient on, which is zero in padding; a random first vector would know how wide that is.
        with self._own_stream():
            found = step_factors(self._loss_of(leaves), leaves.values(), member_axis=True)
        return {name: factor[:, None] for name, factor in zip(leaves, found, strict=True)}

    def settings(self, factors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Curvature in the coordinates that the factors stretch, and the settings that follow from it, each [P, 1]."""
        leaves = self._leaves([name for name in self._fixed if name not in self._net.buffers])
        first = next(iter(leaves.values()))
        ones = first.new_ones(len(first))
        with self._own_stream():
            found = calibrate(
                self._loss_of(leaves),
                leaves.values(),
                member_axis=True,
                seed=self._seeds,
                scaled_alpha=self._loss.scaled_alpha,
                step_factors=[factors[n][:, 0] if n in factors else ones for n in leaves]
                if factors
                else None,
            )
        settings = {
            name: torch.as_tensor(getattr(found, name)).to(first).view(-1, 1)
            for name in ("curvature", "lr", "alpha", "beta")
        }
        record = record_of(self._method.optimizer)
        if record.step_at is not None:
            options = {**record.options, **self._method.optimizer_params}
            settings["lr"] = record.step_at(settings["curvature"], options)
        return settings

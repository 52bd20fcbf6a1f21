"""One training step of a stack of members: outputs, loss, gradients, update."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from torch import Tensor

from inna_tune.engine.batches import Batch
from inna_tune.engine.joined import Joined
from inna_tune.engine.losses import Loss
from inna_tune.engine.members import MemberState
from inna_tune.engine.method import Method
from inna_tune.engine.reach import StepLimit, lengths
from inna_tune.engine.updates import make_updates
from inna_tune.nets import ExplicitGradient, ExplicitInputs, LeanInputs, LinearPath, Net, TabularNet
from inna_tune.nets.linear import SCALE
from inna_tune.optim._hessian import pulled_back
from inna_tune.optim.optimizers import record_of


class Stepping:
    """Steps the stacked tensors of a population in place.

    Parameters
    ----------
    net : Net
    loss : Loss
    tensors : mapping of str to Tensor
        Each [P, *shape].
    method : Method
    settings : mapping of str to Tensor of shape [P, 1]
        ``lr``, ``alpha``, ``beta``, ``weight_decay``.
    factors : mapping of str to Tensor, optional
        Of the gradients, by name of the tensor [P, *shape], each of as many axes, against which it broadcasts; those not named
        have 1.
    label_smoothing : Tensor of shape [P, 1], optional
    stacked : bool
        Whether a single member steps as in company.
    own_stream : callable
        Context in which a net may draw from torch's global stream.
    joined : Joined, optional
        The trained ones of ``tensors`` as one matrix, where they are stepped as one.

    Attributes
    ----------
    is_capturable : bool
        Whether optimizer and net allow a CUDA graph to hold a step.
    """

    def __init__(
        self,
        net: Net,
        loss: Loss,
        tensors: Mapping[str, Tensor],
        method: Method,
        settings: Mapping[str, Tensor],
        *,
        factors: Mapping[str, Tensor] | None = None,
        label_smoothing: Tensor | None,
        stacked: bool,
        own_stream: Callable[[], AbstractContextManager[object]],
        joined: Joined | None = None,
    ) -> None:
        self._joined = joined
        self.net, self.loss, self.method, self.stacked = net, loss, method, stacked
        self.label_smoothing, self._own_stream = label_smoothing, own_stream
        trained = [name for name in tensors if name not in net.buffers]
        n_members = len(next(iter(tensors.values())))
        # One row a member, so that settings of shape [P, 1] fit every tensor.
        own_rows = [tensors[name].detach().view(n_members, -1) for name in trained]
        self.rows = [torch.nn.Parameter(rows) for rows in ([joined.matrix] if joined else own_rows)]
        places: dict[str, Tensor] | None = None
        if joined is not None:
            self.rows[0].grad = torch.zeros_like(joined.matrix)
            places = joined.views(self.rows[0].grad)
        # The passes through a plain trunk are written out, and those of the usual embeddings; autograd computes what is left.
        self._explicit: ExplicitGradient | None = None
        self._inputs: ExplicitInputs | None = None
        self._linear = net.linear_outputs(tensors) if isinstance(net, TabularNet) else None
        explicit: dict[str, Tensor] = {}
        if isinstance(net, TabularNet) and net.is_trunk_plain and method.is_plain:
            self._explicit = ExplicitGradient(net, tensors, places)
            explicit |= self._explicit.gradients
            if ExplicitInputs.is_possible(net):
                self._inputs = (
                    ExplicitInputs(net, tensors) if places is None else LeanInputs(net, tensors, places)
                )
                explicit |= self._inputs.gradients
        self._leaves: dict[str, Tensor] = {}
        self._leaf_rows: list[Tensor] = []
        for i, name in enumerate(trained):
            if name not in explicit:
                self._leaves[name] = tensors[name].detach().requires_grad_()
            if places is not None:
                if name not in explicit:
                    self._leaf_rows.append(places[name])
            elif name in explicit:
                self.rows[i].grad = explicit[name].view(self.rows[i].shape)
            else:
                self._leaf_rows.append(self.rows[i])
        self._named = dict(net.needed(tensors) if isinstance(net, TabularNet) else tensors) | self._leaves
        # INNA with f·g for the gradient is INNA in coordinates that are stretched by the root of f.
        self._scaled: list[tuple[Tensor, tuple[int, ...], Tensor]] = []
        if joined is not None and factors:
            spread = joined.spread(factors)
            self._scaled = [(self.rows[0], tuple(spread.shape), spread)]
        elif factors:
            self._scaled = [
                (rows, tuple(tensors[name].shape), factors[name])
                for name, rows in zip(trained, self.rows, strict=True)
                if name in factors
            ]
        # Those of a module may be written at each step.
        is_still = not (net.draws or (net.buffers and not isinstance(net, TabularNet)))
        self.is_capturable = is_still and record_of(method.optimizer).is_capturable
        matrices = net.matrices
        self._updates = make_updates(
            method.optimizer,
            self.rows,
            settings,
            method.optimizer_params,
            stacked=stacked,
            shapes=[tuple(tensors[name].shape[1:]) for name in trained],
            matrices={i: matrices[name] for i, name in enumerate(trained) if name in matrices},
        )
        self._limit = StepLimit(method, settings, self.rows) if StepLimit.is_asked_for(method) else None
        self._averages = [] if method.averaging is None else [rows.detach().clone() for rows in self.rows]
        self.count = self.rows[0].new_zeros(n_members, 1)

    @property
    def averages(self) -> list[Tensor]:
        """The averaged weights, trained tensors in their order, each [P, n]; empty without averaging."""
        if self._joined is None or not self._averages:
            return self._averages
        return self._joined.parts(self._averages[0])

    def __call__(self, batch: Batch, rate: Any, dropout_mask: Tensor | None) -> Tensor:
        """One step of every member on its batch.

        Parameters
        ----------
        batch : Batch
        rate : Tensor of shape [P, 1], or float for a single member that is not stacked
            Step sizes; where one is 0 the member stays exactly as it is.
        dropout_mask : Tensor of shape [P, B, dropout_width], optional

        Returns
        -------
        Tensor of shape [P]
            The losses of the batch.
        """
        with torch.no_grad():
            loss = self._gradients(batch, dropout_mask)
            for rows, shape, factor in self._scaled:
                if rows.grad is not None:
                    rows.grad.view(shape).mul_(factor)
            if self.method.gradient_clip is not None:
                self._clip(self.method.gradient_clip)
            if self._limit is not None:
                self._limit.hold([rows.grad for rows in self.rows if rows.grad is not None], rate)
            self._updates.step(rate)
            if self.method.averaging is not None:
                self._average(rate, self.method.averaging)
        return loss

    def _gradients(self, batch: Batch, dropout_mask: Tensor | None) -> Tensor:
        """Leave the gradients at ``rows``; the losses, [P]."""
        leaves = list(self._leaves.values())
        if self._explicit is not None and self._inputs is not None:
            output = self._explicit.forward(self._inputs.forward(batch.x), dropout_mask)
            loss, slope = self._loss_and_slope(output, batch)
            read = self._explicit.backward(slope, through=not self._inputs.is_plain)
            if read is not None:
                self._inputs.backward(read)
            return loss
        if self._explicit is not None:
            with torch.enable_grad():
                inputs = cast("TabularNet", self.net).inputs(self._named, batch.x)
            output = self._explicit.forward(inputs.detach(), dropout_mask)
            loss, slope = self._loss_and_slope(output, batch)
            read = self._explicit.backward(slope, through=True)
            slopes = pulled_back([inputs], leaves, [cast("Tensor", read)], retain_graph=False)
            self._keep(cast("Sequence[Tensor]", slopes))
            return loss
        with torch.enable_grad(), self._own_stream():
            with torch.autocast(batch.x.device.type, torch.bfloat16, enabled=not self.method.is_plain):
                output = self.net(self._named, batch.x, dropout_mask, training=True, counts=batch.counts)
            loss = self.loss.per_row(output.to(batch.x.dtype), batch.target, self.label_smoothing)
            loss = (loss * batch.coefficient).sum(1)
            gradients = torch.autograd.grad(loss.sum(), leaves, materialize_grads=True)
        self._keep(gradients)
        return loss.detach()

    def _loss_and_slope(self, output: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The losses, [P], and what the trunk is trained by: their slope, in its own units where it is scaled."""
        rows = batch.target, batch.coefficient, self.label_smoothing
        if self._linear is None:
            return self.loss.with_slope(output, *rows)
        scale = self._named[SCALE]
        loss, slope = self.loss.with_slope(LinearPath.beside(self._linear(batch.x), output, scale), *rows)
        return loss, slope / scale

    def _keep(self, gradients: Sequence[Tensor]) -> None:
        for rows, gradient in zip(self._leaf_rows, gradients, strict=True):
            if self._joined is None:
                rows.grad = gradient.reshape(rows.shape)
            else:
                rows.copy_(gradient)

    def _clip(self, longest: float) -> None:
        gradients = [rows.grad for rows in self.rows if rows.grad is not None]
        length = lengths(gradients)
        # A gradient that is not finite keeps its NaN, so that the member is seen to have diverged.
        factor = (longest / length.clamp(min=torch.finfo(length.dtype).tiny)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(factor)

    def _average(self, rate: Any, decay: float) -> None:
        weights: list[Tensor] = list(self.rows)
        if not isinstance(rate, Tensor):
            count = float(self.count) + (rate != 0)
            self.count.fill_(count)
            share = 0.0 if rate == 0 else 1.0 - min((1.0 + count) / (10.0 + count), decay)
            torch._foreach_lerp_(self._averages, weights, share)
            return
        if self._joined is not None:
            # The same in fewer operations: 1 - (1 + k) / (10 + k) is 9 / (10 + k), and zero where a member stands still.
            moving = rate.sign()
            self.count += moving
            most = 9.0 / max(1.0 - decay, torch.finfo(self.count.dtype).tiny)
            share = moving.mul_(9.0).div_((self.count + 10.0).clamp_(max=most))
            self._averages[0].lerp_(weights[0], share)
            return
        moving = (rate != 0).to(self.count)
        self.count += moving
        shares = (1.0 - ((1.0 + self.count) / (10.0 + self.count)).clamp(max=decay)) * moving
        torch._foreach_lerp_(self._averages, weights, [shares.expand_as(rows) for rows in weights])

    def announce(self, rates: Tensor) -> None:
        """Tell the step sizes of an epoch, [steps, P, 1], before its first step."""
        self._updates.announce(rates)
        if self._limit is not None:
            self._limit.measure(self.rows)
            self._limit.expect(rates)

    def eased(self, settings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What of the settings has changed after an epoch: steps of members that were held too often are shorter."""
        return {} if self._limit is None else self._limit.eased(settings)

    def take(self, member: int) -> tuple[list[dict[str, Any]], list[Tensor], Tensor]:
        """What is remembered of one member: the optimizer's state, averages and their count."""
        one = slice(member, member + 1)
        updates = self._updates.take(member)
        if self._joined is not None:
            updates = self._joined.apart(updates[0])
        return updates, [a[one].clone() for a in self.averages], self.count[one].clone()

    def give(self) -> list[tuple[list[dict[str, Any]], list[Tensor], Tensor]]:
        """What `take` gives of every member, each tensor let go as it is copied; nothing can be stepped after it."""
        self._explicit = self._inputs = None
        for rows in self.rows:
            rows.grad = None
        everyone = range(len(self.count))
        if self._joined is not None:
            return [self.take(member) for member in everyone]
        updates = self._updates.give(len(everyone))
        averages: list[list[Tensor]] = [[] for _ in everyone]
        while self._averages:
            whole = self._averages.pop(0)
            for own, part in zip(averages, whole.split(1), strict=True):  # type: ignore[no-untyped-call]
                own.append(part.clone())
        counts = self.count.split(1)  # type: ignore[no-untyped-call]
        return [(*own, count.clone()) for *own, count in zip(updates, averages, counts, strict=True)]

    def put(self, states: Sequence[MemberState]) -> None:
        """Remember of every member what `take` gave."""
        if all(state.updates for state in states):
            updates = [state.updates for state in states]
            if self._joined is not None:
                updates = [[self._joined.together(own)] for own in updates]
            self._updates.put(updates)
        if self._averages and all(state.averages for state in states):
            averages = [
                torch.cat(parts).to(self.count)
                for parts in zip(*(state.averages for state in states), strict=True)
            ]
            self._averages = averages if self._joined is None else [self._joined.joined(averages)]
            self.count = torch.cat([state.count for state in states]).to(self.count)

    def adopt(self, older: "Stepping", index: Tensor) -> None:
        """Take over what ``older`` remembers of the members at these places.

        Parameters
        ----------
        older : Stepping
            Of the population that this one's members are from.
        index : Tensor of int64, shape [P]
            Their places in it.
        """
        self._updates.adopt(older._updates, index)
        self._averages = [average[index] for average in older._averages]
        self.count = older.count[index]


class Captured:
    """A `Stepping` on CUDA as a graph: one launch a step.

    Parameters
    ----------
    stepping : Stepping
        Stacked, so that it reads nothing on the host.
    batch : Batch
        Sets the shapes; later batches must have them.
    dropout_mask : Tensor, optional
        As for later batches.
    """

    def __init__(self, stepping: Stepping, batch: Batch, dropout_mask: Tensor | None) -> None:
        x, target, coefficient = (t.clone() for t in (batch.x, batch.target, batch.coefficient))
        self._places = [x, target, coefficient]
        self._mask = None if dropout_mask is None else dropout_mask.clone()
        self._rate = stepping.rows[0].new_zeros(len(batch.x), 1)
        own = Batch(x, target, coefficient, batch.count, batch.counts, batch.rows)
        # Steps of size zero warm up what is allocated once, and leave weights and velocities exactly as they are.
        stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                stepping(own, self._rate, self._mask)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._loss = stepping(own, self._rate, self._mask)

    @staticmethod
    def is_possible(stepping: Stepping, device: torch.device) -> bool:
        """Whether a step can be captured: on CUDA, where optimizer and net allow it."""
        return device.type == "cuda" and stepping.stacked and stepping.is_capturable

    def fits(self, batch: Batch) -> bool:
        """Whether a batch has the shape that was captured."""
        return batch.x.shape == self._places[0].shape

    def __call__(self, batch: Batch, rate: Tensor, dropout_mask: Tensor | None) -> Tensor:
        """One step, as by `Stepping`."""
        for place, value in zip(self._places, (batch.x, batch.target, batch.coefficient), strict=True):
            place.copy_(value)
        if self._mask is not None and dropout_mask is not None:
            self._mask.copy_(dropout_mask)
        self._rate.copy_(rate)
        self._graph.replay()
        return self._loss.clone()

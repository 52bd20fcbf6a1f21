"""A population: nets of one architecture, stacked and stepped together.

Every tensor of the net is stacked along a leading axis of members, [P, *shape], each member's part contiguous and at a
multiple of 64 bytes, so that batched products and their gradients need no copies and round alike in any company; a member's
weights as one vector, [n], are put together when they are asked for.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inna_tune import clock
from inna_tune.engine.batches import FULL_VECTORS, Batch, TableTensors, iterate_batches, pad, take
from inna_tune.engine.calibrating import Calibrator, settings_at
from inna_tune.engine.factors import all_factors, column_factors, factors_at
from inna_tune.engine.forward import forward
from inna_tune.engine.initial import begun_at, drawn
from inna_tune.engine.joined import Joined
from inna_tune.engine.losses import Loss
from inna_tune.engine.masks import Masks
from inna_tune.engine.members import Member, MemberState
from inna_tune.engine.method import Method, matrix_products
from inna_tune.engine.rates import learning_rates, steps_of_epoch
from inna_tune.engine.reach import eased_before
from inna_tune.engine.stepping import Captured, Stepping
from inna_tune.engine.threads import is_thin, torch_threads
from inna_tune.nets import Net
from inna_tune.nets.factory import seeded_from
from inna_tune.nets.products import aligned
from inna_tune.optim.optimizers import PURE, record_of

# Rows on which a member's curvature is measured, and on which weights without validation rows are looked at.
_CALIBRATION_ROWS = 1024
# Of those, on which a scale a tensor is: quotients of curvatures ask for less than a step does.
_SCALING_ROWS = 512
_SANITY_ROWS = 256
# Where there is a deadline: what of the time that is left measuring may take, and the numbers that it looks at at once, but
# not fewer rows than so many.
_MEASURING_SHARE, _MEASURED_NUMBERS, _LEAST_ROWS = 0.25, 2**27, 64

_PURE_OF = {natural: pure for pure, natural in PURE.items()}


class Population:
    """The members that train at this moment: their weights, optimizer state and random streams.

    Parameters
    ----------
    net : TabularNet
        Architecture shared by all.
    table : TableTensors
        The encoded rows that all members draw from, on the device of training.
    members : sequence of Member
        At least one.
    loss : Loss
        Training loss.
    batch_size : int
        Shared by all.
    horizon : int
        Epochs over which the cosine law falls to zero.
    method : Method, optional
        Optimizer and the like, shared by all.
    stacked : bool, default=False
        Step a single member in the way that several are stepped. Its results then are, on a CPU, those it has in company
        to the last bit, and a step takes a little longer.
    states : sequence of MemberState, optional
        Where each member stands, to go on with the same training after a break; see `MemberProgress`.
    deadline : float, optional
        Value of `inna_tune.clock` at which training ends. Of a large net the curvature is then measured more coarsely, so
        that time is left to train; None: as well as it can be.

    Attributes
    ----------
    tensors : dict of str to Tensor
        Everything that the net holds, each ``[P, *shape]``.
    settings : dict of str to Tensor of shape [P, 1]
        The members' ``lr``, ``alpha`` and ``beta`` (calibrated where a member left one open), ``weight_decay`` and the
        ``curvature``, NaN where it was not measured.
    factors : dict of str to Tensor of shape [P, 1]
        Factors of the members' steps, by name of the tensor; those not named have 1. See `inna_tune.optim.step_factors`.
    all_factors : dict of str to Tensor
        Those of columns, too, broadcasting against their tensors; see `inna_tune.engine.factors`.
    """

    def __init__(
        self,
        net: Net,
        table: TableTensors,
        members: Sequence[Member],
        loss: Loss,
        *,
        batch_size: int,
        horizon: int,
        method: Method | None = None,
        stacked: bool = False,
        states: Sequence[MemberState] | None = None,
        deadline: float | None = None,
    ) -> None:
        self.net, self.table, self.loss = net, table, loss
        self.method = Method() if method is None else method
        # Decided once: a member that the others leave goes on as it began. Elsewhere than on a CPU it costs nothing, and a
        # graph can hold it.
        self.stacked = stacked or len(members) > 1 or not table.x.is_cpu
        self.members = list(members)
        self.batch_size, self.horizon = batch_size, float(horizon)
        self._stops_measuring: Callable[[], bool] | None = None
        if deadline is not None:
            now = clock.now()
            until = now + _MEASURING_SHARE * max(0.0, deadline - now)
            self._stops_measuring = lambda: clock.now() > until
        device, self.dtype = table.x.device, table.x.dtype
        self.rows = [torch.from_numpy(m.train_rows).to(device) for m in members]
        # Without validation rows some training rows tell whether the weights are still sane: the loss met in training is
        # that of the weights before each step.
        self.watched_rows = [
            torch.from_numpy(m.validation_rows if len(m.validation_rows) else m.train_rows[:_SANITY_ROWS]).to(
                device
            )
            for m in members
        ]
        # Three streams a member, on the CPU so that they are the same on every device.
        seeds = [np.random.SeedSequence(m.seed).generate_state(4, np.uint64) for m in members]
        initial, self.order_streams, self.dropout_streams, calibration = (
            [torch.Generator().manual_seed(int(s[i] >> np.uint64(1))) for s in seeds] for i in range(4)
        )
        starts = [m.start for m in members if m.start is not None] if states is None else list(states)
        if starts and len(starts) < len(members):
            raise ValueError("members: some have a state to go on from and others have none")
        self.tensors = self._laid_out(
            begun_at(net, starts, table.x) if starts else drawn(net, self.members, initial, table.x)
        )
        self.label_smoothing = self._column([m.label_smoothing for m in members])
        self.mean_weight = None
        if table.weight is not None:
            self.mean_weight = torch.stack([take(table.weight, r[None]).mean() for r in self.rows])[:, None]
        with torch_threads(1) if is_thin(net, self.device) else nullcontext():
            self.settings = self._settings(calibration, states)
        self.stepping = self._new_stepping()
        if starts:
            self.stepping.put(starts)
            for start, *streams in zip(starts, self.order_streams, self.dropout_streams, strict=True):
                for stream, state in zip(streams, start.streams, strict=False):
                    stream.set_state(state)

    def __len__(self) -> int:
        return len(self.members)

    @property
    def device(self) -> torch.device:
        """Where the training takes place."""
        return self.table.x.device

    @property
    def flat(self) -> Tensor:
        """The members' weights as vectors, averaged if the method says so; a new tensor [P, n]."""
        return torch.cat([t.reshape(len(self), -1) for t in self._kept.values()], 1)

    def write_flat(self, out: Tensor, index: Tensor | None) -> None:
        """Write them, those of the members at an index or of all, into the same rows of ``out`` [P, n]."""
        start = 0
        for tensor in self._kept.values():
            own = tensor.reshape(len(self), -1)
            place = out[:, start : start + own.shape[1]]
            if index is None:
                place.copy_(own)
            else:
                place[index] = own[index]
            start += own.shape[1]

    @property
    def _kept(self) -> dict[str, Tensor]:
        """The same by name, each [P, *shape]."""
        parts = {name: tensor.detach() for name, tensor in self.tensors.items()}
        for name, average in zip(self._trained, self.stepping.averages, strict=False):
            parts[name] = average.view(parts[name].shape)
        return parts

    def _column(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=self.dtype, device=self.table.x.device)[:, None]

    @property
    def _fills_vectors(self) -> bool:
        return self.stacked and self.device.type == "cpu"

    def _settings(
        self, streams: Sequence[torch.Generator], states: Sequence[MemberState] | None
    ) -> dict[str, Tensor]:
        """What the members say, the open places filled with what is usual, or from the curvature, where that sets them."""
        usual = record_of(self.method.optimizer).usual

        def said(name: str, i: int) -> float | None:
            member = self.members[i]
            if states is not None:
                return states[i].settings[name]
            own: float | None = getattr(member, name)
            if own is not None:
                return own
            if member.start is None:
                return usual.get(name, math.nan)
            by_number = usual.get(name, math.nan) is None and getattr(member, _PURE_OF[name]) is not None
            return None if by_number else member.start.settings[name]

        everyone = range(len(self))
        given = {name: [said(name, i) for i in everyone] for name in ("lr", "alpha", "beta")}
        before = [m.start for m in self.members] if states is None else states
        given["curvature"] = [math.nan if state is None else state.settings["curvature"] for state in before]
        given["weight_decay"] = [m.weight_decay for m in self.members]
        filled = {name: self._column([v or 0.0 for v in values]) for name, values in given.items()}
        is_fresh = states is None and self.members[0].start is None
        self.factors = factors_at(before, filled["lr"])
        is_scaled = self.method.is_scaled and is_fresh
        open_ones = [i for i in everyone if any(values[i] is None for values in given.values())]
        # Those whom one jury judges are nets of one law on rows of one table: what the first measures is theirs, too.
        juries = [member.jury or i for i, member in enumerate(self.members)]
        lead = [juries.index(jury) for jury in juries]
        which = sorted({lead[i] for i in (everyone if is_scaled else open_ones)})
        rows = {}
        for i in which:
            order = torch.randperm(len(self.rows[i]), generator=streams[i], device="cpu")[:_CALIBRATION_ROWS]
            rows[i] = self.rows[i][order.to(self.device)]
        if is_scaled:
            scales = self._calibrator(which, list(rows.values()), _SCALING_ROWS).factors()
            place = torch.tensor([which.index(lead[i]) for i in everyone], device=self.device)
            self.factors = {name: factor[place] for name, factor in scales.items()}
        most = self.loss.column_factor if self.method.is_scaled else 1.0
        columns = column_factors(self.net, self.table, self.rows, most)
        self.all_factors = all_factors(self.net, self.factors, columns)
        if open_ones:
            chosen = torch.tensor(open_ones, device=self.device)
            # Where a member goes on, its curvature is that of its beginning.
            unknown = [i for i in open_ones if math.isnan(given["curvature"][i] or 0.0)]
            if unknown:
                first = sorted({lead[i] for i in unknown})
                its = torch.tensor(first, device=self.device)
                measured = self._calibrator(first, [rows[i] for i in first], _CALIBRATION_ROWS).curvature(
                    {name: factor[its] for name, factor in self.all_factors.items()}
                )
                place = torch.tensor([first.index(lead[i]) for i in unknown], device=self.device)
                filled["curvature"][torch.tensor(unknown, device=self.device)] = measured[place]
            own_steps = self._own_steps()
            found = settings_at(
                filled["curvature"][chosen],
                [self.members[i] for i in open_ones],
                {name: [given[name][i] for i in open_ones] for name in ("lr", "alpha", "beta")},
                [own_steps[i] for i in open_ones],
                loss=self.loss,
                method=self.method,
            )
            for name, values in found.items():
                filled[name][chosen] = values
        return filled | eased_before(before, filled["lr"])

    def factors_of(self, position: int) -> dict[str, float]:
        """Factor of the step of each scaled tensor of the member at a position, by name."""
        return {name: float(factor[position]) for name, factor in self.factors.items()}

    def settings_of(self, position: int) -> dict[str, float]:
        """Step size, friction, damping and curvature of the member at a position, and what became of its step."""
        names = ("lr", "alpha", "beta", "curvature", "eased", "spare")
        return {name: float(self.settings[name][position]) for name in names}

    def _calibrator(self, which: Sequence[int], rows: Sequence[Tensor], most: int) -> Calibrator:
        """Of the members at these positions, by so many of these rows of theirs."""
        index = torch.tensor(which, device=self.device)
        mean_weight = None if self.mean_weight is None else self.mean_weight[index]
        if self._stops_measuring is not None:
            most = min(most, max(_LEAST_ROWS, _MEASURED_NUMBERS // (len(rows) * self.net.widest)))
        rows = [own[:most] for own in rows]
        batches = iterate_batches(self.table, rows, mean_weight, most, full_vectors=self._fills_vectors)
        return Calibrator(
            self.net,
            self.loss,
            self.method,
            {name: tensor.detach()[index] for name, tensor in self.tensors.items()},
            next(iter(batches)),
            [self.members[i].seed for i in which],
            self._own_stream(),
            self._stops_measuring,
        )

    @property
    def _trained(self) -> list[str]:
        """Names of the tensors that are stepped."""
        return [name for name in self.net.parameter_shapes if name not in self.net.buffers]

    def _laid_out(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The same numbers where they are stepped: as one matrix where each operation is a launch."""
        self._joined: Joined | None = None
        if self.stacked and self.device.type != "cpu" and record_of(self.method.optimizer).is_elementwise:
            self._joined = Joined({name: tensors[name] for name in self._trained})
            return tensors | self._joined.views(self._joined.matrix)
        return {name: aligned(tensor) for name, tensor in tensors.items()}

    def _new_stepping(self) -> Stepping:
        """What steps ``tensors`` as they are now."""
        self._masks = Masks(self.net, self.table, self.members, self.dropout_streams, self.batch_size)
        self._captured: Captured | None = None
        return Stepping(
            self.net,
            self.loss,
            self.tensors,
            self.method,
            self.settings,
            factors=self.all_factors,
            label_smoothing=self.label_smoothing
            if any(m.label_smoothing > 0 for m in self.members)
            else None,
            stacked=self.stacked,
            own_stream=self._own_stream(),
            joined=self._joined,
        )

    def learning_rates(self, epoch: int) -> Tensor:
        """Step sizes of one epoch.

        Parameters
        ----------
        epoch : int
            Epochs done.

        Returns
        -------
        Tensor of shape [steps, P, 1]; 0 where a member has no batch left, which leaves it exactly as it is.
        """
        lr = self.settings["lr"] * self.settings["eased"]
        return learning_rates(self.members, self._own_steps(), epoch, lr, self.horizon)

    def _own_steps(self) -> list[int]:
        """Steps of each member in an epoch."""
        return [steps_of_epoch(len(rows), self.batch_size, self.net.minimum_rows) for rows in self.rows]

    def train_epoch(
        self,
        rates: Tensor,
        *,
        deadline: float | None = None,
        after_step: Callable[[], None] | None = None,
        least_steps: int = 0,
    ) -> tuple[Tensor, bool]:
        """Let every member see each of its training rows once.

        Parameters
        ----------
        rates : Tensor of shape [steps, P, 1]
            From ``learning_rates``.
        deadline : float, optional
            Value of `inna_tune.clock` past which no further batch is begun.
        after_step : callable, optional
            Called after every step.
        least_steps : int, default=0
            Made whatever the time is.

        Returns
        -------
        loss : Tensor of shape [P]
            Mean training loss of the rows as they were met.
        completed : bool
            False if the deadline cut the epoch short.
        """
        rows = []
        for own, stream in zip(self.rows, self.order_streams, strict=True):
            rows.append(own[torch.randperm(len(own), generator=stream, device="cpu").to(own.device)])
        numbers = None if self.stacked else rates.flatten().tolist()
        self.stepping.announce(rates)
        batches = iterate_batches(
            self.table,
            rows,
            self.mean_weight,
            self.batch_size,
            self.net.minimum_rows,
            full_vectors=self._fills_vectors,
            masks=self._masks.of_epoch(self._own_steps()),
            mask_width=self._masks.width,
        )
        with matrix_products(self.method.precision, self.device):
            trained = self._steps(batches, rates, numbers, deadline, after_step, least_steps)
        self.settings |= self.stepping.eased(self.settings)
        return trained

    def _steps(
        self,
        batches: Iterable[Batch],
        rates: Tensor,
        numbers: list[float] | None,
        deadline: float | None,
        after_step: Callable[[], None] | None,
        least_steps: int,
    ) -> tuple[Tensor, bool]:
        total, seen = self.table.x.new_zeros(2, len(self))
        completed = True
        losses: list[Tensor] = []
        counts: list[Tensor] = []
        for step, batch in enumerate(batches):
            if deadline is not None and step >= least_steps and clock.now() > deadline:
                completed = False
                break
            rate = rates[step] if numbers is None else numbers[step]
            loss = self._step(batch, rate)
            if self.device.type == "cpu":
                total += loss * batch.count
                seen += batch.count
            else:
                losses.append(loss)
                counts.append(batch.count)
            if after_step is not None:
                after_step()
        if losses:
            count = torch.stack(counts)
            total, seen = (torch.stack(losses) * count).sum(0), count.sum(0)
        return total / (seen if completed else seen.clamp(min=1)), completed

    def _step(self, batch: Batch, rate: Any) -> Tensor:
        """One step of every member on its batch; the batch losses, [P]."""
        mask = self._masks.of(batch)
        if Captured.is_possible(self.stepping, self.device) and batch.x.shape[1] == self.batch_size:
            if self._captured is None or not self._captured.fits(batch):
                self._captured = Captured(self.stepping, batch, mask)
            return self._captured(batch, rate, mask)
        return self.stepping(batch, rate, mask)

    def _own_stream(self) -> Callable[[], AbstractContextManager[object]]:
        """For nets that draw from the global stream: a seed from our own, and the global one put back."""
        # NOTE: not a method of the population, which whatever keeps it would keep alive: its tensors are to go at once.
        return partial(seeded_from, self.dropout_streams[0]) if self.net.draws else nullcontext

    def state(self, position: int, epochs: int) -> MemberState:
        """Where the member at a position stands, ``epochs`` after the population began."""
        return self._state(position, epochs, *self.stepping.take(position))

    def _state(
        self, position: int, epochs: int, updates: list[dict[str, Any]], averages: list[Tensor], count: Tensor
    ) -> MemberState:
        start = self.members[position].start
        return MemberState(
            weights=torch.cat([t.detach()[position].reshape(-1) for t in self.tensors.values()]),
            updates=updates,
            averages=averages,
            count=count,
            epochs=epochs + (0 if start is None else start.epochs),
            settings=self.settings_of(position),
            factors=self.factors_of(position),
            streams=[s[position].get_state() for s in (self.order_streams, self.dropout_streams)],
        )

    def end(self, epochs: int, *, keep_states: bool) -> list[MemberState]:
        """Let all tensors go, since the last members leave; `state` of each of them, if it is wanted.

        Of a large net there is no room for both: each tensor goes as soon as what is kept of it is copied.
        """
        self._captured = None
        remembered = self.stepping.give() if keep_states else []
        del self.stepping
        states = [self._state(i, epochs, *own) for i, own in enumerate(remembered)]
        self.tensors, self._joined = {}, None
        return states

    def watched_outputs(self) -> Tensor:
        """Outputs of the present weights for each member's validation rows (or some training rows), [P, n_max, out]."""
        with torch.no_grad():
            return forward(self.net, self._kept, self.table.x, self.watched_rows)

    def watched_loss(self, output: Tensor) -> Tensor:
        """Mean loss of the ``watched_outputs`` of each member, [P]."""
        index, valid = pad(self.watched_rows, FULL_VECTORS)
        weight = valid.to(self.dtype)
        if self.table.weight is not None:
            weight = weight * take(self.table.weight, index)
        # Rows of weight 0 must not turn an infinite loss into NaN, nor count.
        row_loss = torch.where(weight > 0, self.loss.per_row(output, take(self.table.target, index)), 0.0)
        return (row_loss * weight).sum(1) / weight.sum(1)

    @torch.no_grad()
    def keep(self, positions: Sequence[int]) -> None:
        """Go on with the members at these positions only; the others leave every tensor.

        Parameters
        ----------
        positions : sequence of int
            Positions among the present members, at least one.
        """
        index = torch.tensor(list(positions), device=self.device)
        for name in ("members", "rows", "watched_rows", "order_streams", "dropout_streams"):
            values = getattr(self, name)
            setattr(self, name, [values[i] for i in positions])
        self.settings = {name: column[index] for name, column in self.settings.items()}
        for name in ("factors", "all_factors"):
            setattr(self, name, {n: factor[index] for n, factor in getattr(self, name).items()})
        self.label_smoothing = self.label_smoothing[index]
        if self.mean_weight is not None:
            self.mean_weight = self.mean_weight[index]
        self.tensors = self._laid_out({name: t.detach()[index] for name, t in self.tensors.items()})
        older, self.stepping = self.stepping, self._new_stepping()
        self.stepping.adopt(older, index)

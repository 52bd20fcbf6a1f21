"""One stack of members: early stopping, divergence, best weights, histories."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from inna_tune import clock
from inna_tune.engine.jury import mean_loss, output_together
from inna_tune.engine.members import HISTORY, SCORE, MemberProgress, MemberResult, MemberState, StopReason
from inna_tune.engine.population import Population
from inna_tune.visible import get_logger

logger = get_logger(__name__)

# Losses are of order one by construction (log of the classes, squared error of a standardised target): a member
# beyond this has left for good, though float32 may take some more epochs to say so.
_DIVERGED_LOSS = 1e6


class Stack:
    """A population that trains until each of its members has a reason to stop; `Training` has one or more of them.

    Parameters
    ----------
    population : Population
    places : sequence of int
        By what its members go here, in their order.
    results : dict of int to MemberResult
        What became of each, by place: filled in while they train. Those that are there already are gone on with.
    max_epochs : int
        Every member stops here at the latest.
    keep_states : bool
        Whether results say where training ended, so that it can go on.

    Attributes
    ----------
    active : list of int
        Places of those that still train.
    """

    def __init__(
        self,
        population: Population,
        places: Sequence[int],
        results: dict[int, MemberResult],
        *,
        max_epochs: int,
        keep_states: bool,
    ) -> None:
        self.population, self.active, self._results = population, list(places), results
        self.max_epochs, self._keep_states = max_epochs, keep_states
        self.epoch, self._seconds = 0, 0.0
        self._best = population.flat
        self._has_judges = any(m.jury is not None or m.measure is not None for m in population.members)
        table = population.table
        if self._has_judges and not table.x.is_cpu:
            weight = None if table.weight is None else table.weight.cpu()
            table = replace(table, target=table.target.cpu(), weight=weight)
        # Juries and measures judge on the host.
        self._judged_table = table
        for position, place in enumerate(self.active):
            if (known := results.get(place)) is not None:
                self._go_on_from(position, known)
                continue
            used = population.settings_of(position)
            results[place] = MemberResult(
                weights=None,
                best_epoch=0,
                best_loss=math.inf,
                epochs=0,
                stop_reason="max_epochs",
                lr=used["lr"],
                alpha=used["alpha"],
                beta=used["beta"],
                curvature=None if math.isnan(used["curvature"]) else used["curvature"],
                history={name: [] for name in self._columns(position)},
                step_factors=population.factors_of(position),
                jury=0 if (jury := population.members[position].jury) is None else jury.number,
            )

    def _columns(self, position: int) -> tuple[str, ...]:
        """What is written down of the member at a position in every epoch."""
        member = self.population.members[position]
        is_scored = member.measure is not None and len(member.validation_rows) > 0
        return (*HISTORY, SCORE) if is_scored else HISTORY

    def _go_on_from(self, position: int, known: MemberResult) -> None:
        if known.weights is not None:
            self._best[position] = known.weights.to(self._best)
        history = {name: list(values) for name, values in known.history.items()}
        self._results[self.active[position]] = replace(known, weights=None, history=history)
        self.epoch = known.epochs
        self._seconds = max([self._seconds, *history["seconds"]])

    def progress(self, place: int) -> MemberProgress:
        """How far one that still trains is, at the end of an epoch."""
        state = self.population.state(self.active.index(place), self.epoch)
        return MemberProgress(replace(self._results[place], weights=self.best_weights(place)), state)

    def run(self, until: int, *, deadline: float | None = None, least_until: float | None = None) -> None:
        """Train up to an epoch or a deadline, or until no member is left; ``least_until`` as for `Training.run`."""
        while self.active and self.epoch < until:
            began = clock.now()
            rates = self.population.learning_rates(self.epoch)
            ends, least_steps = deadline, 0
            if deadline is not None and least_until is not None and self.epoch == 0:
                ends, least_steps = max(deadline, least_until), 1
            train_loss, completed = self.population.train_epoch(rates, deadline=ends, least_steps=least_steps)
            outputs = self.population.watched_outputs()
            watched = self.population.watched_loss(outputs)
            told = [train_loss, watched, rates[0].flatten(), *([outputs] if self._has_judges else [])]
            train_loss, watched, first_rates, *outputs_of_all = _on_host(told)
            watched_loss = watched.tolist()
            judged = self._judged(outputs_of_all[0], watched_loss) if outputs_of_all else watched_loss
            self._seconds += clock.now() - began
            self.epoch += 1
            self._record(train_loss.tolist(), watched_loss, judged, first_rates.tolist(), completed=completed)
            if ends != deadline and clock.now() > (deadline or 0.0):
                self._leave(self.active, "time")
        if self.epoch >= self.max_epochs:
            self._leave(self.active, "max_epochs")

    def _judged(self, outputs: Tensor, watched_loss: list[float]) -> list[float]:
        """By what each member is judged: its own loss, what its measure makes of its outputs, or that of its jury."""
        found = list(watched_loss)
        members, population = self.population.members, self.population

        def own(position: int) -> tuple[Tensor, Tensor]:
            rows = torch.from_numpy(members[position].validation_rows)
            return rows, outputs[position, : len(rows)]

        for position, member in enumerate(members):
            if member.measure is not None and member.jury is None and len(member.validation_rows):
                found[position] = member.measure(*own(position))
        for jury in dict.fromkeys(m.jury for m in members if m.jury is not None):
            sane = [p for p, m in enumerate(members) if m.jury is jury and _is_sane(watched_loss[p])]
            if sane:
                index, output = output_together(population.loss, *zip(*(own(p) for p in sane), strict=True))
                measure = members[sane[0]].measure
                if measure is None:
                    together = mean_loss(population.loss, self._judged_table, index, output)
                else:
                    together = measure(index, output)
                found = [together if p in sane else value for p, value in enumerate(found)]
        return found

    def _record(
        self,
        train_loss: list[float],
        watched_loss: list[float],
        judged: list[float],
        rates: list[float],
        *,
        completed: bool,
    ) -> None:
        """Enter one epoch into the books and let those leave who have a reason to."""
        improved: list[int] = []
        leaving: dict[int, StopReason] = {}
        for position, place in enumerate(self.active):
            result = self._results[place]
            settings = self.population.members[position]
            validates = len(settings.validation_rows) > 0
            watched = watched_loss[position]
            result.epochs = self.epoch
            validation_loss = watched if validates else math.nan
            row = (self.epoch, train_loss[position], validation_loss, rates[position], self._seconds)
            for name, value in zip(HISTORY, row, strict=True):
                result.history[name].append(value)
            if SCORE in result.history:
                result.history[SCORE].append(-judged[position])
            if not (_is_sane(train_loss[position]) and _is_sane(watched)):
                leaving[place] = "diverged"
                continue
            if not validates or judged[position] < result.best_loss:
                result.best_loss, result.best_epoch = judged[position], self.epoch
                improved.append(position)
            elif settings.patience is not None and self.epoch - result.best_epoch >= settings.patience:
                leaving[place] = "early_stopping"
            if not completed:
                leaving[place] = "time"
        self._store_best(improved)
        for reason in set(leaving.values()):
            self._leave([p for p, r in leaving.items() if r == reason], reason)

    @torch.no_grad()
    def _store_best(self, positions: list[int]) -> None:
        index = (
            None if len(positions) == len(self.active) else torch.tensor(positions, device=self._best.device)
        )
        if positions:
            self.population.write_flat(self._best, index)

    def _leave(self, places: Iterable[int], reason: StopReason) -> None:
        """Cut members out of the population; their best weights stay in their results."""
        gone = set(places)
        leaving = {position: place for position, place in enumerate(self.active) if place in gone}
        if not leaving:
            return
        keep_states = self._keep_states and reason != "diverged"
        is_last = len(leaving) == len(self.active)
        states: Sequence[MemberState | None] = [None] * len(leaving)
        if is_last:
            states = self.population.end(self.epoch, keep_states=keep_states) or states
        elif keep_states:
            states = [self.population.state(position, self.epoch) for position in leaving]
        for (position, place), state in zip(leaving.items(), states, strict=True):
            result = self._results[place]
            result.stop_reason, result.state = reason, state
            result.weights = self._best[position].clone() if result.best_epoch > 0 else None
        kept = [p for p in range(len(self.active)) if p not in leaving]
        self.active = [self.active[p] for p in kept]
        self._best = self._best[kept]
        if kept:
            self.population.keep(kept)
        logger.debug("epoch %d: members %s left (%s)", self.epoch, sorted(gone), reason)

    def stop(self) -> None:
        """Take all members out, as interrupted."""
        self._leave(self.active, "interrupted")

    def drop(self, places: Iterable[int]) -> None:
        """Take out those of the members that still train."""
        self._leave(places, "dropped")

    def best_weights(self, place: int) -> Tensor | None:
        """Best weights so far of one that still trains, shape [n]; None where no epoch ended finite."""
        return self._best[self.active.index(place)] if self._results[place].best_epoch > 0 else None


def _on_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The same on the CPU, by one wait for the device for all of them."""
    if all(tensor.is_cpu for tensor in tensors):
        return list(tensors)
    together = torch.cat([tensor.reshape(-1) for tensor in tensors]).cpu()
    parts = together.split([tensor.numel() for tensor in tensors])  # type: ignore[no-untyped-call]
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def _is_sane(loss: float) -> bool:
    """Whether a loss is a number that training can come back from; False for NaN."""
    return loss < _DIVERGED_LOSS

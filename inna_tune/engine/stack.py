"""One stack of members: early stopping, divergence, best weights, histories."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from inna_tune import clock
from inna_tune.engine.batches import TableTensors
from inna_tune.engine.losses import Loss
from inna_tune.engine.members import Member, MemberProgress, MemberResult, StopReason
from inna_tune.engine.method import Method
from inna_tune.engine.population import Population
from inna_tune.nets import Net

logger = logging.getLogger(__name__)

# Losses are of order one by construction (log of the classes, squared error of a standardised target): a member
# beyond this has left for good, though float32 may take some more epochs to say so.
_DIVERGED_LOSS = 1e6


class Stack:
    """Members that train as one population until each has a reason to stop.

    Parameters
    ----------
    net : Net
        Architecture shared by all members.
    table : TableTensors
        Encoded rows on the device of training.
    members : sequence of Member
        The members; below they go by their place in this sequence.
    loss : Loss
        Training loss.
    batch_size : int
        Rows in a batch.
    max_epochs : int
        Every member stops here at the latest.
    method : Method, optional
        Optimizer and the like, shared by all.
    stacked : bool
        As for `Population`.
    keep_states : bool
        Whether results say where training ended, so that it can go on.
    progress : sequence of MemberProgress, optional
        How far each member is, all of them equally far and none of them at its end.
    """

    def __init__(
        self,
        net: Net,
        table: TableTensors,
        members: Sequence[Member],
        loss: Loss,
        *,
        batch_size: int,
        max_epochs: int,
        method: Method | None = None,
        stacked: bool = False,
        keep_states: bool = False,
        progress: Sequence[MemberProgress] | None = None,
    ) -> None:
        self.max_epochs, self._keep_states = max_epochs, keep_states
        self.epoch = 0
        self._seconds = 0.0
        states = None if progress is None else [p.state for p in progress if p.state is not None]
        self.population = Population(
            net,
            table,
            members,
            loss,
            batch_size=batch_size,
            horizon=max_epochs,
            method=method,
            stacked=stacked,
            states=states,
        )
        self.active = list(range(len(members)))
        population = self.population
        self.results = [
            MemberResult(
                weights=None,
                best_epoch=0,
                best_loss=float("inf"),
                epochs=0,
                stop_reason="max_epochs",
                lr=float(population.lr[i]),
                alpha=float(population.alpha[i]),
                beta=float(population.beta[i]),
                curvature=None if population.curvature[i].isnan() else float(population.curvature[i]),
                history={"epoch": [], "train_loss": [], "validation_loss": [], "lr": [], "seconds": []},
            )
            for i in self.active
        ]
        self._best = population.flat
        if progress is not None:
            self._go_on_from(progress)

    def _go_on_from(self, progress: Sequence[MemberProgress]) -> None:
        for place, known in enumerate(progress):
            result = known.result
            if result.weights is not None:
                self._best[place] = result.weights.to(self._best)
            self.results[place] = replace(
                result, weights=None, history={name: list(values) for name, values in result.history.items()}
            )
            self.epoch = result.epochs
            self._seconds = max([self._seconds, *result.history["seconds"]])

    def progress(self, member: int) -> MemberProgress:
        """How far a member is, at the end of an epoch."""
        result = replace(self.results[member], weights=self.best_weights(member))
        if member not in self.active:
            return MemberProgress(result, None)
        return MemberProgress(result, self.population.state(self.active.index(member), self.epoch))

    def run(self, until_epoch: int | None = None, *, deadline: float | None = None) -> None:
        """Train up to an epoch, or until no member is left.

        Parameters
        ----------
        until_epoch : int, optional
            Stop after this epoch (counted from the beginning); None means ``max_epochs``.
        deadline : float, optional
            Value of `inna_tune.clock` at which training ends, also inside an epoch.
        """
        until = self.max_epochs if until_epoch is None else min(until_epoch, self.max_epochs)
        while self.active and self.epoch < until:
            began = clock.now()
            rates = self.population.learning_rates(self.epoch)
            train_loss, completed = self.population.train_epoch(rates, deadline=deadline)
            watched_loss = self.population.watched_loss()
            self._seconds += clock.now() - began
            self.epoch += 1
            self._record(
                train_loss.tolist(), watched_loss.tolist(), rates[0].flatten().tolist(), completed=completed
            )
        if self.epoch >= self.max_epochs:
            self._leave((i for i in self.active), "max_epochs")

    def _record(
        self, train_loss: list[float], watched_loss: list[float], rates: list[float], *, completed: bool
    ) -> None:
        """Enter one epoch into the books and let those leave who have a reason to."""
        improved: list[int] = []
        leaving: dict[int, StopReason] = {}
        for position, member in enumerate(self.active):
            result = self.results[member]
            settings = self.population.members[position]
            validates = len(settings.validation_rows) > 0
            watched = watched_loss[position]
            result.epochs = self.epoch
            history = result.history
            history["epoch"].append(self.epoch)
            history["train_loss"].append(train_loss[position])
            history["validation_loss"].append(watched if validates else float("nan"))
            history["lr"].append(rates[position])
            history["seconds"].append(self._seconds)
            if not (_is_sane(train_loss[position]) and _is_sane(watched)):
                leaving[member] = "diverged"
                continue
            if not validates or watched < result.best_loss:
                result.best_loss, result.best_epoch = watched, self.epoch
                improved.append(position)
            elif settings.patience is not None and self.epoch - result.best_epoch >= settings.patience:
                leaving[member] = "early_stopping"
            if not completed:
                leaving[member] = "time"
        self._store_best(improved)
        for reason in set(leaving.values()):
            self._leave((m for m, r in leaving.items() if r == reason), reason)

    @torch.no_grad()
    def _store_best(self, positions: list[int]) -> None:
        flat = self.population.flat
        if len(positions) == len(flat):
            self._best.copy_(flat)
        elif positions:
            index = torch.tensor(positions, device=flat.device)
            self._best[index] = flat[index]

    def _leave(self, members: Iterable[int], reason: StopReason) -> None:
        """Cut members out of the population; their best weights stay in their results."""
        gone = set(members)
        for position, member in enumerate(self.active):
            if member in gone:
                result = self.results[member]
                result.stop_reason = reason
                if self._keep_states and reason != "diverged":
                    result.state = self.population.state(position, self.epoch)
                result.weights = self._best[position].clone() if result.best_epoch > 0 else None
        kept = [p for p, m in enumerate(self.active) if m not in gone]
        if len(kept) == len(self.active):
            return
        self.active = [self.active[p] for p in kept]
        self._best = self._best[kept]
        if kept:
            self.population.keep(kept)
        logger.debug("epoch %d: members %s left (%s)", self.epoch, sorted(gone), reason)

    def stop(self) -> None:
        """Take all members out, as interrupted."""
        self._leave(list(self.active), "interrupted")

    def drop(self, members: Iterable[int]) -> None:
        """Take members out by decision of the caller (pruning).

        Parameters
        ----------
        members : iterable of int
            Places in the sequence given at the beginning; those that have left already are passed over.
        """
        self._leave([m for m in members if m in self.active], "dropped")

    def best_weights(self, member: int) -> Tensor | None:
        """Best weights so far of a member, shape [n]; None where no epoch ended finite."""
        if member not in self.active:
            return self.results[member].weights
        return self._best[self.active.index(member)] if self.results[member].best_epoch > 0 else None


def _is_sane(loss: float) -> bool:
    """Whether a loss is a number that training can come back from; False for NaN."""
    return loss < _DIVERGED_LOSS

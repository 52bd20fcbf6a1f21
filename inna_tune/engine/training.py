"""Training of any number of members: stacked as is quickest, halted at any epoch, taken on again."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import groupby

import torch
from torch import Tensor

from inna_tune import clock
from inna_tune.engine.batches import TableTensors
from inna_tune.engine.losses import Loss
from inna_tune.engine.members import Member, MemberProgress, MemberResult
from inna_tune.engine.method import Method
from inna_tune.engine.population import Population
from inna_tune.engine.stack import Stack
from inna_tune.engine.threads import torch_threads
from inna_tune.engine.width import is_out_of_memory, quickest_layout
from inna_tune.nets import Net
from inna_tune.visible import get_logger

logger = get_logger(__name__)


class Training:
    """Train members until each has a reason to stop; it can be halted at any epoch and go on.

    Parameters
    ----------
    net, table, loss, batch_size, method
        As for `Population`.
    members : sequence of Member
        The members; below they go by their place in this sequence.
    max_epochs : int
        Every member stops here at the latest.
    width : int, optional
        Members in a stack, or more where a `Jury` has more. None: the quickest, by a few timed steps, and as many threads
        as are (`quickest_layout`).
    stacked : bool, default=False
        As for `Population`: a single member as in company, to the last bit.
    keep_states : bool, default=False
        Whether results say where training ended, so that it can go on (`Member.start`).
    progress : sequence of MemberProgress, optional
        What `progress` gave for each member, to go on with their training. Those that have not left are equally far.
    threads : int, optional
        The most threads that torch may use. None: as many as it is set to.
    deadline : float, optional
        Value of `inna_tune.clock` by which `run` is to end: what is measured before training begins then takes a part of that
        time at most.

    Attributes
    ----------
    results : list of MemberResult
        In the order of the members.
    threads : int
        That torch uses while training.
    epoch : int
        Epochs done by those that still train.

    Notes
    -----
    A member's result does not depend on who trains beside it, nor on the width: on a CPU, by one thread and for a
    `TabularNet`, not in one bit. A member whose training or validation loss is no longer finite, or past 1e6, leaves at
    the end of that epoch with the best weights it had. Where memory runs out, the stack is halved and its members train
    again from their seeds, to where they were and on.
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
        width: int | None = None,
        stacked: bool = False,
        keep_states: bool = False,
        progress: Sequence[MemberProgress] | None = None,
        threads: int | None = None,
        deadline: float | None = None,
    ) -> None:
        if width is not None and width < 1:
            raise ValueError(f"width={width!r} must be at least 1, or None for the quickest")
        self.net, self.max_epochs, self.epoch = net, max_epochs, 0
        self.members = list(members)
        self._keep_states, self._progress = keep_states, progress
        self._population = partial(
            Population,
            net,
            table,
            loss=loss,
            batch_size=batch_size,
            horizon=max_epochs,
            method=method,
            stacked=stacked or len(self.members) > 1,
            deadline=deadline,
        )
        self.threads = torch.get_num_threads() if threads is None else threads
        self._results: dict[int, MemberResult] = {}
        if progress is not None:
            self._results = {i: p.result for i, p in enumerate(progress) if p.state is None}
            epochs = {p.result.epochs for p in progress if p.state is not None}
            if len(epochs) > 1:
                raise ValueError(f"progress: the members are at different epochs, {sorted(epochs)}")
            self.epoch = max(epochs, default=max_epochs)
        everyone = [i for i in range(len(self.members)) if i not in self._results]
        self._stacks: list[Stack] = []
        with torch_threads(self.threads):
            if width is None:
                width = 1
                if everyone:
                    width, self.threads = quickest_layout(
                        net,
                        table,
                        [self.members[i] for i in everyone],
                        loss,
                        batch_size=batch_size,
                        method=method,
                        deadline=deadline,
                    )
            for places in self._parts(everyone, width):
                self._add(places)

    def _parts(self, places: Sequence[int], width: int) -> list[list[int]]:
        """Places in parts of at most ``width``; those that one jury judges stay together."""
        parts: list[list[int]] = []
        for _, same in groupby(places, key=lambda place: self.members[place].jury or place):
            own = list(same)
            if parts and len(parts[-1]) + len(own) <= width:
                parts[-1] += own
            else:
                parts.append(own)
        return parts

    def _add(self, places: list[int]) -> None:
        """Stack the members at these places, in as many stacks as memory asks for."""
        states = None
        for place in places:
            self._results.pop(place, None)
        if self._progress is not None:
            known = {place: self._progress[place] for place in places}
            states = [p.state for p in known.values() if p.state is not None]
            self._results |= {place: p.result for place, p in known.items()}
        try:
            stack = Stack(
                self._population(members=[self.members[i] for i in places], states=states),
                places,
                self._results,
                max_epochs=self.max_epochs,
                keep_states=self._keep_states,
            )
        except (RuntimeError, MemoryError) as error:
            self._halve(places, error)
        else:
            self._stacks.append(stack)

    def _halve(self, places: list[int], error: Exception) -> None:
        parts = self._parts(places, -(-len(places) // 2))
        if not is_out_of_memory(error) or len(parts) < 2:
            _say_what_to_do(error)
            raise error
        logger.warning(
            "memory ran out with %d members stacked; going on with half as many at a time", len(places)
        )
        for part in parts:
            self._add(part)

    @property
    def results(self) -> list[MemberResult]:
        """What became of each member so far."""
        return [self._results[place] for place in range(len(self.members))]

    @property
    def active(self) -> list[int]:
        """Places of the members that still train."""
        return sorted(place for stack in self._stacks for place in stack.active)

    def _stack_of(self, member: int) -> Stack | None:
        """The stack in which a member trains; None if it has left."""
        return next((stack for stack in self._stacks if member in stack.active), None)

    def progress(self, member: int) -> MemberProgress:
        """How far a member is; with it another `Training` goes on as if there had been no break."""
        stack = self._stack_of(member)
        return MemberProgress(self._results[member], None) if stack is None else stack.progress(member)

    def run(
        self,
        until_epoch: int | None = None,
        *,
        deadline: float | None = None,
        stop: Callable[[], bool] | None = None,
        shorten: bool = False,
        least_until: float | None = None,
    ) -> None:
        """Train up to an epoch, or until no member is left.

        Parameters
        ----------
        until_epoch : int, optional
            Stop after this epoch (counted from the beginning); None means ``max_epochs``.
        deadline : float, optional
            Value of `inna_tune.clock` at which training ends, also inside an epoch.
        stop : callable, optional
            Asked before every epoch whether to halt, all members equally far.
        shorten : bool, default=False
            Whether the cosine law falls to zero by the deadline, where that comes before ``max_epochs``: weights at a large
            step are worth less than those that have come to rest.
        least_until : float, optional
            Value of the clock until which the first epoch goes on though the deadline has passed, with one step of every
            member whatever the time is: what never had one predicts by chance.
        """
        until = self.max_epochs if until_epoch is None else min(until_epoch, self.max_epochs)
        began, before = clock.now(), self.epoch
        with torch_threads(self.threads):
            # The stacks take turns, so that a deadline finds all members equally far.
            while self.epoch < until and self.active and not (stop is not None and stop()):
                self.epoch += 1
                self._advance(deadline, least_until)
                if shorten and deadline is not None:
                    now = clock.now()
                    fit_in = (deadline - now) * (self.epoch - before) / max(now - began, 1e-9)
                    for stack in self._stacks:
                        horizon = max(self.epoch + fit_in, self.epoch + 1)
                        stack.population.horizon = min(self.max_epochs, horizon)

    def _advance(self, deadline: float | None, least_until: float | None) -> None:
        """Bring every stack to the present epoch; one that does not fit the memory is halved."""
        pending = list(self._stacks)
        while pending:
            stack = pending.pop(0)
            active = list(stack.active)
            try:
                stack.run(self.epoch, deadline=deadline, least_until=least_until)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or len(self._parts(active, 1)) < 2:
                    _say_what_to_do(error)
                    raise
                problem = error
            else:
                continue
            self._stacks.remove(stack)
            # Its memory must be free before that of the halves is asked for.
            del stack
            before = len(self._stacks)
            self._halve(active, problem.with_traceback(None))
            pending += self._stacks[before:]

    def stop(self) -> None:
        """End the training of all, who keep the best they had, as after an interruption."""
        for stack in self._stacks:
            stack.stop()

    def drop(self, members: Iterable[int]) -> None:
        """Take members out by decision of the caller (pruning).

        Parameters
        ----------
        members : iterable of int
            Places in the sequence given at the beginning; those that have left already are passed over.
        """
        gone = set(members)
        for stack in self._stacks:
            stack.drop(gone)

    def best_weights(self, member: int) -> Tensor | None:
        """Best weights so far of a member, shape [n]; None where no epoch ended finite."""
        stack = self._stack_of(member)
        return self._results[member].weights if stack is None else stack.best_weights(member)


def _say_what_to_do(error: BaseException) -> None:
    """Add the remedy to what torch says where memory ran out with nothing left to halve."""
    if is_out_of_memory(error):
        error.add_note(
            "The memory does not hold what cannot be parted: choose a smaller batch_size, smaller hidden_layer_sizes or "
            "another device."
        )

"""How many members to stack: found by timing a few steps, and bounded by memory.

Stacking pays where a step is dominated by what each operation costs whatever its size, and costs nothing but memory until
the tensors of a step no longer fit the caches. Where that lies depends on the machine, the net and the batch, so it is
measured, once a process. What a member learns does not depend on it.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import torch

from inna_tune.engine.batches import TableTensors
from inna_tune.engine.losses import Loss
from inna_tune.engine.members import Member
from inna_tune.engine.population import Population
from inna_tune.nets import Net

# Never more than this share of the memory that is free.
MEMORY_SHARE = 0.25
_MOST = 256
_TIMED_STEPS = 4
# Of widths that are level the widest is taken; where a member takes so much longer, wider stacks are not tried.
_LEVEL, _HOPELESS = 1.03, 1.15

_measured: dict[tuple[object, ...], dict[int, float]] = {}


def stacking_width(
    net: Net, table: TableTensors, members: Sequence[Member], loss: Loss, *, batch_size: int
) -> int:
    """Number of members to train as one stack.

    Parameters
    ----------
    net, table, loss, batch_size
        As for `Population`.
    members : sequence of Member
        Those to be trained; the width is at most their number.

    Returns
    -------
    int
        Of the powers of two and the number of members that whose step takes the least time a member, and whose tensors
        take at most `MEMORY_SHARE` of the free memory; less where the members then fall into stacks of equal width.
    """
    most = min(len(members), _MOST, width_for_memory(net, table, batch_size=batch_size))
    if most <= 1:
        return 1
    device = table.x.device
    threads = torch.get_num_threads()
    key = (net, batch_size, str(device), table.x.dtype, threads, _kind(members))
    seconds = _measured.setdefault(key, {})
    tried: dict[int, float] = {}
    for width in [*(2**i for i in range(most.bit_length()) if 2**i < most), most]:
        if width not in seconds:
            seconds[width] = _seconds_a_member(net, table, members[:width], loss, batch_size)
        tried[width] = seconds[width]
        if tried[width] > _HOPELESS * min(tried.values()):
            break
    best = max(w for w, time_ in tried.items() if time_ <= _LEVEL * min(tried.values()))
    n_stacks = -(-len(members) // best)
    return -(-len(members) // n_stacks)


def width_for_memory(net: Net, table: TableTensors, *, batch_size: int) -> int:
    """Members that `MEMORY_SHARE` of the free memory holds, at least 1."""
    weights = sum(torch.Size(shape).numel() for shape in net.parameter_shapes.values())
    # Weights, velocity, gradient and its passage, best weights; activations and their gradients, a few layers of them.
    numbers = 6 * weights + 8 * batch_size * (net.widest + table.x.shape[1])
    free = _free_bytes(table.x.device)
    return max(1, int(MEMORY_SHARE * free / (numbers * table.x.element_size())))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the host or on a device."""
    # NOTE: torch raises a plain RuntimeError where the host's allocator fails.
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    )


def _kind(members: Sequence[Member]) -> tuple[bool, bool]:
    return any(m.dropout > 0 for m in members), any(m.label_smoothing > 0 for m in members)


def _free_bytes(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    try:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return float("inf")


def _seconds_a_member(
    net: Net, table: TableTensors, members: Sequence[Member], loss: Loss, batch_size: int
) -> float:
    """The quickest of a few steps, divided by the members."""
    few = _TIMED_STEPS * batch_size
    short = [
        replace(m, train_rows=m.train_rows[:few], lr=1e-6, alpha=1.0, beta=1e-3, decay="constant")
        for m in members
    ]
    population = Population(net, table, short, loss, batch_size=batch_size, horizon=1, stacked=True)
    times: list[float] = []
    clock = _clock(table.x.device, times)
    clock()
    population.train_epoch(population.learning_rates(0), after_step=clock)
    return min(after - before for before, after in pairwise(times)) / len(members)


def _clock(device: torch.device, times: list[float]) -> Callable[[], None]:
    def note() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter())

    return note

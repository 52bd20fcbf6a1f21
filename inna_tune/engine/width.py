"""How many members to stack, by how many threads: found by timing a few steps, and bounded by memory.

Stacking pays where a step is dominated by what each operation costs whatever its size, and costs nothing but memory until
the tensors of a step no longer fit the caches. Where that lies depends on the machine, the net and the batch, so it is
measured, once a process, but not of small stacks, which are far below it. What a member learns does not depend on it.
"""

import math
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch

from inna_tune import clock
from inna_tune.engine.batches import TableTensors
from inna_tune.engine.losses import Loss
from inna_tune.engine.members import Member
from inna_tune.engine.method import Method
from inna_tune.engine.population import Population
from inna_tune.engine.threads import is_thin, torch_threads
from inna_tune.nets import Net

_GROUP = Path("/sys/fs/cgroup")
# Never more than this share of the memory that is free.
MEMORY_SHARE = 0.25
_MOST = 256
_TIMED_STEPS = 4
# Of widths that are level the widest is taken; where a member takes so much longer, wider stacks are not tried.
_LEVEL, _HOPELESS = 1.03, 1.15

# A stack with so few numbers in its widest layer takes no longer a member than a narrower one: of 3 to 30 columns, 60 to 900
# rows, 1 to 16 members and 4 to 128 units the widest was the quickest.
_SMALL = 2**19

# Of the time until a deadline, what timing may take before no further layout is tried.
_TIMING_SHARE = 0.1

_measured: dict[tuple[object, ...], dict[int, float]] = {}


class Layout(NamedTuple):
    """How to train: members in a stack, and threads for the operations on it."""

    width: int
    threads: int


def quickest_layout(
    net: Net,
    table: TableTensors,
    members: Sequence[Member],
    loss: Loss,
    *,
    batch_size: int,
    method: Method | None = None,
    deadline: float | None = None,
) -> Layout:
    """Number of members to train as one stack, and of threads.

    Parameters
    ----------
    net, table, loss, batch_size, method
        As for `Population`.
    members : sequence of Member
        Those to be trained; the width is at most their number.
    deadline : float, optional
        Value of `inna_tune.clock` by which they are to be trained: timing ends when a share of that time is spent.

    Returns
    -------
    Layout
        Of all of torch's threads and one, and of the powers of two and the number of members, those with which a step takes
        the least time a member, where tensors take at most `MEMORY_SHARE` of the free memory; less wide where the members
        then fall into stacks of equal width. Small members are all stacked, and nothing is timed but threads. One thread is
        quicker for small nets, and by far where others use the machine: threads that wait for each other wait for the
        slowest.
    """
    present = torch.get_num_threads()
    choices = {1, present} if table.x.device.type == "cpu" else {present}
    most = min(len(members), _MOST, width_for_memory(net, table, batch_size=batch_size))
    if most <= 1 and len(choices) == 1:
        return Layout(1, present)
    widths = [*(2**i for i in range(most.bit_length()) if 2**i < most), most]
    if table.x.is_cpu and most * net.widest * min(batch_size, len(table.x)) <= _SMALL:
        widths = [most]
        if len(choices) == 1:
            return _equal_stacks(len(members), Layout(most, present))
    key = _kind(net, table, members, batch_size, method)
    found: dict[Layout, float] = {}
    until = math.inf
    if deadline is not None:
        now = clock.now()
        until = now + _TIMING_SHARE * (deadline - now)
    # Where there may be no time for more, all threads are tried first if steps are long enough to gain by them.
    for threads in sorted(choices, reverse=deadline is not None and not is_thin(net, table.x.device)):
        seconds = _measured.setdefault((*key, threads), {})
        with torch_threads(threads):
            for width in widths:
                if width not in seconds:
                    if found and clock.now() > until:
                        break
                    seconds[width] = _seconds_a_member(
                        net, table, members[:width], loss, batch_size, method, until
                    )
                found[Layout(width, threads)] = seconds[width]
                if seconds[width] > _HOPELESS * min(found.values()):
                    break
    level = _LEVEL * min(found.values())
    return _equal_stacks(len(members), max(layout for layout, time_ in found.items() if time_ <= level))


def _equal_stacks(n_members: int, layout: Layout) -> Layout:
    """The same with as many stacks, of a width that is as equal as can be."""
    n_stacks = -(-n_members // layout.width)
    return Layout(-(-n_members // n_stacks), layout.threads)


def seconds_a_step(
    net: Net,
    table: TableTensors,
    member: Member,
    loss: Loss,
    *,
    batch_size: int,
    method: Method | None,
    deadline: float,
) -> float:
    """Seconds of a member's step alone, by as many threads as torch has; parameters as for `quickest_layout`."""
    seconds = _measured.setdefault(
        (*_kind(net, table, [member], batch_size, method), torch.get_num_threads()), {}
    )
    if 1 not in seconds:
        now = clock.now()
        until = now + _TIMING_SHARE * (deadline - now)
        seconds[1] = _seconds_a_member(net, table, [member], loss, batch_size, method, until)
    return seconds[1]


def _kind(
    net: Net, table: TableTensors, members: Sequence[Member], batch_size: int, method: Method | None
) -> tuple[object, ...]:
    """What steps of a width take alike long by."""
    drawn = (any(m.dropout > 0 for m in members), any(m.label_smoothing > 0 for m in members))
    return net, batch_size, str(table.x.device), table.x.dtype, repr(method), drawn


def width_for_memory(net: Net, table: TableTensors, *, batch_size: int) -> int:
    """Members that `MEMORY_SHARE` of the free memory holds, at least 1."""
    weights = sum(torch.Size(shape).numel() for shape in net.parameter_shapes.values())
    # Weights, velocity, gradient and its passage, best weights; activations and their gradients, a few layers of them.
    numbers = 6 * weights + 8 * batch_size * (net.widest + table.x.shape[1])
    free = free_bytes(table.x.device)
    return max(1, int(MEMORY_SHARE * free / (numbers * table.x.element_size())))


# How a plain RuntimeError says it: torch's of the host, CUDA's own, and of the libraries that ask CUDA themselves.
_NO_MEMORY = ("DefaultCPUAllocator", "CUDA error: out of memory", "STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the host or on a device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    if not isinstance(error, RuntimeError):
        return False
    # A graph that could not be captured for want of memory complains of the capture.
    behind = error.__context__ if "captur" in str(error) else None
    return any(words in str(error) for words in _NO_MEMORY) or (
        behind is not None and is_out_of_memory(behind)
    )


def free_bytes(device: torch.device) -> float:
    """Memory that can still be had, of a device or of the host; infinite where nobody tells.

    Of the host that is what the kernel can free as well, such as files that it remembers, and no more than what is left to
    the container.
    """
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    return min(_available(), _left_to_the_group())


def total_bytes(device: torch.device) -> float:
    """Memory that there is, free or not, of a device or of the host with what it swaps to; infinite where nobody tells."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[1])
    whole = math.inf
    with suppress(OSError, ValueError, KeyError, IndexError):
        told = _kernels_memory()
        whole = told["MemTotal"] + told["SwapTotal"]
    with suppress(OSError, ValueError):
        whole = min(whole, _limit_of_the_group())
    return whole


def _kernels_memory() -> dict[str, float]:
    """What Linux tells of its memory, by name, in bytes."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return {line.split(":")[0]: 1024.0 * float(line.split()[1]) for line in lines}


def _available() -> float:
    with suppress(OSError, ValueError, IndexError, KeyError):
        return _kernels_memory()["MemAvailable"]
    try:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return math.inf


def _limit_of_the_group(folder: Path = _GROUP) -> float:
    """The limit of a container (control groups, version 2); a ValueError or an OSError says that there is none."""
    return float((folder / "memory.max").read_text(encoding="ascii"))


def _left_to_the_group(folder: Path = _GROUP) -> float:
    """What the limit of a container leaves."""
    with suppress(OSError, ValueError):
        most = _limit_of_the_group(folder)
        used = float((folder / "memory.current").read_text(encoding="ascii"))
        told = dict(
            line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines()
        )
        return max(0.0, most - used + float(told.get("inactive_file", 0)))
    return math.inf


def _seconds_a_member(
    net: Net,
    table: TableTensors,
    members: Sequence[Member],
    loss: Loss,
    batch_size: int,
    method: Method | None = None,
    until: float = math.inf,
) -> float:
    """The quickest of a few steps, divided by the members; of one step where it ends after ``until``."""
    few = _TIMED_STEPS * batch_size
    short = [
        replace(m, train_rows=m.train_rows[:few], lr=1e-6, alpha=1.0, beta=1e-3, decay="constant")
        for m in members
    ]
    # What factors of steps are measured by costs more than the steps that are timed, and these are no slower by them.
    plain = None if method is None else replace(method, scale_tensors=False)
    population = Population(
        net, table, short, loss, batch_size=batch_size, horizon=1, method=plain, stacked=True
    )
    times: list[float] = []

    def note() -> None:
        if table.x.device.type == "cuda":
            torch.cuda.synchronize(table.x.device)
        times.append(time.perf_counter())

    note()
    rates = population.learning_rates(0)
    # The first step is made whatever the time is.
    population.train_epoch(rates, after_step=note, deadline=until, least_steps=1)
    return min(after - before for before, after in pairwise(times)) / len(members)

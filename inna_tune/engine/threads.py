"""Torch's number of threads, for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from inna_tune.nets import Net

_THIN = 1024


def is_thin(net: Net, device: torch.device) -> bool:
    """Whether layers are so narrow that threads wait for each other more than they work, and by ten times where others use
    the machine: the curvature of such nets is measured by one."""
    return device.type == "cpu" and net.widest <= _THIN


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Let torch use so many threads within; what it used before is put back."""
    before = torch.get_num_threads()
    if number != before:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        if number != before:
            torch.set_num_threads(before)

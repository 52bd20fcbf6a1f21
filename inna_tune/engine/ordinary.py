"""Tensors that gradients can flow through, wherever they are made."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def ordinary_tensors() -> Iterator[None]:
    """Make ordinary tensors within, also where the caller is in ``torch.inference_mode``, whose tensors no net can train on."""
    if not torch.is_inference_mode_enabled():
        yield
        return
    # Without inference mode torch takes gradients to be wanted: whoever wants some asks for them.
    with torch.inference_mode(False), torch.no_grad():
        yield

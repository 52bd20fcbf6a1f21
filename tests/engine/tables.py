"""Small tables for the engine, drawn from a seed: there is nothing to learn from them, and nothing that needs it."""

import torch

from inna_tune.engine import TableTensors


def make_table(
    n_rows,
    n_numbers,
    *,
    categories=(),
    n_outputs=3,
    dtype=torch.float64,
    weighted=False,
    regression=False,
    device="cpu",
    seed=0,
):
    """Numbers and codes with classes, or as many values, and weights; the same numbers whatever their type."""
    stream = torch.Generator().manual_seed(seed)
    x = torch.randn(n_rows, n_numbers, generator=stream, dtype=torch.float64)
    codes = [torch.randint(n, (n_rows, 1), generator=stream) for n in categories]
    target = torch.randint(n_outputs, (n_rows,), generator=stream)
    if regression:
        target = torch.randn(n_rows, n_outputs, generator=stream, dtype=torch.float64).to(dtype)
    weight = torch.rand(n_rows, generator=stream, dtype=torch.float64).to(dtype) + 0.1 if weighted else None
    x = torch.cat([x, *codes], 1).to(dtype)
    return TableTensors(*(None if tensor is None else tensor.to(device) for tensor in (x, target, weight)))

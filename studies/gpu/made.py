"""What studies/gpu/check.py trains: the default net, members of it, and tables whose numbers are drawn."""

from typing import Any

import numpy as np
import pandas as pd
import torch

from inna_tune.engine import Member, TableTensors
from inna_tune.nets import TabularNet


def tabular_net(
    width: int = 20, hidden: tuple[int, ...] = (256, 256), *, embedding: str = "piecewise"
) -> TabularNet:
    """The default net, of numbers alone."""
    return TabularNet(
        width,
        hidden,
        2,
        n_numeric=width,
        numeric_embedding=embedding,
        n_frequencies=16,
        activation="mish",
    )


def made_table(n_rows: int, width: int = 20, dtype: torch.dtype = torch.float32) -> TableTensors:
    """Made numbers in two classes, on the CPU."""
    stream = torch.Generator().manual_seed(0)
    x = torch.randn(n_rows, width, generator=stream, dtype=torch.float64)
    noise = torch.randn(n_rows, generator=stream, dtype=torch.float64)
    return TableTensors(x.to(dtype), (x[:, 0] * x[:, 1] + x[:, 2] + 0.3 * noise > 0).long())


def made_members(n: int, n_rows: int, **settings: Any) -> list[Member]:
    """Of a made table, each with a tenth to validate on."""
    rows, cut = np.arange(n_rows), n_rows - n_rows // 10
    usual = {"lr": 0.1, "alpha": 0.5, "beta": 0.2, "dropout": 0.05}
    return [Member(rows[:cut], rows[cut:], seed, **usual | settings) for seed in range(n)]


def mixed_table(n_rows: int, width: int) -> tuple[pd.DataFrame, np.ndarray]:
    """A made table: numbers, and for every third column a category; two classes."""
    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {}
    score = rng.normal(size=n_rows)
    for j in range(width):
        if j % 3 == 2:
            codes = rng.integers(3 + j % 11, size=n_rows)
            columns[f"c{j}"] = pd.Categorical.from_codes(codes, [f"level {k}" for k in range(3 + j % 11)])
            score += 0.5 * np.sin(codes)
        else:
            columns[f"x{j}"] = rng.normal(size=n_rows).astype(np.float32)
            score += np.sin(2.0 * columns[f"x{j}"]) * (0.8 if j < 6 else 0.1)
    return pd.DataFrame(columns), np.where(score > np.median(score), "high", "low")

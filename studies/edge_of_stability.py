"""Where INNA works best, in units of the curvature: evidence for the defaults and the priors.

Nets of several widths, with and without periodic embeddings, are trained on real tables with a grid of settings in pure
numbers (α̃, ζ, r of inna_tune.optim.dynamics) and with settings drawn log-uniformly. Four questions are answered:
which random settings survive, how much validation loss each place of the grid costs, how many settings diverge, and how
the curvature moves while training.

    INNA_TUNE_DATA=folder python studies/edge_of_stability.py --jobs 2

Without INNA_TUNE_DATA (a folder of parquet files and index.json) only scikit-learn's bundled tables are used. The
results lie in studies/results: edge_of_stability.csv (a row a setting, means over seeds), edge_of_stability_curvature.csv
(curvature along training), edge_of_stability.png; --report redraws them without training.
"""

import argparse
import json
import math
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from joblib import Parallel, delayed
from sklearn import datasets
from sklearn.metrics import roc_auc_score
from torch import Tensor

from inna_tune.estimators.encoder import DroppedColumnWarning, TableEncoder
from inna_tune.optim import INNA, curvature, is_stable, pure_numbers, settings_from_curvature
from inna_tune.optim import decay_factor

RESULTS = Path(__file__).parent / "results"
BUNDLED = {
    "breast_cancer": ("binary", datasets.load_breast_cancer),
    "digits": ("multiclass", datasets.load_digits),
    "wine": ("multiclass", datasets.load_wine),
    "diabetes": ("regression", datasets.load_diabetes),
}
HIDDEN = {
    "64": (64,),
    "128x3": (128, 128, 128),
    "128x3 periodic": (128, 128, 128),
    "256x2": (256, 256),
}
SCALED_ALPHAS = (0.01, 0.03, 0.1, 0.3)
DAMPING_RATIOS = (0.35, 0.5, 0.75, 0.95, 1.5)
STABLE_STEP_RATIOS = (0.5, 1.0, 2.0, 4.0)
N_RANDOM = 40
CURVATURE_ROWS = 1024
BATCH_SIZE = 128
MEMBERS_AT_ONCE = 40


@dataclass(frozen=True)
class Table:
    """An encoded table, its rows split once."""

    name: str
    task: str
    x: Tensor
    y: Tensor
    x_validation: Tensor
    y_validation: Tensor

    @property
    def n_outputs(self) -> int:
        """Width of the net's output."""
        return 1 if self.task == "regression" else int(max(self.y.max(), self.y_validation.max())) + 1

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of each member, outputs [P, B, out] and targets [P, B] -> [P]."""
        if self.task == "regression":
            return (outputs[..., 0] - targets).square().mean(1)
        return F.cross_entropy(outputs.transpose(1, 2), targets, reduction="none").mean(1)

    @property
    def constant_loss(self) -> float:
        """Training loss of the best constant prediction."""
        if self.task == "regression":
            return float(self.y.var(correction=0))
        shares = torch.bincount(self.y) / len(self.y)
        return float(-torch.xlogy(shares, shares).sum())


def load_table(name: str, n_rows: int) -> Table:
    """A table by name, at most `n_rows` of its rows, a third of them for validation."""
    if name in BUNDLED:
        task, load = BUNDLED[name]
        features, target = load(return_X_y=True, as_frame=True)
    else:
        folder = Path(os.environ["INNA_TUNE_DATA"])
        entry = json.loads((folder / "index.json").read_text())[name]
        task = entry["task"]
        frame = pd.read_parquet(folder / f"{name}.parquet").dropna(subset=[entry["target"]])
        features, target = frame.drop(columns=entry["target"]), frame[entry["target"]]
    rows = np.random.default_rng(0).permutation(len(features))[:n_rows]
    split = len(rows) * 2 // 3
    encoder = TableEncoder(max_levels=12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DroppedColumnWarning)
        train = encoder.fit_transform(features.iloc[rows[:split]])
        validation = encoder.transform(features.iloc[rows[split:]])
    if task == "regression":
        y = target.to_numpy(dtype=np.float32)[rows]
        y = torch.from_numpy((y - y[:split].mean()) / y[:split].std())
    else:
        y = torch.from_numpy(pd.factorize(target, sort=True)[0][rows])
    return Table(name, task, torch.from_numpy(train), y[:split], torch.from_numpy(validation), y[split:])


def table_names() -> list[str]:
    """The bundled tables and those of the folder."""
    folder = os.environ.get("INNA_TUNE_DATA")
    return [*BUNDLED, *(json.loads((Path(folder) / "index.json").read_text()) if folder else [])]


class Net:
    """A stacked MLP with ReLU, optionally over periodic embeddings of the columns with many values.

    Parameters are a flat list: frequencies [P, columns, k] where periodic, then weights [P, in, out], biases [P, 1, out].
    """

    def __init__(self, name: str, table: Table, n_frequencies: int = 6, frequency_scale: float = 0.3) -> None:
        self.hidden = HIDDEN[name]
        self.numeric = [j for j in range(table.x.shape[1]) if len(table.x[:, j].unique()) > 10]
        self.n_frequencies = n_frequencies if name.endswith("periodic") and self.numeric else 0
        self.frequency_scale = frequency_scale
        self.widths = [
            table.x.shape[1] + 2 * self.n_frequencies * len(self.numeric), *self.hidden, table.n_outputs
        ]

    def initialize(self, seed: int) -> list[Tensor]:
        """One member's parameters: He's weights, zero biases, normal frequencies."""
        draw = partial(torch.randn, generator=torch.Generator().manual_seed(seed))
        params = []
        if self.n_frequencies:
            params.append(self.frequency_scale * draw(len(self.numeric), self.n_frequencies))
        for i, (n_in, n_out) in enumerate(zip(self.widths, self.widths[1:], strict=False)):
            gain = 1 if i == len(self.widths) - 2 else 2
            params += [math.sqrt(gain / n_in) * draw(n_in, n_out), torch.zeros(1, n_out)]
        return params

    def __call__(self, params: list[Tensor], x: Tensor) -> Tensor:
        """Outputs [P, B, out] of inputs [P, B, d]."""
        if self.n_frequencies:
            angles = 2 * math.pi * x[..., self.numeric, None] * params[0][:, None]
            x = torch.cat([x, angles.sin().flatten(2), angles.cos().flatten(2)], 2)
            params = params[1:]
        for weight, bias in zip(params[:-2:2], params[1:-2:2], strict=True):
            x = torch.baddbmm(bias, x, weight).relu()
        return torch.baddbmm(params[-1], x, params[-2])


def stack(members: list[list[Tensor]]) -> list[Tensor]:
    """Members' parameters stacked, ready to train."""
    return [torch.stack(tensors).requires_grad_() for tensors in zip(*members, strict=True)]


def measure(net: Net, table: Table, params: list[Tensor], rows: Tensor) -> Tensor:
    """Curvature of each member's loss on its own rows [P, B]."""
    return curvature(
        lambda: table.losses(net(params, table.x[rows]), table.y[rows]).sum(), params, member_axis=True
    )


def batches(n_rows: int, seeds: list[int], epoch: int) -> Iterator[Tensor]:
    """Rows of each batch, [seeds, B]; a seed's order does not depend on the other seeds."""
    generators = [torch.Generator().manual_seed(1000 * epoch + seed) for seed in seeds]
    order = torch.stack([torch.randperm(n_rows, generator=generator) for generator in generators])
    yield from order.split(BATCH_SIZE, dim=1)


def train(
    net: Net,
    table: Table,
    settings: np.ndarray,
    seeds: list[int],
    n_epochs: int,
    decay: str = "constant",
    watch: Callable[[int, list[Tensor]], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Train each setting from each seed; settings [S, seeds, 3] are lr, alpha, beta.

    Returns
    -------
    best validation loss of all epochs, and training loss of the last epoch, [S, seeds]
    """
    n_settings, n_seeds, _ = settings.shape
    params = stack([net.initialize(seed) for _ in range(n_settings) for seed in seeds])
    lr, alpha, beta = (
        torch.tensor(settings[..., i].reshape(-1, 1, 1), dtype=torch.float32) for i in range(3)
    )
    optimizer = INNA(params, lr=lr.clone(), alpha=alpha, beta=beta)
    members = n_settings * n_seeds
    x_validation = table.x_validation.expand(members, -1, -1)
    y_validation = table.y_validation.expand(members, -1)
    best = torch.full((members,), math.inf)
    for epoch in range(n_epochs):
        if watch is not None:
            watch(epoch, params)
        optimizer.param_groups[0]["lr"].copy_(lr * decay_factor(decay, float(epoch), horizon=n_epochs))
        total = torch.zeros(members)
        steps = list(batches(len(table.x), seeds, epoch))
        for rows in steps:
            x = table.x[rows].expand(n_settings, -1, -1, -1).flatten(0, 1)
            y = table.y[rows].expand(n_settings, -1, -1).flatten(0, 1)
            losses = table.losses(net(params, x), y)
            for param, gradient in zip(params, torch.autograd.grad(losses.sum(), params), strict=True):
                param.grad = gradient
            optimizer.step()
            total += losses.detach()
        with torch.no_grad():
            losses = table.losses(net(params, x_validation), y_validation)
        best = torch.minimum(best, losses.nan_to_num(math.inf))
        last = total / len(steps)
    return best.reshape(n_settings, n_seeds).numpy(), last.reshape(n_settings, n_seeds).numpy()


def grid_settings(curvatures: np.ndarray) -> tuple[pd.DataFrame, np.ndarray]:
    """The grid in pure numbers, and its natural values for each seed's curvature, [S, seeds, 3]."""
    grid = pd.DataFrame(
        list(product(SCALED_ALPHAS, DAMPING_RATIOS, STABLE_STEP_RATIOS)),
        columns=["scaled_alpha", "damping_ratio", "stable_step_ratio"],
    )
    numbers = {name: grid[name].to_numpy()[:, None] for name in grid}
    return grid, np.stack(np.broadcast_arrays(*settings_from_curvature(curvatures[None], **numbers)), -1)


def random_settings(n_seeds: int) -> np.ndarray:
    """Log-uniform settings over what one would search without a curvature, the same for every condition."""
    rng = np.random.default_rng(0)
    low, high = np.log([1e-3, 5e-3, 1e-2]), np.log([1.0, 5.0, 5.0])
    return np.exp(rng.uniform(low, high, (N_RANDOM, 3)))[:, None].repeat(n_seeds, 1)


def run_condition(
    table_name: str, net_name: str, seeds: list[int], n_rows: int, n_epochs: int, decay: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All settings of one table and one net."""
    torch.set_num_threads(1)
    table = load_table(table_name, n_rows)
    net = Net(net_name, table)
    starts = stack([net.initialize(seed) for seed in seeds])
    whole = torch.arange(len(table.x)).expand(len(seeds), -1)
    shuffled = torch.cat(list(batches(len(table.x), seeds, 0)), 1)
    curvatures = measure(net, table, starts, shuffled[:, :CURVATURE_ROWS])
    small = [measure(net, table, starts, shuffled[:, i : i + BATCH_SIZE]) for i in range(0, min(len(table.x) - BATCH_SIZE, 8 * BATCH_SIZE) + 1, BATCH_SIZE)]
    place = {"table": table_name, "net": net_name}

    grid, from_grid = grid_settings(curvatures.double().numpy())
    drawn = random_settings(len(seeds))
    settings = np.concatenate([from_grid, drawn])
    size = max(1, MEMBERS_AT_ONCE // len(seeds))
    parts = [
        train(net, table, settings[i : i + size], seeds, n_epochs, decay) for i in range(0, len(settings), size)
    ]
    best, last = (np.concatenate(part) for part in zip(*parts, strict=True))
    diverged = ~(last < 1.2 * table.constant_loss)
    kinds = ["grid"] * len(grid) + ["random"] * len(drawn)
    of_drawn = pure_numbers(*np.moveaxis(drawn, -1, 0), curvatures.double().numpy())
    numbers = pd.concat([grid, pd.DataFrame(np.stack(of_drawn, -1).mean(1), columns=grid.columns)])
    rows = numbers.reset_index(drop=True).assign(
        **place,
        kind=kinds,
        lr=settings[..., 0].mean(1),
        alpha=settings[..., 1].mean(1),
        beta=settings[..., 2].mean(1),
        curvature=float(curvatures.mean()),
        loss=np.where(diverged, np.nan, best).mean(1),
        best=best.min(1),
        diverged=diverged.mean(1),
    )

    along: list[dict[str, object]] = []

    def watch(epoch: int, params: list[Tensor]) -> None:
        for seed, value in zip(seeds, measure(net, table, params, whole).tolist(), strict=True):
            along.append({**place, "seed": seed, "epoch": epoch, "curvature": value})

    default = np.stack(settings_from_curvature(curvatures.double().numpy()), -1)[None]
    train(net, table, default, seeds, n_epochs + 1, decay, watch)
    spread = torch.stack(small) / curvatures
    rows["batch_low"], rows["batch_high"] = float(spread.min()), float(spread.max())
    return rows, pd.DataFrame(along)

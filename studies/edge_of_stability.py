"""The scale of a problem is its curvature: which settings survive, and where the best ones lie.

    INNA_TUNE_DATA=folder python studies/edge_of_stability.py [--seeds 5] [--tables a,b] [--epochs 60]

On scikit-learn's bundled tables, and on those of the folder where one is named: nets of two widths, and one on periodic
features of the inputs (frozen random frequencies), several seeds. For each, members of one population train from the same
weights on the same batches: a grid over the pure numbers (scaled friction α̃, damping ratio ζ, stable-step ratio r) under
the power law of decay, trained as long as the estimators do, and settings drawn log-uniformly at a constant step for a few
epochs, which is what the stability bound speaks of. Losses are log-loss and RMSE (of a standardised target), the best over
the epochs. Writes ``studies/results/edge_of_stability.csv`` (one row a member),
``edge_of_stability_curvature.csv`` (the curvature along training) and ``edge_of_stability.png``; prints the summary.
"""

import argparse
import inspect
import os
import warnings
from itertools import pairwise, product
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed
from scipy.stats import rankdata
from tables import load_table

from inna_tune.engine import CrossEntropy, Member, Population, SquaredError, TableTensors, Training
from inna_tune.engine.stack import Stack
from inna_tune.estimators import TableEncoder
from inna_tune.nets import TabularNet
from inna_tune.optim.dynamics import largest_stable_step, settings_from_curvature
from inna_tune.tables.problem import make_problem
from inna_tune.tables.reading import read_table

matplotlib.use("agg")
import matplotlib.pyplot as plt

RESULTS = Path(__file__).parent / "results"
BUNDLED = ("sklearn:breast_cancer", "sklearn:digits", "sklearn:diabetes")
FOLDER = (
    "adult",
    "california",
    "diamonds",
    "credit",
    "churn",
    "crash",
    "abalone",
    "titanic",
    "ames",
    "hotel_rates",
)
NETS = {"32-32": ((32, 32), False), "128-128": ((128, 128), False), "32-32 periodic": ((32, 32), True)}
GRID = list(product((0.03, 0.06, 0.12, 0.24), (0.5, 0.75, 0.95), (1.0, 2.0, 4.0)))
PUBLISHED = (0.03, 0.75, 1.0)
N_RANDOM, RANDOM_EPOCHS = 24, 10
BATCH_SIZE, PATIENCE = 64, 15
MEASURED_ROWS = 1024  # as the estimators measure curvature
N_TRAIN, N_VALIDATION = 2000, 1000


def encode(name: str) -> tuple[TableTensors, int, bool]:
    """A table as tensors, its number of outputs, and whether its target is a class."""
    frame, target, task = (*read_table(name), None) if name.startswith("sklearn:") else load_table(name)
    problem = make_problem(frame, target, task=task)
    order = np.random.default_rng(0).permutation(len(problem.y))[: N_TRAIN + N_VALIDATION]
    X, y = problem.X.iloc[order], problem.y.iloc[order]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        x = torch.from_numpy(TableEncoder().fit_transform(X))
    if problem.task == "regression":
        values = y.to_numpy(dtype=np.float32)
        return TableTensors(x, torch.from_numpy((values - values.mean()) / values.std())[:, None]), 1, False
    labels, codes = np.unique(y, return_inverse=True)
    return TableTensors(x, torch.from_numpy(codes)), len(labels), True


def periodic(x: torch.Tensor, seed: int) -> torch.Tensor:
    """Sines and cosines of every column at four random frequencies, beside the columns."""
    frequency = torch.randn(x.shape[1], 4, generator=torch.Generator().manual_seed(seed))
    angle = (2 * np.pi * x[:, :, None] * frequency).flatten(1)
    return torch.cat([x, angle.sin(), angle.cos()], 1)


def train(table, net, loss, settings, rows, seed, epochs, decay):
    """Members with the given (lr, alpha, beta), from the same weights on the same batches."""
    train_rows, validation_rows = rows
    members = [
        Member(train_rows, validation_rows, seed, lr=g, alpha=a, beta=b, decay=decay, patience=PATIENCE)
        for g, a, b in settings
    ]
    training = Training(net, table, members, loss, batch_size=BATCH_SIZE, max_epochs=epochs)
    training.run()
    return training.results


def curvature_along(table, net, loss, settings, rows, seed, epochs):
    """Curvature on one batch after each of a few epochs of training with one setting."""
    found = []
    options = {"batch_size": BATCH_SIZE, "horizon": epochs}
    lr, alpha, beta = settings
    trained = Population(net, table, [Member(*rows, seed, lr=lr, alpha=alpha, beta=beta)], loss, **options)
    stack = Stack(trained, [0], {}, max_epochs=epochs, keep_states=False)
    probe = Population(net, table, [Member(*rows, seed)], loss, **options)
    for epoch in (0, 1, 3, 10, epochs):
        stack.run(min(epoch, epochs))
        if epoch > stack.epoch:
            break
        probe.tensors = trained.tensors
        order = torch.randperm(len(probe.rows[0]), generator=torch.Generator().manual_seed(seed))
        calibrator = probe._calibrator([0], [probe.rows[0][order]], MEASURED_ROWS)
        found.append({"epoch": epoch, "curvature": float(calibrator.curvature({}))})
    return found


def study(name: str, seeds: int, epochs: int) -> tuple[list[dict], list[dict]]:
    """All nets and seeds on one table."""
    base, n_out, classes = encode(name)
    loss = CrossEntropy() if classes else SquaredError()
    order = np.random.default_rng(1).permutation(len(base.x))
    n_validation = len(order) // 3
    rows = np.sort(order[n_validation:]), np.sort(order[:n_validation])
    held = base.target[torch.from_numpy(rows[0])]
    shares = torch.bincount(held).double() / len(held) if classes else None
    reported = float if classes else np.sqrt
    constant = float(-(shares[shares > 0].log() * shares[shares > 0]).sum()) if classes else float(held.var())
    members, curvatures = [], []
    for (net_name, (hidden, is_periodic)), seed in product(NETS.items(), range(seeds)):
        table = TableTensors(periodic(base.x, seed) if is_periodic else base.x, base.target)
        net = TabularNet(table.x.shape[1], hidden, n_out)
        probe = Population(net, table, [Member(*rows, seed)], loss, batch_size=BATCH_SIZE, horizon=1)
        curvature = float(probe.settings["curvature"])
        # A step too small to have learned much in these epochs has survived: what counts is to have left upwards.
        bound = max(constant, float(probe.watched_loss()[0]))
        rng = np.random.default_rng(seed)
        grid = [
            tuple(
                map(
                    float,
                    settings_from_curvature(curvature, scaled_alpha=a, damping_ratio=z, stable_step_ratio=r),
                )
            )
            for a, z, r in GRID
        ]
        random = [
            tuple(
                float(np.exp(rng.uniform(np.log(low), np.log(high))))
                for low, high in ((1e-3, 3), (1e-2, 3), (1e-2, 3))
            )
            for _ in range(N_RANDOM)
        ]
        results = train(table, net, loss, grid, rows, seed, epochs, "power")
        results += train(table, net, loss, random, rows, seed, RANDOM_EPOCHS, "constant")
        for i, ((lr, alpha, beta), result) in enumerate(zip(grid + random, results, strict=True)):
            losses = result.history["validation_loss"]
            last = result.history["train_loss"][-1]
            pure = GRID[i] if i < len(GRID) else (np.nan,) * 3
            members.append(
                {
                    "table": name.removeprefix("sklearn:"), "net": net_name, "seed": seed,
                    "task": "classification" if classes else "regression",
                    "kind": "grid" if i < len(GRID) else "log-uniform",
                    "scaled_alpha": pure[0], "damping_ratio": pure[1], "stable_step_ratio": pure[2],
                    "lr": lr, "alpha": alpha, "beta": beta, "curvature": curvature,
                    "step_over_largest": lr / float(largest_stable_step(alpha, beta, curvature)),
                    "loss": reported(np.nanmin(losses)) if np.isfinite(losses).any() else np.nan,
                    "survived": bool(result.stop_reason != "diverged" and last < bound),
                }
            )  # fmt: skip
        if seed == 0:
            default = tuple(map(float, settings_from_curvature(curvature)))
            for row in curvature_along(table, net, loss, default, rows, seed, epochs):
                curvatures.append({"table": name.removeprefix("sklearn:"), "net": net_name, **row})
    return members, curvatures


def package_default(task: str) -> tuple[float, float, float]:
    """The pure numbers behind ``lr="auto"`` for a task: settings of the grid, so that they are judged beside the others."""
    defaults = inspect.signature(settings_from_curvature).parameters
    loss = CrossEntropy() if task == "classification" else SquaredError()
    # Of few rows, as these are.
    return (
        loss.most_scaled_alpha,
        *(defaults[name].default for name in ("damping_ratio", "stable_step_ratio")),
    )


def area_under_curve(score: np.ndarray, positive: np.ndarray) -> float:
    """Probability that a positive has a higher score than a negative."""
    n, total = positive.sum(), len(positive)
    if n in (0, total):
        return np.nan
    return (rankdata(score)[positive].sum() - n * (n + 1) / 2) / (n * (total - n))


def summarize(members: pd.DataFrame, curvatures: pd.DataFrame) -> pd.DataFrame:
    """Print what was found, and return the mean excess loss of every setting of the grid."""
    random = members[members.kind == "log-uniform"]
    grid = members[members.kind == "grid"].copy()
    areas = random.groupby(["table", "net"]).apply(
        lambda g: area_under_curve(-np.log(g.step_over_largest.to_numpy()), g.survived.to_numpy()),
        include_groups=False,
    )
    print(f"problems (table, net): {len(areas)}, seeds: {members.seed.nunique()}")
    print(
        f"survival against γ_max/γ, AUC: median {areas.median():.3f}, least {areas.min():.3f} at {areas.idxmin()}"
    )
    print(
        f"diverged: {1 - random.survived.mean():.1%} of log-uniform, {1 - grid.survived.mean():.1%} of the grid"
    )
    best = grid.groupby(["table", "net", "seed"]).loss.transform("min")
    worst_excess = 1.0
    grid["excess"] = (grid.loss / best - 1).where(grid.survived, worst_excess).clip(upper=worst_excess)
    keys = ["scaled_alpha", "damping_ratio", "stable_step_ratio"]
    by_setting = grid.groupby(keys).agg(
        excess=("excess", "mean"), diverged=("survived", lambda s: 1 - s.mean())
    )
    # Seeds of a problem averaged first: what one setting costs against the best setting for that problem.
    grid["loss"] = grid.loss.where(grid.survived, np.inf).clip(upper=best * (1 + worst_excess))
    per_problem = grid.groupby(["table", "net", *keys]).loss.mean().rename("loss").reset_index()
    per_problem["excess"] = per_problem.loss / per_problem.groupby(["table", "net"]).loss.transform("min") - 1
    by_setting["excess_of_seed_mean"] = per_problem.groupby(keys).excess.mean()
    for label, setting in (
        ("the setting of the design", PUBLISHED),
        ("the best of the grid", by_setting.excess_of_seed_mean.idxmin()),
    ):
        row = by_setting.loc[setting]
        print(
            f"{label} {tuple(map(float, setting))}: excess {row.excess_of_seed_mean:.1%} over each problem's best setting "
            f"({row.excess:.1%} over each run's), diverged {row.diverged:.1%}"
        )
    chosen = []
    for task in members.task.unique():
        of_task = per_problem[per_problem.table.isin(members.table[members.task == task])]
        best_of_task = of_task.groupby(keys).excess.mean()
        default = package_default(task)
        here = of_task[(of_task[keys] == list(default)).all(axis=1)]
        chosen.append(here)
        print(
            f"{task}: the default {default} {here.excess.mean():.1%}, the best of the grid "
            f"{tuple(map(float, best_of_task.idxmin()))} {best_of_task.min():.1%}; the default costs most at "
            f"{here.loc[here.excess.idxmax(), ['table', 'net']].tolist()} ({here.excess.max():.1%})"
        )
        diverged = grid[(grid.task == task) & (grid[keys] == list(default)).all(axis=1)]
        print(f"{task}: diverged under the default: {1 - diverged.survived.mean():.1%}")
    print(f"the defaults, over all problems: excess {pd.concat(chosen).excess.mean():.1%} (goal: 3%)")
    first = curvatures[curvatures.epoch == 0].set_index(["table", "net"]).curvature
    for epoch in sorted(set(curvatures.epoch) - {0}):
        ratio = curvatures[curvatures.epoch == epoch].set_index(["table", "net"]).curvature / first
        print(
            f"curvature after {epoch} epochs over that at the start: median {ratio.median():.2f}, most {ratio.max():.1f}"
        )
    return by_setting.reset_index()


def draw(members: pd.DataFrame, by_setting: pd.DataFrame) -> None:
    """Survival against the stability bound, and the excess loss over the grid."""
    alphas = sorted(by_setting.scaled_alpha.unique())
    figure, axes = plt.subplots(
        1, 1 + len(alphas), figsize=(3.1 * (1 + len(alphas)), 3.2), layout="constrained"
    )
    random = members[members.kind == "log-uniform"]
    bins = np.geomspace(1e-2, 1e2, 17)
    middle = np.sqrt(bins[:-1] * bins[1:])
    share = [
        random.survived[(random.step_over_largest >= a) & (random.step_over_largest < b)].mean()
        for a, b in pairwise(bins)
    ]
    axes[0].semilogx(middle, share, "o-", color="#0072B2")
    axes[0].axvline(1.0, color="0.5", ls="--")
    axes[0].set(
        xlabel=r"step size $\gamma\,/\,\gamma_{\max}(\hat\lambda)$",
        ylabel="share that survives",
        ylim=(-0.03, 1.03),
    )
    axes[0].set_title("log-uniform settings")
    for axis, alpha in zip(axes[1:], alphas, strict=True):
        plane = by_setting[by_setting.scaled_alpha == alpha].pivot(
            index="damping_ratio", columns="stable_step_ratio", values="excess_of_seed_mean"
        )
        image = axis.imshow(
            100 * plane.to_numpy(), cmap="viridis_r", vmin=0, vmax=25, origin="lower", aspect="auto"
        )
        axis.set_xticks(range(plane.shape[1]), plane.columns)
        axis.set_yticks(range(plane.shape[0]), plane.index)
        axis.set(xlabel="stable-step ratio r", title=rf"$\tilde\alpha$ = {alpha}")
        for i, j in np.ndindex(plane.shape):
            value = 100 * plane.to_numpy()[i, j]
            axis.text(
                j, i, f"{value:.1f}", ha="center", va="center", color="white" if value > 10 else "black"
            )
    axes[1].set_ylabel("damping ratio ζ")
    figure.colorbar(image, ax=axes[-1], label="excess loss, %")
    figure.savefig(RESULTS / "edge_of_stability.png", dpi=110)
    plt.close(figure)


def main() -> None:
    """Run every table, write the files, print the summary."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument(
        "--tables", default=",".join(BUNDLED + (FOLDER if "INNA_TUNE_DATA" in os.environ else ()))
    )
    parser.add_argument("--summarize", action="store_true", help="only read and print what is there")
    arguments = parser.parse_args()
    if arguments.summarize:
        files = (RESULTS / f"edge_of_stability{part}.csv" for part in ("", "_curvature"))
        summarize(*map(pd.read_csv, files))
        return
    members, curvatures = [], []
    # A process a table, each with its share of the cores.
    studies = Parallel(n_jobs=-1, return_as="generator")(
        delayed(study)(name, arguments.seeds, arguments.epochs) for name in arguments.tables.split(",")
    )
    for found, along in studies:
        members += found
        curvatures += along
        print(found[0]["table"], flush=True)
    frame, along = pd.DataFrame(members), pd.DataFrame(curvatures)
    frame.to_csv(RESULTS / "edge_of_stability.csv", index=False, float_format="%.5g")
    along.to_csv(RESULTS / "edge_of_stability_curvature.csv", index=False, float_format="%.5g")
    draw(frame, summarize(frame, along))


if __name__ == "__main__":
    main()

"""The grid of alpha and beta, on LeNet and MNIST: where INNA learns, beside where a quadratic says it is stable.

    INNA_TUNE_DATA=folder python studies/paper/grid.py
    INNA_TUNE_DATA=folder python studies/paper/grid.py --rows 60000 --epochs 20 --seeds 3 --test-rows 10000 --out full.csv

The paper tries alpha and beta in {0.1, 0.5, 1}; here these nine pairs lie in a finer and wider grid, at three constant step
sizes, all from the same weights on the same batches. On a quadratic of curvature λ INNA is stable up to
``largest_stable_step(alpha, beta, λ)``; the boundary where that equals the step size is drawn at the largest Hessian
eigenvalue of the loss (on 256 training images), measured at the initial weights and along a training with the setting that
``lenet.py`` tuned, under the power law that it tuned with. A cell whose training diverged is hatched.

Writes ``grid.csv`` (a row an epoch of a cell; a study that was broken off goes on, ``--fresh`` starts anew),
``grid_curvature.csv``, ``grid.md`` and ``grid.png``.

After section 5 of Castera, Bolte, Févotte, Pauwels (2021), An inertial Newton algorithm for deep learning, JMLR 22(134).
"""

import argparse
import math

import matplotlib
import numpy as np
import pandas as pd
import torch
from images import CLASSES, Images, load_images, make_net
from lenet import (
    BATCH_SIZE,
    HERE,
    append,
    best_settings,
    data_folder,
    forget,
    known_rows,
    make_optimizer,
    parser,
    record,
    train,
    training_rows,
    usual_decay,
)
from matplotlib.colors import LogNorm
from matplotlib.patheffects import withStroke, withTickedStroke
from matplotlib.ticker import FormatStrFormatter
from torch.nn.functional import cross_entropy

from inna_tune.optim.calibration import curvature
from inna_tune.optim.dynamics import largest_stable_step

matplotlib.use("agg")
import matplotlib.pyplot as plt

VALUES = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
PAPER = (0.1, 0.5, 1.0)
STEPS = (0.05, 0.2, 0.8)
N_CURVATURE = 256


def measured(net: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    """Largest Hessian eigenvalue of the loss on the first training images."""
    net.eval()
    found: float = curvature(
        lambda: cross_entropy(net(x[:N_CURVATURE]), y[:N_CURVATURE]), list(net.parameters())
    )
    return found


def curvature_along(
    images: Images, setting: dict[str, float], options: argparse.Namespace
) -> list[dict[str, float]]:
    """Curvature before and after each epoch of a training with the tuned setting."""
    x, y = training_rows(images, options.rows)
    net = make_net(options.net, images, CLASSES[options.data], 0)
    rows = [{"epoch": 0, "curvature": measured(net, x, y)}]
    optimizer = make_optimizer("INNA", net, setting)
    run = train(net, optimizer, x, y, epochs=options.curvature_epochs, seed=0, decay=usual_decay("INNA"))
    rows += [{"epoch": epoch, "curvature": measured(net, x, y)} for epoch in run]
    return rows


def write_table(cells: pd.DataFrame, along: pd.DataFrame, options: argparse.Namespace) -> None:
    """The paper's nine pairs, and how well the boundary tells what learned, in Markdown."""
    levels = sorted({float(along.curvature.iloc[0]), float(along.curvature.max())})
    lines = [
        f"INNA on `{options.net}` and {options.data}: {options.epochs} epoch(s) at a constant step on {options.rows:,} "
        f"training images, batches of {BATCH_SIZE}, mean over {options.seeds} seed(s), accuracy on {options.test_rows:,} "
        f"test images. "
        f"Curvature {along.curvature.iloc[0]:.3g} at the initial weights, at most {along.curvature.max():.3g} along "
        f"{int(along.epoch.max())} epochs of the tuned training.",
        "",
        "| step size | α | β | training loss (nats) | test accuracy (%) |",
        "|---|---|---|---|---|",
    ]
    for cell in cells[cells.alpha.isin(PAPER) & cells.beta.isin(PAPER)].itertuples():
        values = (
            "diverged | diverged"
            if math.isnan(cell.training_loss)
            else f"{cell.training_loss:.3f} | {100 * cell.test_accuracy:.1f}"
        )
        lines.append(f"| {cell.lr:g} | {cell.alpha:g} | {cell.beta:g} | {values} |")
    lines += [
        "",
        "All cells of the finer grid by whether they are stable on a quadratic of that curvature:",
        "",
        "| curvature | step size | cells | number | diverged or no better than guessing | mean test accuracy (%) |",
        "|---|---|---|---|---|---|",
    ]
    chance = 1 / CLASSES[options.data]
    cells = cells.assign(
        lost=~(cells.training_loss < -math.log(chance)), accuracy=cells.test_accuracy.fillna(chance)
    )
    for level in levels:
        edge = largest_stable_step(cells.alpha.to_numpy(), cells.beta.to_numpy(), level)
        sides = np.where(cells.lr < edge, "stable", "unstable")
        for step in (*STEPS, "all"):
            for side in ("stable", "unstable"):
                inside = cells[(sides == side) & ((step == "all") | (cells.lr == step))]
                if len(inside):
                    lines.append(
                        f"| {level:.3g} | {step} | {side} | {len(inside)} | {inside.lost.sum()} "
                        f"| {100 * inside.accuracy.mean():.1f} |"
                    )
    options.out.with_suffix(".md").write_text("\n".join(lines) + "\n")


def draw(cells: pd.DataFrame, along: pd.DataFrame, options: argparse.Namespace) -> None:
    """Heat maps over alpha and beta for each step size, with the boundary of stability."""
    figure, panels = plt.subplots(
        2, len(STEPS), figsize=(4.1 * len(STEPS) + 1, 7.6), sharex=True, sharey=True, layout="constrained"
    )
    logs = np.log(VALUES)
    inner = (logs[1:] + logs[:-1]) / 2
    edges = np.exp([logs[0] - (inner[0] - logs[0]), *inner, logs[-1] + (logs[-1] - inner[-1])])
    fine = np.geomspace(edges[0], edges[-1], 300)
    alphas, betas = np.meshgrid(fine, fine)
    levels = ((along.curvature.iloc[0], "--", "initial"), (along.curvature.max(), "-", "largest"))
    chance = math.log(CLASSES[options.data])
    low = min(cells.training_loss.min(), 0.9 * chance)
    images = {}
    for column, step in enumerate(STEPS):
        of_step = cells[cells.lr == step]
        for axes, value, norm, colours in (
            (panels[0, column], "training_loss", LogNorm(low, chance), "viridis_r"),
            (panels[1, column], "test_accuracy", plt.Normalize(0, 100), "viridis"),
        ):
            plane = of_step.pivot(index="beta", columns="alpha", values=value).to_numpy()
            if value == "test_accuracy":
                plane = 100 * plane
            images[value] = axes.pcolormesh(
                edges, edges, np.ma.masked_invalid(plane), norm=norm, cmap=colours
            )
            axes.set_facecolor("0.85")
            axes.patch.set_hatch("///")
            axes.patch.set_edgecolor("0.6")
            for curvature_, style, _ in levels:
                margin = largest_stable_step(alphas, betas, curvature_) / step
                edge = axes.contour(
                    alphas, betas, margin, levels=[1.0], colors="#D55E00", linestyles=style, linewidths=2.2
                )
                edge.set_path_effects(
                    [
                        withStroke(linewidth=4, foreground="white"),
                        withTickedStroke(spacing=9, length=0.7, angle=-90),
                    ]
                )
            paper = np.array([(a, b) for a in PAPER for b in PAPER])
            axes.plot(*paper.T, "o", markersize=5, markerfacecolor="white", markeredgecolor="black")
            axes.set(xscale="log", yscale="log", xlim=edges[[0, -1]], ylim=edges[[0, -1]])
            axes.set_xticks(VALUES, [f"{v:g}" for v in VALUES])
            axes.set_yticks(VALUES, [f"{v:g}" for v in VALUES])
            axes.minorticks_off()
        unstable = [
            f"{value:.3g}"
            for value, _, _ in levels
            if (largest_stable_step(alphas, betas, value) < step).all()
        ]
        everywhere = f", unstable everywhere at curvature {', '.join(unstable)}" if unstable else ""
        panels[0, column].set_title(f"step size {step:g}{everywhere}", fontsize=11)
        panels[1, column].set_xlabel("viscous friction α (1/time)")
    for row, value, label, extend in (
        (0, "training_loss", "training loss (nats)", "max"),
        (1, "test_accuracy", "test accuracy (%)", "neither"),
    ):
        panels[row, 0].set_ylabel("Newtonian damping β (time)")
        bar = figure.colorbar(images[value], ax=panels[row].tolist(), label=label, extend=extend)
        for set_formatter in (bar.ax.yaxis.set_major_formatter, bar.ax.yaxis.set_minor_formatter):
            set_formatter(FormatStrFormatter("%.3g"))
    handles = [
        plt.Line2D(
            [],
            [],
            color="#D55E00",
            linestyle=style,
            linewidth=2.2,
            label=f"edge of stability at the {name} curvature, {value:.3g} (ticks: unstable)",
        )
        for value, style, name in levels
    ]
    handles.append(
        plt.Line2D(
            [],
            [],
            marker="o",
            linestyle="",
            markerfacecolor="white",
            markeredgecolor="black",
            label="the paper's grid",
        )
    )
    handles.append(
        plt.Rectangle((0, 0), 1, 1, facecolor="0.85", edgecolor="0.6", hatch="///", label="diverged")
    )
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=9)
    figure.savefig(options.out.with_suffix(".png"), dpi=110)
    plt.close(figure)


def main() -> None:
    """Train every cell, measure the curvature, write table and figure."""
    found = parser(__doc__, HERE / "grid.csv")
    found.set_defaults(rows=3_000, epochs=1, seeds=1)
    found.add_argument("--test-rows", type=int, default=2_000, help="test images of a cell")
    found.add_argument(
        "--curvature-epochs", type=int, default=4, help="of the training whose curvature is measured"
    )
    found.add_argument(
        "--trials-file", default=HERE / "lenet_trials.csv", help="where lenet.py left its trials"
    )
    options = found.parse_args()
    torch.set_num_threads(1)
    same = {key: getattr(options, key) for key in ("data", "net", "rows", "epochs", "test_rows")}
    if options.fresh:
        forget(options.out)
    known = known_rows(options.out, same)
    images = load_images(data_folder(), options.data)
    images = images._replace(
        test_x=images.test_x[: options.test_rows], test_y=images.test_y[: options.test_rows]
    )
    setting = best_settings(pd.read_csv(options.trials_file), "INNA")
    along = pd.DataFrame(curvature_along(images, setting, options))
    along.to_csv(options.out.with_name(f"{options.out.stem}_curvature.csv"), index=False, float_format="%.6g")
    print(along.to_string(index=False), flush=True)
    done = set(zip(known.lr, known.alpha, known.beta, known.seed, strict=True)) if len(known) else set()
    for seed in range(options.seeds):
        for lr, alpha, beta in ((g, a, b) for g in STEPS for a in VALUES for b in VALUES):
            if (lr, alpha, beta, seed) in done:
                continue
            net = make_net(options.net, images, CLASSES[options.data], seed)
            cell = {"lr": lr, "alpha": alpha, "beta": beta}
            rows = record(
                images,
                net,
                make_optimizer("INNA", net, cell),
                n_rows=options.rows,
                epochs=options.epochs,
                seed=seed,
                decay=lambda epoch: 1.0,
            )
            append(options.out, [same | cell | {"seed": seed} | row for row in rows])
            print(f"trained {cell}: {rows[-1]}", flush=True)
    results = pd.read_csv(options.out)
    keys = ["lr", "alpha", "beta"]
    ends = results.sort_values("epoch").groupby([*keys, "seed"]).tail(1)
    cells = ends.groupby(keys)[["training_loss", "test_accuracy"]].agg(
        lambda values: values.mean(skipna=False)
    )
    write_table(cells.reset_index(), along, options)
    draw(cells.reset_index(), along, options)


if __name__ == "__main__":
    main()

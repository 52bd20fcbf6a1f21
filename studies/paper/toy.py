"""What alpha and beta do: INNA on the non-smooth, non-convex function of the paper's first figure.

J(θ₁, θ₂) = 100 (θ₂ − |θ₁|)² + |1 − θ₁| is a bent valley: steep across (curvature 400), gently sloping along, with a
kink at its bend and one at its minimum (1, 1). Viscous friction alpha damps all motion, and so the swinging about the
minimum along the valley; Newtonian damping beta acts through the Hessian, and so damps the bouncing between the walls.

    python studies/paper/toy.py            # writes toy.png beside this file and prints the table

After figure 1 of Castera, Bolte, Févotte, Pauwels (2021), An inertial Newton algorithm for deep learning, JMLR 22(134).
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from torch import Tensor

from inna_tune.optim import INNA

ALPHAS = {"small": 0.3, "large": 2.5}
BETAS = {"small": 0.004, "large": 0.08}
START = (-1.6, 1.05)
STEP_SIZE = 1e-3
DURATION = 16.0
COLOURS = {
    ("small", "small"): "#c8102e",
    ("large", "small"): "#e08a00",
    ("small", "large"): "#7b2d8b",
    ("large", "large"): "#1a1a1a",
}

Paths = dict[tuple[str, str], np.ndarray]


def loss(points: Tensor) -> Tensor:
    """J of points, [..., 2] -> [...]."""
    first, second = points.unbind(-1)
    return 100 * (second - first.abs()) ** 2 + (1 - first).abs()


def trajectories() -> Paths:
    """Positions [steps + 1, 2] for every pair of sizes of (alpha, beta): four members of one population."""
    sizes = [(a, b) for b in BETAS for a in ALPHAS]
    points = torch.nn.Parameter(torch.tensor(START, dtype=torch.float64).repeat(len(sizes), 1))
    optimizer = INNA(
        [points],
        lr=STEP_SIZE,
        alpha=torch.tensor([ALPHAS[a] for a, _ in sizes], dtype=torch.float64)[:, None],
        beta=torch.tensor([BETAS[b] for _, b in sizes], dtype=torch.float64)[:, None],
    )
    path = [points.detach().clone()]
    for _ in range(round(DURATION / STEP_SIZE)):
        optimizer.zero_grad()
        loss(points).sum().backward()
        optimizer.step()
        path.append(points.detach().clone())
    return dict(zip(sizes, torch.stack(path, 1).numpy(), strict=True))


def draw_landscape(axes: Axes) -> None:
    """Level lines of J, evenly spaced in its logarithm."""
    first, second = np.meshgrid(np.linspace(-2.0, 2.2, 500), np.linspace(-0.45, 2.0, 400))
    values = loss(torch.from_numpy(np.stack([first, second], -1))).numpy()
    levels = np.geomspace(0.05, 1000, 22)
    axes.contourf(first, second, values, levels, cmap="Blues_r", norm=LogNorm(0.02, 8000), extend="both")
    axes.plot(1, 1, marker="*", markersize=13, color="#ffd23f", markeredgecolor="black", zorder=5)
    axes.plot(*START, marker="o", markersize=6, color="white", markeredgecolor="black", zorder=5)
    axes.set(xlim=(-2.0, 2.2), ylim=(-0.45, 2.0))


def draw(paths: Paths, file: Path) -> None:
    """Four panels of trajectories; values, motion along and motion across the valley over time."""
    figure = plt.figure(figsize=(15, 7.2), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1.75, 1])
    panels = left.subplots(2, 2, sharex=True, sharey=True)
    values, along, across = right.subplots(3, 1, height_ratios=[1.5, 1, 1])
    times = STEP_SIZE * np.arange(len(next(iter(paths.values()))))
    for ((alpha, beta), path), axes in zip(paths.items(), panels.flat, strict=True):
        colour = COLOURS[alpha, beta]
        draw_landscape(axes)
        axes.plot(*path.T, color=colour, linewidth=1.4)
        axes.set_title(
            rf"$\alpha$ = {ALPHAS[alpha]:g} ({alpha}),  $\beta$ = {BETAS[beta]:g} ({beta})",
            color=colour,
            fontweight="bold",
        )
        lines = {"color": colour, "linewidth": 1.2, "label": rf"$\alpha$ {alpha}, $\beta$ {beta}"}
        values.plot(times, loss(torch.from_numpy(path)), **lines)
        along.plot(times, path[:, 0], **lines)
        across.plot(times, path[:, 1] - np.abs(path[:, 0]), **lines)
    left.supxlabel(r"$\theta_1$")
    left.supylabel(r"$\theta_2$")
    values.set(yscale="log", ylim=(1e-3, 50), title=r"value $J(\theta)$")
    across.legend(ncols=2, loc="upper right", fontsize=9)
    along.set(title=r"along the valley, $\theta_1$: damped by $\alpha$")
    across.set(
        title=r"across the valley, $\theta_2 - |\theta_1|$, first quarter: damped by $\beta$",
        xlabel="time (step size × steps)",
    )
    for axes, end in ((values, DURATION), (along, DURATION), (across, DURATION / 4)):
        axes.set_xlim(0, end)
        axes.grid(alpha=0.3)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def describe(paths: Paths) -> str:
    """What the figure shows, in numbers."""
    lines = ["alpha  beta   swings past the minimum  crossings of the valley floor  last time J > 0.01"]
    for (alpha, beta), path in paths.items():
        first = path[:, 0]
        side = np.sign(path[:, 1] - np.abs(first))
        crossings = np.count_nonzero(np.diff(side[np.abs(path[:, 1] - np.abs(first)) > 0.01]))
        swings = np.count_nonzero(np.diff(np.sign(first - 1)[np.abs(first - 1) > 0.01]))
        late = STEP_SIZE * np.flatnonzero(loss(torch.from_numpy(path)).numpy() > 0.01)[-1]
        lines.append(f"{ALPHAS[alpha]:<6g} {BETAS[beta]:<6g} {swings:23d} {crossings:30d} {late:19.1f}")
    return "\n".join(lines)


def main() -> None:
    """Draw the figure and print what it shows in numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".png"))
    out = parser.parse_args().out
    paths = trajectories()
    draw(paths, out)
    print(describe(paths))


if __name__ == "__main__":
    main()

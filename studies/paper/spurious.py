r"""Spurious stationary points: where generalized gradients cancel although the loss slopes, and whether INNA ends there.

The paper's theory says that the limit points of INNA are D-critical: zero lies in D(θ) = Σ_b ∂J_b(θ), the sum over batches of
generalized gradients. At kinks D(θ) can be larger than the generalized gradient of the sum, so a D-critical point need be no
critical point of the loss. Three smallest examples, one weight and two batches each, smooth sums, kinks at 0 in each batch:

- ``rectifiers``: relu(t) + t²/4 and −relu(−t) + t²/4, whose sum is t + t²/2. Slope 1 at 0, backpropagation says 0.
- ``one-weight net``: (relu(t) − 1)² and (relu(−t) + 1)², squared errors of the net x ↦ relu(t x) on the rows (1, 1) and
  (−1, −1), whose sum is (t − 1)² + 1. Slope −2 at 0, backpropagation says 0.
- ``absolute values``: |t| + t/2 + t²/4 and −|t| + t/2 + t²/4, sum t + t²/2. D(0) = [−1, 3] holds 0, but backpropagation
  returns 1, the true slope: D-critical without being a trap.

Each runs from four kinds of starts: normal in float64 and in bfloat16, a lattice of multiples of 1/8 from −2 to 2 in float32
(where sums are exact, which favours hits), and 0 itself. Full batches; the optimizers are INNA at two settings, and gradient
descent, which is INNA with αβ = 1. ``crossed`` counts runs that stood exactly on 0 at a step after their start, ``ended``
those that stand on 0 at the end. A last experiment trains rectifier nets (2-8-1) by INNA and counts exact kinks.

    python studies/paper/spurious.py       # writes spurious.csv, spurious_nets.csv, spurious.md and spurious.png beside it

What was found stands in the README beside this script. After section 3 of Castera, Bolte, Févotte, Pauwels (2021), JMLR
22(134).
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from inna_tune.optim import INNA, stationarity

HERE = Path(__file__).parent
N_STEPS = 1000
BLACK, BLUE, ORANGE, GREEN = "#000000", "#0072B2", "#D55E00", "#009E73"


class Example(NamedTuple):
    """A loss of one weight: its two batches, its sum as one smooth function, and where that is smallest."""

    batches: Callable[[Tensor], tuple[Tensor, Tensor]]
    sum: Callable[[Tensor], Tensor]
    minimum: float


EXAMPLES = {
    "rectifiers": Example(
        lambda t: (t.relu() + t**2 / 4, -(-t).relu() + t**2 / 4), lambda t: t + t**2 / 2, -1.0
    ),
    "one-weight net": Example(
        lambda t: ((t.relu() - 1) ** 2, ((-t).relu() + 1) ** 2), lambda t: (t - 1) ** 2 + 1, 1.0
    ),
    "absolute values": Example(
        lambda t: (t.abs() + t / 2 + t**2 / 4, -t.abs() + t / 2 + t**2 / 4), lambda t: t + t**2 / 2, -1.0
    ),
}
# But for the first, the step γβ of the first move is 1/4 or 1/2, with which weights on the lattice can land on 0 exactly.
OPTIMIZERS = {
    "INNA (γ 0.1, α 0.5, β 0.1)": (0.1, 0.5, 0.1),
    "INNA (γ 0.5, α 1, β 0.5)": (0.5, 1.0, 0.5),
    "gradient descent (step 1/4)": (0.5, 2.0, 0.5),
    "gradient descent (step 1/2)": (0.5, 1.0, 1.0),
}
STARTS = ("normal, float64", "normal, bfloat16", "lattice, float32", "zero, float32")


def starts(kind: str, n: int) -> Tensor:
    """Starting points of a kind of `STARTS`, n of those that are drawn."""
    drawn = torch.randn(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return {
        "normal, float64": drawn,
        "normal, bfloat16": drawn.bfloat16(),
        "lattice, float32": torch.arange(-16, 17, dtype=torch.float32) / 8,
        "zero, float32": torch.zeros(1),
    }[kind]


def run(example: Example, settings: tuple[float, float, float], points: Tensor, n_steps: int) -> Tensor:
    """Positions [n_steps + 1, n] of as many runs as there are points, all of them together."""
    points = torch.nn.Parameter(points.clone())
    optimizer = INNA([points], *settings)
    path = [points.detach().clone()]
    for _ in range(n_steps):
        optimizer.zero_grad()
        sum(batch.sum() for batch in example.batches(points)).backward()
        optimizer.step()
        path.append(points.detach().clone())
    return torch.stack(path)


def counted(path: Tensor, minimum: float) -> dict[str, int]:
    """What became of the runs of a path."""
    on_zero = path == 0
    return {
        "runs": path.shape[1],
        "crossed": int((on_zero[1:].any(0) & ~on_zero[-1]).sum()),
        "ended": int(on_zero[-1].sum()),
        "at the minimum": int((path[-1].double() - minimum).abs().lt(0.02).sum()),
    }


def slopes() -> pd.DataFrame:
    """At 0, and next to it: the true slope and the certificate `stationarity`, a row an example."""
    rows = []
    for name, example in EXAMPLES.items():
        row = {"example": name}
        for place, where in (("at 0", 0.0), ("at 1e-30", 1e-30)):
            point = torch.tensor([where], dtype=torch.float64, requires_grad=True)
            row[f"norm of the true slope {place}"] = stationarity([example.sum(point).sum()], [point])
            row[f"stationarity {place}"] = stationarity(
                [batch.sum() for batch in example.batches(point)], [point]
            )
        rows.append(row)
    return pd.DataFrame(rows)


def endings(n: int, n_steps: int) -> pd.DataFrame:
    """Where runs of every example, optimizer and kind of start end."""
    rows = []
    for name, example in EXAMPLES.items():
        for optimizer, settings in OPTIMIZERS.items():
            for kind in STARTS:
                path = run(example, settings, starts(kind, n), n_steps)
                rows.append(
                    {
                        "example": name,
                        "optimizer": optimizer,
                        "starts": kind,
                        **counted(path, example.minimum),
                    }
                )
    return pd.DataFrame(rows)


def nets(n_nets: int, n_steps: int) -> pd.DataFrame:
    """Exact kinks met by rectifier nets (2-8-1) on 20 rows in batches of 5, a row a precision.

    An activation counts as a kink where its input is 0 to the last bit. Nets are members of one population.
    """
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(20, 2, generator=generator)
        y = (x[:, :1] * x[:, 1:]).to(dtype)
        x = x.to(dtype)
        shapes = ((n_nets, 2, 8), (n_nets, 1, 8), (n_nets, 8, 1))
        weights = [
            torch.nn.Parameter((torch.randn(shape, generator=generator) / shape[1] ** 0.5).to(dtype))
            for shape in shapes
        ]
        first, bias, last = weights
        optimizer = INNA(weights, lr=0.05, alpha=0.5, beta=0.1)
        met, seen, start = 0, 0, None
        for step in range(n_steps):
            if step % 4 == 0:
                order = torch.randperm(len(x), generator=generator).split(5)
            part = order[step % 4]
            before = torch.einsum("ri,pih->prh", x[part], first) + bias
            loss = ((before.relu() @ last - y[part]) ** 2).mean((1, 2))
            met += int((before == 0).sum())
            seen += before.numel()
            start = loss.mean().item() if start is None else start
            optimizer.zero_grad()
            loss.sum().backward()
            optimizer.step()
        with torch.no_grad():
            before = torch.einsum("ri,pih->prh", x, first) + bias
            loss = ((before.relu() @ last - y) ** 2).float().mean((1, 2))
        rows.append(
            {
                "precision": str(dtype).removeprefix("torch."),
                "nets": n_nets,
                "steps": n_steps,
                "activations seen": seen,
                "exact kinks met": met,
                "nets with an exact kink at the end": int((before == 0).any(2).any(1).sum()),
                "mean loss of the first batch": start,
                "median loss at the end": loss.median().item(),
            }
        )
    return pd.DataFrame(rows)


def markdown(frame: pd.DataFrame) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(frame.columns) + " |", "|" + "---|" * len(frame.columns)]
    for row in frame.itertuples(index=False):
        cells = (
            f"{v:.3g}" if isinstance(v, float) else f"{v:,}" if isinstance(v, int | np.integer) else v
            for v in row
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(ends: pd.DataFrame, file: Path) -> None:
    """What backpropagation sees, four runs from one start, and how often runs end at 0."""
    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(15, 4.6), layout="constrained", width_ratios=[1, 1, 1.35]
    )
    example = EXAMPLES["one-weight net"]
    grid = torch.linspace(-1.5, 2.0, 400, dtype=torch.float64)
    left.plot(grid, example.sum(grid), color=BLACK, linewidth=2, label="loss, sum of both batches")
    for batch, style, label in zip(
        example.batches(grid), ("--", ":"), ("batch (1, 1)", "batch (−1, −1)"), strict=True
    ):
        left.plot(grid, batch, color=BLUE, linestyle=style, label=label)
    left.plot(0, 2, "o", color=ORANGE, markersize=10, zorder=5)
    left.annotate(
        "spurious point:\nslope −2,\nbackpropagation says 0",
        (0, 2),
        (-1.3, 0.15),
        color=ORANGE,
        arrowprops={"arrowstyle": "->", "color": ORANGE},
    )
    left.set(
        title="A net of one weight, relu(t·x)", xlabel="weight t", ylabel="loss (squared error)", ylim=(0, 6)
    )
    left.legend(frameon=False, fontsize=9, loc="upper right")

    styles = zip(OPTIMIZERS.items(), (BLACK, BLUE, ORANGE, GREEN), ("-", "--", "-", "-."), strict=True)
    for (name, settings), colour, style in styles:
        path = run(example, settings, torch.tensor([-1.0]), 60)[:, 0]
        middle.plot(path, color=colour, linestyle=style, linewidth=1.8, label=name)
    middle.axhline(0, color="grey", linewidth=0.8)
    middle.text(59, 0.05, "spurious point", ha="right", color="grey", fontsize=9)
    middle.set(title="The same net, trained from weight −1", xlabel="steps", ylabel="weight t")
    middle.set_ylim(-1.3, 3.4)
    middle.legend(frameon=False, fontsize=9, loc="upper right")

    shown = ends[ends.example == "one-weight net"]
    width = 0.2
    for i, (name, colour) in enumerate(zip(OPTIMIZERS, (BLACK, BLUE, ORANGE, GREEN), strict=True)):
        of = shown[shown.optimizer == name].set_index("starts").loc[list(STARTS)]
        places = np.arange(len(STARTS)) + (i - 1.5) * width
        share = 100 * of.ended / of.runs
        right.bar(places, share, width, color=colour, label=name)
        for place, value, count, runs in zip(places, share, of.ended, of.runs, strict=True):
            label = f"{count:,}/{runs:,}"
            right.text(
                place, value + 1.5, label, ha="center", va="bottom", fontsize=8, rotation=90, color=colour
            )
    right.set(title="Runs that end at the spurious point", ylabel="share of the runs (%)", ylim=(0, 128))
    right.set_xticks(range(len(STARTS)), [kind.replace(", ", ",\n") for kind in STARTS])
    right.set_yticks(range(0, 101, 20))
    right.set_xlabel("starts")
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=100)
    plt.close(figure)


def main() -> None:
    """Count, draw, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=10_000, help="from random starts")
    parser.add_argument("--nets", type=int, default=500)
    parser.add_argument("--out", type=Path, default=HERE / "spurious.csv")
    options = parser.parse_args()
    ends = endings(options.runs, N_STEPS)
    kinks = nets(options.nets, N_STEPS)
    ends.to_csv(options.out, index=False)
    kinks.to_csv(options.out.with_name(f"{options.out.stem}_nets.csv"), index=False, float_format="%.4g")
    draw(ends, options.out.with_suffix(".png"))
    text = "\n\n".join(
        (
            "**At the kink and next to it**",
            markdown(slopes()),
            f"**Where runs of {N_STEPS:,} steps end**",
            markdown(ends),
            "**Rectifier nets (2-8-1) trained by INNA**",
            markdown(kinks),
        )
    )
    options.out.with_suffix(".md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()

"""What a step costs, in time and memory: INNA and INNAprop beside SGD, SGD with momentum, ADAGRAD, Adam and AdamW.

INNA's claim is first-order cost: one tensor of state a weight, one gradient a step.

- Time: the optimizer's step alone, and a whole training step (forward, backward, step) of LeNet at the paper's batch of 32 and
  of a net of four layers of 1,024. Methods take turns in an order drawn anew each round, so that what else the machine does
  falls on all alike; ratios are medians over the rounds of a method's time over that of SGD with momentum in the same round.
- Memory: bytes of state a weight, counted on the tensors that the optimizer keeps after a step, beside the 8 of a weight and
  its gradient.

    python studies/paper/cost.py            # writes cost.csv, cost.md and cost.png beside this script
    python studies/paper/cost.py --draw     # table and figure anew from cost.csv, nothing measured

All run by torch's fused kernels, INNAprop apart, which has none: left to their defaults on a CPU, INNA would take the fused
kernel and torch's own optimizers a slower one, and what was compared would be kernels. Those studies/optimizer_speed.py
compares. Times mean something on a quiet machine only.

After section 2 of Castera, Bolte, Févotte, Pauwels (2021), JMLR 22(134).
"""

import argparse
import random
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from inna_tune.optim import INNA, INNAprop

HERE = Path(__file__).parent
BASE = "SGD, momentum"
BATCH_SIZE = 32

# Steps so small that the weights, which the gradients are drawn for once, stay about where they are.
METHODS: dict[str, Callable[[Iterable[Tensor]], Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=1e-6, fused=True),
    BASE: lambda p: torch.optim.SGD(p, lr=1e-6, momentum=0.9, fused=True),
    "INNA": lambda p: INNA(p, lr=1e-4, alpha=0.5, beta=0.1, fused=True),
    "ADAGRAD": lambda p: torch.optim.Adagrad(p, lr=1e-6, fused=True),
    "ADAM": lambda p: torch.optim.Adam(p, lr=1e-6, fused=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=1e-6, fused=True),
    "INNAprop": lambda p: INNAprop(p, lr=1e-6),
}


def lenet() -> tuple[nn.Module, Tensor]:
    """LeNet with rectifiers and max-pooling, and a batch of its images."""
    pool = nn.MaxPool2d(2)
    convolutions = (nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), pool, nn.Conv2d(6, 16, 5), nn.ReLU(), pool)
    dense = (nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10))
    return nn.Sequential(*convolutions, nn.Flatten(), *dense), torch.randn(BATCH_SIZE, 1, 28, 28)


def wide() -> tuple[nn.Module, Tensor]:
    """Four layers of 1,024 units, and a batch of rows."""
    layers = [layer for _ in range(4) for layer in (nn.Linear(1024, 1024), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(1024, 10)), torch.randn(BATCH_SIZE, 1024)


NETS = {"LeNet": lenet, "4 × 1,024": wide}


def state_bytes(optimizer: Optimizer) -> int:
    """Bytes of the tensors that an optimizer keeps; scalars such as step counters are left out."""
    return sum(
        value.numel() * value.element_size()
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, Tensor) and value.numel() > 1
    )


def timed(act: Callable[[], None], repeats: int) -> float:
    """Seconds that one act takes."""
    act()
    start = time.perf_counter()
    for _ in range(repeats):
        act()
    return (time.perf_counter() - start) / repeats


def measure(net_name: str, rounds: int, repeats: int) -> pd.DataFrame:
    """Seconds and bytes of every method on one net, a row a method."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net, x = NETS[net_name]()
        y = torch.randint(0, 10, (BATCH_SIZE,))
    weights = list(net.parameters())
    optimizers = {name: make(weights) for name, make in METHODS.items()}

    def training_step(optimizer: Optimizer) -> None:
        optimizer.zero_grad()
        cross_entropy(net(x), y).backward()
        optimizer.step()

    for optimizer in optimizers.values():
        training_step(optimizer)
    order = random.Random(0)
    alone, whole = [], []
    for _ in range(rounds):
        names = order.sample(list(METHODS), len(METHODS))
        alone.append({name: timed(optimizers[name].step, repeats) for name in names})
        whole.append(
            {name: timed(lambda o=optimizers[name]: training_step(o), max(repeats // 4, 1)) for name in names}
        )
    n_weights = sum(weight.numel() for weight in weights)
    steps, training = pd.DataFrame(alone), pd.DataFrame(whole)
    return pd.DataFrame(
        {
            "net": net_name,
            "weights": n_weights,
            "rounds": rounds,
            "step_us": 1e6 * steps.median(),
            "step_ratio": steps.div(steps[BASE], axis=0).median(),
            "training_step_us": 1e6 * training.median(),
            "training_step_ratio": training.div(training[BASE], axis=0).median(),
            "state_bytes_a_weight": {name: state_bytes(o) / n_weights for name, o in optimizers.items()},
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
    ).loc[list(METHODS)]


def write_table(found: pd.DataFrame, file: Path) -> None:
    """Ratios and bytes as a table in Markdown, a row a method."""
    nets = list(found.net.unique())
    heads = [f"{what}, {net}" for net in nets for what in ("step alone", "training step")]
    lines = [
        f"Time over that of SGD with momentum (median of {found.rounds.iloc[0]} rounds, batch {BATCH_SIZE}, "
        f"{found.threads.iloc[0]} thread(s), torch {found.torch.iloc[0]}); state in bytes a weight, float32.",
        "",
        "| optimizer | " + " | ".join(heads) + " | state |",
        "|" + "---|" * (len(heads) + 2),
    ]
    for name in METHODS:
        of = found[found.method == name].set_index("net")
        cells = [
            f"{of.loc[net, column]:.2f}" for net in nets for column in ("step_ratio", "training_step_ratio")
        ]
        lines.append(f"| {name} | {' | '.join(cells)} | {of.state_bytes_a_weight.iloc[0]:.0f} |")
    file.write_text("\n".join(lines) + "\n")


def draw(found: pd.DataFrame, file: Path) -> None:
    """Time of the step alone and of a training step, and memory, a group of bars a method."""
    figure, panels = plt.subplots(1, 3, figsize=(14, 4.2), layout="constrained", sharey=True)
    places = np.arange(len(METHODS))
    shades = dict(zip(found.net.unique(), ("#0072B2", "#E69F00"), strict=False))
    for axes, column, title, label in (
        (
            panels[0],
            "step_ratio",
            "Step of the optimizer alone",
            "time over that of SGD with momentum (ratio)",
        ),
        (
            panels[1],
            "training_step_ratio",
            "Forward, backward and step",
            "time over that of SGD with momentum (ratio)",
        ),
    ):
        for i, (net, colour) in enumerate(shades.items()):
            of = found[found.net == net].set_index("method").loc[list(METHODS)]
            axes.barh(places + 0.38 * (i - 0.5), of[column], 0.36, color=colour, label=net)
            for place, value in zip(places + 0.38 * (i - 0.5), of[column], strict=True):
                axes.text(value, place, f" {value:.2f}", va="center", fontsize=8)
        axes.axvline(1, color="grey", linewidth=0.8)
        axes.set(title=title, xlabel=label, xscale="log", xlim=(0.3, 1.9 * max(found[column].max(), 2)))
        axes.xaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    panels[0].legend(frameon=False, loc="upper right")
    state = found.groupby("method").state_bytes_a_weight.first().loc[list(METHODS)]
    panels[2].barh(places, 8, 0.7, color="#BBBBBB", label="weight and gradient")
    panels[2].barh(places, state, 0.7, left=8, color="#009E73", label="state of the optimizer")
    panels[2].set(title="Memory that stays", xlabel="bytes a weight (float32)", xlim=(0, 24))
    panels[2].legend(frameon=False, loc="upper right", fontsize=9)
    panels[0].set_yticks(places, list(METHODS))
    panels[0].invert_yaxis()
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=100)
    plt.close(figure)


def main() -> None:
    """Measure, or read what was measured; write table and figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=20, help="steps timed together")
    parser.add_argument("--draw", action="store_true", help="measure nothing")
    parser.add_argument("--out", type=Path, default=HERE / "cost.csv")
    options = parser.parse_args()
    if not options.draw:
        tables = [measure(net, options.rounds, options.repeats) for net in NETS]
        found = pd.concat(tables).rename_axis("method").reset_index()
        found.to_csv(options.out, index=False, float_format="%.4g")
    found = pd.read_csv(options.out)
    write_table(found, options.out.with_suffix(".md"))
    draw(found, options.out.with_suffix(".png"))
    print(options.out.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()

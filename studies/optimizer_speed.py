"""How long a step takes: INNA and INNAprop beside torch's SGD with momentum, AdamW, and INNA written naively.

All of them in one run, taking turns in an order that is drawn anew each round, so that what else the machine does falls
on all alike. A ratio is the median over the rounds of a method's time over that of torch's fused SGD in the same round.
The bytes are the least that a method must move in a step (each weight, gradient and state read once, each weight and
state written once); their rate is set against that of copying a tensor of the net's size in the same rounds.

    python studies/optimizer_speed.py             writes studies/results/optimizer_speed.csv
    python studies/optimizer_speed.py --quick     a few rounds, a smaller large net, prints only
    python studies/optimizer_speed.py --device cuda
"""

import argparse
import os
import platform
import random
import time
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from inna_tune.optim import INNA, INNAprop

RESULTS = Path(__file__).parent / "results" / "optimizer_speed.csv"
BASE, NAIVE, COPY = "SGD momentum, fused", "INNA, phase form written naively", "copy"
GOALS = [("large", 1.05, BASE), ("small", 1.25, BASE), ("large", 0.1, NAIVE)]


class PhaseForm:
    """Algorithm 1 of the INNA paper as one writes it down: two states, and an expression a line."""

    def __init__(self, params, lr=0.1, alpha=0.5, beta=0.1):
        self.params, self.lr, self.alpha, self.beta = params, lr, alpha, beta
        self.psis = [(1 - alpha * beta) * p.detach() for p in params]

    @torch.no_grad()
    def step(self):
        """One step."""
        for i, p in enumerate(self.params):
            phase = (self.alpha - 1 / self.beta) * p + self.psis[i] / self.beta
            self.psis[i] = self.psis[i] - self.lr * phase
            p.copy_(p - self.lr * (phase + self.beta * p.grad))


class Copy:
    """Reads and writes as many bytes as the weights have."""

    def __init__(self, params):
        self.source = torch.zeros(sum(p.numel() for p in params), device=params[0].device)
        self.target = torch.zeros_like(self.source)

    def step(self):
        """One copy."""
        self.target.copy_(self.source)


# Each with the tensors of a weight's size that a step must read or write.
METHODS = {
    "INNA, fused, lr = beta": (lambda p: INNA(p, 0.1, 0.5, 0.1, fused=True), 5),
    "INNA, fused, lr < beta": (lambda p: INNA(p, 0.05, 0.5, 0.1, fused=True), 5),
    "INNA, as it comes": (lambda p: INNA(p), 5),
    "INNA, foreach": (lambda p: INNA(p, foreach=True), 5),
    "INNA, loop": (lambda p: INNA(p, foreach=False), 5),
    "INNAprop": (lambda p: INNAprop(p), 7),
    BASE: (lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.95, fused=True), 5),
    "SGD momentum, foreach": (lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.95, foreach=True), 5),
    "SGD Nesterov, fused": (
        lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.95, nesterov=True, fused=True),
        5,
    ),
    "AdamW, fused": (lambda p: torch.optim.AdamW(p, lr=1e-3, fused=True), 7),
    "AdamW, foreach": (lambda p: torch.optim.AdamW(p, lr=1e-3, foreach=True), 7),
    NAIVE: (PhaseForm, 5),
    COPY: (Copy, 2),
}


def nets(quick):
    """Name, module, steps timed together, and rounds."""
    small = nn.Sequential(*[nn.Linear(i, o) for i, o in ((100, 256), (256, 256), (256, 256), (256, 10))])
    width = 512 if quick else 2048
    large = nn.Sequential(*[nn.Linear(width, width) for _ in range(8)])
    return [("small", small, 20, 5 if quick else 200), ("large", large, 1, 3 if quick else 25)]


def timed(step, repeats, device):
    """Seconds a step, after one that warms the caches."""
    step()
    if device.type == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(repeats):
            step()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3 / repeats
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    return (time.perf_counter() - start) / repeats


def measure(net, repeats, rounds, device):
    """Seconds a step: one row a round, one column a method."""
    params = list(net.to(device).parameters())
    generator = torch.Generator().manual_seed(0)
    for p in params:
        # Small gradients of either sign keep the weights, which all methods share, where they are.
        p.grad = (torch.randn(p.shape, generator=generator) * 1e-4).to(device)
    steps = {name: make(params).step for name, (make, _) in METHODS.items()}
    for step in steps.values():
        timed(step, 2, device)
    order, times = random.Random(0), []
    for _ in range(rounds):
        names = order.sample(list(steps), len(steps))
        times.append({name: timed(steps[name], repeats, device) for name in names})
    return pd.DataFrame(times)[list(METHODS)]


def machine(device):
    """What the times were taken on."""
    names = [platform.processor()]
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")] or names
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cpu": names[0],
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def main():
    """Measure, print, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    tables = []
    for name, net, repeats, rounds in nets(arguments.quick):
        times = measure(net, repeats, rounds, device)
        size = sum(p.numel() for p in net.parameters())
        moved = pd.Series({method: 4 * size * tensors for method, (_, tensors) in METHODS.items()})
        rate = moved / times.median()
        table = pd.DataFrame(
            {
                "net": name,
                "parameters": size,
                "rounds": rounds,
                "median_us": (times.median() * 1e6).round(1),
                "ratio_to_sgd_fused": times.div(times[BASE], axis=0).median().round(3),
                "ratio_to_naive": times.div(times[NAIVE], axis=0).median().round(4),
                "least_bytes": moved,
                "share_of_copy_rate": (rate / rate[COPY]).round(3),
            }
        )
        print(table.drop(columns=["net", "rounds"]).to_string(), "\n")
        tables.append(table)
    result = pd.concat(tables).rename_axis("method").reset_index().assign(**machine(device))
    print({key: result[key][0] for key in machine(device)})
    for net, limit, against in GOALS:
        rows = result[(result.net == net) & result.method.isin([m for m in METHODS if "INNA, fused" in m])]
        column = "ratio_to_sgd_fused" if against == BASE else "ratio_to_naive"
        reached = rows[column].max()
        print(
            f"{net}: fused INNA over {against}: {reached:.3f}, goal {limit}: {'met' if reached <= limit else 'missed'}"
        )
    if not arguments.quick:
        arguments.output.parent.mkdir(exist_ok=True)
        result.to_csv(arguments.output, index=False)


if __name__ == "__main__":
    main()

"""What population_speed.py times of training: problems, their matrix products alone, steps, and members that leave."""

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from sklearn.datasets import load_digits, make_classification
from sklearn.preprocessing import StandardScaler

from inna_tune.engine import CrossEntropy, Member, Population, TableTensors
from inna_tune.nets import TabularNet


@dataclass(frozen=True)
class Problem:
    """Rows, and the net that learns them."""

    name: str
    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.int64]
    hidden: tuple[int, ...]
    batch_size: int

    @property
    def widths(self) -> list[int]:
        """Widths of all layers, input to output."""
        return [self.x.shape[1], *self.hidden, int(self.y.max()) + 1]

    @property
    def steps(self) -> int:
        """Steps of an epoch of (a) and (c), which takes whole batches only."""
        return min(len(self.x) // self.batch_size, 16)

    @property
    def label(self) -> str:
        """Net and batch size in words."""
        return f"{'-'.join(map(str, self.widths))}, batch {self.batch_size}"


def problems() -> tuple[Problem, Problem, Problem]:
    """Digits at batch 64, digits at batch 256 (of which (a) measures one size only), and two wide hidden layers."""
    x, y = load_digits(return_X_y=True)
    # Constant pixels get a little noise: the encoder would drop them, and the nets would differ from the peers'.
    x = x + 1e-3 * np.random.default_rng(0).standard_normal(x.shape)
    digits = StandardScaler().fit_transform(x).astype(np.float32), y.astype(np.int64)
    x, y = make_classification(4000, 20, n_informative=10, random_state=0)
    synthetic = StandardScaler().fit_transform(x).astype(np.float32), y.astype(np.int64)
    return (
        Problem("digits", *digits, (128, 128), 64),
        Problem("digits", *digits, (128, 128), 256),
        Problem("synthetic", *synthetic, (256, 256), 256),
    )


def seconds_of(call: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Seconds a call, the device's work included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - start) / repeats


class Timer:
    """Times a call as often as makes a reading of some length, found at the first, which also warms the caches."""

    def __init__(self, call: Callable[[], object], seconds: float, device: torch.device) -> None:
        self.call, self.device = call, device
        seconds_of(call, 1, device)
        self.repeats = max(1, math.ceil(seconds / seconds_of(call, 1, device)))

    def __call__(self) -> float:
        """Seconds a call."""
        return seconds_of(self.call, self.repeats, self.device)


# ---------------------------------------------------------------------- products, and steps of training


def products(widths: list[int], rows: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Shapes of the two factors of every matrix product of one member's step."""
    found = []
    for i, (a, b) in enumerate(pairwise(widths)):
        found += [((rows, a), (a, b)), ((a, rows), (rows, b))]
        if i > 0:
            found.append(((rows, b), (b, a)))
    return found


def operations(widths: list[int], rows: int) -> int:
    """Floating-point operations of one member's step, counted in its products."""
    return sum(2 * m * k * n for (m, k), (_, n) in products(widths, rows))


def large_products(device: torch.device, seconds: float) -> dict[str, tuple[Timer, int]]:
    """Products that show what the machine can do, each with its operations."""
    square = (4096, 8192) if device.type == "cuda" else (1024, 2048)
    stacked = (64, 1024) if device.type == "cuda" else (32, 256)
    found = {}
    for n in square:
        a, b = (torch.randn(n, n, device=device) for _ in range(2))
        out = torch.empty(n, n, device=device)
        found[f"mm {n}"] = (
            Timer(lambda a=a, b=b, out=out: torch.mm(a, b, out=out), seconds, device),
            2 * n**3,
        )
    p, n = stacked
    a, b = (torch.randn(p, n, n, device=device) for _ in range(2))
    out = torch.empty(p, n, n, device=device)
    found[f"bmm {p} x {n}"] = (Timer(lambda: torch.bmm(a, b, out=out), seconds, device), 2 * p * n**3)
    return found


def step_products(problem: Problem, members: int, seconds: float, device: torch.device) -> Timer:
    """The products of a step and nothing else, into memory that is there."""
    factors = []
    for left, right in products(problem.widths, problem.batch_size):
        a, b = (torch.randn(members, *shape, device=device) for shape in (left, right))
        # A transposed factor lies in memory as the step finds it: the weight gradient's is the layer's input.
        factors.append((a, b, torch.empty(members, left[0], right[1], device=device)))

    def call() -> None:
        for a, b, out in factors:
            torch.bmm(a, b, out=out)

    return Timer(call, seconds, device)


def population(problem: Problem, members: int, device: torch.device) -> Population:
    """Members with settings of their own, which learn the same rows."""
    rows = np.arange(problem.steps * problem.batch_size)
    table = TableTensors(torch.from_numpy(problem.x).to(device), torch.from_numpy(problem.y).to(device))
    # Small steps: the weights hardly change over all the epochs that are timed.
    settings = np.random.default_rng(0).uniform((0.001, 0.3, 0.05), (0.002, 0.9, 0.15), (members, 3))
    return Population(
        TabularNet(problem.widths[0], problem.hidden, problem.widths[-1]),
        table,
        [Member(rows, rows[:0], seed, lr=g, alpha=a, beta=b) for seed, (g, a, b) in enumerate(settings)],
        CrossEntropy(),
        batch_size=problem.batch_size,
        horizon=1,
    )


def epoch(population: Population) -> Callable[[], object]:
    """An epoch of training, its step sizes included."""
    return lambda: population.train_epoch(population.learning_rates(0))


# ---------------------------------------------------------------------- members leave


def leave(
    problem: Problem,
    fresh: dict[int, Timer],
    seconds: float,
    device: torch.device,
    order: random.Random,
) -> dict[tuple[str, int], float]:
    """Seconds an epoch of a shrinking population, and of fresh ones, the largest first."""
    found = {}
    shrinking = population(problem, max(fresh), device)
    for survivors in sorted(fresh, reverse=True):
        if survivors < len(shrinking):
            # Whoever leaves, they are spread over the whole stack.
            shrinking.keep(sorted(order.sample(range(len(shrinking)), survivors)))
        timers = {"survivors": Timer(epoch(shrinking), seconds, device), "fresh": fresh[survivors]}
        for kind in order.sample(list(timers), len(timers)):
            found[kind, survivors] = timers[kind]()
    return found

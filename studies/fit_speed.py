"""How long a fit takes, and how much memory: InnaClassifier beside a bare torch loop, skorch and MLPClassifier.

Each fits the same net on the same standardised float32 rows, in the same batches, for as many epochs; they take turns in an
order drawn anew each round, so that what else the machine does falls on all alike. A ratio is the median over the rounds
of ratios within a round. What a fit includes is what a user waits for: InnaClassifier encodes the table and keeps its
history; the bare loop starts from tensors, looks at no loss, and shuffles once an epoch.

Memory is measured in a fresh process a method: the highest resident memory during a fit above that just before it, after
a small fit has loaded what is loaded once; without the net and what is as large (gradient, velocity, best weights), in
multiples of the bytes of the encoded table. The rows handed over are there before, and not counted.

Needs ``pip install 'inna-tune[studies]'``.

    python studies/fit_speed.py             writes studies/results/fit_speed.csv
    python studies/fit_speed.py --quick     fewer rounds, epochs and rows, prints only
"""

import argparse
import json
import random
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
import torch.nn.functional as F
from optimizer_speed import machine
from sklearn.datasets import make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from torch import nn

from inna_tune import InnaClassifier
from inna_tune.optim import INNA

RESULTS = Path(__file__).parent / "results" / "fit_speed.csv"
# The peers' net and nothing else: the estimators' own defaults do more.
PLAIN = {
    "activation": "relu",
    "numeric_embedding": "none",
    "dropout": 0.0,
    "averaging": None,
    "decay": "constant",
}
OURS, AUTO = "InnaClassifier", 'InnaClassifier, lr="auto"'
LOOP, LOOP_SGD = "bare loop, INNA", "bare loop, SGD momentum"
SKORCH, MLP = "skorch, SGD momentum", "MLPClassifier, SGD momentum"
LR, ALPHA, BETA, MOMENTUM = 0.02, 0.5, 0.1, 0.9
MEMORY_GOAL = 2.0

Fit = Callable[[npt.NDArray[np.float32], npt.NDArray[np.int64]], object]


@dataclass(frozen=True)
class Problem:
    """Rows, and the net that learns them."""

    name: str
    n_rows: int
    n_features: int
    hidden: tuple[int, ...]
    batch_size: int
    epochs: int

    @property
    def widths(self) -> list[int]:
        """Widths of all layers, input to output."""
        return [self.n_features, *self.hidden, 2]

    @property
    def label(self) -> str:
        """Net and batch size in words."""
        return f"{'-'.join(map(str, self.widths))}, batch {self.batch_size}"

    @property
    def n_weights(self) -> int:
        """Numbers that the net holds."""
        return sum((a + 1) * b for a, b in pairwise(self.widths))


# Problem, method over method, at most or at least, goal.
GOALS = [
    ("wide", OURS, LOOP, "at most", 1.15),
    ("small", OURS, LOOP, "at most", 1.15),
    ("wide", SKORCH, OURS, "at least", 1.5),
    ("small", SKORCH, OURS, "at least", 4.0),
]


def problems(quick: bool) -> list[Problem]:
    """Two hidden layers of 256, and a net whose steps are over before torch has said what to do."""
    epochs = 5 if quick else 20
    return [
        Problem("wide", 10_000, 20, (256, 256), 256, epochs),
        Problem("small", 2_000, 20, (32, 32), 64, epochs),
    ]


class Net(nn.Sequential):
    """The peers' net, as one writes it."""

    def __init__(self, widths: list[int]) -> None:
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            layers += [nn.Linear(a, b), nn.ReLU()]
        super().__init__(*layers[:-1])


def bare_loop(problem: Problem, make: Callable[[list[nn.Parameter]], torch.optim.Optimizer]) -> Fit:
    """Training as one writes it where speed matters: no loader, nothing recorded."""

    def fit(x: npt.NDArray[np.float32], y: npt.NDArray[np.int64]) -> nn.Module:
        net = Net(problem.widths)
        optimizer = make(list(net.parameters()))
        rows, labels = torch.from_numpy(x), torch.from_numpy(y)
        for _ in range(problem.epochs):
            order = torch.randperm(len(rows))
            batches = zip(
                rows.index_select(0, order).split(problem.batch_size),
                labels.index_select(0, order).split(problem.batch_size),
                strict=True,
            )
            for batch, label in batches:
                optimizer.zero_grad()
                F.cross_entropy(net(batch), label).backward()
                optimizer.step()
        return net

    return fit


def methods(problem: Problem) -> dict[str, Fit]:
    """Everything that fits the problem's net, each a function of rows and labels."""

    def ours(**settings: float | str) -> Fit:
        return InnaClassifier(
            hidden_layer_sizes=problem.hidden,
            batch_size=problem.batch_size,
            max_epochs=problem.epochs,
            early_stopping=False,
            device="cpu",
            random_state=0,
            **PLAIN,
            **settings,
        ).fit

    skorch = NeuralNetClassifier(
        Net,
        module__widths=problem.widths,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.SGD,
        lr=LR,
        optimizer__momentum=MOMENTUM,
        batch_size=problem.batch_size,
        max_epochs=problem.epochs,
        iterator_train__shuffle=True,
        train_split=None,
        callbacks__print_log=None,
        verbose=0,
    )
    mlp = MLPClassifier(
        problem.hidden,
        solver="sgd",
        learning_rate_init=LR,
        momentum=MOMENTUM,
        nesterovs_momentum=False,
        batch_size=problem.batch_size,
        max_iter=problem.epochs,
        n_iter_no_change=problem.epochs,
        tol=0.0,
        random_state=0,
    )
    return {
        OURS: ours(lr=LR, alpha=ALPHA, beta=BETA),
        AUTO: ours(lr="auto"),
        LOOP: bare_loop(problem, lambda p: INNA(p, LR, ALPHA, BETA, fused=True)),
        LOOP_SGD: bare_loop(problem, lambda p: torch.optim.SGD(p, LR, momentum=MOMENTUM, fused=True)),
        SKORCH: skorch.fit,
        MLP: mlp.fit,
    }


# ---------------------------------------------------------------------- time


def timed(fit: Fit, x: npt.NDArray[np.float32], y: npt.NDArray[np.int64]) -> float:
    """Seconds of a fit."""
    start = time.perf_counter()
    fit(x, y)
    return time.perf_counter() - start


def measure(problem: Problem, rounds: int) -> tuple[pd.DataFrame, pd.Series]:
    """Seconds a fit, one row a round, one column a method; and those of the first fit of each in this process."""
    x, y = make_classification(problem.n_rows, problem.n_features, n_informative=10, random_state=0)
    x, y = StandardScaler().fit_transform(x).astype(np.float32), y.astype(np.int64)
    fits = methods(problem)
    first = pd.Series({name: timed(fit, x, y) for name, fit in fits.items()})
    order, times = random.Random(0), []
    for _ in range(rounds):
        names = order.sample(list(fits), len(fits))
        times.append({name: timed(fits[name], x, y) for name in names})
    return pd.DataFrame(times)[list(fits)], first


def times_table(problem: Problem, times: pd.DataFrame, first: pd.Series) -> pd.DataFrame:
    """A row a method."""
    steps = problem.epochs * -(-problem.n_rows // problem.batch_size)
    return pd.DataFrame(
        {
            "part": "time",
            "problem": problem.name,
            "net": problem.label,
            "rows": problem.n_rows,
            "epochs": problem.epochs,
            "rounds": len(times),
            "seconds": times.median().round(5),
            "first_seconds": first.round(5),
            "us_a_step": (times.median() / steps * 1e6).round(1),
            "ratio_to_loop": times.div(times[LOOP], axis=0).median().round(3),
            "ratio_to_loop_sgd": times.div(times[LOOP_SGD], axis=0).median().round(3),
            "ratio_to_ours": times.div(times[OURS], axis=0).median().round(3),
        }
    ).rename_axis("method")


# ---------------------------------------------------------------------- memory


def status_bytes(name: str) -> int:
    """A number of /proc/self/status: VmRSS is resident memory, VmHWM the most there has been of it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {name}")


def memory_problem(n_rows: int) -> Problem:
    """A table that is large beside the net."""
    return Problem("memory", n_rows, 50, (256, 256), 256, 2)


def peak_of(method: str, n_rows: int) -> dict[str, float]:
    """The most memory during a fit above that before it; for a process that does nothing else."""
    problem = memory_problem(n_rows)
    x = np.random.default_rng(0).standard_normal((n_rows, problem.n_features), dtype=np.float32)
    y = (x[:, 0] > 0).astype(np.int64)
    fit = methods(problem)[method]
    few = 4 * problem.batch_size
    fit(x[:few].copy(), y[:few].copy())
    # The high-water mark falls to what is resident now; where that is not allowed, it may hide some of the fit.
    Path("/proc/self/clear_refs").write_text("5")
    before = status_bytes("VmRSS")
    began = status_bytes("VmHWM")
    fit(x, y)
    return {"before": before, "began": began, "peak": status_bytes("VmHWM")}


def measure_memory(n_rows: int, rounds: int) -> pd.DataFrame:
    """A row a method, of medians over fresh processes."""
    problem, rows = memory_problem(n_rows), {}
    encoded = 4 * n_rows * problem.n_features
    # Weights, gradient, velocity, best weights.
    net = 4 * 4 * problem.n_weights
    for method in methods(problem):
        found = []
        for _ in range(rounds):
            command = [sys.executable, __file__, "--peak-of", method, "--rows", str(n_rows)]
            printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            found.append(json.loads(printed.splitlines()[-1]))
        taken = pd.Series([one["peak"] - one["before"] for one in found]).median()
        rows[method] = {
            "part": "memory",
            "problem": problem.name,
            "net": problem.label,
            "rows": n_rows,
            "epochs": problem.epochs,
            "rounds": rounds,
            "encoded_mib": round(encoded / 2**20, 2),
            "peak_mib": round(taken / 2**20, 2),
            "share_of_encoded": round((taken - net) / encoded, 3),
        }
    return pd.DataFrame(rows).T.infer_objects().rename_axis("method")


# ---------------------------------------------------------------------- the run


def print_goals(times: dict[str, pd.DataFrame], labels: dict[str, str], memory: pd.DataFrame) -> None:
    """Each goal, the figure, and whether it is met."""
    for problem, method, against, kind, goal in GOALS:
        value = times[problem][method].div(times[problem][against]).median()
        met = value <= goal if kind == "at most" else value >= goal
        print(
            f"{labels[problem]}: {method} over {against}: {value:.3f}, goal {kind} {goal:g}: "
            f"{'met' if met else 'missed'}"
        )
    value = memory.share_of_encoded[OURS]
    print(
        f"peak memory of {OURS} less the net, over the encoded table: {value:.3f}, goal at most {MEMORY_GOAL:g}: "
        f"{'met' if value <= MEMORY_GOAL else 'missed'}"
    )


def main() -> None:
    """Measure, print, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, help="in place of the usual number")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument(
        "--peak-of", metavar="METHOD", help="measure this method's memory in this process, print it"
    )
    parser.add_argument("--rows", type=int, help="of the table whose memory is measured")
    arguments = parser.parse_args()
    # The peers are meant to stop at the last epoch.
    warnings.simplefilter("ignore", ConvergenceWarning)
    n_rows = arguments.rows or (50_000 if arguments.quick else 200_000)
    if arguments.peak_of is not None:
        print(json.dumps(peak_of(arguments.peak_of, n_rows)))
        return

    rounds = arguments.rounds or (3 if arguments.quick else 15)
    times, tables, labels = {}, [], {}
    for problem in problems(arguments.quick):
        times[problem.name], first = measure(problem, rounds)
        labels[problem.name] = problem.label
        tables.append(times_table(problem, times[problem.name], first))
    memory = measure_memory(n_rows, 1 if arguments.quick else 3)
    for table in (*tables, memory):
        print(table.drop(columns=["part", "problem", "rounds"]).to_string(), "\n")
    found = machine(torch.device("cpu"))
    print(found)
    print_goals(times, labels, memory)
    if not arguments.quick:
        arguments.output.parent.mkdir(exist_ok=True)
        result = pd.concat([*tables, memory]).reset_index().assign(**found)
        result.to_csv(arguments.output, index=False)


if __name__ == "__main__":
    main()

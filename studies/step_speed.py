"""What a training step of the default net costs beside its matrix products alone, and what predicting does; by one thread.

The net has the defaults of the estimators on nine numeric columns: 48 linear pieces a number, two layers of 256, mish,
dropout .25, averaged weights, a scale a tensor. The products are those of its layers and of its embedding, forward and
backward, of the same sizes, made by torch with nothing between them. Step and products take turns, in CPU time, and a share is
the median over the rounds of the ratio within a round. Predicting is timed without encoding: 77 columns, six of them numeric,
as adult has.

With ``--against`` another checkout of the repository takes turns with this one, in processes of their own; a ratio is the
median of its CPU time over ours.

    python studies/step_speed.py                      writes studies/results/step_speed.csv
    python studies/step_speed.py --against ../older   the same, with ratios
    python studies/step_speed.py --quick              fewer rounds, prints only
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from optimizer_speed import machine

import inna_tune
from inna_tune.engine import Member, Method, SquaredError, TableTensors
from inna_tune.engine.population import Population
from inna_tune.estimators import InnaClassifier
from inna_tune.nets import TabularNet

RESULTS = Path(__file__).parent / "results" / "step_speed.csv"
HERE = Path(inna_tune.__file__).parents[1]
# Members, batch, goal of the products' share.
STEPS = [(1, 128, 0.6), (8, 128, 0.6), (1, 256, 0.7), (8, 256, 0.7)]
PREDICTING = [1, 8]
N_COLUMNS, N_STEPS, N_PREDICTED = 9, 40, 20_000


def cpu_seconds(action: Callable[[], object]) -> float:
    """Of this process."""
    began = time.process_time()
    action()
    return time.process_time() - began


def steps(n_members: int, batch_size: int) -> tuple[TabularNet, Callable[[], object]]:
    """The net, and what makes so many steps of it."""
    n_rows = N_STEPS * batch_size
    stream = torch.Generator().manual_seed(0)
    x = torch.randn(n_rows, N_COLUMNS, generator=stream).clamp(-3, 3)
    net = TabularNet(
        N_COLUMNS,
        (256, 256),
        1,
        n_numeric=N_COLUMNS,
        numeric_embedding="piecewise",
        n_frequencies=64,
        evenness=0.4,
        activation="mish",
    )
    rows = np.arange(n_rows)
    population = Population(
        net,
        TableTensors(x, x[:, :1].sin() + x[:, 1:2] * x[:, 2:3]),
        [Member(rows, rows[:0], seed, dropout=0.25) for seed in range(n_members)],
        SquaredError(),
        batch_size=batch_size,
        horizon=100,
        method=Method(averaging=0.99, scale_tensors=True),
    )
    rates = population.learning_rates(0)
    return net, lambda: population.train_epoch(rates)


def products(net: TabularNet, n_members: int, batch_size: int) -> Callable[[], object]:
    """What makes the products of so many steps, each forward, for its weights and for what it reads."""
    sizes = [(n_members, layer.in_features, layer.out_features) for layer in net.layers[:-1]]
    made = []
    for members, inputs, outputs in sizes:
        x, slope = torch.randn(members, batch_size, inputs), torch.randn(members, batch_size, outputs)
        weight, out = torch.randn(members, inputs, outputs), torch.empty(members, batch_size, outputs)
        made += [
            (x, weight, out),
            (x.transpose(1, 2), slope, torch.empty_like(weight)),
            (slope, weight.transpose(1, 2), torch.empty_like(x)),
        ]
    if (numeric := net.numeric) is not None:
        columns = n_members * numeric.n_columns
        features = torch.rand(columns, numeric.n_features, batch_size)
        embedded = torch.randn(columns, numeric.dim, batch_size)
        weight = torch.randn(columns, numeric.dim, numeric.n_features)
        made += [
            (weight, features, torch.empty_like(embedded)),
            (features, embedded.transpose(1, 2), torch.empty_like(weight.transpose(1, 2).contiguous())),
        ]

    def make() -> None:
        for _ in range(N_STEPS):
            for a, b, out in made:
                torch.bmm(a, b, out=out)

    return make


def predicting(n_members: int) -> Callable[[], object]:
    """What predicts so many encoded rows by the default net of so many members."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.standard_normal((1_000, 6)))
    X.columns = [f"number {i}" for i in range(6)]
    X["level"] = rng.integers(0, 71, 1_000).astype(str)
    model = InnaClassifier(n_members=n_members, max_epochs=1, random_state=0).fit(X, X["number 0"] > 0)
    encoded = model.encoder_.encode(pd.concat([X] * (N_PREDICTED // len(X))), np.float32)
    return lambda: model._outputs_of(encoded)


def measure(rounds: int) -> list[dict[str, object]]:
    """CPU milliseconds of each part, medians over the rounds; this process, this package."""
    torch.set_num_threads(1)
    found: list[dict[str, object]] = []
    for n_members, batch_size, goal in STEPS:
        net, step = steps(n_members, batch_size)
        product = products(net, n_members, batch_size)
        step(), product()
        pairs = np.array([[cpu_seconds(step), cpu_seconds(product)] for _ in range(rounds)])
        found.append(
            {
                "part": "step",
                "members": n_members,
                "batch": batch_size,
                "ms": 1e3 * float(np.median(pairs[:, 0])) / N_STEPS,
                "products_ms": 1e3 * float(np.median(pairs[:, 1])) / N_STEPS,
                "share_of_products": float(np.median(pairs[:, 1] / pairs[:, 0])),
                "goal": goal,
            }
        )
    for n_members in PREDICTING:
        predict = predicting(n_members)
        predict()
        ms = 1e3 * float(np.median([cpu_seconds(predict) for _ in range(rounds)]))
        found.append({"part": f"predict {N_PREDICTED:,} rows", "members": n_members, "ms": ms})
    return found


def measured_in(checkout: Path, rounds: int) -> pd.DataFrame:
    """By the package of a checkout, in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", __file__, "--here", "--rounds", str(rounds)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    told = json.loads(printed.splitlines()[-1])
    if Path(told["package"]).resolve() != checkout.resolve():
        raise SystemExit(f"{checkout} has no package of ours: {told['package']} was measured.")
    return pd.DataFrame(told["found"])


def main() -> None:
    """Measure, print, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=7, help="within a process")
    parser.add_argument("--turns", type=int, default=3, help="of processes")
    parser.add_argument("--against", type=Path, help="another checkout")
    parser.add_argument("--here", action="store_true", help="measure in this process, print JSON")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.here:
        print(json.dumps({"package": str(HERE), "found": measure(arguments.rounds)}))
        return
    rounds, turns = (3, 1) if arguments.quick else (arguments.rounds, arguments.turns)
    ours, theirs = [], []
    for _ in range(turns):
        ours.append(measured_in(HERE, rounds))
        if arguments.against is not None:
            theirs.append(measured_in(arguments.against, rounds))
    keys = ["part", "members", "batch"]
    table = pd.concat(ours).groupby(keys, sort=False, dropna=False).median().reset_index()
    if theirs:
        ratios = [b.ms / a.ms for a, b in zip(ours, theirs, strict=True)]
        table["older_over_ours"] = pd.concat(ratios, axis=1).median(axis=1).to_numpy()
    print(table.round(3).to_string(index=False))
    if not arguments.quick:
        arguments.output.parent.mkdir(exist_ok=True)
        table.round(4).assign(**machine(torch.device("cpu"))).to_csv(arguments.output, index=False)


if __name__ == "__main__":
    main()

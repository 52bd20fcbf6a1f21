"""Whether an interval between quantiles holds what it says: of how many held-out rows the target lies between 10% and 90%.

    [INNA_TUNE_DATA=folder] python studies/quantiles.py [--tables abalone,ames] [--rows 4000] [--epochs 100]

``InnaRegressor(quantiles=(.1, .5, .9))`` as it comes, on five public regressions: so many training rows of each, drawn by seed
0, and 3,000 others or what there is to test on. Beside the share that the interval holds stand the mean pinball loss, in
standard deviations of the target, and that of the training rows' own quantiles, which know nothing of a row. Writes
``studies/results/quantiles.csv`` and a table of it in ``quantiles.md``.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import mean_pinball_loss
from tables import load_table

from inna_tune import InnaRegressor

RESULTS = Path(__file__).parent / "results" / "quantiles.csv"
TABLES = ("abalone", "ames", "california", "diamonds", "hotel_rates")
QUANTILES = (0.1, 0.5, 0.9)
MOST_TESTED = 3000


def loss(y, found):
    """Mean pinball loss of the quantiles."""
    return float(np.mean([mean_pinball_loss(y, found[:, i], alpha=q) for i, q in enumerate(QUANTILES)]))


def measure(name, n_rows, epochs):
    """What one table gives."""
    frame, target, _ = load_table(name)
    order = np.random.default_rng(0).permutation(len(frame))
    n_rows = min(n_rows, int(0.7 * len(frame)))
    train, test = order[:n_rows], order[n_rows : n_rows + MOST_TESTED]
    X, y = frame.drop(columns=target), frame[target].to_numpy(float)
    model = InnaRegressor(quantiles=QUANTILES, random_state=0, max_epochs=epochs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = model.fit(X.iloc[train], y[train]).predict_quantiles(X.iloc[test])
    constant = np.tile(np.quantile(y[train], QUANTILES), (len(test), 1))
    held = (found[:, 0] <= y[test]) & (y[test] <= found[:, 2])
    return {
        "table": name,
        "training_rows": len(train),
        "test_rows": len(test),
        "held": round(float(held.mean()), 4),
        "below_median": round(float((y[test] <= found[:, 1]).mean()), 4),
        "crossed": int((np.diff(found, axis=1) < 0).any(1).sum()),
        "pinball": round(loss(y[test], found) / y[train].std(), 4),
        "pinball_of_constants": round(loss(y[test], constant) / y[train].std(), 4),
    }


def main():
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tables", default=",".join(TABLES))
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    rows = []
    for name in arguments.tables.split(","):
        rows.append(measure(name, arguments.rows, arguments.epochs))
        print(rows[-1], flush=True)
    frame = pd.DataFrame(rows)
    frame.to_csv(arguments.out, index=False)
    lines = [
        "| table | training rows | held by 10% to 90% | below the median | pinball loss | of constants |"
    ]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    lines += [
        f"| {r.table} | {r.training_rows} | {r.held:.1%} | {r.below_median:.1%} | {r.pinball:.4f} | "
        f"{r.pinball_of_constants:.4f} |"
        for r in frame.itertuples()
    ]
    arguments.out.with_suffix(".md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

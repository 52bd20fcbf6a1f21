"""How many nets a fold of a bag should train, as AutoGluon bags: by the bag's own loss, and by that of its folds.

    INNA_TUNE_DATA=folder python studies/bag_members.py [--tables a,b] [--seeds 0,1] [--folds 5,8] [--rows 1000]

Each fold's nets are stopped by its left-out rows, for as many epochs as the default trains, and the mean of all folds' nets is
what a bag predicts. Of each table at most ``--rows`` rows are trained on, drawn anew for each seed, and the test rows of
``studies/accuracy.py`` score them: log-loss, or RMSE over the standard deviation of the training target, lower is better.
``bag`` is the loss of the test rows, ``left_out`` that of the rows that the folds left out, by which a bag is judged,
weighted and stacked. Nets are 64 wide. A row a table, seed, number of folds and number of nets is added to
``studies/results/bag_members.csv``, and ``bag_members.md`` beside it sums them up; ``--tables ""`` only does that.
"""

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from accuracy import TABLES, score, split
from sklearn.model_selection import KFold, StratifiedKFold

from inna_tune import InnaClassifier, InnaRegressor

RESULTS = Path(__file__).parent / "results" / "bag_members.csv"
NETS = (2, 8)


def measure(name, seed, n_folds, most_rows):
    """A row for each number of nets."""
    X, y, X_test, y_test, y_all, task = split(name)
    chosen = np.random.default_rng(seed).permutation(len(X))[:most_rows]
    X, y = X.iloc[chosen].reset_index(drop=True), y[chosen]
    is_regression = task == "regression"
    kind = InnaRegressor if is_regression else InnaClassifier
    folds = list(
        (KFold if is_regression else StratifiedKFold)(n_folds, shuffle=True, random_state=seed).split(X, y)
    )
    for n_members in NETS:
        began, tested, left_out = time.process_time(), [], None
        for fold, (train, held) in enumerate(folds):
            net = kind(hidden_layer_sizes=(64, 64), random_state=1000 * seed + fold, n_jobs=1)
            net.set_params(n_members=n_members, max_epochs=net._plan_for(len(train)).max_epochs)
            net.fit(X.iloc[train], y[train], X_val=X.iloc[held], y_val=y[held])
            predict = net.predict if is_regression else net.predict_proba
            tested.append(predict(X_test))
            found = predict(X.iloc[held])
            left_out = np.zeros((len(X), *found.shape[1:])) if left_out is None else left_out
            left_out[held] = found
        yield {
            "table": name,
            "seed": seed,
            "rows": len(X),
            "folds": n_folds,
            "nets": n_members,
            "bag": round(score(task, y_all, y_test, np.mean(tested, axis=0)), 5),
            "left_out": round(score(task, y_all, y, left_out), 5),
            "cpu_seconds": round(time.process_time() - began, 1),
        }


def as_markdown(results):
    """How much higher the losses of two nets a fold are than those of eight: a row a number of rows and of folds."""
    keys = ["rows", "folds", "table", "seed", "nets"]
    wide = results.set_index(keys)[["bag", "left_out", "cpu_seconds"]].unstack("nets")
    few, many = NETS
    lines = [
        "| rows | folds | tables | bags | bag | table by table | rows left out | time |",
        "|---:|---:|---:|---:|---:|---|---:|---:|",
    ]
    for (n_rows, n_folds), part in wide.groupby(["rows", "folds"]):
        percent = {c: 100 * (part[c][few] / part[c][many] - 1) for c in ("bag", "left_out")}
        bag, held = (percent[c].groupby("table").mean() for c in ("bag", "left_out"))
        each = ", ".join(f"{name} {value:+.2f}" for name, value in bag.sort_values().items())
        share = part["cpu_seconds"][few].sum() / part["cpu_seconds"][many].sum()
        lines.append(
            f"| {n_rows:,} | {n_folds} | {len(bag)} | {len(part)} | {bag.mean():+.2f}% ± {bag.sem():.2f} | {each} "
            f"| {held.mean():+.2f}% ± {held.sem():.2f} | {share:.2f} |"
        )
    return (
        f"{few} nets a fold beside {many}, each 64 wide: by how many per cent the loss is higher, the mean over tables "
        "± standard error, and the processor time as a share.\n\n" + "\n".join(lines) + "\n"
    )


def main():
    """Measure what is not there yet, and sum up."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", default=",".join(TABLES))
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--folds", default="5")
    parser.add_argument("--rows", type=int, default=1000)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    results = (
        pd.read_csv(RESULTS) if RESULTS.exists() else pd.DataFrame(columns=["table", "seed", "folds", "rows"])
    )
    for seed in map(int, arguments.seeds.split(",")):
        for n_folds in map(int, arguments.folds.split(",")):
            for name in filter(None, arguments.tables.split(",")):
                asked = (
                    results[["table", "seed", "folds", "rows"]] == [name, seed, n_folds, arguments.rows]
                ).all(axis=1)
                if asked.any():
                    continue
                rows = pd.DataFrame(measure(name, seed, n_folds, arguments.rows))
                print(rows.to_string(index=False, header=False), flush=True)
                results = rows if results.empty else pd.concat([results, rows], ignore_index=True)
                results.to_csv(RESULTS, index=False)
    RESULTS.with_suffix(".md").write_text(as_markdown(results))


if __name__ == "__main__":
    main()

"""Flat studies of INNA on real tables: what the prior beside is learned from.

    INNA_TUNE_DATA=folder python studies/tabular_inna/run.py [--tables a,b] [--trials 96] [--seeds 1]

Settings are drawn uniformly (k = 0: no prior counts) over the bounds of the shipped space, in the pure numbers of the
curvature, and trained without pruning: the estimators as they come but for two hidden layers of 128, 40 epochs, and at most
2,000 rows, a quarter of them held out for the score. All trials go to ``trials.csv``, a row a trial; a table that is there
already is left alone.
"""

import argparse
import sys
import warnings
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
from sklearn.model_selection import ShuffleSplit, StratifiedShuffleSplit

sys.path.insert(0, str(Path(__file__).parents[1]))
from tables import load_table

from inna_tune import InnaClassifier, InnaRegressor, InnaSearchCV, PriorSampler, SearchSpace

RESULTS = Path(__file__).parent / "trials.csv"
TABLES = (
    "titanic",
    "credit",
    "churn",
    "abalone",
    "ames",
    "california",
    "crash",
    "diamonds",
    "adult",
    "hotel_rates",
)
MOST_ROWS = 2_000
NET = {"hidden_layer_sizes": (128, 128), "max_epochs": 40, "early_stopping": False}


def rows_of(name, seed):
    """A table's rows, at most so many, and its task; classes of fewer than ten rows are left out."""
    frame, target, task = load_table(name)
    frame = frame.iloc[np.random.default_rng(seed).permutation(len(frame))[:MOST_ROWS]].reset_index(drop=True)
    y = frame.pop(target)
    if task == "regression":
        return frame, y.astype(float), task
    enough = y.astype(str).map(y.astype(str).value_counts()).ge(10)
    return frame[enough], y[enough].astype(str), task


def study(name, seed, n_trials):
    """One flat study: a DataFrame of its trials."""
    X, y, task = rows_of(name, seed)
    kind, split = (
        (InnaRegressor, ShuffleSplit) if task == "regression" else (InnaClassifier, StratifiedShuffleSplit)
    )
    probe = kind(random_state=seed, **(NET | {"max_epochs": 1})).fit(X, y)
    curvature = probe.members_[0]["curvature"]
    space = SearchSpace.inna(curvature=curvature)
    search = InnaSearchCV(
        kind(**NET),
        space,
        n_trials=n_trials,
        cv=split(1, test_size=0.25, random_state=seed),
        sampler=PriorSampler(optuna.samplers.RandomSampler(), space, k=0, seed=seed),
        pruner=optuna.pruners.NopPruner(),
        refit=False,
        random_state=seed,
    ).fit(X, y)
    scale = float(np.std(y)) if task == "regression" else 1.0
    rows = [
        {
            "table": name,
            "seed": seed,
            "rows": len(X),
            "task": task,
            "curvature": curvature,
            "number": trial.number,
            # A trial that diverged has no value; samplers see it as pruned.
            "loss": -trial.value / scale if trial.value is not None else float("nan"),
            **trial.params,
        }
        for trial in search.study_.trials
    ]
    return pd.DataFrame(rows)


def main():
    """Run the studies that are not there yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tables", default=",".join(TABLES))
    parser.add_argument("--trials", type=int, default=96)
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    results = pd.read_csv(RESULTS) if RESULTS.exists() else pd.DataFrame(columns=["table", "seed"])
    for seed in range(arguments.seeds):
        for name in arguments.tables.split(","):
            if ((results.table == name) & (results.seed == seed)).any():
                continue
            found = study(name, seed, arguments.trials)
            print(name, found.loss.describe().round(4).to_dict(), flush=True)
            results = pd.concat([results, found], ignore_index=True)
            results.to_csv(RESULTS, index=False, float_format="%.6g")


if __name__ == "__main__":
    main()

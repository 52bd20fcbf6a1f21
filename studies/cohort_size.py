"""What it costs, and what it brings, to draw trials in cohorts: studies of 64 trials in cohorts of 1, 4, 8, 16 and 32.

    INNA_TUNE_DATA=folder python studies/cohort_size.py [--seeds 3] [--tables a,b]

A sampler learns between cohorts only; the trials of a cohort train as one population, and the next is drawn when all of
them have ended. Per table and seed, one study a cohort size, on the same at most 1,500 rows with the same three folds, in
an order drawn anew; then the best settings, refitted, are scored on rows that no study saw. Writes
``studies/results/cohort_size.csv`` (a row a study) and prints the table: score and time over those of cohort 1.
"""

import argparse
import os
import random
import time
import warnings
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
from optimizer_speed import machine
from sklearn.model_selection import train_test_split
from tables import load_table

from inna_tune import InnaClassifier, InnaRegressor, InnaSearchCV
from inna_tune.tables.problem import make_problem
from inna_tune.tables.reading import read_table

RESULTS = Path(__file__).parent / "results" / "cohort_size.csv"
SIZES = (1, 4, 8, 16, 32)
N_TRIALS, N_ROWS = 64, 1500
BUNDLED = ("sklearn:breast_cancer", "sklearn:digits", "sklearn:diabetes")
FOLDER = ("adult", "california", "credit", "churn", "abalone", "titanic")


def rows_of(name):
    """Features and target for the studies and, apart from them, for the final score; and whether they are classes."""
    frame, target, task = (*read_table(name), None) if name.startswith("sklearn:") else load_table(name)
    problem = make_problem(frame, target, task=task)
    classes = problem.task != "regression"
    order = np.random.default_rng(0).permutation(len(problem.y))[: 4 * N_ROWS]
    X, y = problem.X.iloc[order], problem.y.iloc[order]
    n_tuning = min(N_ROWS, int(0.7 * len(y)))
    parts = train_test_split(X, y, train_size=n_tuning, random_state=0, stratify=y if classes else None)
    return *parts, classes


def run(parts, size, seed):
    """Seconds of a study, its best cross-validated loss, and the loss of the best settings on the rows apart."""
    X, X_apart, y, y_apart, classes = parts
    net = (InnaClassifier if classes else InnaRegressor)(hidden_layer_sizes=(128, 128), batch_size=128)
    search = InnaSearchCV(net, n_trials=N_TRIALS, cv=3, population=size, random_state=seed)
    began = time.perf_counter()
    search.fit(X, y)
    seconds = time.perf_counter() - began - search.refit_time_
    pruned = sum(t.state == optuna.trial.TrialState.PRUNED for t in search.study_.get_trials(deepcopy=False))
    return {
        "seconds": seconds,
        "loss": -search.best_score_,
        "loss_apart": -search.score(X_apart, y_apart),
        "pruned": pruned,
    }


def summarize(studies):
    """Medians over seeds and tables of what a size costs and brings, relative to cohort 1 of the same table and seed."""
    base = studies[studies.cohort == 1].set_index(["table", "seed"])
    joined = studies.join(base, on=["table", "seed"], rsuffix="_1")
    for column in ("seconds", "loss", "loss_apart"):
        joined[f"{column}_ratio"] = joined[column] / joined[f"{column}_1"]
    ratios = joined.groupby("cohort")[["seconds_ratio", "loss_ratio", "loss_apart_ratio"]]
    table = ratios.median().join(ratios.quantile(0.75).add_suffix("_q75"))
    print(table.join(studies.groupby("cohort").pruned.median()).round(4).to_string())


def main():
    """Run every study, write the file, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tables", default=",".join(BUNDLED + FOLDER * ("INNA_TUNE_DATA" in os.environ)))
    parser.add_argument("--summarize", action="store_true", help="only read and print what is there")
    arguments = parser.parse_args()
    if arguments.summarize:
        summarize(pd.read_csv(RESULTS))
        return
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    order, found = random.Random(0), []
    for name in arguments.tables.split(","):
        parts = rows_of(name)
        for seed in range(arguments.seeds):
            for size in order.sample(SIZES, len(SIZES)):
                row = {"table": name.removeprefix("sklearn:"), "seed": seed, "cohort": size}
                found.append(row | run(parts, size, seed))
        print(name, flush=True)
    import torch

    studies = pd.DataFrame(found).assign(**machine(torch.device("cpu")))
    studies.to_csv(RESULTS, index=False, float_format="%.6g")
    summarize(studies)


if __name__ == "__main__":
    main()

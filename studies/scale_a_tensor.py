"""Whether INNA gains by a step of its own for each weight matrix, from the curvature of that matrix' block of the Hessian.

    INNA_TUNE_DATA=folder python studies/scale_a_tensor.py [--tables a,b] [--seeds 2]

The estimators as they come, with one step for all tensors (``scale_tensors=False``), with a scale a tensor by powers of one
half and one (the default) of the quotient of curvatures; AdamW beside them.
Scores are losses of held-out rows (a quarter, at most 6,000 rows a table), over those of one step: below 1 a variant helps.
Results are added to ``studies/results/scale_a_tensor.csv``. Fixed factors for groups of tensors (the biases, the first layer,
the head, the embeddings), the same on all tables, had gained nothing.
"""

import argparse
import warnings
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
from accuracy import score
from sklearn.model_selection import train_test_split
from tables import load_table

from inna_tune import InnaClassifier, InnaRegressor
from inna_tune.optim import step_factors

RESULTS = Path(__file__).parent / "results" / "scale_a_tensor.csv"
TABLES = ("titanic", "credit", "churn", "abalone", "ames", "california", "crash")
MOST_ROWS = 6_000

# Settings, and the power of the quotient of curvatures.
VARIANTS = {
    "one step": ({"scale_tensors": False}, 1.0),
    "power 1/2": ({}, 0.5),
    "power 1": ({}, 1.0),
    "adamw": ({"optimizer": "adamw"}, 1.0),
}


def split(name, seed):
    """Rows to fit on and rows to score."""
    frame, target, task = load_table(name)
    y = frame.pop(target)
    y = y.astype(float).to_numpy() if task == "regression" else pd.factorize(y.astype(str), sort=True)[0]
    rows = np.random.default_rng(seed).permutation(len(y))[:MOST_ROWS]
    frame, y = frame.iloc[rows], y[rows]
    strata = None if task == "regression" else y
    return *train_test_split(frame, y, test_size=0.25, random_state=seed, stratify=strata), task


def summary(results):
    """Ratios to one step for all tensors: a row a variant, a column a table, and their geometric mean."""
    table = results.pivot_table(index=["table", "seed"], columns="variant", values="score")
    ratios = np.log(table.div(table["one step"], axis=0)).groupby("table").mean().T
    ratios["all"] = ratios.mean(axis=1)
    return np.exp(ratios).loc[[v for v in VARIANTS if v in ratios.index]].round(4)


def main():
    """Run what is not there yet, write and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tables", default=",".join(TABLES))
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    results = pd.read_csv(RESULTS) if RESULTS.exists() else pd.DataFrame(columns=["table", "seed", "variant"])
    for seed in range(arguments.seeds):
        for name in arguments.tables.split(","):
            X, X_test, y, y_test, task = split(name, seed)
            for variant in arguments.variants.split(","):
                settings, power = VARIANTS[variant]
                if ((results.table == name) & (results.seed == seed) & (results.variant == variant)).any():
                    continue
                kind = InnaRegressor if task == "regression" else InnaClassifier
                by_power = partial(step_factors, power=power)
                with mock.patch("inna_tune.engine.calibrating.step_factors", by_power):
                    model = kind(random_state=seed, **settings).fit(X, y)
                predicted = model.predict(X_test) if task == "regression" else model.predict_proba(X_test)
                row = {
                    "table": name,
                    "seed": seed,
                    "variant": variant,
                    "score": score(task, y, y_test, predicted),
                    "best_epoch": model.best_epoch_,
                    "lr": model.members_[0]["lr"],
                    "curvature": model.members_[0]["curvature"],
                }
                print(row, flush=True)
                results = pd.concat([results, pd.DataFrame([row])], ignore_index=True)
                results.to_csv(RESULTS, index=False, float_format="%.6g")
    print(summary(results).to_string())


if __name__ == "__main__":
    main()

"""Whether steps of their own for groups of parameters help INNA, as they help Adam in RealMLP.

    INNA_TUNE_DATA=folder python studies/step_factors.py [--tables a,b] [--seeds 2]

The estimators as they come, but for factors of the step of one group of parameters: the biases, the first layer, the head,
the embeddings. A factor f multiplies the gradient, which is INNA on parameters stretched by the root of f; the curvature
that sets lr, alpha and beta is measured in those. Scores are losses of held-out rows (a quarter, at most 6,000 rows a table),
over those without factors: below 1 a factor helps. Results are added to ``studies/results/step_factors.csv``.
"""

import argparse
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from accuracy import score
from sklearn.model_selection import train_test_split
from tables import load_table

from inna_tune import InnaClassifier, InnaRegressor

RESULTS = Path(__file__).parent / "results" / "step_factors.csv"
TABLES = ("titanic", "credit", "churn", "abalone", "ames", "california", "crash")
MOST_ROWS = 6_000


def _is_bias(name, last):
    return name.startswith("layers.") and name.endswith(".bias")


def _is_first(name, last):
    return name == "layers.0.weight"


def _is_head(name, last):
    return name == f"layers.{last}.weight"


def _is_embedding(name, last):
    return name.startswith(("numeric.", "categorical."))


VARIANTS = {
    "none": (None, 1.0),
    "biases x 0.1": (_is_bias, 0.1),
    "biases x 4": (_is_bias, 4.0),
    "first layer x 1/4": (_is_first, 0.25),
    "first layer x 4": (_is_first, 4.0),
    "first layer x 16": (_is_first, 16.0),
    "head x 1/4": (_is_head, 0.25),
    "head x 4": (_is_head, 4.0),
    "embeddings x 0.1": (_is_embedding, 0.1),
    "embeddings x 10": (_is_embedding, 10.0),
}


def with_factors(kind, group, factor):
    """The estimator class with a net whose group of parameters has a factor."""

    class Stretched(kind):
        def _build_net(self, *arguments):
            net = super()._build_net(*arguments)
            last = len(net.layers) - 1
            names = [n for n in net.parameter_shapes if group is not None and group(n, last)]
            return replace(net, step_factors=dict.fromkeys(names, factor))

    return Stretched


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
    """Ratios to no factors: a row a variant, a column a table, and their geometric mean."""
    table = results.pivot_table(index=["table", "seed"], columns="variant", values="score")
    ratios = np.log(table.div(table["none"], axis=0)).groupby("table").mean().T
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
                group, factor = VARIANTS[variant]
                if ((results.table == name) & (results.seed == seed) & (results.variant == variant)).any():
                    continue
                kind = with_factors(InnaRegressor if task == "regression" else InnaClassifier, group, factor)
                model = kind(random_state=seed).fit(X, y)
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

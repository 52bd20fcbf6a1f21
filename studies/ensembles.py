"""What a search's ensemble is worth beside its best settings, fitted once more, and the untuned default.

    INNA_TUNE_DATA=folder python studies/ensembles.py [--tables a,b] [--seeds 0,1] [--trials 15] [--rows 800]

A study is gone on with for each kind of answer, so that all are of the same trials. ``folds`` and ``fits`` are the ensemble of
the folds' nets, and of the heaviest five settings fitted on all rows; ``refit=True`` is the best settings, fitted once.
Tables are cut to ``--rows`` training rows, drawn anew for each seed, and scored on the test rows of ``studies/accuracy.py``:
log-loss, or RMSE over the standard deviation of the training target, lower is better. A row a table and seed is added to
``studies/results/ensembles.csv``.
"""

import argparse
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from accuracy import score, split

from inna_tune import InnaClassifier, InnaRegressor, InnaSearchCV
from inna_tune.study import ensemble

RESULTS = Path(__file__).parent / "results" / "ensembles.csv"
TABLES = ("titanic", "credit", "adult", "abalone")
KINDS = {"refit=True": (True, 0), "folds": ("ensemble", 0), "fits": ("ensemble", 10**9)}


def measure(name, seed, n_trials, most_rows):
    """Scores of every kind of answer, by name."""
    X, y, X_test, y_test, y_train, task = split(name)
    rows = np.random.default_rng(seed).permutation(len(X))[:most_rows]
    X, y = X.iloc[rows].reset_index(drop=True), y[rows]
    kind = InnaRegressor if task == "regression" else InnaClassifier
    found = {"table": name, "seed": seed, "rows": len(X), "trials": n_trials}

    def tested(model):
        predicted = model.predict(X_test) if task == "regression" else model.predict_proba(X_test)
        return round(score(task, y_train, y_test, predicted), 5)

    found["default"] = tested(kind(random_state=seed).fit(X, y))
    with tempfile.TemporaryDirectory() as folder:
        for words, (refit, enough) in KINDS.items():
            ensemble.ENOUGH_FOLDS = enough
            search = InnaSearchCV(
                kind(),
                n_trials=n_trials,
                storage=f"sqlite:///{folder}/s.db",
                study_name="s",
                resume=True,
                random_state=seed,
                refit=refit,
            )
            found[words] = tested(search.fit(X, y))
    return found


def main():
    """Measure each table with each seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", default=",".join(TABLES))
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--trials", type=int, default=15)
    parser.add_argument("--rows", type=int, default=800)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    for seed in map(int, arguments.seeds.split(",")):
        for name in arguments.tables.split(","):
            row = pd.DataFrame([measure(name, seed, arguments.trials, arguments.rows)])
            known = pd.read_csv(RESULTS) if RESULTS.exists() else pd.DataFrame()
            pd.concat([known, row]).to_csv(RESULTS, index=False)
            print(row.to_string(index=False), flush=True)


if __name__ == "__main__":
    main()

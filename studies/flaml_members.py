"""How many nets a trial of FLAML's should train: two, and the last fit eight, or eight always, in the same time.

    INNA_TUNE_DATA=folder python studies/flaml_members.py [--tables a,b] [--seeds 0] [--budget 20] [--width 256] [--rows 1000]

FLAML searches INNA alone, with nets of two layers, by its own folds. Its budget is of seconds of the processor, which other
programs do not change: clocks are set to tell these. Of each table at most ``--rows`` rows are trained on, drawn anew for each
seed; scores are of the test rows of ``studies/accuracy.py``: log-loss, or RMSE over the standard deviation of the training
target, lower is better. A row a table, seed and number of nets is added to ``studies/results/flaml_members.csv``.
"""

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from accuracy import score, split
from flaml import AutoML

from inna_tune import clock
from inna_tune.plugins.few import with_few_nets
from inna_tune.plugins.flaml import InnaLearner

RESULTS = Path(__file__).parent / "results" / "flaml_members.csv"
TABLES = ("adult", "california", "churn", "abalone", "titanic", "ames")


class FewInTrials(InnaLearner):
    """Trials of two nets, and a last fit of as many as by default."""

    def fit(self, X_train, y_train, budget=None, free_mem_ratio=0, **kwargs):
        """As FLAML calls it."""
        if not kwargs.get("is_retrain"):
            usual = self.estimator_class(max_epochs=int(self.params["max_epochs"]))
            few = with_few_nets(usual, len(y_train))
            self.params |= {"n_members": few.n_members, "max_epochs": few.max_epochs}
        return super().fit(X_train, y_train, budget, free_mem_ratio, **kwargs)


LEARNERS = {"few": FewInTrials, "auto": InnaLearner}


def measure(name, seed, budget, width, most_rows):
    """A row for each number of nets."""
    X, y, X_test, y_test, y_all, task = split(name)
    chosen = np.random.default_rng(seed).permutation(len(X))[:most_rows]
    X, y = X.iloc[chosen].reset_index(drop=True), y[chosen]
    is_regression = task == "regression"
    for nets, learner in LEARNERS.items():
        automl = AutoML()
        automl.add_learner("inna", learner)
        began = time.time()
        automl.fit(
            X,
            y,
            task="regression" if is_regression else "classification",
            metric="rmse" if is_regression else "log_loss",
            estimator_list=["inna"],
            time_budget=budget,
            custom_hp={"inna": {"hidden_layer_sizes": {"domain": f"{width}-{width}"}}},
            n_jobs=1,
            seed=seed,
            verbose=0,
        )
        predicted = automl.predict(X_test) if is_regression else automl.predict_proba(X_test)
        yield {
            "table": name,
            "seed": seed,
            "rows": len(X),
            "width": width,
            "budget": budget,
            "nets": nets,
            "score": round(score(task, y_all, y_test, predicted), 5),
            "trials": len(automl.config_history),
            "cpu_seconds": round(time.time() - began, 1),
        }


def main():
    """Measure each table with each seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", default=",".join(TABLES))
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--budget", type=float, default=20)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--rows", type=int, default=1000)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    began = time.time() - time.process_time()
    time.time = lambda: began + time.process_time()
    clock.now = time.process_time
    for seed in map(int, arguments.seeds.split(",")):
        for name in arguments.tables.split(","):
            rows = pd.DataFrame(measure(name, seed, arguments.budget, arguments.width, arguments.rows))
            known = pd.read_csv(RESULTS) if RESULTS.exists() else pd.DataFrame()
            pd.concat([known, rows]).to_csv(RESULTS, index=False)
            print(rows.to_string(index=False, header=False), flush=True)


if __name__ == "__main__":
    main()

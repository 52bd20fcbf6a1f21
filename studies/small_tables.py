"""Tables under 2,000 rows: the default, which trains several nets there, beside one net and linear models.

    [INNA_TUNE_DATA=folder] python studies/small_tables.py [--tables wine,iris] [--seeds 0,1,2]

scikit-learn's own tables by five shuffled folds (of even classes where there are classes) a seed; of other tables, from the
folder named by INNA_TUNE_DATA or else from OpenML, three draws a seed of as many training rows as the name says, tested on
3,000 others or what there is. Scores, lower is better: log-loss, or RMSE in the target's units, the mean over folds. What is
linear is scikit-learn's: logistic regression, with C by its own folds ("logistic_cv") and as it comes ("logistic"), or ridge
regression with its penalty by leave-one-out ("ridge"), on standardised numbers and one-hot levels. Results are added to
``studies/results/small_tables.csv``, a row a table, seed and method, and summed up beside it in ``small_tables.md``.
"""

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn import datasets
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, RidgeCV
from sklearn.metrics import log_loss
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from tables import load_table

from inna_tune import InnaClassifier, InnaRegressor

RESULTS = Path(__file__).parent / "results" / "small_tables.csv"
OWN = ("iris", "wine", "breast_cancer", "diabetes", "digits")
OTHERS = ("titanic@1000", "adult@500", "churn@1000", "california@500", "abalone@300")
DRAWS, MOST_TESTED = 3, 3000
LINEAR = {"class": ("logistic_cv", "logistic"), "regression": ("ridge",)}


def splits(name, seed):
    """Training and test parts of a table, and whether its target is a class or a number."""
    if name in OWN:
        table = getattr(datasets, f"load_{name}")(as_frame=True)
        frame, y = table.data, table.target.to_numpy()
        task = "regression" if name == "diabetes" else "class"
        folds = (KFold if task == "regression" else StratifiedKFold)(5, shuffle=True, random_state=seed)
        parts = list(folds.split(frame, y))
    else:
        base, _, n_rows = name.partition("@")
        frame, target, task = load_table(base)
        frame, y = frame.drop(columns=target), frame[target]
        numeric = pd.api.types.is_numeric_dtype(y) and y.nunique() > 20
        task = "regression" if task == "regression" or (task is None and numeric) else "class"
        y = y.to_numpy(float) if task == "regression" else pd.factorize(y.astype(str), sort=True)[0]
        parts = []
        for draw in range(DRAWS):
            order = np.random.default_rng([seed, draw]).permutation(len(y))
            parts.append(np.split(order[: int(n_rows) + MOST_TESTED], [int(n_rows)]))
    for train, test in parts:
        yield frame.iloc[train], y[train], frame.iloc[test], y[test], task


def linear(method):
    """A linear model on standardised numbers and one-hot levels."""

    def numeric(frame):
        return [c for c in frame if pd.api.types.is_numeric_dtype(frame[c])]

    def other(frame):
        return [c for c in frame if not pd.api.types.is_numeric_dtype(frame[c])]

    model = {
        "logistic_cv": LogisticRegressionCV(
            scoring="neg_log_loss", max_iter=2000, use_legacy_attributes=False, l1_ratios=(0.0,)
        ),
        "logistic": LogisticRegression(max_iter=2000),
        "ridge": RidgeCV(np.logspace(-3, 3, 13)),
    }[method]
    levels = OneHotEncoder(handle_unknown="ignore", min_frequency=5, sparse_output=False)
    columns = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), numeric), (levels, other)
    )
    return make_pipeline(columns, model)


def model_of(method, task, seed):
    """An estimator, not fitted."""
    kind = InnaRegressor if task == "regression" else InnaClassifier
    if method == "default":
        return kind(random_state=seed)
    if method == "one_net":
        return kind(random_state=seed, n_members=1)
    return linear(method)


def run(name, seed, method):
    """Mean score over the folds or draws, and mean seconds of a fit: on the clock, and of all processors."""
    scores, wall, cpu = [], [], []
    for X, y, X_test, y_test, task in splits(name, seed):
        if method not in ("default", "one_net", *LINEAR[task]):
            return None
        began, began_cpu = time.perf_counter(), time.process_time()
        model = model_of(method, task, seed).fit(X, y)
        wall.append(time.perf_counter() - began)
        cpu.append(time.process_time() - began_cpu)
        if task == "regression":
            scores.append(np.sqrt(np.mean((model.predict(X_test) - y_test) ** 2)))
        else:
            scores.append(log_loss(y_test, model.predict_proba(X_test), labels=range(y.max() + 1)))
    row = {"table": name, "seed": seed, "method": method, "score": np.mean(scores)}
    return row | {"seconds": np.mean(wall), "cpu_seconds": np.mean(cpu)}


def as_markdown(results):
    """A row a table: the mean over seeds of each method, and how far the default is from the best linear model."""
    means = results.groupby(["table", "method"]).score.mean().unstack()
    seconds = results.groupby(["table", "method"]).cpu_seconds.mean().unstack()
    seeds = results[results.method == "default"].groupby("table").seed.nunique()
    methods = [m for m in ("default", "one_net", "logistic_cv", "logistic", "ridge") if m in means]
    lines = [
        f"| table | seeds | {' | '.join(methods)} | default beside the best linear | beside one net "
        "| CPU seconds of the default | of one net |",
        "|" + " --- |" * (len(methods) + 6),
    ]
    for name in [n for n in (*OWN, *OTHERS) if n in means.index]:
        row = means.loc[name]
        cells = ["" if pd.isna(row[m]) else f"{row[m]:.4g}" for m in methods]
        best = row[[m for m in methods if m not in ("default", "one_net")]].min()
        beside = [f"{row['default'] / other - 1:+.1%}" for other in (best, row["one_net"])]
        took = [f"{seconds.loc[name, m]:.1f}" for m in ("default", "one_net")]
        lines.append(f"| {' | '.join([name, str(seeds.get(name, 0)), *cells, *beside, *took])} |")
    return "\n".join(lines) + "\n"


def main():
    """Run what is not there yet, write, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tables", default=",".join((*OWN, *OTHERS)))
    parser.add_argument("--methods", default="default,one_net,logistic_cv,logistic,ridge")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    results = pd.read_csv(arguments.output) if arguments.output.exists() else pd.DataFrame()
    for seed in map(int, arguments.seeds.split(",")):
        for name in filter(None, arguments.tables.split(",")):
            for method in arguments.methods.split(","):
                row = run(name, seed, method)
                if row is None:
                    continue
                print(row, flush=True)
                results = pd.concat([results, pd.DataFrame([row])], ignore_index=True)
                results = results.drop_duplicates(["table", "seed", "method"], keep="last")
                results.to_csv(arguments.output, index=False, float_format="%.5g")
    arguments.output.with_suffix(".md").write_text(as_markdown(results))
    print(as_markdown(results))


if __name__ == "__main__":
    main()

"""Which priors should be the default: set by hand, or learned; on the estimators as they come, tables held out.

    INNA_TUNE_DATA=folder python studies/default_prior.py [--tables a,b] [--seeds 3] [--trials 20]
    python studies/default_prior.py --summarize

Every study tunes ``InnaClassifier()`` or ``InnaRegressor()`` with `InnaSearchCV` as it comes (folds, pruning, early stopping)
on at most 2,000 rows of a table, by

* ``hand, default first``: the priors of ``SearchSpace.inna``, set by hand, the estimator's own untuned setting tried first;
* ``hand``: the same, the sampler's first;
* ``learned, default first``: the prior learned from the flat studies of the other tables of its task; the untuned setting is
  tried first, and its portfolio next.

The refitted winner is scored on rows that no study saw, at most 5,000. Rows go to ``results/default_prior.csv``; what is
there already is left alone. ``results/default_prior.md`` compares each method with ``hand, default first``, which is how a
search comes, by tables and seeds in pairs.
"""

import argparse
import logging
import sys
import warnings
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
from optuna.trial import TrialState
from sklearn.metrics import log_loss, root_mean_squared_error

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "tabular_inna")]
import learn as flat_studies  # noqa: E402
import run as flat_run  # noqa: E402
from tables import load_table  # noqa: E402

from inna_tune import InnaClassifier, InnaRegressor, InnaSearchCV, SearchSpace  # noqa: E402
from inna_tune.space import Prior, learn  # noqa: E402

RESULTS = HERE / "results" / "default_prior.csv"
SUMMARY = HERE / "results" / "default_prior.md"
REFERENCE = "hand, default first"
METHODS = (REFERENCE, "hand", "learned, default first")
MOST_ROWS, MOST_HELD_OUT = 2_000, 5_000
BUDGETS = (5, 10, 20)


def prior(method, table, trials):
    """The prior of a method on a table that it was not learned from."""
    if not method.startswith("learned"):
        return Prior(SearchSpace.inna(curvature=1.0))
    own = trials[trials.table == table]
    others = flat_studies.of_task(trials[trials.table != table], own.task.iloc[0])
    return learn(flat_studies.studies(others))


def rows_of(table, seed):
    """Rows to tune on and rows held out, and the task; classes of fewer than ten rows are left out."""
    frame, target, task = load_table(table)
    y = frame.pop(target)
    if task != "regression":
        y = y.astype(str)
        enough = y.map(y.value_counts()).ge(10)
        frame, y = frame[enough], y[enough]
    order = np.random.default_rng(seed).permutation(len(frame))
    count = min(MOST_ROWS, len(frame) * 6 // 10)
    tune, test = order[:count], order[count : count + MOST_HELD_OUT]
    return (frame.iloc[tune], y.iloc[tune]), (frame.iloc[test], y.iloc[test]), task


def run(method, table, seed, trials, n_trials):
    """One search: the best loss over the folds at each budget, and that of the winner on rows held out."""
    (X, y), (X_test, y_test), task = rows_of(table, seed)
    kind = InnaRegressor if task == "regression" else InnaClassifier
    search = InnaSearchCV(
        kind(),
        prior(method, table, trials),
        n_trials=n_trials,
        first="auto" if method.endswith("default first") else (),
        random_state=seed,
    ).fit(X, y)
    losses = (
        pd.Series(
            {
                t.number: -t.value if t.state == TrialState.COMPLETE and t.value is not None else np.nan
                for t in search.study_.trials
            }
        )
        .cummin()
        .ffill()
    )
    if task == "regression":
        scale = float(np.std(y.astype(float)))
        held_out = root_mean_squared_error(y_test, search.predict(X_test)) / scale
        losses = losses / scale
    else:
        held_out = log_loss(y_test, search.predict_proba(X_test), labels=search.classes_)
    return {
        "table": table,
        "method": method,
        "seed": seed,
        **{f"at_{n}": losses.iloc[n - 1] for n in BUDGETS if n <= len(losses)},
        "held_out": held_out,
    }


def summarize(results):
    """The comparison as markdown lines."""
    wide = results.pivot_table(index=["table", "seed"], columns="method")
    columns = [*[f"at_{n}" for n in BUDGETS], "held_out"]
    pairs = int((results.method == REFERENCE).sum())
    lines = [
        f"{results.table.nunique()} tables, {pairs} pairs of table and seed: loss relative to that of the hand-set priors "
        "with the untuned setting first, on the same table and seed; geometric mean over the tables that have both ± standard "
        "error (tables where it is lower).",
        "",
        "| method | " + " | ".join(f"best of {n}, folds" for n in BUDGETS) + " | held-out rows |",
        "|---|" + "---:|" * len(columns),
    ]
    for method in [m for m in METHODS[1:] if m in wide["held_out"]]:
        cells = []
        for column in columns:
            ratio = np.log(wide[column][method] / wide[column][REFERENCE]).groupby("table").mean().dropna()
            cells.append(
                f"{np.exp(ratio.mean()) - 1:+.1%} ± {ratio.sem():.1%} ({(ratio < 0).sum()} of {len(ratio)})"
            )
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return lines


def main():
    """Run what is not there yet, and summarize."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tables", default=",".join(flat_run.TABLES))
    parser.add_argument("--methods", default="; ".join(METHODS), help="separated by semicolons")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=max(BUDGETS))
    parser.add_argument("--summarize", action="store_true")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("inna_tune").setLevel(logging.ERROR)
    trials = pd.read_csv(flat_run.RESULTS)
    trials = trials[trials.seed == 0]
    known = pd.read_csv(RESULTS) if RESULTS.exists() else pd.DataFrame(columns=["table", "method", "seed"])
    done = set(zip(known.table, known.method, known.seed, strict=True))
    for seed in [] if arguments.summarize else range(arguments.seeds):
        for table in arguments.tables.split(","):
            for method in arguments.methods.split("; "):
                if (table, method, seed) in done:
                    continue
                row = run(method, table, seed, trials, arguments.trials)
                print(row, flush=True)
                pd.DataFrame([row]).to_csv(
                    RESULTS, mode="a", header=not RESULTS.exists(), index=False, float_format="%.6g"
                )
    lines = summarize(pd.read_csv(RESULTS))
    SUMMARY.write_text("\n".join(lines) + "\n")
    print(*lines, sep="\n")


if __name__ == "__main__":
    main()

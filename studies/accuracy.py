"""How well the estimators predict: the defaults and a tuned ensemble beside gradient boosting and scikit-learn's MLP.

    INNA_TUNE_DATA=folder python studies/accuracy.py [--methods default,tuned] [--tables a,b] [--peers file] [--studies folder]

One fixed 60/20/20 split a table, at most 10,000 training rows; every method gets the training and validation rows together
and holds out of them what it likes. Scores, lower is better: log-loss of the test rows, or RMSE over the standard deviation
of the training target. ``--peers`` names a JSON file of scores that others reached on the same splits, {table: {method:
{"score": number}}}; they join the ranks. Results are added to ``studies/results/accuracy.csv``, a row a table and
method, and the table of the README beside it; ``--methods ""`` only reads them. ``--studies`` names a folder in which searches
are kept, a database a table, so that one that was interrupted goes on there (its seconds then are those of the last run).
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
from peers import NUMBERS, PEERS
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from tables import load_table

from inna_tune import InnaClassifier, InnaRegressor, InnaSearchCV

RESULTS = Path(__file__).parent / "results" / "accuracy.csv"
TABLES = (
    "adult",
    "california",
    "diamonds",
    "credit",
    "churn",
    "crash",
    "abalone",
    "titanic",
    "ames",
    "hotel_rates",
)
MOST_ROWS = 10_000


def with_plain_texts(frame):
    """A copy whose columns that are no numbers hold objects, None where a value is missing."""
    frame = frame.copy()
    for column in frame.columns:
        if not pd.api.types.is_numeric_dtype(frame[column]):
            frame[column] = frame[column].astype("object").where(frame[column].notna(), None)
    return frame


def split(name, draw=0):
    """Rows to fit on and test rows, and how many of the former are training rows by the protocol, whose draw is 0."""
    frame, target, task = load_table(name)
    frame = with_plain_texts(frame)
    y = frame.pop(target)
    if task == "regression":
        y, strata = y.astype(float).to_numpy(), None
    else:
        y = pd.factorize(y.astype(str), sort=True)[0]
        enough = pd.Series(y).map(pd.Series(y).value_counts()).ge(10).to_numpy()
        frame, y = frame[enough], pd.factorize(y[enough], sort=True)[0]
        strata = y
    X, rest, y, y_rest = train_test_split(frame, y, test_size=0.4, random_state=draw, stratify=strata)
    again = None if strata is None else y_rest
    X_val, X_test, y_val, y_test = train_test_split(
        rest, y_rest, test_size=0.5, random_state=draw, stratify=again
    )
    if len(X) > MOST_ROWS:
        again = None if strata is None else y
        X, _, y, _ = train_test_split(X, y, train_size=MOST_ROWS, random_state=draw, stratify=again)
    fit_on = pd.concat([X, X_val], ignore_index=True), np.concatenate([y, y_val])
    return *fit_on, X_test, y_test, y, task


def score(task, y_train, y_test, predicted):
    """Loss of the test rows."""
    if task == "regression":
        return float(np.sqrt(np.mean((np.ravel(predicted) - y_test) ** 2)) / y_train.std())
    return float(log_loss(y_test, predicted, labels=range(len(np.unique(y_train)))))


def default(task, seed, name=None, studies=None, **changes):
    """The estimator as it comes."""
    kind = InnaRegressor if task == "regression" else InnaClassifier
    return kind(random_state=seed, **changes)


def tuned(task, seed, name, studies):
    """The ensemble of 30 trials."""
    kept = {}
    if studies is not None:
        studies.mkdir(parents=True, exist_ok=True)
        kept = {"storage": f"sqlite:///{studies / name}-{seed}.db", "study_name": name, "resume": True}
    return InnaSearchCV(default(task, None), n_trials=30, random_state=seed, refit="ensemble", **kept)


def members(task, seed, name, studies):
    """The ensemble of 30 trials, each one fit whose nets are scored on the rows that they left out."""
    return tuned(task, seed, f"{name}-members", studies).set_params(cv="members")


METHODS = {"default": default, "tuned": tuned} | {name: PEERS[name] for name in ("boosting", "perceptron")}
BESIDE = {
    "members": members
}  # where it is asked for: what `inna-tune fit` does, beside "tuned", which is by folds


def ranks(results):
    """Mean rank of every method over the tables that all of them have."""
    results = results[~results.method.isin(BESIDE)]
    table = results.groupby(["table", "method"]).score.mean().unstack().dropna(axis=0)
    return table, table.rank(axis=1).mean().sort_values()


def cells_of(row):
    """Losses as the cells of a table of Markdown, the least in bold."""
    return ["" if pd.isna(v) else f"**{v:.4f}**" if v == row.min() else f"{v:.4f}" for v in row]


def rank_lines(whole):
    """Ranks of methods, the columns, over tables, and how far each was behind the best, as lines of Markdown."""
    behind, ranks = whole.div(whole.min(axis=1), axis=0) - 1, whole.rank(axis=1)
    lines = [
        "| method | mean rank | best on | behind the best: median | at its worst |",
        "| --- |" + " --- |" * 4,
    ]
    for method in ranks.mean().sort_values().index:
        lines.append(
            f"| {method} | {ranks[method].mean():.2f} | {int((ranks[method] == 1).sum())} "
            f"| {behind[method].median():.1%} | {behind[method].max():.1%} ({behind[method].idxmax()}) |"
        )
    return lines


def run_missing(output, draw, draws, tables, methods, parts_of):
    """Fit and score what a file of results does not have yet, a row a table, draw and method; all results.

    ``draw`` names the column of draws, which seed the methods, too. ``parts_of`` gives, of a table's name and a draw, rows to
    fit on and their targets, rows to score and theirs, the targets whose scale counts, and the task.
    """
    results = pd.read_csv(output) if output.exists() else pd.DataFrame()
    known = set() if results.empty else set(zip(results.table, results[draw], results.method, strict=True))
    for number in draws:
        for name in filter(None, tables):
            X, y, X_test, y_test, y_scale, task = parts_of(name, number)
            for method, make in methods.items():
                if (name, number, method) in known:
                    continue
                began = time.process_time()
                model = make(task, number, name, None).fit(X, y)
                predicted = model.predict(X_test) if task == NUMBERS else model.predict_proba(X_test)
                row = {
                    "table": name,
                    draw: number,
                    "method": method,
                    "rows": len(y),
                    "columns": X.shape[1],
                    "score": score(task, y_scale, y_test, predicted),
                    "CPU seconds": round(time.process_time() - began, 1),
                }
                print(row, flush=True)
                results = pd.concat([results, pd.DataFrame([row])], ignore_index=True)
                results.to_csv(output, index=False, float_format="%.6g")
    return results


def as_markdown(results):
    """The table of the README: a row a table, the best in bold."""
    table = results.groupby(["table", "method"]).score.mean().unstack()
    table = table.reindex(TABLES)[[m for m in ("boosting", "perceptron", "default", "tuned") if m in table]]
    lines = ["| table | " + " | ".join(table.columns) + " |", "|" + " --- |" * (1 + table.shape[1])]
    for name, row in table.iterrows():
        lines.append("| " + " | ".join([name, *cells_of(row)]) + " |")
    return "\n".join(lines) + "\n"


def main():
    """Run what is asked for, write, print scores and ranks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--tables", default=",".join(TABLES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--studies", type=Path)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    results = pd.read_csv(arguments.output) if arguments.output.exists() else pd.DataFrame()
    for name in arguments.tables.split(",") if arguments.methods else ():
        X, y, X_test, y_test, y_train, task = split(name)
        for method in filter(None, arguments.methods.split(",")):
            began = time.perf_counter()
            model = (METHODS | BESIDE)[method](task, arguments.seed, name, arguments.studies).fit(X, y)
            predicted = model.predict(X_test) if task == "regression" else model.predict_proba(X_test)
            row = {
                "table": name,
                "task": task,
                "method": method,
                "seed": arguments.seed,
                "score": score(task, y_train, y_test, predicted),
                "seconds": round(time.perf_counter() - began, 1),
            }
            print(row, flush=True)
            results = pd.concat([results, pd.DataFrame([row])], ignore_index=True)
            results = results.drop_duplicates(["table", "method", "seed"], keep="last")
            results.to_csv(arguments.output, index=False, float_format="%.6g")
    arguments.output.with_suffix(".md").write_text(as_markdown(results))
    if arguments.peers is not None:
        known = json.loads(arguments.peers.read_text())
        peers = [
            {"table": table, "method": f"{method} (given)", "score": entry["score"]}
            for table, methods in known.items()
            for method, entry in methods.items()
            if entry["score"] is not None
        ]
        counts = pd.DataFrame(peers).method.value_counts()
        whole = [row for row in peers if counts[row["method"]] == counts.max()]
        results = pd.concat([results, pd.DataFrame(whole)], ignore_index=True)
    table, mean_ranks = ranks(results)
    print(table.round(4).to_string(), "\n\nmean rank:\n" + mean_ranks.round(2).to_string())


if __name__ == "__main__":
    main()

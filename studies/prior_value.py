"""What priors are worth: tuning with and without them, on tables that they were not learned from.

    INNA_TUNE_DATA=folder python studies/prior_value.py [--tables a,b] [--seeds 10] [--methods flat,learned]
    python studies/prior_value.py --summarize

Every study tunes the estimators of ``tabular_inna/run.py`` (two layers of 128, 40 epochs, at most 2,000 rows, a quarter held
out for the score) over the same settings, five trials at a time, without pruning, by

* ``flat``: TPE over the pure numbers, their bounds the shipped ones, no prior (PriorSampler with k = 0);
* ``plain``: TPE as Optuna has it, over natural lr, alpha and beta;
* ``learned``: PriorSampler(TPE) with the prior learned from the flat studies of the other tables of its task (four; classes
  and values ask for other settings);
* ``portfolio``: the same, and its eight settings tried first;
* ``natural``: learned from the same studies in natural values of lr, alpha and beta, not in pure numbers;
* ``shipped``: the priors of ``SearchSpace.inna``, set by hand;
* ``wrong``: ``learned``, but the laws of alpha, beta and lr lie so that the best setting known for the table is three
  standard deviations off.

Besides, ``draws`` trains settings drawn from the learned prior alone, no sampler learning from them; and what the portfolio of
the other tables reaches on each of the ten is read off the flat studies, which tried the same settings everywhere. Trials go
to ``results/prior_value.csv``, a row a trial; what is there already is left alone.
"""

import argparse
import logging
import math
import sys
import warnings
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
from sklearn.model_selection import ShuffleSplit, StratifiedShuffleSplit

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "tabular_inna")]
import learn as flat_studies  # noqa: E402
import run as flat_run  # noqa: E402

from inna_tune import InnaClassifier, InnaRegressor, InnaSearchCV, PriorSampler, SearchSpace  # noqa: E402
from inna_tune.space import LogNormal, learn, portfolio  # noqa: E402
from inna_tune.space.learn import place, read_study  # noqa: E402

RESULTS = HERE / "results" / "prior_value.csv"
SUMMARY = HERE / "results" / "prior_value.md"
PICTURE = HERE / "results" / "prior_value.png"
TABLES = ("titanic", "credit", "ames", "abalone", "california", "diamonds", "hotel_rates", "crash")
METHODS = ("flat", "portfolio", "learned", "wrong", "draws", "shipped", "natural", "plain")
LONGEST = {"flat": 50, "draws": 30}  # the others get 40 trials
COHORT = 5


def wrong_space(space, best):
    """The laws of alpha, beta and lr moved to the farther end of their bounds, the best setting three deviations off."""
    laws = dict(space)
    for name in ("alpha", "beta", "lr"):
        entry = laws[name]
        low, high = entry.law.low, entry.law.high
        optimum = math.log(entry.to_pure(best[name], best))
        ends = [math.log(low) + 0.1 * math.log(high / low), math.log(high) - 0.1 * math.log(high / low)]
        median = max(ends, key=lambda end: abs(end - optimum))
        law = LogNormal(math.exp(median), abs(median - optimum) / 3, low=low, high=high)
        laws[name] = type(entry)(law, entry.curvature, entry.low, entry.high)
    return SearchSpace(laws)


def prepare(method, table, trials, seed):
    """Space and sampler of a method on a table; both may be None, for those of InnaSearchCV."""
    own = trials[trials.table == table]
    others = flat_studies.of_task(trials[trials.table != table], own.task.iloc[0])
    curvature = float(own.curvature.iloc[0])
    pure = SearchSpace.inna(curvature=curvature)
    tpe = optuna.samplers.TPESampler(seed=seed)
    if method == "flat":
        return pure, PriorSampler(tpe, pure, k=0, seed=seed)
    if method == "plain":
        return SearchSpace.inna(), tpe
    if method == "shipped":
        return pure, None
    if method == "natural":
        return learn(flat_studies.studies(others, natural=True), space=SearchSpace.inna()).space, None
    prior = learn(flat_studies.studies(others))
    if method == "portfolio":
        return prior, None
    space = prior.at(curvature)[0]
    if method == "draws":
        return space, PriorSampler(optuna.samplers.RandomSampler(), space, k=math.inf, seed=seed)
    if method == "wrong":
        best = own.loc[own.loss.idxmin(), list(space)].dropna().to_dict()
        return wrong_space(space, best), None
    return space, None


def study(method, table, seed, trials):
    """Losses of a study's trials in their order."""
    X, y, task = flat_run.rows_of(table, 0)
    kind, split = (
        (InnaRegressor, ShuffleSplit) if task == "regression" else (InnaClassifier, StratifiedShuffleSplit)
    )
    space, sampler = prepare(method, table, trials, seed)
    search = InnaSearchCV(
        kind(**flat_run.NET),
        space,
        n_trials=LONGEST.get(method, 40),
        cv=split(1, test_size=0.25, random_state=0),
        sampler=sampler,
        pruner=optuna.pruners.NopPruner(),
        population=COHORT,
        refit=False,
        random_state=seed,
    ).fit(X, y)
    scale = float(np.std(y)) if task == "regression" else 1.0
    return pd.DataFrame(
        [
            {
                "table": table,
                "method": method,
                "seed": seed,
                "number": t.number,
                "loss": -t.value / scale if t.value is not None else float("nan"),
            }
            for t in search.study_.trials
        ]
    )


def best_so_far(results):
    """Table, method, seed by trial: the best loss up to there, divergence counting as no result."""
    wide = results.pivot_table(
        index=["table", "method", "seed"], columns="number", values="loss", dropna=False
    )
    # A study whose first trials diverged has no best yet; pandas makes rows of studies that there are none of.
    there = results.set_index(["table", "method", "seed"]).index.unique()
    return wide.loc[wide.index.isin(there)].T.ffill().cummin().T


def summarize(results, flat):
    """The figures as markdown lines: each goal, what was found."""
    known = results.groupby("table").loss.min()
    known = np.minimum(known, flat.groupby("table").loss.min().reindex(known.index))
    drawn = results[results.method == "draws"]
    curves = best_so_far(results[results.method != "draws"])
    lines = [
        "| table | method | seeds | trials to reach flat's 50 (quartiles) | regret at 5 | at 10 | at 20 | at 40 |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    shown = {}
    for table in [t for t in TABLES if t in known.index]:
        goal = curves.loc[(table, "flat")][49].median()
        for method in METHODS:
            if (table, method) not in curves.index.droplevel("seed"):
                continue
            own = curves.loc[(table, method)]
            reached = (own.le(goal)).T
            first = reached.idxmax().where(reached.any(), np.inf) + 1
            low, middle, high = np.quantile(first, [0.25, 0.5, 0.75], method="inverted_cdf")
            shown[table, method] = middle
            words = [f"> {40}" if not math.isfinite(v) else f"{v:.0f}" for v in (middle, low, high)]
            regret = (own / known[table] - 1).median()
            lines.append(
                f"| {table} | {method} | {len(own)} | {words[0]} ({words[1]} to {words[2]}) | "
                + " | ".join(f"{regret[n - 1]:.1%}" for n in (5, 10, 20, 40))
                + " |"
            )
    lines += [
        "",
        "Regret: excess of the best loss so far over the best known for the table, median over seeds.",
        "",
    ]
    lines += against_flat(curves, known)
    for table, rows in drawn.groupby("table", sort=False):
        own, other = flat[flat.table == table].loss, rows.loss
        near = 1.05 * known[table]
        lines.append(
            f"Within 5% of the best known on {table}: {(other <= near).mean():.0%} of {len(other)} draws from the learned "
            f"prior, {(own <= near).mean():.0%} of {len(own)} flat ones."
        )
    return lines + first_settings(flat)


def against_flat(curves, known):
    """Mean regret above that of flat TPE, by pairs of seeds, with its standard error: markdown lines."""
    budgets = (5, 10, 20, 40)
    lines = [
        "| table | method | " + " | ".join(f"above flat at {n}" for n in budgets) + " |",
        "|---|---|" + "---:|" * len(budgets),
    ]
    worse = dict.fromkeys(METHODS, 0)
    for table in known.index[np.argsort([TABLES.index(t) for t in known.index])]:
        regrets = curves.loc[table] / known[table] - 1
        for method in [m for m in METHODS if m != "flat" and m in regrets.index.get_level_values("method")]:
            above = (regrets.loc[method] - regrets.loc["flat"]).dropna(how="all")[[n - 1 for n in budgets]]
            mean, error = above.mean(), above.sem()
            worse[method] += int((mean > 2 * error).any())
            cells = [f"{m:+.1%} ± {e:.1%}" for m, e in zip(mean, error, strict=True)]
            lines.append(f"| {table} | {method} | " + " | ".join(cells) + " |")
    counts = ", ".join(f"{method} {n}" for method, n in worse.items() if method not in ("flat", "draws"))
    return [
        *lines,
        "",
        f"Tables where the mean is above flat TPE's by more than two standard errors at any of these: {counts}.",
        "",
    ]


def first_settings(flat, draws=2000):
    """What the portfolio of a table's task, learned without it, reaches, and how many flat draws reach as much: markdown."""
    space = SearchSpace.inna(curvature=1.0)
    rng = np.random.default_rng(0)
    lines = [
        "",
        "| table | settings in the portfolio of the others | regret of the first | of them all | flat draws that reach that |",
        "|---|---:|---:|---:|---:|",
    ]
    equal = []
    for table, own in flat.groupby("table", sort=False):
        others = flat_studies.of_task(flat[flat.table != table], own.task.iloc[0])
        chosen = portfolio(flat_studies.studies(others), 8)
        settings, losses = read_study(flat_studies.studies(own)[0], space)
        places = np.stack([place(space, setting) for setting in settings])
        tried = [int(((places - place(space, c)) ** 2).sum(1).argmin()) for c in chosen]
        reached = np.minimum.accumulate(losses[tried]) / losses.min() - 1
        orders = np.stack([rng.permutation(losses) for _ in range(draws)])
        drawn = np.median(np.minimum.accumulate(orders, axis=1), axis=0) / losses.min() - 1
        equal.append(int(np.argmax(drawn <= reached[-1])) + 1)
        lines.append(f"| {table} | {len(chosen)} | {reached[0]:.1%} | {reached[-1]:.1%} | {equal[-1]} |")
    return [*lines, "", f"Median over the tables: {np.median(equal):g} flat draws."]


def draw(results):
    """Best so far by trial, a panel a table: median and quartiles over the seeds."""
    import matplotlib.pyplot as plt

    curves = best_so_far(results[results.method != "draws"])
    tables = [t for t in TABLES if t in results.table.unique()]
    rows = -(-len(tables) // 4)
    figure, grid = plt.subplots(rows, 4, figsize=(13.0, 3.0 * rows), layout="constrained", squeeze=False)
    axes = grid.ravel()
    for axis in axes[len(tables) :]:
        axis.set_axis_off()
    colours = dict(
        zip(
            METHODS,
            ("#000000", "#0072B2", "#56B4E9", "#D55E00", "", "#009E73", "#CC79A7", "#999999"),
            strict=True,
        )
    )
    for axis, table in zip(axes, tables, strict=False):
        for method in METHODS:
            if (table, method) not in curves.index.droplevel("seed"):
                continue
            own = curves.loc[(table, method)].iloc[:, : LONGEST.get(method, 40)]
            number = own.columns + 1
            axis.plot(number, own.median(), color=colours[method], label=method)
            if method in ("flat", "portfolio"):
                axis.fill_between(
                    number, own.quantile(0.25), own.quantile(0.75), color=colours[method], alpha=0.15, lw=0
                )
        # From the best median to what the worst has after a few trials; single lucky runs may lie below.
        medians = curves.loc[table].groupby("method").median()
        lowest, highest = float(medians.min().min()), float(medians[2].max())
        axis.set(title=table, xlabel="trials", ylim=(lowest - 0.1 * (highest - lowest), highest))
    for row in grid:
        row[0].set_ylabel("best loss so far\n(log-loss, or RMSE / std)")
    named = {line.get_label(): line for axis in axes for line in axis.get_lines()}
    figure.legend(named.values(), named.keys(), frameon=False, ncols=len(named), loc="outside upper center")
    figure.savefig(PICTURE, dpi=110)


def main():
    """Run what is not there yet, and summarize."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tables", default=",".join(TABLES))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--summarize", action="store_true")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("inna_tune").setLevel(logging.ERROR)
    flat = pd.read_csv(flat_run.RESULTS)
    flat = flat[flat.seed == 0]
    results = pd.read_csv(RESULTS) if RESULTS.exists() else pd.DataFrame(columns=["table", "method", "seed"])
    for seed in [] if arguments.summarize else range(arguments.seeds):
        for method in arguments.methods.split(","):
            for table in arguments.tables.split(","):
                there = (results.table == table) & (results.method == method) & (results.seed == seed)
                if there.any():
                    continue
                found = study(method, table, seed, flat)
                print(seed, method, table, f"{found.loss.min():.4f}", flush=True)
                # Appended, so that several processes may share the work, a table or a method each.
                found.to_csv(RESULTS, mode="a", header=not RESULTS.exists(), index=False, float_format="%.6g")
    results = pd.read_csv(RESULTS)
    lines = summarize(results, flat)
    SUMMARY.write_text("\n".join(lines) + "\n")
    print(*lines, sep="\n")
    draw(results)


if __name__ == "__main__":
    main()

"""Held-out loss against wall seconds: the search as it comes, beside what a user would pick instead.

    INNA_TUNE_DATA=folder python studies/anytime.py [--budgets 3,10,30,100] [--methods a,b] [--tables a,b] [--seeds 0]

Every point is a run of its own: a fresh process is warmed by a fit of a few rows (nobody waits twice for an import), is told
the budget as its library takes it, and is timed from ``fit`` to the prediction of the test rows. Splits and scores are those
of ``accuracy.py``. Methods whose library is not installed are named and left out:

- ``inna-tune``: ``InnaSearchCV(timeout=…)``; ``members``: its trials by members, averaged, as on the command line;
- ``default``: the untuned estimator, ``max_time`` its budget;
- ``flaml``: ``AutoML().fit(time_budget=…)``, metric log-loss or RMSE;
- ``catboost`` and ``boosting`` (histograms) under ``OptunaSearchCV``, 5 folds, the usual space;
- ``skorch``: the perceptron that a user would write, under ``OptunaSearchCV``, Adam;
- ``realmlp``: pytabkit's RealMLP as tuned by its authors (one fit: it has no budget, and is run once a table).

OptunaSearchCV knows no budget of the refit, so four fifths of the time are its search's. A run that is late by more than 10%
and 2 s has no rank at that time. Adds to ``studies/results/anytime.csv``; draws ``anytime.png`` and writes the ranks to
``anytime.md``. Nothing else should compute meanwhile.
"""

import argparse
import json
import subprocess
import sys
import time
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
from accuracy import TABLES, score, split
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from inna_tune import InnaClassifier, InnaRegressor, InnaSearchCV

RESULTS = Path(__file__).parent / "results"
BUDGETS = "3,10,30,100,300"
_LATE = (0.1, 2.0)
_SEARCH_SHARE = 0.8


def inna_search(task, seed, budget):
    """The search as it comes."""
    kind = InnaRegressor if task == "regression" else InnaClassifier
    return InnaSearchCV(kind(), n_trials=10_000, timeout=budget, random_state=seed)


def inna_members(task, seed, budget):
    """What ``inna-tune fit --timeout`` does where a fit is of several nets: a trial is one fit, and trials are averaged."""
    return inna_search(task, seed, budget).set_params(cv="members", refit="ensemble")


def inna_default(task, seed, budget):
    """The untuned estimator."""
    return (InnaRegressor if task == "regression" else InnaClassifier)(max_time=budget, random_state=seed)


class _Flaml:
    """FLAML's AutoML by its own defaults."""

    def __init__(self, task, seed, budget):
        self.options = {
            "task": "regression" if task == "regression" else "classification",
            "metric": "rmse" if task == "regression" else "log_loss",
            "time_budget": budget,
            "seed": seed,
            "verbose": 0,
            "n_jobs": -1,
        }

    def fit(self, X, y):
        from flaml import AutoML

        self.levels = {c: pd.unique(X[c].dropna()) for c in _words(X)}
        self.model = AutoML()
        self.model.fit(self.encode(X), y, **self.options)
        return self

    def encode(self, X):
        return X.assign(**{c: pd.Categorical(X[c], categories=v) for c, v in self.levels.items()})

    def predict(self, X):
        return self.model.predict(self.encode(X))

    def predict_proba(self, X):
        return self.model.predict_proba(self.encode(X))


def _words(X):
    return [c for c in X if not pd.api.types.is_numeric_dtype(X[c])]


def _searched(model, space, task, seed, budget):
    from optuna_integration import OptunaSearchCV

    return OptunaSearchCV(
        model,
        space,
        n_trials=10_000,
        timeout=_SEARCH_SHARE * budget,
        scoring="neg_root_mean_squared_error" if task == "regression" else "neg_log_loss",
        random_state=seed,
        verbose=0,
    )


def catboost(task, seed, budget):
    """CatBoost under OptunaSearchCV: the space of its own tutorials."""
    from catboost import CatBoostClassifier, CatBoostRegressor
    from optuna.distributions import FloatDistribution, IntDistribution

    kind = CatBoostRegressor if task == "regression" else CatBoostClassifier
    model = kind(random_seed=seed, verbose=False, allow_writing_files=False, thread_count=-1)
    space = {
        "model__depth": IntDistribution(3, 9),
        "model__learning_rate": FloatDistribution(0.01, 0.3, log=True),
        "model__l2_leaf_reg": FloatDistribution(0.1, 30.0, log=True),
        "model__iterations": IntDistribution(100, 1500, log=True),
    }
    return _on_ordinals(model, space, task, seed, budget)


def boosting(task, seed, budget):
    """Histogram gradient boosting under OptunaSearchCV."""
    from optuna.distributions import FloatDistribution, IntDistribution
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    kind = HistGradientBoostingRegressor if task == "regression" else HistGradientBoostingClassifier
    model = kind(early_stopping=True, max_iter=1000, random_state=seed)
    space = {
        "model__learning_rate": FloatDistribution(0.01, 0.3, log=True),
        "model__max_leaf_nodes": IntDistribution(7, 127, log=True),
        "model__min_samples_leaf": IntDistribution(2, 100, log=True),
        "model__l2_regularization": FloatDistribution(1e-4, 10.0, log=True),
        "model__max_features": FloatDistribution(0.3, 1.0),
    }
    return _on_ordinals(model, space, task, seed, budget)


def _on_ordinals(model, space, task, seed, budget):
    from sklearn.compose import make_column_selector
    from sklearn.pipeline import Pipeline

    ordinal = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-1)
    columns = make_column_transformer(
        (ordinal, make_column_selector(dtype_exclude="number")), remainder="passthrough"
    )
    return _searched(Pipeline([("columns", columns), ("model", model)]), space, task, seed, budget)


def skorch(task, seed, budget):
    """A perceptron of two layers in skorch, Adam, early stopping, under OptunaSearchCV: what a user writes."""
    import torch
    from optuna.distributions import FloatDistribution
    from sklearn.compose import make_column_selector
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import FunctionTransformer
    from skorch import NeuralNetClassifier, NeuralNetRegressor
    from skorch.callbacks import EarlyStopping

    torch.manual_seed(seed)
    scaled = make_pipeline(SimpleImputer(), StandardScaler())
    levels = OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=10, sparse_output=False)
    columns = make_column_transformer(
        (scaled, make_column_selector(dtype_include="number")),
        (levels, make_column_selector(dtype_exclude="number")),
    )

    class Net(torch.nn.Module):
        def __init__(self, outputs, dropout=0.1):
            super().__init__()
            self.body = torch.nn.Sequential(
                torch.nn.LazyLinear(256),
                torch.nn.ReLU(),
                torch.nn.Dropout(dropout),
                torch.nn.Linear(256, 256),
                torch.nn.ReLU(),
                torch.nn.Dropout(dropout),
                torch.nn.Linear(256, outputs),
            )

        def forward(self, X):
            return self.body(X)

    common = {
        "max_epochs": 100,
        "batch_size": 128,
        "optimizer": torch.optim.Adam,
        "callbacks": [EarlyStopping(patience=15, load_best=True)],
        "verbose": 0,
    }
    single = FunctionTransformer(lambda X: np.asarray(X, dtype=np.float32))
    regression = task == "regression"

    class Regressor(NeuralNetRegressor):
        def fit(self, X, y):
            return super().fit(X, np.asarray(y, dtype=np.float32).reshape(-1, 1))

    class Classifier(NeuralNetClassifier):
        def fit(self, X, y):
            self.set_params(module__outputs=len(np.unique(y)), criterion=torch.nn.CrossEntropyLoss)
            return super().fit(X, y.astype(np.int64))

    net = Regressor(Net, module__outputs=1, **common) if regression else Classifier(Net, **common)
    prefix = "model__"
    model = Pipeline([("columns", columns), ("single", single), ("model", net)])
    if regression:
        prefix = "regressor__model__"
        model = TransformedTargetRegressor(model, transformer=StandardScaler())
    space = {
        prefix + "lr": FloatDistribution(1e-4, 1e-2, log=True),
        prefix + "module__dropout": FloatDistribution(0.0, 0.5),
        prefix + "optimizer__weight_decay": FloatDistribution(1e-6, 1e-2, log=True),
    }
    return _searched(model, space, task, seed, budget)


def realmlp(task, seed, budget):
    """RealMLP-TD as it comes: its own epochs, whatever the budget."""
    from pytabkit import RealMLP_TD_Classifier, RealMLP_TD_Regressor

    return (RealMLP_TD_Regressor if task == "regression" else RealMLP_TD_Classifier)(random_state=seed)


METHODS = {
    "inna-tune": (inna_search, ()),
    "members": (inna_members, ()),
    "default": (inna_default, ()),
    "flaml": (_Flaml, ("flaml",)),
    "catboost": (catboost, ("catboost", "optuna_integration")),
    "boosting": (boosting, ("optuna_integration",)),
    "skorch": (skorch, ("skorch", "optuna_integration")),
    "realmlp": (realmlp, ("pytabkit",)),
}


def one(table, method, budget, seed):
    """A run in this process; the seconds are those of fit and predict."""
    import optuna

    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    X, y, X_test, y_test, y_train, task = split(table)
    make = METHODS[method][0]
    some = slice(400)
    if method != "realmlp":
        make(task, seed, 1.0).fit(X[some], y[some])
    began = time.perf_counter()
    model = make(task, seed, budget).fit(X, y)
    predicted = model.predict(X_test) if task == "regression" else model.predict_proba(X_test)
    seconds = time.perf_counter() - began
    return {
        "table": table,
        "method": method,
        "budget": budget,
        "seed": seed,
        "loss": score(task, y_train, y_test, predicted),
        "seconds": round(seconds, 2),
    }


def ranks(results):
    """Mean rank at each budget among the methods that kept it, and on how many tables each is first."""
    kept = results[results.seconds <= results.budget * (1 + _LATE[0]) + _LATE[1]]
    rows = []
    for budget, part in kept.groupby("budget"):
        losses = part.groupby(["table", "method"]).loss.mean().unstack()
        places = losses.rank(axis=1)
        for method in losses:
            rows.append(
                {
                    "budget": budget,
                    "method": method,
                    "tables": int(losses[method].notna().sum()),
                    "mean rank": places[method].mean(),
                    "first": int((places[method] == 1).sum()),
                    "behind the best": (losses[method] / losses.min(axis=1) - 1).median(),
                }
            )
    return pd.DataFrame(rows)


def draw(results, path):
    """Loss over the best of any run, median of the tables, against the budget."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    kept = results[results.seconds <= results.budget * (1 + _LATE[0]) + _LATE[1]]
    relative = kept.assign(behind=kept.loss / kept.groupby("table").loss.transform("min") - 1)
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for method, part in relative.groupby("method"):
        line = part.groupby(["budget", "table"]).behind.mean().groupby("budget")
        axes.plot(line.median().index, 100 * line.median(), marker="o", label=method)
    axes.set(
        xscale="log",
        xlabel="budget (wall seconds)",
        ylabel="held-out loss above the best (%), median of tables",
    )
    axes.legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _as_markdown(found, results, absent):
    lines = [
        "| seconds | method | tables | mean rank | first | behind the best (median) |",
        "|" + " --- |" * 6,
    ]
    for _, row in found.sort_values(["budget", "mean rank"]).iterrows():
        lines.append(
            f"| {row.budget:g} | {row.method} | {row.tables} | {row['mean rank']:.2f} | {row['first']} "
            f"| {row['behind the best']:.1%} |"
        )
    seeds = sorted(results.seed.unique())
    lines += [
        "",
        "A run that was late by more than 10% and 2 s has no rank; the CSV file has its loss.",
        f"Seeds: {', '.join(map(str, seeds))}. Not installed, so not run: {', '.join(absent) or 'none'}.",
    ]
    return "\n".join(lines) + "\n"


def main():
    """Run what is asked for, each in a process of its own, and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--budgets", default=BUDGETS)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--tables", default=",".join(TABLES))
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--output", type=Path, default=RESULTS / "anytime.csv")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        table, method, budget, seed = arguments.one
        print(json.dumps(one(table, method, float(budget), int(seed))))
        return
    absent = [m for m, (_, needs) in METHODS.items() if any(find_spec(n) is None for n in needs)]
    methods = [m for m in arguments.methods.split(",") if m and m not in absent]
    results = pd.read_csv(arguments.output) if arguments.output.exists() else pd.DataFrame()
    # Methods alternate within a table and a budget, so that a machine that changes its pace does so for all.
    points = [
        (table, method, budget, seed)
        for seed in arguments.seeds.split(",")
        for table in arguments.tables.split(",")
        for budget in arguments.budgets.split(",")
        for method in methods
    ]
    for point in points:
        command = [sys.executable, __file__, "--one", *point]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(*point, "failed:", done.stderr.strip().splitlines()[-1:], flush=True)
            continue
        row = json.loads(done.stdout.strip().splitlines()[-1])
        print(row, flush=True)
        results = pd.concat([results, pd.DataFrame([row])], ignore_index=True)
        results = results.drop_duplicates(["table", "method", "budget", "seed"], keep="last")
        results.to_csv(arguments.output, index=False, float_format="%.6g")
    found = ranks(results)
    print(found.round(3).to_string())
    arguments.output.with_suffix(".md").write_text(_as_markdown(found, results, absent))
    draw(results, arguments.output.with_suffix(".png"))


if __name__ == "__main__":
    main()

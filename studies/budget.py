"""Whether a budget of time is kept, and what comes back from it: wall seconds, trials, held-out loss beside the untuned fit.

    INNA_TUNE_DATA=folder python studies/budget.py [--budgets 5,10,20,60,120] [--command 10,60]

``InnaSearchCV(timeout=…)`` in this process, on rows of three tables; then ``inna-tune fit --timeout`` as a whole program, its
start included. Goal: within 10% + 2 s. Writes ``studies/results/budget.csv`` and ``.md``. Nothing else should compute
meanwhile.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import pandas as pd
from optuna.trial import TrialState
from sklearn.model_selection import train_test_split
from tables import load_table

from inna_tune import InnaClassifier, InnaRegressor, InnaSearchCV
from inna_tune.jobs.tuning import score_rows
from inna_tune.records.attributes import CUT
from inna_tune.tables.problem import make_problem

RESULTS = Path(__file__).parent / "results"
TABLES = {"churn": 2_000, "california": 10_000, "adult": 48_000}
_ALLOWED = (0.1, 2.0)


def main() -> None:
    """Measure, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budgets", default="5,10,20,60,120")
    parser.add_argument("--command", default="10,60", help="budgets of whole programs")
    parser.add_argument("--tables", default=",".join(TABLES))
    arguments = parser.parse_args()
    rows = []
    for name in arguments.tables.split(","):
        frame, target, task = load_table(name)
        frame = frame.sample(min(TABLES[name], len(frame)), random_state=0).reset_index(drop=True)
        problem = make_problem(frame, target, task=task)
        stratify = None if problem.task == "regression" else problem.y
        X, X_held, y, y_held = train_test_split(
            problem.X, problem.y, test_size=0.2, random_state=0, stratify=stratify
        )
        model = (InnaRegressor if problem.task == "regression" else InnaClassifier)(random_state=0)
        # What a process does once, such as importing, is not the first fit's.
        type(model)(max_epochs=1, random_state=0).fit(X[:500], y[:500])
        began = time.perf_counter()
        untuned, _ = score_rows(model.fit(X, y), X_held, y_held)
        seconds = time.perf_counter() - began
        common = {"table": name, "rows": len(frame), "metric": next(iter(untuned))}
        rows.append(
            {
                **common,
                "way": "untuned fit",
                "seconds": seconds,
                "held-out loss": next(iter(untuned.values())),
            }
        )
        for budget in map(float, filter(None, arguments.budgets.split(","))):
            rows.append({**common, **_search(type(model)(), budget, X, y, X_held, y_held)})
            print(rows[-1], flush=True)
        for budget in map(float, filter(None, arguments.command.split(","))):
            rows.append({**common, **_command(frame, target, budget)})
            print(rows[-1], flush=True)
    found = pd.DataFrame(rows)
    share, seconds = _ALLOWED
    found["kept"] = (found.seconds <= found.budget * (1 + share) + seconds).where(found.budget.notna())
    found.round(4).to_csv(RESULTS / "budget.csv", index=False)
    (RESULTS / "budget.md").write_text(_as_markdown(found))


def _search(model, budget: float, X, y, X_held, y_held) -> dict:
    began = time.perf_counter()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        search = InnaSearchCV(model, n_trials=500, timeout=budget, random_state=0).fit(X, y)
    seconds = time.perf_counter() - began
    scores, _ = score_rows(search.best_estimator_, X_held, y_held)
    trials = search.study_.trials
    return {
        "way": "InnaSearchCV",
        "budget": budget,
        "seconds": seconds,
        "complete": sum(t.state == TrialState.COMPLETE for t in trials),
        "pruned": sum(t.state == TrialState.PRUNED for t in trials),
        "cut": sum(CUT in t.user_attrs and not t.state.is_finished() for t in trials),
        "refit seconds": search.refit_time_,
        "held-out loss": next(iter(scores.values())),
        "said": "; ".join(sorted({str(w.message)[:60] for w in said})),
    }


def _command(frame: pd.DataFrame, target: str, budget: float) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        frame.to_parquet(Path(folder) / "table.parquet")
        words = ["inna-tune", "fit", "table.parquet", "--target", target, "--trials", "500"]
        command = [
            str(Path(sys.executable).with_name(words[0])),
            *words[1:],
            "--timeout",
            str(budget),
            "--json",
        ]
        began = time.perf_counter()
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=os.environ, check=True)
        seconds = time.perf_counter() - began
    told = json.loads(done.stdout)
    return {
        "way": "inna-tune fit",
        "budget": budget,
        "seconds": seconds,
        "complete": told["trials"]["complete"],
        "pruned": told["trials"]["pruned"],
        "held-out loss": next(iter(told["held_out"]["tuned"].values())),
        "said": "cut off: " + ", ".join(told["cut"]) if told["cut"] else "",
    }


def _as_markdown(found: pd.DataFrame) -> str:
    columns = [
        "table",
        "rows",
        "way",
        "budget",
        "seconds",
        "complete",
        "pruned",
        "cut",
        "metric",
        "held-out loss",
    ]
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    for _, row in found.iterrows():
        cells = [
            "" if pd.isna(row[c]) else f"{row[c]:.4g}" if isinstance(row[c], float) else str(row[c])
            for c in columns
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

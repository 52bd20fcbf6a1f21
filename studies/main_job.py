"""What tuning buys: ``inna-tune fit`` on real tables as they are, against the untuned default.

    INNA_TUNE_DATA=folder python studies/main_job.py [--trials 30] [--tables adult,california,titanic,ames]

Writes ``studies/results/main_job.csv`` and ``.md`` (scores on held-out rows), and
``studies/results/tuned_study.png`` (one study); rows of tables not named stay as they are.
"""

import argparse
import tempfile
import time
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from optuna.trial import TrialState
from tables import load_table

from inna_tune.jobs.tuning import tune
from inna_tune.jobs.validation import choose_validation
from inna_tune.records.attributes import CURVATURE
from inna_tune.tables.problem import make_problem

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import NullFormatter

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Tune every table and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", default="adult,california,titanic,ames")
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    rows = []
    for name in arguments.tables.split(","):
        for seed in range(arguments.seeds):
            frame, target, task = load_table(name)
            problem = make_problem(frame, target, task=task)
            began = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder:
                report = tune(
                    problem,
                    n_trials=arguments.trials,
                    storage=f"sqlite:///{folder}/study.db",
                    study_name=name,
                    seed=seed,
                    cv=choose_validation(problem, seed=seed).cv,
                    refit="ensemble",
                )
                study = report.search.study_
                states = [t.state for t in study.trials]
                row = {
                    "table": name,
                    "seed": seed,
                    "rows": len(problem.y),
                    "metric": report.scores.columns[0],
                    **report.scores.iloc[:, 0].to_dict(),
                    "trials": len(states),
                    "pruned": sum(s == TrialState.PRUNED for s in states),
                    "seconds": round(time.perf_counter() - began, 1),
                }
                if name == "ames" and seed == 0:
                    draw(study, name, row["metric"])
            row["tuning lowered the loss by"] = f"{1 - row['tuned'] / row['untuned default']:.1%}"
            rows.append(row)
            print(row, flush=True)
    found = pd.DataFrame(rows).round(4)
    if (RESULTS / "main_job.csv").exists():
        kept = pd.read_csv(RESULTS / "main_job.csv")
        found = pd.concat([found, kept[~kept.table.isin(found.table)]], ignore_index=True)
    found.to_csv(RESULTS / "main_job.csv", index=False)
    (RESULTS / "main_job.md").write_text(as_markdown(found))


def as_markdown(found: pd.DataFrame) -> str:
    """The table of the README."""
    columns = [
        "table",
        "rows",
        "metric",
        "baseline",
        "untuned default",
        "tuned",
        "tuning lowered the loss by",
    ]
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    for _, row in found.iterrows():
        cells = [f"{row[c]:.4g}" if isinstance(row[c], float) else str(row[c]) for c in columns]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def draw(study, name: str, metric: str) -> None:
    """Best so far, and where the trials lie in the plane of alpha and beta."""
    done = [t for t in study.trials if t.state == TrialState.COMPLETE]
    numbers, losses = [t.number for t in done], [-t.value for t in done]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    left.scatter(numbers, losses, color="0.6", s=18, label="trial")
    left.step(numbers, np.minimum.accumulate(losses), where="post", color="#0072B2", label="best so far")
    pruned = [t.number for t in study.trials if t.state == TrialState.PRUNED]
    left.plot(pruned, [max(losses)] * len(pruned), "x", color="#D55E00", ms=5, label="pruned")
    left.set(
        xlabel="trial", ylabel=f"{metric} by cross-validation", title=f"{name}: {len(study.trials)} trials"
    )
    left.legend(frameon=False)
    root = study.user_attrs[CURVATURE] ** 0.5
    x, y = [t.params["alpha"] / root for t in done], [t.params["beta"] * root for t in done]
    points = right.scatter(x, y, c=losses, cmap="viridis_r", s=28)
    right.set(
        xscale="log",
        xlabel=r"scaled friction $\alpha/\sqrt{\lambda}$",
        ylabel=r"scaled damping $\beta\sqrt{\lambda}$",
    )
    right.set_title("complete trials in units of the curvature")
    right.xaxis.set_minor_formatter(NullFormatter())
    figure.colorbar(points, label=metric)
    figure.savefig(RESULTS / "tuned_study.png", dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()

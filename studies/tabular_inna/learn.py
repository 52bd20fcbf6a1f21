"""Learn the shipped priors and their portfolios from the flat studies beside: one command.

    python studies/tabular_inna/learn.py

reads ``trials.csv`` and writes ``classification.json`` and ``regression.json`` into inna_tune/space/: `Prior.shipped`.
"""

from pathlib import Path

import optuna
import pandas as pd

from inna_tune.space import SearchSpace, learn
from inna_tune.space.learn import CURVATURE
from inna_tune.space.prior import TASKS

TRIALS = Path(__file__).parent / "trials.csv"
SHIPPED = Path(__file__).parents[2] / "inna_tune" / "space"


def studies(frame, *, natural=False):
    """The studies of ``trials.csv``, one a table and seed, as Optuna's in memory.

    With ``natural`` they have no curvature of their own: every table is taken to be at curvature 1.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found = []
    for (table, seed), rows in frame.groupby(["table", "seed"], sort=False):
        curvature = float(rows.curvature.iloc[0])
        space = SearchSpace.inna(curvature=curvature)
        study = optuna.create_study(study_name=f"{table} {seed}")
        study.set_user_attr(CURVATURE, 1.0 if natural else curvature)
        for _, row in rows.iterrows():
            params = {name: row[name] for name in space if not pd.isna(row[name])}
            distributions = {name: space.distribution(name) for name in params}
            # A trial that diverged stays in the study: nothing finished is left out.
            diverged = pd.isna(row.loss)
            study.add_trial(
                optuna.trial.create_trial(
                    params=params,
                    distributions=distributions,
                    state=optuna.trial.TrialState.PRUNED if diverged else optuna.trial.TrialState.COMPLETE,
                    value=None if diverged else row.loss,
                )
            )
        found.append(study)
    return found


def of_task(frame, task):
    """The trials of the tables of a task, classification or regression."""
    return frame[(frame.task == "regression") == (task == "regression")]


def main():
    """Learn and write."""
    frame = pd.read_csv(TRIALS)
    for task in TASKS:
        prior = learn(studies(of_task(frame, task)))
        prior.save(SHIPPED / f"{task}.json")
        print(task)
        for row in prior.rows():
            print(" ", *row)
        for settings in prior.portfolio:
            print(" ", settings)


if __name__ == "__main__":
    main()

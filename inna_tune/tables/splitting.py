"""Rows that tuning sees, and rows that it never sees."""

from typing import Any

import numpy as np
from sklearn.model_selection import train_test_split

from inna_tune.tables.problem import Problem, TableError


def split_rows(problem: Problem, *, held_out: float, seed: int) -> tuple[Any, Any]:
    """Positions of the tuning rows and of the held-out rows, stratified where every class has two rows."""
    rows = np.arange(len(problem.y))
    n_held = int(np.ceil(held_out * len(rows)))
    # Five folds, and a row to train on in each.
    if len(rows) - n_held < 10:
        raise TableError(
            f"The table has {len(rows)} rows with a target; holding out {n_held} leaves fewer rows than folds can be made of. "
            "Give at least 13 rows."
        )
    stratify = None
    if problem.task != "regression":
        counts = problem.y.value_counts()
        if counts.min() >= 2 and n_held >= len(counts):
            stratify = problem.y
    tuning, held = train_test_split(rows, test_size=n_held, random_state=seed, stratify=stratify)
    if problem.task != "regression" and problem.y.iloc[tuning].nunique() < 2:
        raise TableError("The rows to tune on hold one class only; give more rows of the rare class.")
    return np.sort(tuning), np.sort(held)

"""The study as scikit-learn's ``cv_results_``."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.trial import FrozenTrial
from scipy.stats import rankdata

from inna_tune.records.attributes import CUT
from inna_tune.records.record import value_of


def collect_results(trials: Sequence[FrozenTrial], n_splits: int) -> dict[str, npt.NDArray[Any]]:
    """Finished trials as arrays, one row each.

    Parameters
    ----------
    trials : sequence of FrozenTrial
        Finished, or cut off by time with a score, in the order of their numbers.
    n_splits : int
        Folds of the search.

    Returns
    -------
    dict of str to ndarray
        scikit-learn's keys, and ``number`` and ``state``, which is "CUT" where time cut a trial off. Only complete trials and
        those have scores; the others hold NaN and share the last rank.
    """
    values = [value_of(t) for t in trials]
    has_score = np.array([value is not None for value in values], dtype=bool)
    scores = np.full((len(trials), n_splits), np.nan)
    for row, (trial, value) in enumerate(zip(trials, values, strict=True)):
        if value is not None:
            noted = trial.user_attrs if trial.state.is_finished() else trial.user_attrs[CUT]
            of_folds = noted.get("scores", [value] * n_splits)
            # Of another number of folds where a mismatch was allowed.
            scores[row] = of_folds if len(of_folds) == n_splits else np.nan
    mean = np.array([np.nan if value is None else value for value in values], dtype=float)
    results: dict[str, npt.NDArray[Any]] = {
        "number": np.array([t.number for t in trials]),
        "state": np.array([t.state.name if t.state.is_finished() else "CUT" for t in trials]),
        "mean_fit_time": np.array([t.user_attrs.get("seconds", np.nan) for t in trials], dtype=float),
        "params": np.array([t.params for t in trials], dtype=object),
        "mean_test_score": mean,
        "std_test_score": scores.std(axis=1),
        "rank_test_score": rankdata(np.where(has_score, -mean, np.inf), method="min").astype(np.int32),
    }
    for k in range(n_splits):
        results[f"split{k}_test_score"] = scores[:, k]
    for name in sorted({name for t in trials for name in t.params}):
        column = np.ma.MaskedArray(np.empty(len(trials), dtype=object), mask=True)
        for row, trial in enumerate(trials):
            if name in trial.params:
                column[row] = trial.params[name]
        results[f"param_{name}"] = column
    return results

"""The study as scikit-learn's ``cv_results_``."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import rankdata


def collect_results(trials: Sequence[FrozenTrial], n_splits: int) -> dict[str, npt.NDArray[Any]]:
    """Finished trials as arrays, one row each.

    Parameters
    ----------
    trials : sequence of FrozenTrial
        Finished, in the order of their numbers.
    n_splits : int
        Folds of the search.

    Returns
    -------
    dict of str to ndarray
        scikit-learn's keys, and ``number`` and ``state``. Only complete trials have scores; the others hold NaN and share
        the last rank.
    """
    complete = np.array([t.state == TrialState.COMPLETE for t in trials])
    scores = np.full((len(trials), n_splits), np.nan)
    for row, trial in enumerate(trials):
        if complete[row]:
            of_folds = trial.user_attrs.get("scores", [trial.value] * n_splits)
            # Of another number of folds where a mismatch was allowed.
            scores[row] = of_folds if len(of_folds) == n_splits else np.nan
    mean = np.array([t.value if ok else np.nan for t, ok in zip(trials, complete, strict=True)], dtype=float)
    results: dict[str, npt.NDArray[Any]] = {
        "number": np.array([t.number for t in trials]),
        "state": np.array([t.state.name for t in trials]),
        "mean_fit_time": np.array([t.user_attrs.get("seconds", np.nan) for t in trials], dtype=float),
        "params": np.array([t.params for t in trials], dtype=object),
        "mean_test_score": mean,
        "std_test_score": scores.std(axis=1),
        "rank_test_score": rankdata(np.where(complete, -mean, np.inf), method="min").astype(np.int32),
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

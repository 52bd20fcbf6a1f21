"""The finished trials of a search as scikit-learn's ``cv_results_``."""

from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import rankdata

from inna_tune.records.attributes import CUT, METRICS, NETS
from inna_tune.records.record import as_number, value_of
from inna_tune.study.metrics import Metrics
from inna_tune.study.tuned import own_settings


def collect_results(
    trials: Sequence[FrozenTrial], n_splits: int, metrics: Metrics, estimator: Any
) -> dict[str, npt.NDArray[Any]]:
    """Finished trials, and those that time cut off with a score, as scikit-learn's ``cv_results_``, one row each.

    Beside its keys stand ``number`` and ``state``, which is "CUT" where time cut a trial off. Only complete trials and those
    have scores; the others hold NaN and share the last rank. A study that was begun without one of the metrics has none by it
    of the trials from before.
    """
    settings = [own_settings(estimator, t.params) for t in trials]
    results: dict[str, npt.NDArray[Any]] = {
        "number": np.array([t.number for t in trials]),
        "state": np.array([t.state.name if t.state.is_finished() else "CUT" for t in trials]),
        "mean_fit_time": np.array([t.user_attrs.get("seconds", np.nan) for t in trials], dtype=float),
        "params": np.array(settings, dtype=object),
    }
    for name in metrics.scorers:
        results |= _of_metric(trials, n_splits, name, is_objective=name == metrics.objective)
    for name in sorted({name for own in settings for name in own}):
        column = np.ma.MaskedArray(np.empty(len(trials), dtype=object), mask=True)
        for row, own in enumerate(settings):
            if name in own:
                column[row] = own[name]
        results[f"param_{name}"] = column
    return results


def choose_row(
    refit: Callable[[dict[str, npt.NDArray[Any]]], Any], results: dict[str, npt.NDArray[Any]]
) -> int:
    """The row of ``cv_results_`` that a function chooses, which is one with a score.

    Raises
    ------
    TypeError, IndexError
        As scikit-learn's searches, where it is no whole number, or no row.
    ValueError
        If the trial has no score.
    """
    given: Any = refit(results)
    if isinstance(given, bool) or not isinstance(given, Integral):
        raise TypeError(
            f"refit: the function must give a row of cv_results_, a whole number; it gave {given!r}."
        )
    row = int(cast("int", given))
    states = results["state"]
    if not 0 <= row < len(states):
        raise IndexError(
            f"refit: the function gave row {row} of cv_results_, which has rows 0 to {len(states) - 1}."
        )
    if states[row] not in (TrialState.COMPLETE.name, "CUT"):
        raise ValueError(
            f"refit: the function gave row {row} of cv_results_, trial {results['number'][row]}, whose state is "
            f"{states[row]}: it has no score of all folds. Choose among the rows whose state is COMPLETE (scores of others are "
            "NaN, which numpy's argmax takes for the greatest, and nanargmax does not), or give "
            "pruner=optuna.pruners.NopPruner()."
        )
    return row


def _of_metric(
    trials: Sequence[FrozenTrial], n_splits: int, name: str, *, is_objective: bool
) -> dict[str, npt.NDArray[Any]]:
    """Mean, deviation, rank and folds of one metric."""
    mean = np.full(len(trials), np.nan)
    scores, deviation = np.full((len(trials), n_splits), np.nan), np.full(len(trials), np.nan)
    for row, trial in enumerate(trials):
        value = value_of(trial)
        if value is None:
            continue
        noted = trial.user_attrs if trial.state.is_finished() else trial.user_attrs[CUT]
        if is_objective:
            mean[row], of_folds = value, noted.get("scores", [value] * n_splits)
        else:
            of_folds = [as_number(each) for each in noted.get(METRICS, {}).get(name, ())]
        # Of nets that are scored by themselves those that do not count have no score.
        places = noted.get(NETS, range(n_splits))
        # Of another number of folds where a mismatch was allowed.
        if len(of_folds) == len(places) and max(places) < n_splits:
            scores[row, list(places)] = of_folds
            deviation[row] = np.std(of_folds)
        if not is_objective and len(of_folds):
            mean[row] = np.mean(of_folds)
    ranked = np.where(np.isnan(mean), np.inf, -mean)
    found = {
        f"mean_test_{name}": mean,
        f"std_test_{name}": deviation,
        f"rank_test_{name}": rankdata(ranked, method="min").astype(np.int32),
    }
    return found | {f"split{k}_test_{name}": scores[:, k] for k in range(n_splits)}

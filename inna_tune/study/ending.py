"""What a search leaves when its trials are done: results, the best settings, and those fitted on all rows."""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import numpy as np
import pandas as pd
from optuna.trial import FrozenTrial
from sklearn.base import clone, is_classifier
from sklearn.exceptions import ConvergenceWarning

from inna_tune import clock
from inna_tune.records.attributes import REASON
from inna_tune.records.record import StudyRecord, value_of
from inna_tune.study.budget import Budget
from inna_tune.study.callbacks import is_stopped
from inna_tune.study.results import collect_results

# What the fit has at least, whatever went before it: a share of the budget, and seconds.
_LEAST_SHARE, _LEAST = 0.05, 0.5


def finish(search: Any, frame: pd.DataFrame, y: Any, weight: Any, budget: Budget | None) -> None:
    """Set the fitted attributes of an InnaSearchCV.

    Parameters
    ----------
    search : InnaSearchCV
        With ``study_`` and ``n_splits_``.
    frame : DataFrame
    y : array or Series of shape [n_samples]
    weight : array of shape [n_samples] or None
    budget : Budget or None
        Of time, for the fit too.

    Raises
    ------
    ValueError
        If no trial gave a score, but for want of time.
    """
    record = StudyRecord(search.study_)
    cut = {t.number for t in record.cut}
    trials = [t for t in record.trials if t.state.is_finished() or t.number in cut]
    best = record.best_first[0] if record.best_first else None
    if best is None:
        _say_that_none_scored(search, trials, by_time=budget is not None and not is_stopped(search.study_))
    search.cv_results_ = collect_results(trials, search.n_splits_)
    search.best_index_ = -1 if best is None else [t.number for t in trials].index(best.number)
    search.best_params_ = {} if best is None else dict(best.params)
    search.best_score_ = math.nan if best is None else float(cast("float", value_of(best)))
    if is_classifier(search.estimator):
        search.classes_ = np.unique(y)
    if search.refit:
        began = clock.now()
        search.best_estimator_ = _refitted(search, best, frame, y, weight, budget)
        search.refit_time_ = clock.now() - began


def _refitted(
    search: Any, best: FrozenTrial | None, frame: pd.DataFrame, y: Any, weight: Any, budget: Budget | None
) -> Any:
    """An estimator with the best settings, or as it is where there are none, fitted within the time that is left."""
    model = clone(search.estimator).set_params(**search.best_params_)
    if model.random_state is None:
        model.random_state = search.random_state if best is None else best.user_attrs.get("seed")
    own = model.max_time
    if budget is not None:
        left = max(budget.left, _LEAST_SHARE * search.timeout + _LEAST)
        model.max_time = left if own is None else min(own, left)
    with nullcontext() if budget is None else without_time_warnings("max_time="):
        model.fit(frame, y, sample_weight=weight)
    return model.set_params(max_time=own)


def _say_that_none_scored(search: Any, trials: Sequence[FrozenTrial], *, by_time: bool) -> None:
    """An error; or, where only time was missing, a warning: the settings as they are give a model all the same."""
    reasons = [t.user_attrs[REASON] for t in trials if REASON in t.user_attrs]
    if search.refit and by_time and not reasons:
        warnings.warn(
            f"timeout={search.timeout:g}: the time was up before any trial had a score on all folds; the estimator was "
            "fitted as it is, untuned. Give more time.",
            ConvergenceWarning,
            stacklevel=5,
        )
        return
    raise ValueError(
        f"None of {len(trials)} finished trials gave a score"
        + (f"; the first one: {reasons[0]}" if reasons else "; give it more time (timeout)")
    )


@contextmanager
def without_time_warnings(begins: str = "(max_time|timeout)=") -> Iterator[None]:
    """Keep back the warnings of fits that were cut by a time which no person gave, or of which we say more elsewhere.

    Parameters
    ----------
    begins : str
        Regular expression of how they begin.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=begins, category=ConvergenceWarning)
        yield

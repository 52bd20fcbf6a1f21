"""A study's trials, and its leaderboard, as tables that are ready to plot."""

import numpy as np
import optuna
import pandas as pd
from optuna.trial import TrialState

from inna_tune.records.attributes import REASON
from inna_tune.records.leaderboard import leaderboard
from inna_tune.records.record import StudyRecord, as_number, epochs_of, seconds_of

_OWN = ("number", "state", "score", "score_std", "epochs", "seconds", "begun", "reason")


def trials_frame(study: optuna.Study) -> pd.DataFrame:
    """All trials of a study, one row each, as numbers and words.

    Parameters
    ----------
    study : optuna.Study
        With one objective.

    Returns
    -------
    DataFrame
        ``number``; ``state``, such as "complete"; ``score`` as the study stores it, NaN where there is none; ``score_std``,
        its standard deviation over the folds, or nets; ``epochs`` of training; ``seconds`` that it was trained and
        scored; ``begun``, a time; ``reason`` for which it was pruned or failed. Then one column a parameter, under its own name
        (under ``params_NAME`` where that is taken), with natural values, missing where the trial has no such parameter.

    Raises
    ------
    ValueError
        If the study has several objectives.
    """
    record = StudyRecord(study)
    trials = record.trials
    folds = [t.user_attrs.get("scores") for t in trials]
    columns = {
        "number": [t.number for t in trials],
        "state": [t.state.name.lower() for t in trials],
        "score": [as_number(t.value) if t.state == TrialState.COMPLETE else float("nan") for t in trials],
        "score_std": [
            float(pd.Series(s, dtype=float).std(ddof=0)) if isinstance(s, list) else float("nan")
            for s in folds
        ],
        "epochs": [epochs_of(t) for t in trials],
        "seconds": [seconds_of(t) for t in trials],
        "begun": pd.to_datetime([t.datetime_start for t in trials]),
        "reason": pd.Series([t.user_attrs.get(REASON) for t in trials], dtype="string").fillna(""),
    }
    for name in record.parameters:
        column = f"params_{name}" if name in _OWN else name
        columns[column] = pd.Series([t.params.get(name) for t in trials])
    return pd.DataFrame(columns)


def leaderboard_frame(study: optuna.Study) -> pd.DataFrame:
    """The leaderboard of a study as a table.

    Parameters
    ----------
    study : optuna.Study
        With one objective.

    Returns
    -------
    DataFrame
        The best first: ``model``, "ensemble" or such as "trial 3"; ``trial``, its number, missing for the ensemble; ``state``:
        "complete", "cut" by time, "ensemble"; ``score`` as the study stores it, higher is better; ``score_error``, the
        standard error of its mean over the folds, or nets; ``weight`` in the ensemble; ``fit_seconds``; ``predict_seconds`` for
        the test rows of all folds. The ensemble is scored on the rows that it was chosen on.
    """
    record = StudyRecord(study)
    found = leaderboard(record)
    return pd.DataFrame(
        {
            "model": pd.Series([e.model for e in found], dtype="str"),
            "trial": pd.array([e.trial for e in found], dtype="Int64"),
            "state": pd.Series([e.state for e in found], dtype="str"),
            "score": np.array([record.metric.shown(e.score) for e in found], dtype=float),
            "score_error": np.array([e.error for e in found], dtype=float),
            "weight": np.array([e.weight for e in found], dtype=float),
            "fit_seconds": np.array([e.fit_seconds for e in found], dtype=float),
            "predict_seconds": np.array([e.predict_seconds for e in found], dtype=float),
        }
    )

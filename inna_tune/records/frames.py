"""A study's trials as a table that is ready to plot."""

import optuna
import pandas as pd
from optuna.trial import TrialState

from inna_tune.records.attributes import REASON
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
        its standard deviation over the folds; ``epochs`` of training; ``seconds`` that it was trained and
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

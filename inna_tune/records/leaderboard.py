"""The leaderboard of a study: trials with a score and the ensemble made of them, the best first."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from optuna.trial import FrozenTrial

from inna_tune.records.attributes import CUT, ENSEMBLE, PREDICT_SECONDS
from inna_tune.records.record import StudyRecord, as_number, seconds_of


@dataclass(frozen=True)
class EnsembleNote:
    """What a study keeps of the ensemble that a search made of it last.

    Attributes
    ----------
    weights : dict of int to float
        Of its trials, by their numbers.
    value : float
        Mean of the scores, as a trial's value.
    scores : list of float
        Of the folds.
    on_all_rows : bool
        Whether its settings were fitted on all rows; else it is of the nets of the folds.
    """

    weights: dict[int, float]
    value: float
    scores: list[float]
    on_all_rows: bool = False

    @classmethod
    def of(cls, record: StudyRecord) -> Self | None:
        """That of a study; None where there is none, or what stands there makes no sense."""
        try:
            found = record.attributes[ENSEMBLE]
            note = cls(
                {int(number): float(weight) for number, weight in found["weights"].items()},
                float(found["value"]),
                [float(score) for score in found["scores"]],
                found.get("on_all_rows", False),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            return None
        known = set(note.weights) <= {t.number for t in record.trials}
        is_whole = (
            isinstance(note.on_all_rows, bool)
            and known
            and bool(note.weights)
            and all(0 < w <= 1 for w in note.weights.values())
            and math.isfinite(note.value)
        )
        return note if is_whole else None

    @property
    def words(self) -> str:
        """Its trials with their weights, the heaviest first."""
        heaviest = sorted(self.weights.items(), key=lambda each: (-each[1], each[0]))
        listed = ", ".join(f"{number} ({weight:.2f})" for number, weight in heaviest)
        trials = f"trial{'s' * (len(heaviest) > 1)} {listed}"
        return (
            f"the settings of {trials}, fitted on all rows"
            if self.on_all_rows
            else f"the nets of the folds of {trials}"
        )


@dataclass(frozen=True)
class Entry:
    """A trial, or the ensemble, on a leaderboard.

    Attributes
    ----------
    model : str
        "ensemble", or "trial 3".
    trial : int or None
        None: the ensemble.
    state : str
        "complete", "cut" by time, or "ensemble".
    score : float
        As it is shown.
    error : float
        Standard error of the mean over the folds, or over nets that are scored by themselves; NaN of fewer than two.
    weight : float
        In the ensemble.
    fit_seconds, predict_seconds : float
        Of training and scoring on all folds; and of predicting their test rows, once they are encoded. The ensemble's are
        sums over its trials. NaN where unknown.
    """

    model: str
    trial: int | None
    state: str
    score: float
    error: float
    weight: float
    fit_seconds: float
    predict_seconds: float


def leaderboard(record: StudyRecord) -> list[Entry]:
    """The trials of a study that have a score, and its ensemble, the best first; of those equal, the ensemble."""
    note = EnsembleNote.of(record)
    weights = {} if note is None else note.weights
    entries = [
        Entry(
            f"trial {trial.number}",
            trial.number,
            "complete" if trial.state.is_finished() else "cut",
            record.score(trial),
            _error(scores_of_folds(trial)),
            weights.get(trial.number, 0.0),
            seconds_of(trial),
            as_number(trial.user_attrs.get(PREDICT_SECONDS)),
        )
        for trial in record.best_first
    ]
    if note is not None:
        own = [e for e in entries if e.weight > 0]
        fit, predict = (sum(getattr(e, n) for e in own) for n in ("fit_seconds", "predict_seconds"))
        score = record.metric.shown(note.value)
        entries.insert(0, Entry("ensemble", None, "ensemble", score, _error(note.scores), 1.0, fit, predict))
    return sorted(entries, key=lambda e: record.metric.loss(e.score))


def losses_of_folds(record: StudyRecord, scores: Sequence[Any]) -> list[float] | None:
    """Losses, such as the log-loss or the RMSE, of stored scores of the folds; None where they are none, or not positive."""
    found = [record.metric.shown(as_number(score)) for score in scores]
    if not record.metric.lower_is_better or len(found) < 2 or not all(0 < loss < math.inf for loss in found):
        return None
    return found


def scores_of_folds(trial: FrozenTrial) -> list[Any]:
    """Its scores of the folds; empty where the trial does not say."""
    noted = trial.user_attrs if trial.state.is_finished() else trial.user_attrs.get(CUT)
    scores = noted.get("scores") if isinstance(noted, dict) else None
    return scores if isinstance(scores, list) else []


def _error(scores: Sequence[Any]) -> float:
    """Standard error of a mean of scores."""
    numbers = [as_number(s) for s in scores]
    if len(numbers) < 2 or not all(map(math.isfinite, numbers)):
        return math.nan
    return float(np.std(numbers, ddof=1) / math.sqrt(len(numbers)))

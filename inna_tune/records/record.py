"""A study read once, for pictures and reports: its trials, and what our attributes say, checked."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from inna_tune.optim.dynamics import settings_from_curvature
from inna_tune.records.attributes import (
    CURVATURE,
    CUT,
    FINGERPRINT,
    HELD_OUT,
    HORIZON,
    PORTFOLIO,
    REASON,
    UNTUNED,
)
from inna_tune.records.heldout import HeldOut
from inna_tune.space import SearchSpace
from inna_tune.space.evidence import MISLEADING, misleading_text
from inna_tune.store.opening import storage_errors

# What a metric measures, with its unit.
_NAMES = {
    "neg_log_loss": "log-loss, in nats",
    "neg_root_mean_squared_error": "RMSE, in units of the target",
    "neg_mean_squared_error": "mean squared error, in squared units of the target",
    "neg_mean_absolute_error": "mean absolute error, in units of the target",
    "accuracy": "accuracy, share of the rows",
    "balanced_accuracy": "balanced accuracy, mean share of each class",
    "roc_auc": "area under the ROC curve",
    "r2": "R², share of the variance",
    "average_precision": "average precision",
    "roc_auc_ovr": "area under the ROC curve, mean of each class against the rest",
    "roc_auc_ovo": "area under the ROC curve, mean of pairs of classes",
    "f1": "F1",
    "neg_brier_score": "Brier score, squared error of the probabilities",
    "neg_median_absolute_error": "median absolute error, in units of the target",
    "neg_max_error": "greatest error, in units of the target",
    "neg_mean_absolute_percentage_error": "mean absolute percentage error, share of the true value",
    "neg_root_mean_squared_log_error": "RMSE of the logarithm of one more than the target",
}

_MAX_NAME = 40  # a scorer of one's own may have any name


@dataclass(frozen=True)
class Metric:
    """What a study's values mean to a person.

    Attributes
    ----------
    name : str
        Short, such as ``"log-loss"``.
    label : str
        With its unit, for an axis.
    sign : float
        What a stored value is multiplied by to be shown: -1 for scikit-learn's negated losses.
    lower_is_better : bool
        Of the values as they are shown.
    """

    name: str
    label: str
    sign: float
    lower_is_better: bool

    @classmethod
    def of(cls, stored: str, direction: StudyDirection) -> "Metric":
        """From the name in the study's fingerprint, empty where there is none."""
        negated = stored.startswith("neg_") and direction == StudyDirection.MAXIMIZE
        plain = (stored.removeprefix("neg_") if negated else stored).replace("_", " ")
        plain = "".join(c if c.isprintable() else " " for c in plain)[:_MAX_NAME] or "score"
        label = _NAMES.get(stored, plain) if negated or not stored.startswith("neg_") else plain
        lower = negated or direction == StudyDirection.MINIMIZE
        return cls(label.split(",")[0], label, -1.0 if negated else 1.0, lower)

    def shown(self, stored: float) -> float:
        """A value of the study as a person reads it."""
        return self.sign * stored

    def loss(self, shown: Any) -> Any:
        """What is shown, numbers or arrays, so that lower is better; applied again it gives back what was shown."""
        return shown if self.lower_is_better else -shown

    @property
    def better(self) -> str:
        """Which way is better, in words."""
        return "lower is better" if self.lower_is_better else "higher is better"


class StudyRecord:
    """A study as it stood when it was read, whoever wrote it.

    Texts and numbers in it may come from strangers: attributes of the wrong shape count as missing.

    Parameters
    ----------
    study : optuna.Study or InnaSearchCV
        With one objective; running or finished.

    Raises
    ------
    TypeError
        If it is neither.
    ValueError
        If it has several objectives.
    StorageError
        If its storage can't be read.
    """

    def __init__(self, study: Any) -> None:
        study = getattr(study, "study_", study)
        if not isinstance(study, optuna.Study):
            raise TypeError(f"study={study!r} must be an optuna.Study, or an InnaSearchCV that was fitted")
        self.study: optuna.Study = study
        with storage_errors(study):
            n_objectives = len(study.directions)
            self.name: str = study.study_name
            self.attributes: dict[str, Any] = study.user_attrs
            self.trials: list[FrozenTrial] = study.get_trials(deepcopy=False)
        if n_objectives != 1:
            raise ValueError(
                f"study {self.name!r} has {n_objectives} objectives; only studies with one can be shown"
            )

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """What the study was made for; empty where inna-tune didn't begin it."""
        return _mapping(self.attributes.get(FINGERPRINT))

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Class and settings of the estimator that was tuned; empty where unknown."""
        return _mapping(self.fingerprint.get("estimator"))

    @property
    def is_by_members(self) -> bool:
        """Whether a trial is one fit, each of its nets scored on the rows that it left out; else trials are scored on folds."""
        return self.fingerprint.get("cv") == "members"

    @property
    def scored_on(self) -> str:
        """What its trials are scored on, in words."""
        if self.is_by_members:
            return "the rows that their nets left out"
        return f"folds {self.fingerprint.get('cv', '?')}"

    @cached_property
    def metric(self) -> Metric:
        """What its values mean."""
        stored = self.fingerprint.get("metric")
        return Metric.of(stored if isinstance(stored, str) else "", self.study.direction)

    @cached_property
    def space(self) -> SearchSpace | None:
        """Its priors, where they are stored and can be read."""
        try:
            return SearchSpace.from_json(self.fingerprint.get("space"))
        except (ValueError, TypeError):
            return None

    @property
    def is_by_inna(self) -> bool:
        """Whether INNA steps the nets, as far as the study says."""
        return _mapping(self.settings.get("parameters")).get("optimizer") in (None, "inna")

    @cached_property
    def curvature(self) -> float | None:
        """Largest Hessian eigenvalue of the loss at the initial weights, where it was measured."""
        found = as_number(self.attributes.get(CURVATURE))
        return found if 0 < found < math.inf else None

    @cached_property
    def misleading(self) -> str:
        """Which priors mislead, in words; empty if none does."""
        found = {n: as_number(e) for n, e in _mapping(self.attributes.get(MISLEADING)).items()}
        return misleading_text({n: e for n, e in found.items() if -700 < e < 700})

    @cached_property
    def held_out(self) -> HeldOut | None:
        """What the best model predicts on rows that tuning never saw, where `fit` recorded it."""
        return HeldOut.from_json(self.attributes.get(HELD_OUT))

    @cached_property
    def counts(self) -> dict[str, int]:
        """How many trials are in each state, by its name in small letters."""
        return count_states(self.trials)

    def in_state(self, *states: TrialState) -> list[FrozenTrial]:
        """Trials in one of these states, by number."""
        return [t for t in self.trials if t.state in states]

    @cached_property
    def complete(self) -> list[FrozenTrial]:
        """Complete trials with a finite value, by number."""
        return [t for t in self.in_state(TrialState.COMPLETE) if math.isfinite(t.value or 0.0)]

    @cached_property
    def cut(self) -> list[FrozenTrial]:
        """Trials that time cut off with a score, and that nobody has finished since, by number."""
        return [t for t in self.trials if not t.state.is_finished() and value_of(t) is not None]

    @cached_property
    def best_first(self) -> list[FrozenTrial]:
        """The same and those that were cut, the best one first; the earlier one where two are equal."""
        return sorted([*self.complete, *self.cut], key=lambda t: (self.metric.loss(self.score(t)), t.number))

    def score(self, trial: FrozenTrial) -> float:
        """Value of a complete trial as it is shown, or of one that was cut: what it had reached."""
        return self.metric.shown(float(value_of(trial) or 0.0))

    def at_rungs(self, trial: FrozenTrial) -> dict[int, float]:
        """Epoch -> score as it is shown, where a trial reported a finite one."""
        found = trial.intermediate_values.items()
        return {epoch: self.metric.shown(value) for epoch, value in found if math.isfinite(value)}

    def setting(self, trial: FrozenTrial, name: str) -> Any:
        """What a trial trained with: a tuned parameter, else what the estimator had; None where unknown."""
        if name in trial.params:
            return trial.params[name]
        return _mapping(self.settings.get("parameters")).get(name)

    def steps(self, trial: FrozenTrial) -> dict[str, float]:
        """``lr``, ``alpha`` and ``beta`` of a trial, NaN where unknown.

        Those that are set by pure numbers are told at the study's curvature, where all three are known; each net has its own.
        """
        found = {name: as_number(self.setting(trial, name)) for name in ("lr", "alpha", "beta")}
        numbers = [as_number(self.setting(trial, name)) for name in ("friction", "damping", "step_ratio")]
        curvature = self.curvature
        if curvature is None or not 0 < curvature < math.inf or not all(0 < n < math.inf for n in numbers):
            return found
        friction, damping, ratio = numbers
        if friction < 2 * damping:
            natural = settings_from_curvature(
                curvature, scaled_alpha=friction, damping_ratio=damping, stable_step_ratio=ratio
            )._asdict()
            found = {name: natural[name] if math.isnan(value) else value for name, value in found.items()}
        return found

    @cached_property
    def parameters(self) -> list[str]:
        """Names of the tuned parameters: those of the space in its order, then others by name."""
        seen = {name for t in self.trials for name in t.params}
        known = [] if self.space is None else [name for name in self.space if name in seen]
        return known + sorted(seen - set(known))

    @cached_property
    def untuned(self) -> FrozenTrial | None:
        """The trial of what the estimator was set to, where that was tried."""
        own = self.attributes.get(UNTUNED)
        if own is None and as_number(self.attributes.get(PORTFOLIO)) >= 1 and self.trials:
            own = self.trials[0].params  # studies of older versions tried it first, and did not say so
        return next((t for t in self.trials if own and t.params == own), None)

    @cached_property
    def horizon(self) -> float | None:
        """Epochs of a training that nothing ends early, where known."""
        said = _mapping(self.settings.get("parameters")).get("max_epochs")
        found = as_number(self.attributes.get(HORIZON) if said == "auto" else said)
        return found if 0 < found < math.inf else None

    @cached_property
    def reasons(self) -> list[tuple[str, str, list[int]]]:
        """Why trials failed or were pruned: state, reason and the trials' numbers, most frequent first, failures before."""
        found: dict[tuple[str, str], list[int]] = {}
        for trial in self.in_state(TrialState.FAIL, TrialState.PRUNED):
            reason = trial.user_attrs.get(REASON)
            words = reason if isinstance(reason, str) and reason else "no reason was recorded"
            state = "failed" if trial.state == TrialState.FAIL else "pruned"
            found.setdefault((state, words), []).append(trial.number)
        rows = [(state, reason, numbers) for (state, reason), numbers in found.items()]
        return sorted(rows, key=lambda row: (row[0], -len(row[2]), row[2][0]))


def value_of(trial: FrozenTrial) -> float | None:
    """Value of a complete trial; of one that time cut off, what it had reached by then; None for others."""
    if trial.state.is_finished():
        return trial.value if trial.state == TrialState.COMPLETE else None
    found = as_number(_mapping(trial.user_attrs.get(CUT)).get("value"))
    return found if math.isfinite(found) else None


def count_states(trials: Iterable[FrozenTrial]) -> dict[str, int]:
    """How many trials are in each state, by its name in small letters; all states are there."""
    found = Counter(t.state for t in trials)
    return {state.name.lower(): found[state] for state in TrialState}


def epochs_of(trial: FrozenTrial) -> float:
    """Epochs of training, NaN where the trial does not say."""
    return as_number(trial.user_attrs.get("epochs"))


def seconds_of(trial: FrozenTrial) -> float:
    """Seconds that a trial was trained and scored, NaN where it does not say."""
    return as_number(trial.user_attrs.get("seconds"))


def first_start(trials: Iterable[FrozenTrial]) -> datetime | None:
    """When the first of some trials began."""
    return min((t.datetime_start for t in trials if t.datetime_start is not None), default=None)


def as_number(value: Any) -> float:
    """A number as a float, anything else as NaN."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}

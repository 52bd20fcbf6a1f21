"""A trial's settings, and what tuning bought, in words."""

from contextlib import suppress
from dataclasses import replace

import optuna
from optuna.trial import FrozenTrial

from inna_tune.optim.decay import describe_decay
from inna_tune.optim.optimizers import DEFAULT, OPTIMIZERS, PURE
from inna_tune.records.heldout import HeldOut
from inna_tune.records.record import Metric, StudyRecord, as_number
from inna_tune.records.text import plain
from inna_tune.store.workers import ResumeSummary

_STEPS = ("lr", "alpha", "beta")
_BY_INNA = {*_STEPS, "decay", "decay_power", "weight_decay", "dropout"}


def describe_trial(record: StudyRecord, trial: FrozenTrial) -> str:
    """Say in a sentence what a trial's settings mean.

    Parameters
    ----------
    record : StudyRecord
    trial : FrozenTrial
        Of that study.

    Returns
    -------
    str
        Such as "effective step 1.3, momentum 0.96, damping ratio 0.4 (underdamped), …: near SGD with momentum; the step
        falls by the power law, exponent 0.5; weight decay 0.0001; dropout 0.1". Without a full stop; settings that INNA does
        not have follow as name and value. Empty where the trial has none.
    """
    lr, alpha, beta = record.steps(trial).values()
    parts = []
    optimizer = OPTIMIZERS.get(str(record.setting(trial, "optimizer") or DEFAULT))
    if optimizer is not None and optimizer.describe is not None:
        with suppress(ValueError):  # some are unknown, or left to the training to find
            parts.append(optimizer.describe(lr, alpha, beta, record.curvature))
    told = _BY_INNA | set(PURE) if parts else _BY_INNA - set(_STEPS)
    decay = record.setting(trial, "decay")
    if isinstance(decay, str):
        parts.append(describe_decay(decay, as_number(record.setting(trial, "decay_power"))))
    for name, words in (("weight_decay", "weight decay"), ("dropout", "dropout")):
        value = as_number(record.setting(trial, name))
        if value == value:
            parts.append(f"{words} {value:.3g}" if value else f"no {words}")
    parts += [f"{name} {plain(value)}" for name, value in trial.params.items() if name not in told]
    return "; ".join(parts)


def columns_worth(found: HeldOut, *, most: int = 5) -> str | None:
    """The columns that are worth most on the held-out rows, in words; None where that was not measured, or none is.

    Parameters
    ----------
    found : HeldOut
    most : int, default=5
        Columns that are named.

    Returns
    -------
    str or None
        Such as "sex (+0.21 ± 0.02), fare (+0.04 ± 0.01): log-loss that is added when they are shuffled", each with its
        standard error.
    """
    if found.importances is None:
        return None
    named = [each for each in found.importances.best[:most] if each.change > each.error]
    words = [f"{each.column} (+{each.change:.2g} ± {each.error:.1g})" for each in named]
    if not words:
        return None
    return f"{', '.join(words)}: {found.importances.metric} that is added when they are shuffled"


def as_shown(study: optuna.Study, found: ResumeSummary) -> ResumeSummary:
    """What a study holds, with the best value as it is shown to a person: a loss, not what scikit-learn negates."""
    if found.best_value is None:
        return found
    return replace(found, best_value=StudyRecord(study).metric.shown(found.best_value))


def tuning_gain(found: HeldOut, metric: Metric | None = None) -> str | None:
    """What tuning bought on the held-out rows, in sentences; None where it was not measured.

    Parameters
    ----------
    found : HeldOut
    metric : Metric, optional
        By which was tuned; what became of it is told first, where it is not the loss that the gain is of.
    """
    tuned, untuned = found.scores.get("tuned") or {}, found.scores.get("untuned default") or {}
    loss = next(iter(tuned), "")  # the first score is the loss that the gain is of
    told = ""
    if metric is not None and metric.name != loss and metric.name in tuned.keys() & untuned.keys():
        told = (
            f"Held-out {metric.name}: {untuned[metric.name]:.4g} untuned, {tuned[metric.name]:.4g} tuned "
            f"({metric.better})."
        )
    of_loss = _gain_of_loss(found, loss) if tuned else None
    return " ".join(filter(None, (told, of_loss))) or None


def _gain_of_loss(found: HeldOut, loss: str) -> str | None:
    gain = found.gain
    if gain is None:
        return None
    changed = f"Tuning changed the held-out {loss} by {gain.change:+.1%} against the untuned default"
    between = f"95% interval {gain.low:+.1%} to {gain.high:+.1%}"
    if not found.luck:
        return f"{changed} ({between}, of the rows alone): one fit of each cannot tell that from the luck of a seed."
    if gain.is_clear:
        verb, sign = ("lowered", -1) if gain.change < 0 else ("raised", 1)
        low, high = sorted((sign * gain.low, sign * gain.high))
        return (
            f"Tuning {verb} the held-out {loss} by {abs(gain.change):.1%} against the untuned default "
            f"(95% interval {low:.1%} to {high:.1%})."
        )
    return f"{changed} ({between}): {found.rows} rows and one fit of each cannot tell whether that is a gain."

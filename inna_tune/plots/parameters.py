"""The hyper-parameters one by one: how much each matters, where its good values lie, and where its prior looked."""

import warnings
from typing import Any

import numpy as np
import optuna
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial

from inna_tune.plots.priors import density
from inna_tune.plots.style import (
    BLUE,
    MANY_POINTS,
    SIZE,
    SMALL,
    Floats,
    NothingToPlotError,
    finish,
    ink,
    jitter,
    limit_scores,
    new_figure,
    plain_log,
    plain_ticks,
    record_of,
    shorten,
    star,
    tidy,
)
from inna_tune.records.record import StudyRecord
from inna_tune.space import Categorical, SearchSpace

_TOP_SHARE = 0.1
_MIN_TOP = 5  # below so many top trials the importances are noise (Optuna's advice)
_MIN_TRIALS = 10
_GRID = 160


def importances_of(study: Any) -> dict[str, float]:
    """How far each parameter's values in the best trials differ from those in all, as shares that add up to one.

    By PED-ANOVA, over complete trials: the best tenth of them against all, or the best five of fewer than 50. Of Optuna's
    evaluators it alone knows parameters that exist in some trials only; its time grows with the trials and not faster, so
    that thousands are no matter, where fANOVA takes minutes. What a sampler has narrowed down looks less important than it is.

    Parameters
    ----------
    study : optuna.Study or InnaSearchCV

    Returns
    -------
    dict of str to float
        The most important first.

    Raises
    ------
    NothingToPlotError
        If fewer than 10 trials are complete, or no parameter was tuned.

    References
    ----------
    Watanabe, Bansal, Hutter (2023). PED-ANOVA: efficiently quantifying hyperparameter importance in arbitrary subspaces.
    IJCAI.
    """
    record = record_of(study)
    if len(record.complete) < _MIN_TRIALS:
        raise NothingToPlotError(
            f"Importances need {_MIN_TRIALS} complete trials; the study has {len(record.complete)}."
        )
    top = max(_TOP_SHARE, min(0.5, _MIN_TOP / len(record.complete)))
    evaluator = PedAnovaImportanceEvaluator(target_quantile=top)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # Of choices that a few trials only have; the picture says that it is an estimate.
        warnings.filterwarnings("ignore", message="Some regimes for parameter", category=UserWarning)
        found = get_param_importances(record.study, evaluator=evaluator, params=_tuned(record))
    if not found:
        raise NothingToPlotError("The study tunes no parameter.")
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _tuned(record: StudyRecord) -> list[str]:
    seen = {name for t in record.complete for name in t.params}
    return [name for name in record.parameters if name in seen]


def importances(study: Any) -> Figure:
    """Bars of `importances_of`.

    Parameters
    ----------
    study : optuna.Study or InnaSearchCV

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    NothingToPlotError
        If fewer than 10 trials are complete, or no parameter was tuned.
    """
    record = record_of(study)
    found = importances_of(record)
    names = list(found)[::-1]
    figure = new_figure((SIZE[0], max(1.6, 0.7 + 0.3 * len(names))))
    axes = figure.subplots()
    bars = axes.barh(range(len(names)), [100 * found[name] for name in names], color=BLUE, height=0.65)
    axes.bar_label(bars, fmt="%.0f%%", padding=3, fontsize="small", color=ink())
    axes.set_yticks(range(len(names)), [shorten(name) for name in names])
    plain_ticks(axes)
    axes.set_xlim(0, 1.12 * max(100 * v for v in found.values()))
    axes.set_xlabel("importance (% of the sum)")
    tidy(axes)
    listed = ", ".join(f"{name} {found[name]:.0%}" for name in found)
    return finish(figure, "Importance of the hyper-parameters", f"Bar chart of importances: {listed}.")


def slice_of(study: Any, parameter: str, space: SearchSpace | None = None) -> Figure:
    """Scores over the values of one parameter, with its prior.

    Parameters
    ----------
    study : optuna.Study or InnaSearchCV
    parameter : str
    space : SearchSpace, optional
        Whose prior to draw; None: the one that the study was begun with, if it says so. The prior of a parameter that
        depends on others is averaged over theirs.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If no trial has such a parameter.
    NothingToPlotError
        If no trial with it has a score.
    """
    record = record_of(study)
    figure = new_figure(SMALL)
    words = _draw_slice(figure.subplots(), record, parameter, space or record.space)
    return finish(figure, shorten(parameter, 40), words)


def slices(study: Any, space: SearchSpace | None = None) -> Figure:
    """`slice_of` every parameter, in one figure.

    Parameters
    ----------
    study : optuna.Study or InnaSearchCV
    space : SearchSpace, optional
        Whose priors to draw; None: those that the study was begun with, if it says so.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    NothingToPlotError
        If no trial has a score.
    """
    record = record_of(study)
    names = _tuned(record)
    if not names:
        raise NothingToPlotError("No trial with a parameter has a score yet.")
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = new_figure((columns * SMALL[0], rows * SMALL[1] + 0.3))
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    words = []
    for name, axes in zip(names, panels, strict=False):
        words.append(_draw_slice(axes, record, name, space or record.space))
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    return finish(figure, "Scores over the hyper-parameters", " ".join(words))


def _draw_slice(axes: Axes, record: StudyRecord, name: str, space: SearchSpace | None) -> str:
    """Draw into given axes; return it in words."""
    if name not in record.parameters:
        known = ", ".join(map(repr, record.parameters)) or "none"
        raise ValueError(f"parameter={name!r} is in no trial of the study; its parameters: {known}")
    trials = [t for t in record.best_first if name in t.params]
    if not trials:
        raise NothingToPlotError(f"No trial with {name!r} has a score yet.")
    # The newest distribution: bounds may have been changed on resuming.
    kind = max(trials, key=lambda t: t.number).distributions[name]
    scores = np.array([record.score(t) for t in trials])
    limit_scores(axes, scores, record)
    if isinstance(kind, CategoricalDistribution):
        place = _draw_choices(axes, trials, scores, name, space)
    else:
        place = _draw_numbers(axes, trials, scores, name, kind, space)
    star(axes, *place)
    axes.set_xlabel(shorten(name, 40), parse_math=False)
    axes.set_ylabel(record.metric.name, parse_math=False)
    tidy(axes)
    value = trials[0].params[name]
    shown = f"{value:.4g}" if isinstance(value, float) else str(value)
    return (
        f"Scatter plot of {record.metric.name} ({record.metric.better}) over {name} for {len(trials)} complete trials, "
        f"with its prior shaded where it is known; the best has {name} = {shown}."
    )


def _draw_numbers(
    axes: Axes,
    trials: list[FrozenTrial],
    scores: Floats,
    name: str,
    kind: BaseDistribution,
    space: SearchSpace | None,
) -> tuple[float, float]:
    values = np.array([float(t.params[name]) for t in trials])
    log = bool(getattr(kind, "log", False)) and values.min() > 0
    low, high = (
        min(values.min(), getattr(kind, "low", np.inf)),
        max(values.max(), getattr(kind, "high", -np.inf)),
    )
    if log:
        low = low if low > 0 else values.min()
    if low == high:
        low, high = (low / 2, high * 2) if log else (low - 0.5, high + 0.5)
    _draw_prior(axes, space, name, low, high, log=log)
    _points(axes, values, scores)
    axes.set_xlim((low / 1.1, high * 1.1) if log else (low - 0.03 * (high - low), high + 0.03 * (high - low)))
    if log:
        plain_log(axes, "x")
    return float(values[0]), float(scores[0])


def _draw_prior(
    axes: Axes, space: SearchSpace | None, name: str, low: float, high: float, *, log: bool
) -> None:
    if space is None or name not in space:
        return
    grid = np.geomspace(low, high, _GRID) if log else np.linspace(low, high, _GRID)
    found = density(space, name, grid, log=log)
    if found is None or not found.max() > 0:
        return
    above = axes.twinx()
    above.fill_between(grid, found, color=ink(), alpha=0.13, lw=0)
    above.plot(grid, found, color=ink(), alpha=0.5, lw=0.8)
    above.set_ylim(0, 1.6 * float(np.quantile(found, 0.98)))
    above.set_axis_off()


def _draw_choices(
    axes: Axes, trials: list[FrozenTrial], scores: Floats, name: str, space: SearchSpace | None
) -> tuple[float, float]:
    law = None if space is None or name not in space else space.law(name)
    seen = list(dict.fromkeys(t.params[name] for t in trials))
    choices = list(law.choices) if isinstance(law, Categorical) else []
    choices += [c for c in seen if c not in choices]
    place = {_key(c): i for i, c in enumerate(choices)}
    x = np.array([place[_key(t.params[name])] for t in trials]) + jitter(len(trials), 0.28)
    labels = []
    for i, choice in enumerate(choices):
        share = float(law.probabilities[i]) if isinstance(law, Categorical) and i < len(law.choices) else None
        labels.append(shorten(choice, 12) + ("" if share is None else f"\n{share:.0%}"))
        if share is not None:
            axes.axvspan(i - 0.4, i + 0.4, ymax=share, color=ink(), alpha=0.13, lw=0, zorder=4)
    _points(axes, x, scores)
    axes.set_xticks(range(len(choices)), labels)
    plain_ticks(axes)
    axes.set_xlim(-0.6, len(choices) - 0.4)
    return float(x[0]), float(scores[0])


def _key(choice: Any) -> tuple[str, Any]:
    """Tells 1, 1.0 and True apart."""
    return type(choice).__name__, choice


def _points(axes: Axes, x: Floats, y: Floats) -> None:
    many = len(x) > MANY_POINTS
    axes.scatter(
        x, y, s=5 if many else 12, color=BLUE, alpha=0.35 if many else 0.75, lw=0, rasterized=many, zorder=3
    )

"""The plane of alpha and beta: where the trials lie, where the prior looks, where the step is stable."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState

from inna_tune.optim.optimizers import PURE
from inna_tune.plots.priors import joint_density, mass_levels
from inna_tune.plots.style import (
    GREY,
    MANY_POINTS,
    SCORES,
    SIZE,
    VERMILION,
    Floats,
    NothingToPlotError,
    finish,
    ink,
    legend,
    new_figure,
    plain_log,
    record_of,
    score_limits,
    star,
    tidy,
)
from inna_tune.records.record import StudyRecord
from inna_tune.space import SearchSpace

_SHARES = (0.9, 0.5)
_GRID = 80
_FAR = 2.5


def stable_betas(alpha: Floats, lr: float, curvature: float) -> tuple[Floats, Floats]:
    """The open interval of beta within which INNA converges on a quadratic of this curvature.

    Jury's conditions of :func:`inna_tune.optim.is_stable` solved for beta: from γ − α/λ to 2/(γλ) + γ/2 − α/λ. It is empty
    where the upper end is not above the lower one, which is at γ ≥ 2/√λ.

    Parameters
    ----------
    alpha : array of shape [n]
    lr, curvature : float
        Positive.

    Returns
    -------
    low, high : arrays of shape [n]
        Below zero where that is the end of the interval.
    """
    shift = np.asarray(alpha, dtype=np.float64) / curvature
    return lr - shift, 2 / (lr * curvature) + lr / 2 - shift


def alpha_beta_plane(study: Any, space: SearchSpace | None = None) -> Figure:
    """All trials in the plane of alpha and beta, with the prior and the edge of stability.

    Complete trials are coloured by score, pruned ones are crosses, failed ones are plus signs. Contours hold half and nine
    tenths of the prior. Hatched is what is unstable with the best trial's step size on a quadratic whose curvature is that
    of the loss at the initial weights; other trials have other step sizes, and curvature changes while a net trains, so that
    trials beyond the edge may well succeed.

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
        If no trial has both alpha and beta.
    """
    record = record_of(study)
    space = space or record.space
    placed = [
        t
        for t in record.trials
        if _tunes(t, "alpha") and _tunes(t, "beta") and all(record.steps(t)[n] > 0 for n in ("alpha", "beta"))
    ]
    if not placed:
        raise NothingToPlotError("The study does not tune alpha and beta, so that there is no plane to draw.")
    inside = {t.number for t in placed}
    best_first = [t for t in record.best_first if t.number in inside]

    figure = new_figure((SIZE[0], 4.2))
    axes = figure.subplots()
    handles: list[Any] = []
    handles += _draw_trials(figure, axes, record, placed)
    prior, spread = _draw_prior(axes, space, placed)
    handles += prior
    x_limits, y_limits = (_limits(record, placed, name, spread.get(name, ())) for name in ("alpha", "beta"))
    words = [
        f"Scatter plot of {len(placed)} trials over alpha and beta, both logarithmic, coloured by {record.metric.name}."
    ]
    if best_first:
        best = best_first[0]
        steps = record.steps(best)
        star(axes, steps["alpha"], steps["beta"], size=14)
        handles.append(
            Line2D([], [], marker="*", color=VERMILION, ls="", ms=11, label=f"best: trial {best.number}")
        )
        words.append(
            f"The best, trial {best.number}, has alpha {steps['alpha']:.4g} and beta {steps['beta']:.4g}."
        )
    if prior:
        words.append("Contours hold 50% and 90% of the prior.")
    lr = record.steps(best_first[0])["lr"] if best_first else float("nan")
    if record.curvature is not None and lr > 0 and record.is_by_inna:
        y_limits = _with_edge(x_limits, y_limits, lr, record.curvature)
        handles.append(_draw_edge(axes, lr, record.curvature, x_limits, y_limits))
        words.append(
            f"Hatched: unstable at curvature {record.curvature:.4g} with the best trial's step size {lr:.4g}."
        )
    axes.set_xlim(x_limits)
    axes.set_ylim(y_limits)
    plain_log(axes, "x")
    plain_log(axes, "y")
    axes.set_xlabel("alpha, viscous friction (1/time)")
    axes.set_ylabel("beta, Newtonian damping (time)")
    tidy(axes)
    legend(figure, handles=handles)
    return finish(figure, "Alpha and beta", " ".join(words))


def _tunes(trial: FrozenTrial, name: str) -> bool:
    """Whether a trial was drawn with a setting, or with the pure number that sets it."""
    return name in trial.params or any(
        pure in trial.params for pure, natural in PURE.items() if natural == name
    )


def _limits(
    record: StudyRecord, placed: list[FrozenTrial], name: str, spread: tuple[float, ...]
) -> tuple[float, float]:
    """What was tried and most of the prior, and a margin; bounds that nobody goes near would leave an empty picture."""
    logs = np.log([*(record.steps(t)[name] for t in placed), *spread])
    margin = max(0.08 * float(logs.max() - logs.min()), 0.25)
    return float(np.exp(logs.min() - margin)), float(np.exp(logs.max() + margin))


def _with_edge(
    x_limits: tuple[float, float], y_limits: tuple[float, float], lr: float, curvature: float
) -> tuple[float, float]:
    """Limits of beta moved out to the edge of stability, if it is not far."""
    alpha = np.geomspace(*x_limits, 50)
    low, high = stable_betas(alpha, lr, curvature)
    floor, ceiling = y_limits
    below, above = low[(low > floor / _FAR) & (low < floor)], high[(high < ceiling * _FAR) & (high > ceiling)]
    floor = float(below.max()) / 1.2 if below.size else floor
    return floor, float(above.min()) * 1.2 if above.size else ceiling


def _draw_trials(figure: Figure, axes: Axes, record: StudyRecord, placed: list[FrozenTrial]) -> list[Any]:
    handles = []
    inside = {t.number for t in placed}
    # NOTE: the worst first, so that the good ones lie on top.
    complete = [t for t in reversed(record.best_first) if t.number in inside]
    many = len(placed) > MANY_POINTS
    for state, marker, label in ((TrialState.PRUNED, "x", "pruned"), (TrialState.FAIL, "+", "failed")):
        some = [t for t in placed if t.state == state]
        if some:
            x, y = ([record.steps(t)[name] for t in some] for name in ("alpha", "beta"))
            colour = GREY if many or state == TrialState.PRUNED else ink()
            axes.scatter(x, y, s=16, marker=marker, color=colour, lw=0.8, rasterized=many, zorder=2)
            handles.append(
                Line2D([], [], marker=marker, color=colour, ls="", ms=5, label=f"{label} ({len(some)})")
            )
    if complete:
        x, y = ([record.steps(t)[name] for t in complete] for name in ("alpha", "beta"))
        scores = [record.score(t) for t in complete]
        low, high = score_limits(scores, record)
        points = axes.scatter(
            x,
            y,
            c=scores,
            cmap=SCORES.reversed() if record.metric.lower_is_better else SCORES,
            vmin=max(low, min(scores)),
            vmax=min(high, max(scores)),
            s=10 if many else 26,
            edgecolors="none" if many else ink(),
            linewidths=0.4,
            rasterized=many,
            zorder=4,
        )
        if min(scores) == max(scores):  # one colour is no scale
            return handles
        bar = figure.colorbar(points, ax=axes, pad=0.02, extend="neither")
        bar.set_label(f"{record.metric.label} ({record.metric.better})", parse_math=False)
        bar.ax.tick_params(labelsize="small")
        bar.outline.set_visible(False)
        if record.metric.lower_is_better:
            bar.ax.invert_yaxis()
    return handles


def _draw_prior(
    axes: Axes, space: SearchSpace | None, placed: list[FrozenTrial]
) -> tuple[list[Any], dict[str, tuple[float, float]]]:
    """Draw the contours; return their legend, and where the middle nine tenths of each parameter lie."""
    if space is None or "alpha" not in space or "beta" not in space:
        return [], {}
    grid = {}
    for name in ("alpha", "beta"):
        stored = space.distribution(name)
        if not isinstance(stored, FloatDistribution) or stored.high <= 0:
            return [], {}
        tried = [float(t.params[name]) for t in placed]
        low = stored.low if stored.low > 0 else min(min(tried), stored.high / 1000)
        grid[name] = np.geomspace(low, stored.high, _GRID)
    x, y = grid.values()
    found = joint_density(space, "alpha", "beta", x, y)
    levels = [] if found is None else mass_levels(found, _SHARES)
    if found is None or not levels or levels[0] == levels[-1]:
        return [], {}
    spread = {}
    for name, along in (("alpha", 0), ("beta", 1)):
        cumulative = np.cumsum(found.sum(axis=along))
        ends = np.searchsorted(cumulative, np.array([0.05, 0.95]) * cumulative[-1])
        spread[name] = (float(grid[name][ends[0]]), float(grid[name][min(ends[1], _GRID - 1)]))
    axes.contour(x, y, found, levels=levels, colors=ink(), linewidths=[0.8, 1.4], alpha=0.75, zorder=5)
    handles = [
        Line2D([], [], color=ink(), lw=1.4, alpha=0.75, label="50% of the prior"),
        Line2D([], [], color=ink(), lw=0.8, alpha=0.75, label="90% of the prior"),
    ]
    return handles, spread


def _draw_edge(
    axes: Axes, lr: float, curvature: float, x_limits: tuple[float, float], y_limits: tuple[float, float]
) -> Patch:
    alpha = np.geomspace(*x_limits, 200)
    low, high = stable_betas(alpha, lr, curvature)
    floor, ceiling = y_limits
    with np.errstate(invalid="ignore"):
        low, high = np.clip(low, floor, ceiling), np.clip(high, floor, ceiling)
    high = np.maximum(low, high)
    style: dict[str, Any] = {
        "facecolor": "none",
        "edgecolor": VERMILION,
        "hatch": "////",
        "lw": 0,
        "alpha": 0.5,
        "zorder": 1,
    }
    axes.fill_between(alpha, floor, low, where=low > floor, **style)
    axes.fill_between(alpha, high, ceiling, where=high < ceiling, **style)
    for edge in (low, high):
        inside = np.where((edge > floor) & (edge < ceiling), edge, np.nan)
        axes.plot(alpha, inside, color=VERMILION, lw=1.6, zorder=3)
    return Patch(facecolor="none", edgecolor=VERMILION, hatch="////", label="unstable at the best lr")

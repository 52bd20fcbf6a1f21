"""How a study got on: the best score so far over the trials, and the learning curves of the best."""

import math
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from optuna.trial import TrialState
from scipy.special import gammaln

from inna_tune.plots.style import (
    BLUE,
    GREY,
    MANY_POINTS,
    MARKERS,
    SCORES,
    VERMILION,
    Floats,
    NothingToPlotError,
    finish,
    ink,
    legend,
    limit_scores,
    new_figure,
    plain_log,
    record_of,
    star,
    tidy,
    whole_numbers,
)
from inna_tune.records.record import epochs_of

_MAX_OTHERS = 150  # curves in the background: more make a grey block


def expected_best(scores: Floats, n_trials: int, after: Floats) -> tuple[Floats, Floats, Floats]:
    """Best score after some trials, if the same trials had come in a random order.

    Of all orders in which at least one trial with a score is among the first ones: the i-th best score is the best of the
    first n with probability C(N-i, n-1)/C(N, n), for N trials in all.

    Parameters
    ----------
    scores : array of shape [m]
        Those of the trials that have one, lower being better.
    n_trials : int
        All trials, those without a score too; at least m.
    after : array of shape [k]
        Numbers of trials, in 1 to `n_trials`.

    Returns
    -------
    mean, low, high : arrays of shape [k]
        The expectation, and the limits of the middle four fifths.
    """
    rising = np.sort(scores)
    rank = np.arange(1, len(rising) + 1)
    n = np.asarray(after, dtype=np.float64)[:, None]

    def log_choose(total: Any, chosen: Any) -> Floats:
        possible = chosen <= total
        total = np.where(possible, total, chosen)
        found = gammaln(total + 1) - gammaln(chosen + 1) - gammaln(total - chosen + 1)
        return np.where(possible, found, -np.inf)

    weight = np.exp(log_choose(n_trials - rank[None, :], n - 1) - log_choose(n_trials, n))
    weight /= weight.sum(axis=1, keepdims=True)
    below = np.cumsum(weight, axis=1)
    quantile = [rising[np.minimum((below < q).sum(axis=1), len(rising) - 1)] for q in (0.1, 0.9)]
    return weight @ rising, quantile[0], quantile[1]


def best_so_far(study: Any) -> Figure:
    """Scores of the trials in their order, the best so far, and what a random order of the same trials would give.

    The dashed line is the flat expectation: the mean of the best so far over all orders of these very trials, as of a sampler
    that proposes the same trials and learns nothing, with the middle four fifths around. A study below it early (where lower
    is better) began with good trials, as good priors do; one above it that joins it at the end found its best trials late.

    Parameters
    ----------
    study : optuna.Study or InnaSearchCV
        Running or finished.

    Returns
    -------
    matplotlib.figure.Figure
        ``get_label()`` describes it in words.

    Raises
    ------
    NothingToPlotError
        If no trial has a score.
    """
    record = record_of(study)
    finished = [t for t in record.trials if t.state.is_finished()]
    if not record.complete:
        raise NothingToPlotError("No trial has a score yet.")
    place = {t.number: i + 1 for i, t in enumerate(finished)}
    x = np.array([place[t.number] for t in record.complete])
    y = np.array([record.score(t) for t in record.complete])
    loss = record.metric.loss
    best = loss(np.minimum.accumulate(loss(y)))

    figure = new_figure()
    axes = figure.subplots()
    axes.scatter(x, y, s=9, color=GREY, lw=0, label="a trial", rasterized=len(x) > MANY_POINTS, zorder=1)
    after = np.unique(np.geomspace(1, len(finished), min(len(finished), 200)).round())
    mean, low, high = map(loss, expected_best(loss(y), len(finished), after))
    if len(finished) > 1:
        axes.fill_between(after, low, high, color=ink(), alpha=0.12, lw=0, zorder=0)
        axes.plot(after, mean, "--", color=ink(), lw=1.2, label="flat expectation, middle 80%", zorder=2)
    axes.step(
        np.append(x, len(finished)),
        np.append(best, best[-1]),
        where="post",
        color=BLUE,
        lw=2,
        label="best so far",
    )
    at = int(np.argmin(loss(y)))
    star(axes, x[at], y[at], label=f"best: trial {record.best_first[0].number}", mec=VERMILION)
    axes.set_xlim(0.5, len(finished) + 0.5 if len(finished) > 1 else 1.5)
    axes.set_xlabel("finished trials")
    axes.set_ylabel(f"{record.metric.label}\n({record.metric.better})", parse_math=False)
    whole_numbers(axes.xaxis)
    beyond = limit_scores(axes, y, record)
    # A few trials of a study of few aren't hidden under the legend.
    legend(figure)
    tidy(axes)
    half = mean[int(np.searchsorted(after, len(finished) / 2).clip(0, len(after) - 1))]
    name, first = record.metric.name, record.best_first[0].number
    words = (
        f"Line chart over {len(finished)} finished trials. The best {name} so far ends at {best[-1]:.5g}, reached by trial "
        f"{first}, number {x[at]} of the finished ones. In a random order the best after half of the trials would be "
        f"{half:.5g} on average; here it was {_best_after(x, best, len(finished) / 2)}."
    )
    return finish(
        figure, "Best score so far", words + (f" {beyond} trials lie outside the picture." if beyond else "")
    )


def _best_after(x: Floats, best: Floats, n: float) -> str:
    seen = best[x <= max(n, 1)]
    return f"{seen[-1]:.5g}" if len(seen) else "none yet"


def learning_curves(study: Any, n_best: int = 10) -> Figure:
    """Scores of the best trials at their rungs, and at their ends; the others behind.

    A score at a rung is that of the best weights until then, on all folds. It ends where training ended: at the last epoch,
    or earlier by early stopping.

    Parameters
    ----------
    study : optuna.Study or InnaSearchCV
    n_best : int, default=10
        How many are drawn in colour, the better ones brighter and with a symbol of their own.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If `n_best` is below 1.
    NothingToPlotError
        If no trial has a score.
    """
    if n_best < 1:
        raise ValueError(f"n_best={n_best!r} must be at least 1")
    record = record_of(study)
    if not record.complete:
        raise NothingToPlotError("No trial has a score yet.")

    def curve(trial: Any) -> tuple[list[float], list[float]]:
        points = {float(k): v for k, v in record.at_rungs(trial).items()}
        if trial.state == TrialState.COMPLETE:
            end, last = epochs_of(trial), max(points, default=1.0)
            points[max(end, last) if math.isfinite(end) else last] = record.score(trial)
        ordered = sorted(points.items())
        return [k for k, _ in ordered], [v for _, v in ordered]

    best = record.best_first[:n_best]
    numbers = {t.number for t in best}
    others = [t for t in record.in_state(TrialState.COMPLETE, TrialState.PRUNED) if t.number not in numbers]
    others = [
        others[i]
        for i in np.unique(np.linspace(0, len(others) - 1, min(len(others), _MAX_OTHERS)).astype(int))
    ]

    figure = new_figure()
    axes = figure.subplots()
    for trial in others:
        axes.plot(*curve(trial), color=GREY, alpha=0.6, lw=0.7, zorder=0, rasterized=len(others) > 50)
    shown: list[float] = []
    for rank, trial in reversed(list(enumerate(best))):
        epochs, scores = curve(trial)
        shown += scores
        axes.plot(
            epochs,
            scores,
            marker=MARKERS[rank % len(MARKERS)],
            ms=5 if rank else 7,
            lw=2.2 if rank == 0 else 1.2,
            color=SCORES(1 - rank / max(n_best - 1, 1)),
            markeredgecolor=ink(),
            markeredgewidth=0.4,
            label=f"{trial.number}: {record.score(trial):.4g}",
            zorder=3 + n_best - rank,
        )
    limit_scores(axes, shown, record)
    plain_log(axes, "x", base=2)
    axes.set_xlabel("epochs of training")
    axes.set_ylabel(f"{record.metric.label}\n({record.metric.better})", parse_math=False)
    handles, labels = axes.get_legend_handles_labels()
    legend(
        figure,
        handles[::-1],
        labels[::-1],
        ncols=3,
        title="trial: score at its end",
        title_fontsize="small",
        handlelength=1.4,
        columnspacing=1.0,
    )
    tidy(axes)
    first, last = best[0], best[-1]
    words = (
        f"Learning curves of the best {len(best)} of {len(record.complete)} complete trials, {record.metric.name} over epochs. "
        f"The best, trial {first.number}, ends at {record.score(first):.5g} after {curve(first)[0][-1]:g} epochs; the last of "
        f"them, trial {last.number}, at {record.score(last):.5g}."
    )
    return finish(
        figure, f"Learning curves of the best {len(best)}" if len(best) > 1 else "Learning curve", words
    )

"""How trials trained: the decay of their step sizes, and what became of them at the rungs."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from optuna.trial import FrozenTrial, TrialState

from inna_tune.optim.decay import DECAY_LAWS, decay_factor
from inna_tune.plots.style import (
    BLUE,
    CYCLE,
    MANY_POINTS,
    SIZE,
    VERMILION,
    NothingToPlotError,
    finish,
    ink,
    jitter,
    legend,
    limit_scores,
    new_figure,
    record_of,
    tidy,
    whole_numbers,
)
from inna_tune.records.record import as_number, epochs_of

_STYLES = ("-", "--", "-.", ":")


def decay_laws(study: Any, n_best: int = 10) -> Figure:
    """How the step sizes of the best trials fall while they train, as shares of what they begin with.

    Parameters
    ----------
    study : optuna.Study or InnaSearchCV
    n_best : int, default=10

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If `n_best` is below 1.
    NothingToPlotError
        If no trial has a score, or the study does not say by which law its step size falls.
    """
    if n_best < 1:
        raise ValueError(f"n_best={n_best!r} must be at least 1")
    record = record_of(study)
    names = list(DECAY_LAWS)
    best = [t for t in record.best_first[:n_best] if record.setting(t, "decay") in names]
    if not best:
        raise NothingToPlotError("No complete trial says by which law its step size falls.")
    laws = [names.index(record.setting(t, "decay")) for t in best]
    horizon = record.horizon or max((epochs_of(t) for t in record.complete), default=1.0)
    horizon = horizon if horizon > 0 else 1.0
    epochs = np.linspace(0, horizon, 200)

    figure = new_figure()
    axes = figure.subplots()
    for rank, trial in reversed(list(enumerate(best))):
        place = laws[rank]
        power = as_number(record.setting(trial, "decay_power"))
        factor = [
            decay_factor(names[place], float(k), power=power if power >= 0 else None, horizon=horizon)
            for k in epochs
        ]
        axes.plot(
            epochs,
            factor,
            color=CYCLE[place % len(CYCLE)],
            ls=_STYLES[place % len(_STYLES)],
            lw=2.6 if rank == 0 else 1.2,
            alpha=1.0 if rank == 0 else 0.8,
            zorder=10 - rank,
        )
    counted = {law: laws.count(place) for place, law in enumerate(names)}
    for place, law in enumerate(names):
        if counted[law]:
            label, style = f"{law} ({counted[law]} of {len(best)})", _STYLES[place % len(_STYLES)]
            axes.plot([], [], color=CYCLE[place % len(CYCLE)], ls=style, label=label)
    axes.set_ylim(-0.03, 1.05)
    axes.set_xlim(0, horizon)
    axes.set_xlabel("epochs of training")
    axes.set_ylabel("step size (share of the first one)")
    legend(figure)
    tidy(axes)
    listed = ", ".join(f"{law} {n}" for law, n in counted.items() if n)
    words = (
        f"Step sizes of the best {len(best)} trials over {horizon:g} epochs, by law: {listed}. The best trial's, "
        f"drawn thick, follows the {names[laws[0]]} law."
    )
    return finish(figure, "Decay of the step size", words)


def rungs_and_pruning(study: Any) -> Figure:
    """How many trials reached each rung and how many were pruned there, and the scores that decided it.

    Parameters
    ----------
    study : optuna.Study or InnaSearchCV

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    NothingToPlotError
        If no trial reported at a rung.
    """
    record = record_of(study)
    rungs = sorted({k for t in record.trials for k in t.intermediate_values})
    if not rungs:
        raise NothingToPlotError("No trial reported at a rung.")
    # Own loops may report every epoch: those shown are spread over all.
    rungs = [rungs[i] for i in np.unique(np.linspace(0, len(rungs) - 1, min(len(rungs), 12)).astype(int))]
    reached = {k: [t for t in record.trials if k in t.intermediate_values] for k in rungs}
    pruned = {k: [t for t in reached[k] if _pruned_at(t, k)] for k in rungs}

    figure = new_figure((SIZE[0], 4.2))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.6))
    place = np.arange(len(rungs))
    gone = np.array([len(pruned[k]) for k in rungs])
    stayed = np.array([len(reached[k]) for k in rungs]) - gone
    upper.bar(place, stayed, color=BLUE, width=0.6, label="went on")
    bars = upper.bar(
        place,
        gone,
        bottom=stayed,
        color=VERMILION,
        width=0.6,
        hatch="///",
        edgecolor=ink(),
        lw=0.4,
        label="pruned here",
    )
    upper.bar_label(bars, [str(n) for n in stayed + gone], padding=2, fontsize="small", color=ink())
    upper.set_ylim(0, 1.2 * float((stayed + gone).max()))
    upper.set_ylabel("trials")
    whole_numbers(upper.yaxis)

    scores: list[float] = []
    for k, x in zip(rungs, place, strict=True):
        for some, offset, marker, colour in ((False, -0.17, "o", BLUE), (True, 0.17, "x", VERMILION)):
            seen = [record.at_rungs(t) for t in reached[k] if _pruned_at(t, k) is some]
            values = [scores_of[k] for scores_of in seen if k in scores_of]
            many = len(record.trials) > MANY_POINTS
            lower.scatter(
                x + offset + jitter(len(values), 0.12),
                values,
                s=6 if many else 14,
                marker=marker,
                color=colour,
                alpha=0.4 if many else 0.8,
                lw=0.8 if some else 0,
                rasterized=many,
            )
            scores += values
    if scores:
        limit_scores(lower, scores, record)
    lower.set_xticks(place, [str(k) for k in rungs])
    lower.set_xlim(-0.6, len(rungs) - 0.4)
    lower.set_xlabel("rung (epochs of training)")
    lower.set_ylabel(f"{record.metric.name} at the rung\n({record.metric.better})", parse_math=False)
    tidy(upper)
    tidy(lower)
    legend(figure, *upper.get_legend_handles_labels())
    counts = "; ".join(f"epoch {k}: {len(reached[k])} reached it, {len(pruned[k])} pruned" for k in rungs)
    return finish(figure, "Rungs and pruning", f"Bars and scores at the rungs. {counts}.")


def _pruned_at(trial: FrozenTrial, rung: int) -> bool:
    return trial.state == TrialState.PRUNED and max(trial.intermediate_values) == rung

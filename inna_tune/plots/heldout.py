"""The tuned model on rows that tuning never saw."""

from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from inna_tune.plots.style import (
    BLUE,
    SIZE,
    VERMILION,
    Floats,
    NothingToPlotError,
    faint,
    finish,
    ink,
    legend,
    new_figure,
    plain_ticks,
    record_of,
    shorten,
    tidy,
)
from inna_tune.records.certainty import Z_95
from inna_tune.records.heldout import HeldOut

_MOST_COLUMNS = 15


def _held_out(study: Any) -> HeldOut:
    found = study if isinstance(study, HeldOut) else record_of(study).held_out
    if found is None:
        raise NothingToPlotError(
            "The study holds no predictions on held-out rows: inna-tune fit records them, and so does "
            "record_held_out(study, summarize_held_out(model, X, y)) of inna_tune.records.heldout."
        )
    return found


def confusion_matrix(study: Any) -> Figure:
    """True classes against predicted ones, of the held-out rows; the deeper the colour, the larger the share of the true class.

    Parameters
    ----------
    study : optuna.Study, InnaSearchCV or HeldOut

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    NothingToPlotError
        If the study holds no classes predicted on held-out rows.
    """
    found = _held_out(study)
    if not found.classes:
        raise NothingToPlotError("The target is a number: there are no classes to confuse.")
    counts = np.array(found.confusion, dtype=np.float64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    n = len(found.classes)
    side = min(5.0, 2.6 + 0.32 * n)
    figure = new_figure((side, side))
    axes = figure.subplots()
    # From nothing to blue: on any background the empty cells are empty.
    blues = LinearSegmentedColormap.from_list("blues", [(0.0, 0.447, 0.698, 0.0), (0.0, 0.447, 0.698, 0.6)])
    axes.pcolormesh(shares, cmap=blues, vmin=0, vmax=1, edgecolors=faint(), linewidth=0.4)
    names = [shorten(c, 14) for c in found.classes]
    axes.set_xticks(np.arange(n) + 0.5, names, rotation=0 if n <= 4 else 90)
    axes.set_yticks(np.arange(n) + 0.5, names)
    plain_ticks(axes)
    if n <= 12:
        for i, row in enumerate(found.confusion):
            for j, count in enumerate(row):
                share = f"\n{shares[i, j]:.0%}" if n <= 6 and count else ""
                axes.text(
                    j + 0.5,
                    i + 0.5,
                    f"{count}{share}",
                    ha="center",
                    va="center",
                    fontsize="small",
                    color=ink(),
                )
    axes.invert_yaxis()
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.tick_params(labelsize="small", length=0)
    right = float(np.trace(counts)) / max(float(counts.sum()), 1.0)
    rows = "; ".join(
        f"true {name}: "
        + ", ".join(f"{count} as {other}" for other, count in zip(names, row, strict=True) if count)
        for name, row in zip(names[:6], found.confusion, strict=False)
    )
    words = f"Confusion matrix of {found.rows} held-out rows, {right:.1%} on the diagonal. {rows}."
    return finish(figure, "Confusion matrix of the held-out rows", words)


def calibration(study: Any) -> Figure:
    """What was predicted against what was true, in bins of the held-out rows, with 95% intervals.

    For classes: the stated probability of the second class (with more than two, of the class that was predicted) against how
    often it came true; Wilson's intervals. For numbers: means of prediction and truth.

    Parameters
    ----------
    study : optuna.Study, InnaSearchCV or HeldOut

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    NothingToPlotError
        If the study holds no predictions on held-out rows.
    """
    found = _held_out(study)
    if not found.calibration:
        raise NothingToPlotError("The study holds no bins of predictions on held-out rows.")
    predicted = np.array([b.predicted for b in found.calibration])
    observed = np.array([b.observed for b in found.calibration])
    rows = np.array([b.rows for b in found.calibration])
    number = found.task == "regression"
    if number:
        error = Z_95 * np.array([b.error for b in found.calibration])
        low, high = observed - error, observed + error
    else:
        low, high = wilson(observed, rows)
    figure = new_figure((4.4, 4.0))
    axes = figure.subplots()
    ends = (min(predicted.min(), low.min()), max(predicted.max(), high.max())) if number else (0.0, 1.0)
    margin = 0.05 * (ends[1] - ends[0]) or 0.5
    limits = (ends[0] - margin, ends[1] + margin) if number else (-0.02, 1.02)
    axes.plot(ends, ends, "--", color=ink(), lw=1, label="perfect")
    axes.vlines(predicted, low, high, color=BLUE, lw=1.4)
    axes.plot(predicted, observed, "o-", color=BLUE, lw=1, ms=5, label="bins, with 95% intervals")
    axes.set_xlim(limits)
    axes.set_ylim(limits)
    axes.set_aspect("equal")
    if number:
        axes.set_xlabel("mean prediction (units of the target)")
        axes.set_ylabel("mean truth (units of the target)")
    else:
        # The second class may be any text of the table.
        whose = (
            f"of {shorten(found.classes[1], 20)!r}"
            if found.task == "binary" and len(found.classes) > 1
            else "of its choice"
        )
        axes.set_xlabel(f"stated probability {whose}", parse_math=False)
        axes.set_ylabel("how often it came true")
    tidy(axes)
    legend(figure)
    gap = float(np.average(np.abs(observed - predicted), weights=rows))
    words = (
        f"Calibration on {found.rows} held-out rows in {len(rows)} bins: on average the truth is {gap:.3g} away from "
        f"the prediction. The lowest bin says {predicted[0]:.3g} and sees {observed[0]:.3g}, the highest says "
        f"{predicted[-1]:.3g} and sees {observed[-1]:.3g}."
    )
    return finish(figure, "Calibration on the held-out rows", words)


def column_importances(study: Any) -> Figure:
    """By how much the loss on held-out rows rises where a column's values are shuffled, with 95% intervals.

    Parameters
    ----------
    study : optuna.Study, InnaSearchCV or HeldOut

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    NothingToPlotError
        If the study does not know.
    """
    found = _held_out(study).importances
    if found is None or not found.best:
        raise NothingToPlotError(
            "What the columns are worth was not measured: inna-tune fit does so, unless it is told --no-importances, or has "
            "no time, or there are several targets."
        )
    shown = found.best[:_MOST_COLUMNS][::-1]
    change = np.array([each.change for each in shown])
    error = Z_95 * np.array([each.error for each in shown])
    figure = new_figure((SIZE[0], max(1.8, 0.9 + 0.27 * len(shown))))
    axes = figure.subplots()
    places = np.arange(len(shown))
    axes.barh(places, change, color=BLUE, height=0.65)
    axes.hlines(places, change - error, change + error, color=ink(), lw=1.2)
    axes.axvline(0, color=ink(), lw=0.8)
    axes.set_yticks(places, [shorten(each.column) for each in shown])
    plain_ticks(axes)
    axes.set_xlabel(f"{found.metric} that is added")
    tidy(axes)
    listed = ", ".join(f"{shorten(each.column)} {each.change:.3g}" for each in shown[::-1])
    words = f"Bar chart of the {found.metric} that is added where a column is shuffled: {listed}."
    return finish(figure, "What the columns are worth", words)


def residuals(study: Any) -> Figure:
    """Truth minus prediction over the prediction, of at most 500 held-out rows.

    Parameters
    ----------
    study : optuna.Study, InnaSearchCV or HeldOut

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    NothingToPlotError
        If the study holds no numbers predicted on held-out rows.
    """
    found = _held_out(study)
    if not found.predicted:
        raise NothingToPlotError(
            "The study holds no residuals: its target is a class, or there are several targets."
        )
    predicted, residual = np.array(found.predicted), np.array(found.residual)
    figure = new_figure()
    axes = figure.subplots()
    axes.axhline(0, color=ink(), lw=1, ls="--")
    axes.scatter(predicted, residual, s=10, color=BLUE, alpha=0.6, lw=0)
    binned = found.calibration
    axes.plot(
        [b.predicted for b in binned],
        [b.observed - b.predicted for b in binned],
        "D-",
        color=VERMILION,
        ms=4,
        lw=1.2,
        label="mean of a bin",
    )
    axes.set_xlabel("prediction (units of the target)")
    axes.set_ylabel("truth minus prediction\n(units of the target)")
    tidy(axes)
    legend(figure, ncols=1)
    low, middle, high = np.quantile(residual, [0.05, 0.5, 0.95])
    words = (
        f"Residuals of {len(residual)} of {found.rows} held-out rows over their predictions: median {middle:.3g}, "
        f"nine tenths of them between {low:.3g} and {high:.3g}."
    )
    return finish(figure, "Residuals of the held-out rows", words)


def wilson(share: Floats, rows: Any) -> tuple[Floats, Floats]:
    """Wilson's 95% interval of a probability that came true in this share of so many rows."""
    n = np.asarray(rows, dtype=np.float64)
    centre = (share + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
    half = Z_95 * np.sqrt(share * (1 - share) / n + Z_95**2 / (4 * n**2)) / (1 + Z_95**2 / n)
    return np.asarray(centre - half), np.asarray(centre + half)

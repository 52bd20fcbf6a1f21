"""Pictures of laws and spaces. matplotlib is imported when one is drawn: sampling needs none."""

import math
from typing import Any

import numpy as np

from inna_tune.space.coordinates import Coordinate
from inna_tune.space.discrete import Categorical
from inna_tune.space.priors import Continuous
from inna_tune.space.space import SearchSpace, When

_COLOUR, _FLAT = "#0072B2", "#999999"  # of Okabe and Ito, which the colour-blind tell apart


def draw_law(law: Any, ax: Any, label: str = "") -> None:
    """Draw one law's density beside its flat counterpart's, on the law's own scale.

    Parameters
    ----------
    law : Law
    ax : matplotlib.axes.Axes
    label : str
        Of the horizontal axis.
    """
    if isinstance(law, Categorical):
        names = [str(c) for c in law.choices]
        ax.bar(names, law.probabilities, color=_COLOUR)
        ax.axhline(1 / len(names), color=_FLAT, linestyle="--")
        ax.set_ylabel("probability")
    elif isinstance(law, Continuous):
        x = np.asarray(law.flat_ppf(np.linspace(0, 1, 400)))
        width = math.log(law.high / law.low) if law.log else law.high - law.low
        density = np.exp(np.asarray(law.log_pdf(x))) * (x if law.log else 1.0)
        ax.plot(x, density, color=_COLOUR, label="prior")
        ax.fill_between(x, density, color=_COLOUR, alpha=0.2, linewidth=0)
        ax.axhline(1 / width, color=_FLAT, linestyle="--", label="flat")
        ax.set_ylim(bottom=0)
        if law.log:
            ax.set_xscale("log")
        ax.set_ylabel("density per unit of ln" if law.log else "density")
    else:
        grid: Any = law
        x = np.arange(grid.low, grid.high + grid.step / 2, grid.step)
        ax.bar(x, np.exp(grid.log_pdf(x)), width=0.8 * grid.step, color=_COLOUR)
        ax.set_ylabel("probability")
    ax.set_xlabel(label)


def draw_space(space: SearchSpace) -> Any:
    """Draw every law of a space.

    Parameters
    ----------
    space : SearchSpace

    Returns
    -------
    matplotlib.figure.Figure
        One panel a parameter; dashed is the flat law on the same bounds.
    """
    from matplotlib.figure import Figure

    columns = min(3, len(space))
    lines = -(-len(space) // columns)
    figure = Figure(figsize=(3.6 * columns, 2.6 * lines), layout="constrained")
    for place, (name, entry) in enumerate(space.items(), 1):
        law: Any = entry.law if isinstance(entry, When) else entry
        label = name
        if isinstance(law, Coordinate):
            label, law = f"{name}: {law.words}", law.law
        ax = figure.add_subplot(lines, columns, place)
        draw_law(law, ax, label)
        if isinstance(entry, When):
            ax.set_title(f"where {entry.parameter} is {', '.join(map(str, entry.values))}", fontsize="small")
    return figure

"""Pictures of priors, and their densities: over a natural value, with respect to the axis it is drawn on."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import gaussian_kde

from inna_tune.plots.style import BLUE, GREY, SMALL, Floats, finish, new_figure, plain_log, shorten, tidy
from inna_tune.space import Categorical, Coordinate, Integer, Law, SearchSpace, Stepped, When
from inna_tune.space.laws import Continuous

_DRAWS = 1000
_GRID = 400


def priors(space: SearchSpace) -> Figure:
    """Every law of a space, each on its own scale; dashed is the flat law on the same bounds.

    Parameters
    ----------
    space : SearchSpace
        The laws of its coordinates are drawn over their pure numbers.

    Returns
    -------
    matplotlib.figure.Figure
    """
    columns = min(3, len(space))
    rows = -(-len(space) // columns)
    figure = new_figure((columns * SMALL[0], rows * SMALL[1]))
    for place, (name, entry) in enumerate(space.items(), 1):
        axes, law = figure.add_subplot(rows, columns, place), space.law(name)
        _draw_law(axes, law.pure)
        axes.set_xlabel(f"{name}: {law.words}" if isinstance(law, Coordinate) else name)
        if isinstance(entry, When):
            axes.set_title(entry.words, fontsize="small", parse_math=False)
        tidy(axes)
    return finish(figure, "Priors", f"Densities of the priors of {', '.join(space)}.")


def _draw_law(axes: Axes, law: Law) -> None:
    axes.set_ylabel("probability")
    if isinstance(law, Categorical):
        axes.bar([shorten(c, 12) for c in law.choices], law.probabilities, color=BLUE)
        axes.axhline(1 / len(law.choices), color=GREY, ls="--")
    elif isinstance(law, Continuous):
        x = np.asarray(law.flat_ppf(np.linspace(0, 1, _GRID)))
        found = conditional(law, x, {}, log=law.log)
        axes.plot(x, found, color=BLUE)
        axes.fill_between(x, found, color=BLUE, alpha=0.2, lw=0)
        axes.axhline(1 / (np.log(law.high / law.low) if law.log else law.high - law.low), color=GREY, ls="--")
        axes.set_ylim(bottom=0)
        if law.log:
            plain_log(axes, "x")
        axes.set_ylabel("density per unit of ln" if law.log else "density")
    elif isinstance(law, Integer | Stepped):
        x = np.arange(law.low, law.high + law.step / 2, law.step)
        axes.bar(x, np.exp(law.log_pdf(x)), width=0.8 * law.step, color=BLUE)


def density(space: SearchSpace, name: str, values: Floats, *, log: bool) -> Floats | None:
    """Prior density of a parameter.

    Of one that depends on others it is the kernel density of a thousand draws from the space, always the same ones.

    Parameters
    ----------
    values : array of shape [n]
        Natural values, rising.
    log : bool
        Whether the density is with respect to the logarithm of the value.

    Returns
    -------
    array of shape [n] or None
        None for a law of separate values.
    """
    law = space.law(name)
    if law.depends:
        # The exact average has a peak wherever the map has a kink, as that from r to the step size has; draws do not.
        rng = np.random.default_rng(0)
        needed = _with_needed(space, name)
        drawn = np.array([c[name] for c in (needed.sample(rng) for _ in range(_DRAWS)) if name in c])
        if len(drawn) < 2 or drawn.min() == drawn.max():
            return None
        places = (np.log(drawn), np.log(values)) if log else (drawn, values)
        return np.asarray(gaussian_kde(places[0])(places[1]))
    return conditional(law, values, {}, log=log) if isinstance(law, Continuous | Coordinate) else None


def _with_needed(space: SearchSpace, name: str) -> SearchSpace:
    """A parameter of a space with all that it hangs on, in one that draws nothing else."""
    found = {name}
    for each in reversed(list(space)):
        if each in found:
            entry = space[each]
            found |= {*entry.law.depends, entry.parameter} if isinstance(entry, When) else {*entry.depends}
    return SearchSpace({each: entry for each, entry in space.items() if each in found})


def conditional(
    law: Continuous | Coordinate, values: Floats, before: Mapping[str, Any], *, log: bool
) -> Floats:
    """Density of a law given the parameters that it depends on."""
    places = np.log(values) if log else values
    if isinstance(law, Continuous):
        return np.asarray(np.exp(law.log_pdf(values)) * (values if log else 1.0))
    pure = np.asarray(law.to_pure(values, before), dtype=np.float64)
    slope = np.abs(np.gradient(pure, places))
    found = np.exp(np.asarray(law.law.log_pdf(pure))) * slope
    return np.where(np.isfinite(found), found, 0.0)


def joint_density(space: SearchSpace, x: str, y: str, xs: Floats, ys: Floats) -> Floats | None:
    """Prior density of two parameters with respect to their logarithms, shape [len(ys), len(xs)].

    None where one of them depends on more than the first, or has no continuous law.
    """
    first, second = space.law(x), space.law(y)
    for law, known in ((first, set()), (second, {x})):
        if not isinstance(law, Continuous | Coordinate) or not set(law.depends) <= known:
            return None
    assert isinstance(first, Continuous | Coordinate)
    assert isinstance(second, Continuous | Coordinate)
    outer = conditional(first, xs, {}, log=True)
    return np.stack(
        [p * conditional(second, ys, {x: v}, log=True) for v, p in zip(xs, outer, strict=True)], axis=1
    )


def mass_levels(found: Floats, shares: tuple[float, ...]) -> list[float]:
    """Densities above which these shares of the whole lie, on a grid of cells of one size."""
    falling = np.sort(found.ravel())[::-1]
    cumulative = np.cumsum(falling)
    if not cumulative[-1] > 0:
        return []
    return [
        float(falling[min(np.searchsorted(cumulative, s * cumulative[-1]), falling.size - 1)]) for s in shares
    ]

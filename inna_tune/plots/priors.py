"""Densities of priors, as pictures need them: over a natural value, with respect to the axis it is drawn on."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.stats import gaussian_kde

from inna_tune.plots.style import Floats
from inna_tune.space import Coordinate, Law, SearchSpace, When
from inna_tune.space.priors import Continuous

_DRAWS = 1000


def law_of(space: SearchSpace, name: str) -> Law | Coordinate:
    """The law of a parameter, while it exists."""
    entry = space[name]
    return entry.law if isinstance(entry, When) else entry


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
    law = law_of(space, name)
    if isinstance(law, Coordinate) and law.depends:
        # The exact average has a peak wherever the map has a kink, as that from r to the step size has; draws do not.
        rng = np.random.default_rng(0)
        drawn = np.array([c[name] for c in (space.sample(rng) for _ in range(_DRAWS)) if name in c])
        if len(drawn) < 2 or drawn.min() == drawn.max():
            return None
        places = (np.log(drawn), np.log(values)) if log else (drawn, values)
        return np.asarray(gaussian_kde(places[0])(places[1]))
    if isinstance(law, Coordinate):
        return conditional(law, values, {}, log=log)
    return conditional(law, values, {}, log=log) if isinstance(law, Continuous) else None


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
    first, second = law_of(space, x), law_of(space, y)
    for law, known in ((first, set()), (second, {x})):
        if not isinstance(law, Continuous | Coordinate):
            return None
        if isinstance(law, Coordinate) and not set(law.depends) <= known:
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

"""What a foreign search may tune of an estimator: settings that mean the same on every table, with their bounds."""

from collections.abc import Collection
from typing import NamedTuple

from optuna.distributions import FloatDistribution

from inna_tune.estimators import InnaClassifier, InnaRegressor
from inna_tune.optim.optimizers import PURE
from inna_tune.space import SearchSpace


class Range(NamedTuple):
    """Where a setting may lie.

    Attributes
    ----------
    distribution : FloatDistribution
        Bounds and scale.
    default : float
        Where a search does well to begin, within the bounds.
    """

    distribution: FloatDistribution
    default: float


def ranges(kind: type[InnaClassifier] | type[InnaRegressor], given: Collection[str] = ()) -> dict[str, Range]:
    """What of an estimator a search that knows no priors does well to tune.

    Parameters
    ----------
    kind : InnaClassifier or InnaRegressor
    given : collection of str
        Parameters that are set already. They are left out, and with a natural number (``lr``, ``alpha``, ``beta``) the pure one
        that would set it.

    Returns
    -------
    dict of str to Range
        ``step_ratio``, ``friction`` and ``damping``, which are pure numbers, ``dropout`` and ``weight_decay``, within the
        bounds of the shipped priors (`SearchSpace.inna`).
    """
    untuned = kind()
    defaults = {
        "step_ratio": 2.0,
        "friction": untuned._loss.scaled_alpha,
        "damping": 0.75,
        "dropout": untuned.dropout,
        # The least there is on a logarithmic scale stands for none.
        "weight_decay": 0.0,
    }
    found = {}
    shipped = SearchSpace.inna(pure=True)
    for name, default in defaults.items():
        if name in given or PURE.get(name) in given:
            continue
        distribution = shipped.distribution(name)
        assert isinstance(distribution, FloatDistribution)
        found[name] = Range(distribution, max(default, distribution.low))
    return found

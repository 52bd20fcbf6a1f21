"""What a foreign search may tune of an estimator: settings that mean the same on every table, with their bounds."""

from typing import NamedTuple

from optuna.distributions import FloatDistribution, IntDistribution

from inna_tune.estimators import InnaClassifier, InnaRegressor
from inna_tune.space import SearchSpace

# What the shipped space holds of natural values, by the pure number that is behind it.
_PURE = {"lr": "step_ratio", "alpha": "friction", "beta": "damping"}


class Range(NamedTuple):
    """Where a setting may lie.

    Attributes
    ----------
    distribution : FloatDistribution or IntDistribution
        Bounds and scale.
    default : float or int
        Where a search does well to begin, within the bounds.
    """

    distribution: FloatDistribution | IntDistribution
    default: float


def ranges(kind: type[InnaClassifier] | type[InnaRegressor]) -> dict[str, Range]:
    """What of an estimator a search that knows no priors does well to tune.

    Parameters
    ----------
    kind : InnaClassifier or InnaRegressor

    Returns
    -------
    dict of str to Range
        ``step_ratio``, ``friction`` and ``damping``, which are pure numbers, ``dropout`` and ``weight_decay``, within the
        bounds of the shipped priors (`SearchSpace.inna`).
    """
    untuned = kind()
    defaults = {
        "step_ratio": 2.0,
        "friction": kind._loss.scaled_alpha,
        "damping": 0.75,
        "dropout": untuned.dropout,
        # The least there is on a logarithmic scale stands for none.
        "weight_decay": 0.0,
    }
    found = {}
    shipped = SearchSpace.inna(curvature=1.0)
    for natural in ("lr", "alpha", "beta", "dropout", "weight_decay"):
        name = _PURE.get(natural, natural)
        distribution = shipped.law(natural).pure.distribution
        assert isinstance(distribution, FloatDistribution)
        found[name] = Range(distribution, max(defaults[name], distribution.low))
    return found

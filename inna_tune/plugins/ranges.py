"""What a foreign search may tune of an estimator: settings that mean the same on every table, with their bounds."""

import math
from collections.abc import Collection
from typing import NamedTuple

from optuna.distributions import FloatDistribution

from inna_tune.estimators import InnaClassifier, InnaRegressor
from inna_tune.estimators.pure import usual_numbers
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


def ranges(
    kind: type[InnaClassifier] | type[InnaRegressor],
    given: Collection[str] = (),
    *,
    n_rows: int | None = None,
) -> dict[str, Range]:
    """What of an estimator a search that knows no priors does well to tune.

    Parameters
    ----------
    kind : InnaClassifier or InnaRegressor
    given : collection of str
        Parameters that are set already. They are left out, and with a natural number (``lr``, ``alpha``, ``beta``) the pure one
        that would set it.
    n_rows : int, optional
        Rows to train on, on which the usual friction hangs. None: many.

    Returns
    -------
    dict of str to Range
        ``step_ratio``, ``friction`` and ``damping``, which are pure numbers, ``dropout`` and ``weight_decay``, within the
        bounds of the shipped priors (`SearchSpace.inna`).
    """
    untuned = kind()
    steps = math.inf if n_rows is None else -(-n_rows // untuned.batch_size)
    defaults = usual_numbers(untuned, steps) | {
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

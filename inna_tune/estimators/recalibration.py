"""Quantiles that hold what they name: their distances from the median are scaled by rows that no net was trained on.

Nets that are stopped early, or averaged, tell quantiles that lie too near the median or too far. On rows that were left out it
is known how many targets lie beyond a quantile, and a factor on the distance makes their share right: conformalised quantile
regression (Romano, Patterson and Candès, NeurIPS 2019) with ratios in place of differences, so that rows of a wide spread are
moved farther, and for each quantile by itself, so that it narrows as well as widens.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from inna_tune.engine import TableTensors, output_together, predicted
from inna_tune.estimators.splitting import Rows

Floats = npt.NDArray[np.float64]

# A quantile is scaled by the few rows beyond it: of fewer than this the share is luck.
_MIN_BEYOND = 5
# Distances under this part of their mean are no distances.
_LEAST = 1e-6


def median_weights(quantiles: Sequence[float]) -> Floats:
    """What the median is of these quantiles, by a straight line between those beside it.

    Parameters
    ----------
    quantiles : sequence of float
        In ascending order.

    Returns
    -------
    ndarray of shape [n_quantiles]
        Of sum one. Where all lie on one side the nearest one stands for the median.
    """
    shares = np.array(quantiles)
    found = np.zeros(len(shares))
    above = int(np.searchsorted(shares, 0.5))
    if above in (0, len(shares)):
        found[min(above, len(shares) - 1)] = 1.0
    else:
        weight = (0.5 - shares[above - 1]) / (shares[above] - shares[above - 1])
        found[above - 1], found[above] = 1.0 - weight, weight
    return found


def scaled(found: Floats, quantiles: Sequence[float], factors: Floats) -> Floats:
    """Quantiles whose distances from the median are multiplied.

    Parameters
    ----------
    found : ndarray of shape [n_samples, n_quantiles]
        In ascending order.
    quantiles : sequence of float
    factors : ndarray of shape [n_quantiles]
        At least 0.

    Returns
    -------
    ndarray of shape [n_samples, n_quantiles]
        In ascending order, the median where it was.
    """
    median = found @ median_weights(quantiles)
    return np.asarray(np.sort(median[:, None] + factors * (found - median[:, None]), axis=-1))


def factors_of(
    found: Floats, quantiles: Sequence[float], target: Floats, weight: Floats | None = None
) -> Floats:
    """Factors by which as many targets lie beyond each quantile as should.

    Parameters
    ----------
    found : ndarray of shape [n_samples, n_quantiles]
        Quantiles in ascending order, of rows that those who tell them were not trained on.
    quantiles : sequence of float
        What they are.
    target : ndarray of shape [n_samples]
    weight : ndarray of shape [n_samples], optional

    Returns
    -------
    ndarray of shape [n_quantiles]
        One of the median, and of what stands for it. A quantile beyond which too few rows should lie takes the factor of
        the next one on the way to the median, or one.
    """
    shares, ones = np.array(quantiles), np.ones(len(found))
    weight = ones if weight is None else weight
    n_rows = weight.sum() ** 2 / (weight**2).sum()
    median = found @ median_weights(quantiles)
    factors = np.ones(len(shares))
    for side, places in ((-1, np.flatnonzero(shares < 0.5)[::-1]), (1, np.flatnonzero(shares > 0.5))):
        last = 1.0
        for place in places:
            distance = side * (found[:, place] - median)
            tail = min(shares[place], 1.0 - shares[place])
            mean = np.average(distance, weights=weight)
            if n_rows * tail >= _MIN_BEYOND and mean > 0:
                ratio = side * (target - median) / np.maximum(distance, _LEAST * mean)
                level = np.quantile(ratio, 1.0 - tail, method="inverted_cdf", weights=weight)
                last = max(float(level), 0.0)
            if mean > 0:
                factors[place] = last
    return factors


def told_of_left_out(
    model: Any, table: TableTensors, left_out: Sequence[Rows]
) -> tuple[torch.Tensor, Floats] | None:
    """What a fitted model says of rows that some of its members were not trained on.

    Parameters
    ----------
    model : InnaEstimator
    table : TableTensors
        That it was trained on.
    left_out : sequence of arrays of int
        Rows that each of its members left out.

    Returns
    -------
    rows : Tensor of int64, shape [n]
    outputs : ndarray of shape [n, out]
        Of each row the mean over the members that left it out. None in place of both where there are no rows.
    """
    known = [
        (own, torch.from_numpy(rows)) for own, rows in zip(model.weights_, left_out, strict=True) if len(rows)
    ]
    if not known:
        return None
    told = [predicted(model.net_, own[None], table.x[rows.to(table.x.device)])[0] for own, rows in known]
    index, output = output_together(model._loss, [rows for _, rows in known], told)
    return index, output.numpy()

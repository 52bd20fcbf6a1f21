"""What a fitted model predicts without some of its nets: how much hangs on each tells how lucky all of them are together."""

from typing import Any

import numpy as np
import numpy.typing as npt

from inna_tune.estimators.ensemble import Ensemble

Floats = npt.NDArray[np.float64]


def told_without(model: Any, X: Any) -> list[Floats]:
    """Predictions of a fitted model, each time without another of its nets, so that each is left out once.

    Of an ensemble the nets at the same place of all its models go together: those of trials have seeds and rows in common. Of
    models with several times as many nets as others every so many are left out at once; those with fewer, which have at most
    half of the weight together, lose none in some parts.

    Parameters
    ----------
    model : InnaEstimator or Ensemble
    X : DataFrame or array of shape [n_samples, n_features]

    Returns
    -------
    list of ndarray
        Probabilities [n_samples, n_classes], or values; nothing where no model has several nets.
    """
    models = model.models_ if isinstance(model, Ensemble) else [model]
    shares = model.weights_ if isinstance(model, Ensemble) else np.ones(1)
    n_parts = _parts(np.array([len(each.members_) for each in models]), shares)
    found: list[Any] = [0.0] * n_parts
    left = np.zeros(n_parts)
    if isinstance(model, Ensemble):
        told = model._outputs_by_model(X)
    else:
        told = iter([(0, model._outputs(X))])
    for place, outputs in told if n_parts else ():
        own, share = models[place], shares[place]
        part_of = np.arange(len(outputs)) % n_parts
        for part in range(n_parts):
            kept = outputs[part_of != part]
            if len(kept):
                predicted = own._from_outputs(kept)
                known = model._known(own, predicted) if isinstance(model, Ensemble) else predicted
                found[part] = found[part] + share * known
                left[part] += share
    return [np.asarray(total / rest) for total, rest in zip(found, left, strict=True)]


def _parts(counts: npt.NDArray[np.int64], shares: Floats) -> int:
    """How many nets models with over half of the weight have at least, so that a light one decides nothing; 0 for one net."""
    enough = [int(n) for n in counts if shares[counts >= n].sum() > 0.5 * shares.sum()]
    return max(enough) if max(enough, default=0) > 1 else 0

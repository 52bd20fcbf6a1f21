"""What a fitted model predicts without some of its nets: how much hangs on each tells how lucky all of them are together."""

from typing import Any

import numpy as np
import numpy.typing as npt

from inna_tune.estimators.ensemble import Ensemble

Floats = npt.NDArray[np.float64]


def told_without(model: Any, X: Any) -> list[Floats]:
    """Predictions of a fitted model, each time without another of its nets, so that each is left out once.

    Of an ensemble the nets at the same place of all its models go together: those of trials have seeds and rows in common. Of
    models with several times as many nets as others every so many are left out at once.

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
    several = [len(each.members_) for each in models if len(each.members_) > 1]
    n_parts = min(several, default=0)
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

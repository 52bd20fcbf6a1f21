"""What a model loses on each row, told from its probabilities."""

from typing import Any

import numpy as np
import numpy.typing as npt


def places_of(classes: npt.NDArray[Any], truth: Any) -> npt.NDArray[np.intp]:
    """Place of each row's class among those that a model knows; -1 of others.

    Parameters
    ----------
    classes : ndarray of shape [n_classes]
    truth : array or Series of shape [n_samples]

    Returns
    -------
    ndarray of shape [n_samples]
    """
    import pandas as pd

    return np.asarray(pd.Index(classes).get_indexer(pd.Index(truth)))


def log_losses(probabilities: npt.NDArray[Any], places: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
    """Minus the logarithm of the probability of each row's class.

    Parameters
    ----------
    probabilities : ndarray of shape [n_samples, n_classes]
    places : ndarray of shape [n_samples]
        As `places_of` gives them, of rows whose class is known.

    Returns
    -------
    ndarray of shape [n_samples]
        As in scikit-learn's log_loss a probability of 0 costs much, but not everything.
    """
    right = probabilities[np.arange(len(places)), places].astype(np.float64)
    return np.asarray(-np.log(np.clip(right, np.finfo(probabilities.dtype).eps, None)))

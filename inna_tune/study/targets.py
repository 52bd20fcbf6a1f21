"""The target at the door of a search: one shape from there on."""

import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import DataConversionWarning


def read_target(y: Any, *, classifier: bool) -> Any:
    """A target as the folds are cut from it.

    Parameters
    ----------
    y : array, list, Series or DataFrame of shape [n_samples], [n_samples, 1] or [n_samples, n_targets]
    classifier : bool
        Labels in one column become one-dimensional, with a DataConversionWarning, as scikit-learn's classifiers make them.

    Returns
    -------
    ndarray, Series or DataFrame
    """
    target = y if hasattr(y, "iloc") else np.asarray(y)
    if classifier and target.ndim == 2 and target.shape[1] == 1:
        warnings.warn(
            "A column-vector y was passed when a 1d array was expected. Please change the shape of y to (n_samples,), for "
            "example using ravel().",
            DataConversionWarning,
            stacklevel=3,
        )
        target = target.iloc[:, 0] if hasattr(target, "iloc") else target.ravel()
    return target

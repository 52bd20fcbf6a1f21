"""The target at the door of a search: one shape from there on."""

import warnings
from typing import Any

import numpy as np
import pandas as pd
from sklearn.exceptions import DataConversionWarning

from inna_tune.estimators.targets import read_labels


def read_target(y: Any, *, classifier: bool, stacklevel: int) -> Any:
    """A target as the folds are cut from it.

    Parameters
    ----------
    y : array, list, Series or DataFrame of shape [n_samples], [n_samples, 1] or [n_samples, n_targets]
    classifier : bool
        Labels in one column become one-dimensional, with a DataConversionWarning, as scikit-learn's classifiers make them;
        and objects that are all numbers, or all truth values, become those.
    stacklevel : int
        Calls up to the person's, for the warning.

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
            stacklevel=stacklevel + 1,
        )
        target = target.iloc[:, 0] if hasattr(target, "iloc") else target.ravel()
    if classifier and target.ndim == 1 and target.dtype == object:
        labels = read_labels(target)
        if labels.dtype != object:
            # Numbers and truth values as objects, which scikit-learn's metrics take for labels of no known kind.
            target = target.astype(labels.dtype) if isinstance(target, pd.Series) else labels
    return target

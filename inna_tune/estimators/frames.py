"""Tables as people have them: checks at the door, one representation (a DataFrame) behind it."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse
from sklearn.utils.validation import check_array, validate_data

Floats = npt.NDArray[np.float64]
Weights = Floats

# Text as pandas 3 has it by default; pandas 2.3 knows it too, but makes objects of text where "str" is asked for.
TEXT = pd.StringDtype(na_value=np.nan)

# Products of two numbers of smaller exponents, and sums of as many as there are rows, are finite.
_LARGE_EXPONENT = 400

_CONTAINERS = (dict, list, set, frozenset, tuple, np.ndarray, pd.Series, pd.DataFrame, pd.Index)


class UnreadableValueWarning(UserWarning):
    """Values of a column are not what the column held when the model was fitted, and count as missing."""


def as_frame(estimator: Any, X: Any, *, reset: bool) -> pd.DataFrame:
    """Check a table for an estimator and give it back as a DataFrame.

    Parameters
    ----------
    estimator : estimator
        Its ``n_features_in_`` and ``feature_names_in_`` are set (``reset=True``) or compared with the table.
    X : DataFrame, array, sparse matrix or anything with ``to_pandas``
        The table, [n_samples, n_features].
    reset : bool
        True while fitting.

    Returns
    -------
    DataFrame of shape [n_samples, n_features]

    Raises
    ------
    ValueError
        If the table is empty, not two-dimensional, holds complex numbers, has duplicate column names, or differs in its
        columns from the table that was fitted.
    TypeError
        If it is lazy, or holds containers.
    """
    if not isinstance(X, pd.DataFrame):
        if hasattr(X, "collect") and hasattr(X, "collect_schema"):
            raise TypeError("X is a lazy frame: pass X.collect(), so that its rows are there.")
        if hasattr(X, "to_pandas"):
            X = X.to_pandas()
    if isinstance(X, pd.DataFrame):
        duplicates = X.columns[X.columns.duplicated()].unique().tolist()
        if duplicates:
            raise ValueError(
                f"X has duplicate column names: {duplicates}. Rename them so that each is unique."
            )
        validate_data(estimator, X, reset=reset, skip_check_array=True)
        if X.empty:
            what = "feature" if len(X) else "sample"
            raise ValueError(
                f"Found array with 0 {what}(s) (shape={X.shape}) while a minimum of 1 is required."
            )
        return X
    array = validate_data(
        estimator,
        X,
        reset=reset,
        dtype=None,
        accept_sparse=True,
        ensure_all_finite=False,  # the encoder refuses infinities, and says in which column
        estimator=estimator,
    )
    if scipy.sparse.issparse(array):
        # Columns stay sparse until they are read, a few at a time.
        return pd.DataFrame.sparse.from_spmatrix(array)
    if array.dtype.kind == "O":
        refuse_containers(array.ravel(), "X")
        return pd.DataFrame(array).infer_objects()
    # Nobody writes into the frame, and it does not outlive the call that it is made for.
    return pd.DataFrame(array, copy=False)


def refuse_containers(values: Iterable[Any], holder: str) -> None:
    """Raise an error that names what holds them if there are lists and the like, or complex numbers, among values."""
    for value in values:
        if isinstance(value, (complex, np.complexfloating)):
            raise ValueError(
                f"Complex data not supported: {holder} holds {value!r}. Split it into two columns."
            )
        if isinstance(value, _CONTAINERS):
            shown = " ".join(str(value)[:80].split())
            raise TypeError(
                f"argument must be a string or a number, not {type(value).__name__}: {holder} holds {shown}. "
                "Make columns of numbers or of text of it, or drop it."
            )


def takes_any_table(tags: Any) -> Any:
    """scikit-learn's tags of what works on every table that ``as_frame`` lets in."""
    tags.input_tags.allow_nan = True
    tags.input_tags.categorical = True
    tags.input_tags.string = True
    tags.input_tags.sparse = True
    return tags


def check_weights(sample_weight: Any, n_samples: int) -> Weights | None:
    """Sample weights as float64 [n_samples], or None.

    Raises
    ------
    ValueError
        If their number is not ``n_samples``, one is negative or not finite, or all are zero.
    """
    if sample_weight is None:
        return None
    if np.isscalar(sample_weight):
        sample_weight = np.full(n_samples, float(sample_weight))  # type: ignore[arg-type]
    weight = check_array(sample_weight, ensure_2d=False, dtype=np.float64, input_name="sample_weight")
    if weight.ndim != 1:
        raise ValueError(f"Sample weights must be 1D array or scalar, got {weight.ndim}D array.")
    if weight.shape != (n_samples,):
        raise ValueError(f"sample_weight.shape == {weight.shape}, expected {(n_samples,)}: one weight a row.")
    if (weight < 0).any():
        raise ValueError("sample_weight holds negative values; weights must be at least 0.")
    if not weight.any():
        raise ValueError("sample_weight is zero for every row; give at least one row a positive weight.")
    return in_a_common_unit(weight)


def in_a_common_unit(weight: Weights) -> Weights:
    """Weights, at least 0, in their ratios; those near the ends of float64 in another unit, so that sums are finite."""
    exponent = int(np.frexp(weight.max())[1])
    return np.asarray(np.ldexp(weight, -exponent) if abs(exponent) > _LARGE_EXPONENT else weight)

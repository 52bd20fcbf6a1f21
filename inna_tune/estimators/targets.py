"""Targets as people have them: labels that keep their type, and values of one target or several."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api import types
from sklearn.utils.validation import check_array, column_or_1d

from inna_tune.estimators.columns import from_arrow

# What pandas calls objects that scikit-learn takes for no labels, whatever they are.
_NO_LABELS = ("mixed", "interval", "period", "decimal", "complex", "time")
# What it calls dates and durations: a model file knows none, and a regression has no unit to count them in.
_TIMES = ("datetime64", "datetime", "date", "timedelta64", "timedelta")


def read_labels(y: Any) -> npt.NDArray[Any]:
    """Labels as an array of their own type, [n_samples].

    Nullable and Arrow types give the numpy type of what they hold, whole numbers stay whole; categories are their labels;
    objects that are all whole numbers, all floats or all truth values give an array of those, and strings stay objects.

    Parameters
    ----------
    y : array, Series, DataFrame of one column, or list, of shape [n_samples]

    Returns
    -------
    ndarray of shape [n_samples]

    Raises
    ------
    ValueError
        If labels are missing, or are of types that have no order among them, or that are no labels.
    """
    if isinstance(y, pd.DataFrame) and y.shape[1] == 1:
        column_or_1d(y, warn=True)
        y = y.iloc[:, 0]
    if not isinstance(y, pd.Series):
        y = y.to_pandas() if hasattr(y, "to_pandas") else column_or_1d(y, warn=True)
        if isinstance(y, np.ndarray) and y.dtype.kind in "biuU":
            return y
        y = pd.Series(y)
    missing = int(y.isna().sum())
    if missing:
        name = "" if y.name is None else f" in {str(y.name)!r}"
        raise ValueError(f"Input y contains NaN ({missing} missing labels{name}). Drop those rows.")
    y = from_arrow(y)
    if isinstance(y.dtype, pd.CategoricalDtype):
        y = pd.Series(y.cat.categories).iloc[y.cat.codes]
    dtype = y.dtype
    if _holds_times(y):
        raise ValueError(
            f"y holds dates or durations ({dtype}: {str(y.iloc[0])[:80]}), which are no labels. Make text of them, e.g. by "
            "y.astype(str)."
        )
    if isinstance(dtype, np.dtype) and dtype.kind not in "OS":
        return np.asarray(y)
    if types.is_bool_dtype(dtype):
        return np.asarray(y.to_numpy(dtype=bool))
    if types.is_numeric_dtype(dtype):
        # Of pyarrow's types pandas tells the numpy type as well.
        return np.asarray(y.to_numpy(dtype=dtype.numpy_dtype))
    labels = np.asarray(y, dtype=object)
    held = types.infer_dtype(labels, skipna=False)
    names = sorted({type(label).__name__ for label in labels})
    if held.startswith("mixed") and held != "mixed-integer-float" and len(names) > 1:
        raise ValueError(
            f"y holds labels of different types: {', '.join(names)}. Make one type of them, e.g. by y.astype(str)."
        )
    if held in ("integer", "floating", "mixed-integer-float", "boolean"):
        # Without pandas' nullable types these are arrays of numbers, or of truth values.
        found = np.array(labels.tolist())
        if found.dtype.kind != "O":
            return found
    elif held == "bytes":
        raise ValueError(
            f"y holds labels that are bytes ({labels[0]!r}). Make text of them, e.g. by [label.decode() for label in y]."
        )
    elif held not in _NO_LABELS:
        return labels
    raise ValueError(
        f"y holds labels that are no numbers, truth values or text ({names[0]}: {str(labels[0])[:80]}). "
        "Make text of them, e.g. by y.astype(str)."
    )


def read_values(y: Any, estimator: Any) -> npt.NDArray[np.float64]:
    """Values as float64, [n_samples] or [n_samples, n_targets].

    Parameters
    ----------
    y : array, Series, DataFrame or list of shape [n_samples] or [n_samples, n_targets]
    estimator : estimator
        What messages call itself.

    Raises
    ------
    ValueError
        If values are missing, infinite or no numbers.
    """
    if not hasattr(y, "dtype") or isinstance(y, pd.Series) or y.dtype.kind not in "biuf":
        _refuse_times(y)
    if isinstance(y, (pd.Series, pd.DataFrame)):
        frame = y.to_frame() if isinstance(y, pd.Series) else y
        missing = frame.isna().sum()
        if missing.any():
            name = frame.columns[int(missing.to_numpy().argmax())]
            said = "" if isinstance(y, pd.Series) and y.name is None else f" in {str(name)!r}"
            raise ValueError(f"Input y contains NaN ({missing.max()} missing values{said}). Drop those rows.")
    values = check_array(y, ensure_2d=False, dtype=np.float64, input_name="y", estimator=estimator)
    if values.ndim > 2:
        raise ValueError(f"y should be a 1d or 2d array, got an array of shape {values.shape} instead.")
    # In one order of memory, by which sums round.
    return np.ascontiguousarray(values)


def _holds_times(y: pd.Series) -> bool:
    """Whether values are dates or durations."""
    if types.is_datetime64_any_dtype(y.dtype) or types.is_timedelta64_dtype(y.dtype):
        return True
    return y.dtype == object and types.infer_dtype(y, skipna=True) in _TIMES


def _refuse_times(y: Any) -> None:
    """Refuse dates and durations as targets: as numbers they would be nanoseconds, unasked."""
    try:
        frame = y if isinstance(y, pd.DataFrame) else pd.DataFrame(y)
    except (ValueError, TypeError):
        return  # who checks arrays says what is wrong
    for place, name in enumerate(frame.columns):
        own = frame.iloc[:, place]
        if _holds_times(from_arrow(own)):
            said = "" if isinstance(name, int) else f" in {str(name)!r}"
            raise ValueError(
                f"y holds dates or durations ({own.dtype}{said}), which are no numbers. Choose a unit and count in it, e.g. "
                "(y - y.min()).dt.total_seconds() / 86400 for days, or y.dt.total_seconds()."
            )


def location_and_scale(
    values: npt.NDArray[np.float64], weight: npt.NDArray[np.float64] | None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and standard deviation of every column, whatever its unit.

    Squares of large numbers overflow and those of small ones vanish, so both are taken in units of the power of two above the
    largest value, which rounds nothing.

    Parameters
    ----------
    values : ndarray of shape [n_samples, n_targets]
    weight : ndarray of shape [n_samples], optional

    Returns
    -------
    mean, scale : ndarray of shape [n_targets]
        The scale is 0 where all values are one.
    """
    exponent = np.frexp(np.abs(values).max(axis=0))[1]
    unit = np.ldexp(values, -exponent)
    mean = np.average(unit, axis=0, weights=weight)
    scale = np.sqrt(np.average((unit - mean) ** 2, axis=0, weights=weight))
    is_constant = (values == values[0]).all(axis=0)
    return (
        np.where(is_constant, values[0], np.ldexp(mean, exponent)),
        np.where(is_constant, 0.0, np.ldexp(scale, exponent)),
    )

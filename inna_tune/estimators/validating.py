"""Rows that a person gives to watch training by, in place of some of the training's own."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import is_classifier

from inna_tune.estimators.encoded import EncodedTable
from inna_tune.estimators.metrics import judged_of
from inna_tune.estimators.targets import read_labels


def check_validation(estimator: Any, X_val: Any, y_val: Any, sample_weight_val: Any) -> bool:
    """Whether validation rows are given, checked as far as can be done without reading them.

    Raises
    ------
    ValueError
        If some of what belongs together is missing, or early stopping is off.
    """
    if X_val is None and y_val is None:
        if sample_weight_val is not None:
            raise ValueError("sample_weight_val is given without X_val and y_val, whose rows it weighs.")
        return False
    if X_val is None or y_val is None:
        given, missing = ("y_val", "X_val") if X_val is None else ("X_val", "y_val")
        raise ValueError(f"{given} is given without {missing}; give both, or neither.")
    if not estimator.early_stopping:
        raise ValueError(
            "X_val and y_val are given, which early stopping is by, and early_stopping=False; set it to True, or leave "
            "them out."
        )
    return True


def with_validation(
    estimator: Any, table: EncodedTable, X_val: Any, y_val: Any, sample_weight_val: Any
) -> EncodedTable:
    """A table, encoded to train on, with validation rows that its encoder and target's scale encode.

    Parameters
    ----------
    estimator : InnaEstimator
        With fitted encoder and target.
    table : EncodedTable
    X_val : DataFrame or array of shape [n_validation, n_features]
    y_val : array of shape [n_validation] or [n_validation, n_targets]
    sample_weight_val : array of shape [n_validation], optional

    Raises
    ------
    ValueError, TypeError
        If they are not of the training table's columns, labels or targets, with a message that says whose they are.
    """
    with _named():
        frame, y, weight = estimator._read(X_val, y_val, sample_weight_val, reset=False)
        if is_classifier(estimator):
            _check_labels(y, estimator.classes_)
        target = estimator._encode_target(y)
        x = estimator.encoder_.encode(frame, table.x.dtype.type)
    factors = estimator._row_weights(target, weight, learned_on=(table.target, table.sample_weight))
    judged = judged_of(estimator, frame, y, weight)
    return table.followed_by(EncodedTable(x, target, factors, weight, judged=judged))


@contextmanager
def _named() -> Iterator[None]:
    """Let errors say that it is the validation rows that make no sense."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise type(error)(f"The validation rows (X_val, y_val): {error}") from error


def _check_labels(y: Any, classes: Any) -> None:
    labels = read_labels(y)
    strangers = pd.unique(np.asarray(labels)[pd.Index(classes).get_indexer(pd.Index(labels)) < 0])
    if len(strangers):
        raise ValueError(
            f"y_val holds labels that y does not: {strangers[:5].tolist()}. Leave out their rows, or train on some such."
        )

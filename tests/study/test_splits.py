"""The folds that a search makes where none are given."""

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import KFold, ShuffleSplit, StratifiedKFold, StratifiedShuffleSplit

from inna_tune.study.splits import default_splitter, resolve_splits


def labels(n_rows, n_classes=2, *, rarest=None):
    """As many rows of each class, but for the rarest, if that is said."""
    y = np.arange(n_rows) % n_classes
    if rarest is not None:
        y[y == n_classes - 1] = 0
        y[:rarest] = n_classes - 1
    return y


@pytest.mark.parametrize(
    ("y", "kind", "n_splits"),
    [
        (labels(1_999), StratifiedKFold, 5),
        (labels(2_000), StratifiedKFold, 3),
        (labels(9_999), StratifiedKFold, 3),
        (labels(10_000), StratifiedShuffleSplit, 1),
        # Rows too few for a share of every class.
        (labels(1_000, rarest=5), StratifiedKFold, 5),
        (labels(1_000, rarest=4), KFold, 5),
        (labels(2_000, rarest=3), StratifiedKFold, 3),
        (labels(2_000, rarest=2), KFold, 3),
        (labels(10_000, rarest=2), StratifiedShuffleSplit, 1),
        (labels(10_000, rarest=1), ShuffleSplit, 1),
        (labels(10_000, 2_000), StratifiedShuffleSplit, 1),
        (labels(10_000, 2_001), ShuffleSplit, 1),
    ],
)
def test_the_more_rows_the_fewer_folds_each_with_a_share_of_every_class(y, kind, n_splits):
    splitter = default_splitter(y, len(y), classifier=True)
    assert type(splitter) is kind
    assert splitter.get_n_splits() == n_splits
    folds = list(splitter.split(y[:, None], y))
    assert len(folds) == n_splits
    for (train, test), (again, _) in zip(folds, splitter.split(y[:, None], y), strict=True):
        assert np.array_equal(train, again), "a resumed study sees the same folds"
        assert len(train) + len(test) == len(y)


@pytest.mark.parametrize(
    ("n_rows", "kind", "n_splits"),
    [(1_999, KFold, 5), (2_000, KFold, 3), (9_999, KFold, 3), (10_000, ShuffleSplit, 1)],
)
def test_so_it_is_with_numbers(n_rows, kind, n_splits):
    splitter = default_splitter(np.arange(float(n_rows)), n_rows, classifier=False)
    assert (type(splitter), splitter.get_n_splits()) == (kind, n_splits)


@pytest.mark.parametrize(
    "cv", [object(), print, 2.5, "5", b"5", [object()], [1, 2], {"a": 1}, np.array([1, 2]), [([0], [1], [2])]]
)
def test_what_is_no_folds_is_named(cv):
    y = labels(6)
    with pytest.raises(ValueError, match=r"cv=(.|\n)* must be a number of folds, a splitter"):
        resolve_splits(cv, pd.DataFrame({"a": y}), y, {}, classifier=True)


@pytest.mark.parametrize("form", [list, tuple, iter])
def test_folds_are_given_one_by_one(form):
    y, folds = labels(6), [([0, 1, 2], [3, 4]), (np.arange(3, 6), np.arange(2))]
    _, found = resolve_splits(form(folds), pd.DataFrame({"a": y}), y, {}, classifier=True)
    assert [[rows.tolist() for rows in fold] for fold in found] == [[[0, 1, 2], [3, 4]], [[3, 4, 5], [0, 1]]]

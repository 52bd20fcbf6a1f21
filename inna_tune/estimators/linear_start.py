"""Linear models of a table's rows that nets of small tables begin as, so that they have only what is left to learn."""

import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from inna_tune.estimators.encoded import EncodedTable
from inna_tune.estimators.splitting import Rows
from inna_tune.nets import LinearPath, LinearStart

Floats = npt.NDArray[np.float64]

# Beyond so many columns, or columns times rows times classes, a model would take longer than the net.
_MOST_COLUMNS, _MOST_NUMBERS = 1000, 5_000_000

# Penalties λ of the mean loss + λ/2 ‖w‖², strongest first.
_PENALTIES = tuple(10.0**-k for k in range(1, 8))
_LEAST_SCALE = 0.01


def linear_starts(table: EncodedTable, parts: Sequence[tuple[Rows, Rows]]) -> list[LinearStart]:
    """For each part of a table, a linear model of its rows: ridge or logistic regression on the encoded columns.

    Parameters
    ----------
    table : EncodedTable
        Models that were fitted to rows of it before are not fitted again.
    parts : sequence of (train, validation)
        Rows to fit to, and rows by which the penalty is chosen.

    Returns
    -------
    list of LinearStart
        Nothing where the table is too large, or a class is not among the rows to fit to.
    """
    if table.sections is None or not _is_small(table):
        return []
    keys = [train.tobytes() + b"|" + validation.tobytes() for train, validation in parts]
    if not set(keys) <= set(table.linear_models):
        design = _columns(table)
        # What a model is must not depend on how many threads there are.
        with threadpool_limits(1, user_api="blas"):
            for key, (train, validation) in zip(keys, parts, strict=True):
                if key not in table.linear_models:
                    table.linear_models[key] = _fitted(table, design, train, validation)
    found = [table.linear_models[key] for key in keys]
    return [] if None in found else [model for model in found if model is not None]


def _is_small(table: EncodedTable) -> bool:
    assert table.sections is not None
    width = sum(table.sections[:2]) + sum(table.categories)
    target = table.target
    outputs = int(target.max()) + 1 if target.ndim == 1 else target.shape[1]
    return width <= _MOST_COLUMNS and table.n_train * width * outputs <= _MOST_NUMBERS


def _columns(table: EncodedTable) -> Floats:
    """What the linear path of a net reads, [n_samples, width]."""
    assert table.sections is not None
    path = LinearPath(*table.sections[:2], table.categories, 1)
    found: Floats = path.columns(torch.from_numpy(table.x).double()).numpy()
    return found


def _fitted(table: EncodedTable, design: Floats, train: Rows, validation: Rows) -> LinearStart | None:
    weight = np.ones(len(table.target)) if table.weight is None else table.weight
    own = (design[train], table.target[train], weight[train])
    judges = (design[validation], table.target[validation], weight[validation])
    if table.target.ndim == 1:
        return _logistic(*own, *judges, n_classes=int(table.target.max()) + 1)
    return _ridge(*own, *judges)


def _ridge(
    X: Floats, y: Floats, weight: Floats, X_val: Floats, y_val: Floats, weight_val: Floats
) -> LinearStart:
    share = weight / weight.sum()
    center, mean = share @ X, share @ y
    root = np.sqrt(share)[:, None]
    scaled, residual = root * (X - center), root * (y - mean)
    # One decomposition serves all penalties.
    eigenvalues, vectors = np.linalg.eigh(scaled.T @ scaled)
    along = vectors.T @ (scaled.T @ residual)

    def solved(penalty: float) -> Floats:
        found: Floats = vectors @ (along / (np.maximum(eigenvalues, 0.0) + penalty)[:, None])
        return found

    def loss(coefficients: Floats) -> float:
        error = y_val - mean - (X_val - center) @ coefficients
        return float(np.average((error**2).mean(1), weights=weight_val))

    nothing = np.zeros((X.shape[1], y.shape[1]))
    choices = [nothing, *map(solved, _PENALTIES)]
    losses = [loss(each) for each in choices]
    best = int(np.argmin(losses))
    return _start(choices[best], mean - center @ choices[best], losses[best], losses[0])


def _logistic(
    X: Floats,
    y: npt.NDArray[np.int64],
    weight: Floats,
    X_val: Floats,
    y_val: npt.NDArray[np.int64],
    weight_val: Floats,
    *,
    n_classes: int,
) -> LinearStart | None:
    total = weight.sum()
    shares = np.bincount(y, weights=weight, minlength=n_classes) / total
    if not (shares > 0).all():
        return None
    center = weight @ X / total
    model = LogisticRegression(warm_start=True, max_iter=200)

    def solved(penalty: float) -> tuple[Floats, Floats]:
        # scikit-learn adds up losses, and has one column of two classes.
        model.set_params(C=1.0 / (penalty * total)).fit(X - center, y, sample_weight=weight)
        coefficients, intercept = model.coef_.T, model.intercept_
        if n_classes == 2:
            coefficients = np.hstack([-coefficients, coefficients]) / 2
            intercept = np.array([-intercept[0], intercept[0]]) / 2
        return coefficients, intercept - center @ coefficients

    def loss(coefficients: Floats, intercept: Floats) -> float:
        scores = X_val @ coefficients + intercept
        scores -= scores.max(1, keepdims=True)
        own = np.log(np.exp(scores).sum(1)) - scores[np.arange(len(y_val)), y_val]
        return float(np.average(own, weights=weight_val))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # as near as it comes is near enough to begin at
        best = np.zeros((X.shape[1], n_classes)), np.log(shares)
        nothing = least = loss(*best)
        for penalty in _PENALTIES:
            found = solved(penalty)
            if not (own := loss(*found)) < least:
                break
            best, least = found, own
    return _start(*best, least, nothing)


def _start(coefficients: Floats, intercept: Floats, loss: float, loss_of_nothing: float) -> LinearStart:
    """A model that leaves such a share of the loss to the net, whose outputs begin that much smaller."""
    share = loss / loss_of_nothing if loss_of_nothing > 0 else 1.0
    scale = float(np.clip(np.sqrt(share), _LEAST_SCALE, 1.0))
    return LinearStart(torch.from_numpy(coefficients.copy()), torch.from_numpy(intercept), scale)

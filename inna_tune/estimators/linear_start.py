"""Linear models of a table's rows that nets of small tables begin as, so that they have only what is left to learn."""

import functools
import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize
from threadpoolctl import ThreadpoolController

from inna_tune import clock
from inna_tune.estimators.encoded import EncodedTable
from inna_tune.estimators.splitting import Rows
from inna_tune.nets import LinearPath, LinearStart

Floats = npt.NDArray[np.float64]

# Beyond so many columns, or columns times rows times classes, a model would take longer than the net.
_MOST_COLUMNS, _MOST_NUMBERS = 1000, 5_000_000

# Penalties λ of the mean loss + λ/2 ‖w‖², strongest first.
_PENALTIES = tuple(10.0 ** (-k / 2) for k in range(2, 15))
_LEAST_SCALE = 0.01
# Of penalties whose losses differ by less than so many standard errors of the difference, row by row, the strongest is taken:
# that of the least loss of a hundred rows is too sure of itself. Whole powers of ten were too far apart for that: on
# leaf_id_flavia (seed 0) the loss rose by 40%, with halves of them by 21% (by seeds 1 and 2 it fell by 12 and 14%). Five
# folds, two seeds, log-loss before and after both: wine .0632 and .0526, .0593 and .0504; breast_cancer .0658 and .0768, .0683
# and .0761; iris .0797 and .0785, .0823 and .0842.
_STANDARD_ERRORS = 0.5

_REMEMBERED = 8
# Of the time that is left they take so much at most: nets that have no time to learn are worth less than none of these.
_SHARE = 0.25


class _LateError(Exception):
    """The models take more than their share of the time."""


def linear_starts(
    table: EncodedTable, parts: Sequence[tuple[Rows, Rows]], *, deadline: float | None = None
) -> list[LinearStart]:
    """For each part of a table, a linear model of its rows: ridge or logistic regression on the encoded columns.

    Parameters
    ----------
    table : EncodedTable
        Models that were fitted to these parts of it before are not fitted again.
    parts : sequence of (train, validation)
        Rows to fit to, and rows by which the penalty is chosen, one for all parts.
    deadline : float, optional
        Value of `inna_tune.clock` by which nets are to be trained that begin so.

    Returns
    -------
    list of LinearStart
        Nothing where the table is too large, a class is not among the rows to fit to, or the models would take more than a
        quarter of the time that is left.
    """
    if table.sections is None or not parts or not _is_small(table):
        return []
    keys = [train.tobytes() + b"|" + validation.tobytes() for train, validation in parts]
    together = hashlib.blake2b(b"||".join(keys)).digest()
    known = table.linear_models.get(together)
    if known is None:
        # What a model is must not depend on how many threads there are.
        try:
            with _blas().limit(limits=1, user_api="blas"):
                found = _fitted(table, list(dict(zip(keys, parts, strict=True)).values()), _watch(deadline))
        except _LateError:
            return []
        own = dict(zip(dict.fromkeys(keys), found, strict=True)) if found else {}
        known = [own[key] for key in keys] if found else []
        # Trials with a seed each have parts of their own, which no other asks for.
        table.linear_models = dict([*table.linear_models.items(), (together, known)][-_REMEMBERED:])
    return known


def _watch(deadline: float | None) -> Callable[[], None]:
    """What raises a _LateError once the models have had their share of the time until a deadline."""
    if deadline is None:
        return lambda: None
    now = clock.now()
    end = now + _SHARE * max(0.0, deadline - now)

    def watch() -> None:
        if clock.now() > end:
            raise _LateError

    return watch


@functools.cache
def _blas() -> ThreadpoolController:
    """What numpy and scipy compute by, which are loaded: to look for it takes as long as to fit a small model."""
    return ThreadpoolController()


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


def _fitted(
    table: EncodedTable, parts: Sequence[tuple[Rows, Rows]], watch: Callable[[], None]
) -> list[LinearStart]:
    """A model of each part, by the penalty with which all of them together predict their other rows best."""
    watch()
    design = _columns(table)
    weight = np.ones(len(table.target)) if table.weight is None else table.weight
    n_classes = int(table.target.max()) + 1 if table.target.ndim == 1 else 0
    models: list[_Ridge] | list[_Logistic]
    if n_classes:
        # A class may have rows and no weight.
        weights = [np.bincount(table.target[own], weight[own], n_classes) for own, _ in parts]
        if not (np.array(weights) > 0).all():
            return []
        models = [
            _Logistic(design[own], table.target[own], weight[own], n_classes, watch) for own, _ in parts
        ]
    else:

        def ridge(own: Rows) -> _Ridge:
            watch()
            return _Ridge(design[own], table.target[own], weight[own])

        models = [ridge(own) for own, _ in parts]

    def loss(coefficients: Floats, intercept: Floats, rows: Rows) -> Floats:
        outputs = design[rows] @ coefficients + intercept
        if not n_classes:
            error: Floats = ((outputs - table.target[rows]) ** 2).mean(1)
            return error
        outputs -= outputs.max(1, keepdims=True)
        own: Floats = np.log(np.exp(outputs).sum(1)) - outputs[np.arange(len(rows)), table.target[rows]]
        return own

    judges = np.concatenate([rows for _, rows in parts])
    # A row of weight two is two rows, and those that are equal are one of which to be sure.
    _, kinds = np.unique(np.column_stack([table.x, table.target])[judges], axis=0, return_inverse=True)

    def of_kinds(values: Floats) -> Floats:
        found: Floats = np.bincount(kinds.ravel(), values).astype(np.float64)
        return found

    own_share = weight[judges] / weight[judges].sum()
    share = of_kinds(own_share)
    tried: list[list[tuple[Floats, Floats]]] = []
    losses: list[Floats] = []
    for penalty in (None, *_PENALTIES):
        watch()
        found = [model.nothing if penalty is None else model.at(penalty) for model in models]
        of_rows = [loss(w, b, rows) for (w, b), (_, rows) in zip(found, parts, strict=True)]
        own_losses = of_kinds(own_share * np.concatenate(of_rows)) / np.where(share > 0, share, 1.0)
        if losses and not share @ own_losses < share @ losses[-1]:
            break
        losses.append(own_losses)
        tried.append(found)
    chosen = _strongest(losses, share)
    of_nothing, left = float(share @ losses[0]), float(share @ losses[chosen])
    scale = float(np.clip(np.sqrt(left / of_nothing if of_nothing > 0 else 1.0), _LEAST_SCALE, 1.0))
    return [LinearStart(torch.from_numpy(own.copy()), torch.from_numpy(b), scale) for own, b in tried[chosen]]


def _strongest(losses: Sequence[Floats], share: Floats) -> int:
    """The first of penalties that loses no more than noise to the last and best of them, by the losses of rows."""
    best = len(losses) - 1
    for k in range(best):
        apart = losses[k] - losses[best]
        gap = share @ apart
        if gap <= _STANDARD_ERRORS * np.sqrt(share**2 @ (apart - gap) ** 2):
            return k
    return best


class _Ridge:
    """Ridge regressions of rows [n, d] and values [n, k], of one penalty after the other."""

    def __init__(self, X: Floats, y: Floats, weight: Floats) -> None:
        share = weight / weight.sum()
        self._center, self._mean = share @ X, share @ y
        root = np.sqrt(share)[:, None]
        scaled = root * (X - self._center)
        # One decomposition serves all penalties.
        self._eigenvalues, self._vectors = np.linalg.eigh(scaled.T @ scaled)
        self._along = self._vectors.T @ (scaled.T @ (root * (y - self._mean)))
        self.nothing = np.zeros((X.shape[1], y.shape[1])), self._mean

    def at(self, penalty: float) -> tuple[Floats, Floats]:
        """Coefficients [d, k] and intercept [k]."""
        lengths = np.maximum(self._eigenvalues, 0.0) + penalty
        coefficients = self._vectors @ (self._along / lengths[:, None])
        return coefficients, self._mean - self._center @ coefficients


class _Logistic:
    """Softmax regressions of rows [n, d] and classes [n], each penalty beginning where the one before it ended.

    By scipy's optimizer: scikit-learn's estimators log themselves where MLflow logs automatically.
    """

    def __init__(
        self,
        X: Floats,
        y: npt.NDArray[np.int64],
        weight: Floats,
        n_classes: int,
        watch: Callable[[], None],
    ) -> None:
        self._watch = watch
        self._share = weight / weight.sum()
        self._center = self._share @ X
        self._rows = X - self._center
        self._labels = np.eye(n_classes)[y]
        # Where a row's own class stands among all outputs.
        self._own = np.arange(len(y)) * n_classes + y
        self.nothing = np.zeros((X.shape[1], n_classes)), np.log(self._share @ self._labels)
        self._place = np.vstack(self.nothing)

    def at(self, penalty: float) -> tuple[Floats, Floats]:
        """Coefficients [d, n_classes] and intercept [n_classes]."""
        seen, value, gradient = b"", 0.0, self._place.ravel()

        # scipy asks for the value and then for the gradient, which are found together.
        def look(flat: Floats) -> None:
            nonlocal seen, value, gradient
            if (place := flat.tobytes()) != seen:
                self._watch()
                seen, (value, gradient) = place, self._loss(flat.reshape(self._place.shape), penalty)

        def loss(flat: Floats) -> float:
            look(flat)
            return value

        def slope(flat: Floats) -> Floats:
            look(flat)
            return gradient

        found = minimize(
            loss, self._place.ravel(), jac=slope, method="L-BFGS-B", options={"maxiter": 200, "gtol": 1e-5}
        )
        self._place = found.x.reshape(self._place.shape)
        coefficients = self._place[:-1].copy()
        return coefficients, self._place[-1] - self._center @ coefficients

    def _loss(self, place: Floats, penalty: float) -> tuple[float, Floats]:
        """The penalised loss at coefficients and intercept [d + 1, n_classes], and its gradient, flat."""
        outputs = self._rows @ place[:-1]
        outputs += place[-1]
        outputs -= outputs.max(1, keepdims=True)
        total = np.log(np.exp(outputs).sum(1, keepdims=True))
        mean = self._share @ (total[:, 0] - outputs.ravel()[self._own])
        slope = np.exp(outputs - total)
        slope -= self._labels
        slope *= self._share[:, None]
        gradient = np.empty_like(place)
        gradient[:-1] = self._rows.T @ slope
        gradient[:-1] += penalty * place[:-1]
        gradient[-1] = slope.sum(0)
        return float(mean + penalty / 2 * np.square(place[:-1]).sum()), gradient.ravel()

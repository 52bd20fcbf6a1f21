"""How many nets a default fit trains, on which rows, and for how long: the one place that knows."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from inna_tune.estimators.columns import Matrix
from inna_tune.estimators.splitting import Rows

# On tables of fewer rows a part held out tells one epoch from another by noise, and several nets cost little. Each row is
# left out once in every round, so that as many nets which never saw it predict it. Those of one round begin as linear models
# of their rows, those of the other as nets do, and the rows left out tell which count: on 22 tables either kind was better
# than the other by 5% and more on a dozen (studies/new_tables.py).
_FOLDS, _ROUNDS, _CROSS_FITTED_BELOW = 4, 2, 4000

# On more rows as many nets as train on so many rows in an epoch, all together, each without another part of the size that
# ``validation_fraction`` says; and two on up to so many rows. On tables of 12,000 to 21,000 rows two nets that left the same
# tenth out, each stopped by itself, lowered the loss by .1 to .8% (three tables, one seed); two that left out one of their
# own, stopped together, by .3 to 1.8% on four tables, and raised it by 1% on diamonds, at less than twice the time of one.
_ROWS_OF_ALL, _TWO_BELOW = 16_000, 25_000

# Of fewer rows no part can be left out of any net, so that nothing tells when they have learned enough: they train for so many
# epochs, which are at least so many steps.
_MIN_ROWS = 40
_EPOCHS, _MIN_STEPS = 30, 50

# Where an epoch is few steps, what rows left out stop may train for three times as many. Of 43 tables of at most 3,000 rows the
# loss fell by 11% on gapminder, 8% on concrete, 4% on loans_full_schema and 2% on Boston, and rose by .1% at most: those that
# learn no more stop where they did, at the same cost (studies/new_tables.py, one seed).
_MOST_EPOCHS, _MOST_EPOCHS_OF_FEW_ROWS = 100, 300


@dataclass(frozen=True)
class MemberPlan:
    """What ``n_members`` comes to on a table.

    Attributes
    ----------
    n_members : int
    n_folds : int
        Parts of the rows each of which some members leave out; 0 where all members have the same rows.
    max_epochs : int
        At which training ends, and the cosine law with it.
    n_linear : int, default=0
        The first so many begin as linear models of their rows, where such can be had, and are stopped by themselves.
    """

    n_members: int
    n_folds: int
    max_epochs: int
    n_linear: int = 0


def plan_members(
    n_members: int | str,
    n_rows: int,
    *,
    batch_size: int,
    max_epochs: int | str,
    early_stopping: bool,
    validation_fraction: float = 0.1,
) -> MemberPlan:
    """What a number of members, or "auto", comes to on a table of so many rows.

    Parameters
    ----------
    n_members : int or "auto"
        A number is that of nets which have the same rows.
    n_rows : int
        Rows to train on.
    batch_size, max_epochs, early_stopping, validation_fraction
        As the estimators have them. Without early stopping no row is held out, and every epoch is trained.
    """
    epochs = _most_epochs(max_epochs, n_rows, early_stopping=early_stopping)
    if n_members != "auto":
        return MemberPlan(int(n_members), 0, epochs)
    if n_rows >= _CROSS_FITTED_BELOW:
        members = max(2 if n_rows < _TWO_BELOW else 1, _ROWS_OF_ALL // n_rows)
        is_shared = early_stopping and members > 1
        return MemberPlan(members, max(2, round(1 / validation_fraction)) if is_shared else 0, epochs)
    members = _FOLDS * _ROUNDS
    if not early_stopping:
        return MemberPlan(members, 0, epochs)
    if n_rows >= _MIN_ROWS:
        return MemberPlan(members, _FOLDS, epochs, _FOLDS)
    steps = -(-n_rows // batch_size)
    return MemberPlan(members, 0, min(epochs, max(_EPOCHS, -(-_MIN_STEPS // steps))))


def _most_epochs(max_epochs: int | str, n_rows: int, *, early_stopping: bool) -> int:
    """What a number of epochs, or "auto", comes to on a table of so many rows."""
    if max_epochs != "auto":
        return int(max_epochs)
    return _MOST_EPOCHS_OF_FEW_ROWS if early_stopping and n_rows < _CROSS_FITTED_BELOW else _MOST_EPOCHS


def usual_epochs(max_epochs: int | str, most: int) -> int:
    """After which a training of at most so many most likely ends: early stopping comes long before an end nobody asked for."""
    return min(most, _MOST_EPOCHS) if max_epochs == "auto" else most


def parts_left_out(
    plan: MemberPlan, x: Matrix, target: npt.NDArray[Any], seed: int
) -> list[tuple[Rows, Rows]]:
    """Rows to train on and rows left out, a pair for each member; nothing where members leave out no part of the rows.

    So many rows must differ, since a row of weight two is two rows. ``x`` and ``target`` as for `cross_fitted`.
    """
    if plan.n_folds == 0:
        return []
    return cross_fitted(x, target, plan.n_members, plan.n_folds, seed, min_distinct=_MIN_ROWS)


def cross_fitted(
    x: Matrix, target: npt.NDArray[Any], n_members: int, n_folds: int, seed: int, *, min_distinct: int = 1
) -> list[tuple[Rows, Rows]]:
    """Rows to train on and rows left out, a pair for each member.

    Every ``n_folds`` members leave out each row once, every class as evenly as can be. Rows that are equal are left out
    together: a net that has seen one of them knows the others, and a row of weight two is two rows. A class whose rows
    are all equal is never left out.

    Parameters
    ----------
    x : ndarray of shape [n_samples, n_columns]
    target : ndarray of shape [n_samples] int64, or [n_samples, n_targets]
    n_members, n_folds : int
    seed : int
    min_distinct : int, default=1
        Rows that must differ.

    Returns
    -------
    list of (train, validation), ``n_members`` long; empty where fewer rows differ.
    """
    # Target before columns, so that the classes are in order.
    content = np.column_stack([target.reshape(len(target), -1).astype(np.float64), x])
    distinct, kind = np.unique(content, axis=0, return_inverse=True)
    if len(distinct) < min_distinct:
        return []
    classes = distinct[:, 0] if target.ndim == 1 else np.zeros(len(distinct))
    generator = np.random.default_rng(seed)
    found: list[tuple[Rows, Rows]] = []
    while len(found) < n_members:
        order = generator.permutation(len(distinct))
        # In the order of the classes, and by chance within each, the parts are dealt out in turns.
        order = order[np.argsort(classes[order], kind="stable")]
        part = np.empty(len(distinct), dtype=np.int64)
        part[order] = np.arange(len(distinct)) % n_folds
        for label, count in zip(*np.unique(classes, return_counts=True), strict=True):
            if count == 1:
                part[classes == label] = n_folds
        of_row = part[kind.reshape(-1)]
        found += [(np.flatnonzero(of_row != k), np.flatnonzero(of_row == k)) for k in range(n_folds)]
    return found[:n_members]

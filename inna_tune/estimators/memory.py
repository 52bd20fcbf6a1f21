"""How much memory a fit will take, told before it begins."""

import math
import warnings
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import clone, is_classifier
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples

from inna_tune.engine.calibrating import measured_at_once
from inna_tune.engine.width import free_bytes, total_bytes
from inna_tune.estimators.frames import as_frame
from inna_tune.estimators.member_plan import MemberPlan
from inna_tune.nets import Net

# Rows that the encoder is tried on.
_SAMPLE = 2000

# What a fit takes whatever its table: libraries that it loads, threads, and what their allocators keep.
_FIXED = 80e6
# Numbers of a row while batches are put together: its place in several orders, and what its loss counts.
_BYTES_A_ROW = 48
# The encoded table: itself, what it is made of, and the stretch of it that batches are cut from.
_TABLES = 4
# Of each member: weights, velocity, gradient, average and the best of them; while others are measured, the first of these.
_COPIES, _COPIES_MEANWHILE = 5, 2
# What a step holds of a batch at once, in units of its widest layer; and validation rows, which go through in pieces.
_WIDE, _PIECE_ELEMENTS, _PIECES = 1.3, 2**22, 2
# What a product of the Hessian holds, in copies of the widest layer of these rows and of the weights.
_MEASURED_ROWS, _MEASURED_WIDE, _MEASURED_COPIES = 1024, 1.7, 8
# Where members leave out parts of the rows, equal rows are found by sorting them in double precision.
_SORTED = 4


# So many times the memory that there is, free or not, no fit can have, however wrong the estimate.
_NEVER = 2


class MemoryWarning(UserWarning):
    """What is about to begin takes more memory than is free."""


class _Shape(NamedTuple):
    """Of a table: its rows, the encoder's sections and codes, and bytes of columns that hold no numbers."""

    n_rows: int
    sections: tuple[int, int, int]
    categories: tuple[int, ...]
    other_bytes: float = 0.0


class MemoryMixin:
    """Adds ``estimate_memory`` to an estimator."""

    def estimate_memory(self, X: Any, y: Any = None) -> int:
        """Bytes that a fit takes at its peak, beside those that the process and the table hold already.

        Parameters
        ----------
        X : DataFrame or array of shape [n_samples, n_features], or (n_samples, n_features)
            The table, of which a few rows are encoded; or the shape of one of numbers.
        y : array of shape [n_samples], optional
            Its classes, or targets, are counted; two classes, or one target, are assumed without.

        Returns
        -------
        int
            Of the main memory, where training is on the CPU. Of the tables that were tried, of 200 rows by 5,000 columns to
            20,000 rows by 50, the peak was from 0.78 to 1.16 times as much.

        Raises
        ------
        ValueError
            If a parameter, the table or the shape makes no sense.

        Examples
        --------
        >>> from inna_tune import InnaClassifier
        >>> net = InnaClassifier()
        >>> net.estimate_memory((1_000_000, 20)) > net.estimate_memory((1_000, 20)) > 100_000_000
        True
        """
        estimator: Any = clone(self)
        estimator._check_parameters()
        shape = _of_numbers(X) if isinstance(X, tuple) else _of_table(estimator, X)
        n_outputs = 2 if is_classifier(estimator) else 1
        if y is not None:
            target = estimator._plain_target(y)
            n_outputs = len(np.unique(target)) if is_classifier(estimator) else target[:1].size
        net = estimator._build_net(shape.sections, shape.categories, n_outputs)
        plan = estimator._plan_for(shape.n_rows)
        itemsize = estimator._type_for(shape.n_rows)().itemsize
        width, n_rows = sum(shape.sections), shape.n_rows
        found = _FIXED + shape.other_bytes + n_rows * (_BYTES_A_ROW + _TABLES * width * itemsize)
        found += needed_by_fit(estimator, net, plan, n_rows=n_rows, itemsize=itemsize).peak
        found += _PIECES * itemsize * min(n_rows * net.widest, _PIECE_ELEMENTS)
        if plan.n_folds:
            found += _SORTED * n_rows * (width + 1) * 8
        return int(found)


class Needed(NamedTuple):
    """Bytes that training takes: ``held`` for each of its members, ``measuring`` before it and ``stepping`` meanwhile."""

    held: int
    measuring: int
    stepping: int

    @property
    def peak(self) -> int:
        """The most at any time. Members are measured before they have all that is held."""
        meanwhile = self.held * _COPIES_MEANWHILE // _COPIES
        return max(self.measuring + meanwhile, self.stepping + self.held)


def needed_by_fit(estimator: Any, net: Net, plan: MemberPlan, *, n_rows: int, itemsize: int) -> Needed:
    """What the training of a fit takes, the table not counted.

    Parameters
    ----------
    estimator : estimator
        Its ``batch_size`` counts.
    net : Net
    plan : MemberPlan
        Its members.
    n_rows : int
        That are trained on.
    itemsize : int
        Bytes of a number.
    """
    weights = sum(math.prod(size) for size in net.parameter_shapes.values())
    rows = min(n_rows, _MEASURED_ROWS)
    # Those whom a jury judges are measured as one.
    n_juries = 1 + (plan.n_linear > 0) if plan.n_folds else plan.n_members
    n_measured = min(measured_at_once(net.widest, rows), n_juries)
    measuring = n_measured * (_MEASURED_WIDE * rows * net.widest + _MEASURED_COPIES * weights)
    stepping = _WIDE * min(int(estimator.batch_size), n_rows) * net.widest
    held = plan.n_members * _COPIES * weights
    return Needed(*(int(itemsize * numbers) for numbers in (held, measuring, stepping)))


def warn_of_memory(estimator: Any, net: Net, plan: MemberPlan, *, n_rows: int, itemsize: int) -> None:
    """Warn, before training begins, where it takes more memory than is free; an error where none holds it."""
    refuse_what_never_fits(estimator, net, plan, n_rows=n_rows, itemsize=itemsize)
    needed = needed_by_fit(estimator, net, plan, n_rows=n_rows, itemsize=itemsize)
    say_if_too_large(needed.peak, estimator, plan.n_members, net)


def say_if_too_large(needed: int, estimator: Any, n_members: int, net: Net, *, of: str = "training") -> None:
    """Warn where ``needed`` bytes are more than are free, with what would make them fewer."""
    free = free_bytes(estimator._torch_device())
    if needed <= free:
        return
    warnings.warn(
        f"{of} takes about {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free: the process may be killed. "
        f"What takes less: {_remedies(estimator, n_members, net)}.",
        MemoryWarning,
        stacklevel=5,
    )


def refuse_what_never_fits(estimator: Any, net: Net, plan: MemberPlan, *, n_rows: int, itemsize: int) -> None:
    """Refuse nets that this machine can't hold though nothing else ran, before anything of them is made.

    Raises
    ------
    ValueError
        With what would take less.
    """
    needed = needed_by_fit(estimator, net, plan, n_rows=n_rows, itemsize=itemsize).peak
    whole = total_bytes(estimator._torch_device())
    if needed > _NEVER * whole:
        sizes = f", hidden_layer_sizes={estimator.hidden_layer_sizes!r}" if estimator.module is None else ""
        raise ValueError(
            f"n_members={estimator.n_members!r}{sizes}: training takes about "
            f"{needed / 1e9:.4g} GB of memory, and there are {whole / 1e9:.4g} GB in all. What takes less: "
            f"{_remedies(estimator, plan.n_members, net)}."
        )


def _remedies(estimator: Any, n_members: int, net: Net) -> str:
    fewer = [] if n_members == 1 else ["n_members=1"]
    if estimator.module is None:
        fewer.append(f"a smaller hidden_layer_sizes than {estimator.hidden_layer_sizes!r}")
    fewer.append(
        f"fewer columns (the widest layer has {net.widest:,} numbers a row; the command line's --drop)"
    )
    return ", ".join(fewer)


def _of_numbers(shape: tuple[Any, ...]) -> _Shape:
    are_counts = all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) and n >= 1 for n in shape)
    if len(shape) != 2 or not are_counts:
        raise ValueError(
            f"X={shape!r}: a shape must be two whole numbers of at least 1, the rows and the columns."
        )
    return _Shape(int(shape[0]), (int(shape[1]), 0, 0), ())


def _of_table(estimator: Any, X: Any) -> _Shape:
    """By what an encoder makes of a few rows, as far apart as they can be."""
    rows = X.tocsr() if hasattr(X, "tocsr") else X
    n_rows = _num_samples(rows)
    chosen = np.unique(np.linspace(0, n_rows - 1, min(n_rows, _SAMPLE)).astype(np.int64))
    frame = as_frame(estimator, _safe_indexing(rows, chosen) if n_rows else rows, reset=True)
    encoder = estimator._new_encoder()
    encoder.set_params(embed=encoder.embed and estimator.module is None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the fit will say it
        encoder.fit(frame)
    others = frame.select_dtypes(exclude=["number", "bool"])
    bytes_a_row = others.memory_usage(index=False, deep=True).sum() / len(frame)
    return _Shape(n_rows, encoder.sections, encoder.categories_, 2.0 * float(bytes_a_row) * n_rows)

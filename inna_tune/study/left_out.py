"""A table that a trial is one fit on: each of its nets is scored on the rows that it was trained without."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import clone

from inna_tune.engine import Member
from inna_tune.estimators.base import InnaEstimator
from inna_tune.estimators.columns import Matrix
from inna_tune.estimators.encoded import EncodedTable
from inna_tune.estimators.splitting import Rows
from inna_tune.study.folding import FoldedTable, FoldStack, Part
from inna_tune.study.splits import MEMBERS, NoRowsLeftOutError

Floats = npt.NDArray[np.float64]


class LeftOutTable(FoldedTable):
    """A table in one fold, whose training rows are all rows: encoded, and left out in parts, as `fit` does.

    Parameters and attributes are those of `FoldedTable`. The fold's test rows are all rows, too, and are scored in the parts
    that the members of a trial leave out.
    """

    scores_nets_alone: ClassVar[bool] = True

    def _encoded_test(self, template: InnaEstimator, rows: Any, encoded: EncodedTable) -> Matrix:
        # They are among the training rows already.
        return encoded.x[:0]

    def _name(self, fold: int) -> str:
        return f"the table of {self._n_rows} rows"

    @property
    def _present(self) -> Rows:
        """Rows of the table as it was given that the encoded one has: those of weight zero take part in nothing."""
        weight = self._source[2]
        return np.arange(self._n_rows, dtype=np.int64) if weight is None else np.flatnonzero(weight > 0)

    def members(self, estimator: InnaEstimator, stack: FoldStack) -> Iterator[tuple[int, list[Member]]]:
        """As of `FoldedTable`.

        Raises
        ------
        NoRowsLeftOutError
            If they leave out no rows.
        """
        for k, members in super().members(estimator, stack):
            if not all(len(m.validation_rows) for m in members):
                n_rows = len(self.folds[k].encoded.target)
                raise NoRowsLeftOutError(
                    f"cv={MEMBERS!r}: each net is scored on rows that it was trained without, and with early_stopping="
                    f"{estimator.early_stopping!r} and n_members={estimator.n_members!r} a fit on {n_rows} rows, alike or not, "
                    "trains on all of them. Give folds, such as cv=5."
                )
            yield k, members

    def left_out(self, estimator: InnaEstimator) -> list[Rows]:
        """Rows of the table as it was given that each net of a fit leaves out; raises as `members` does."""
        # Which these are does not depend on what nets begin as.
        estimator = clone(estimator).set_params(linear_path=False)
        return [
            self._present[member.validation_rows - stack.train_start(k)]
            for stack in self.stacks(estimator)
            for k, members in self.members(estimator, stack)
            for member in members
        ]

    def parts(
        self, k: int, stack: FoldStack, members: Sequence[Member], trained: Sequence[int]
    ) -> list[Part]:
        """What a trial is scored on: the rows that each net left out, by itself; of nets without weights where no other is."""
        present, found = self._present, []
        for net in trained or range(len(members)):
            at = members[net].validation_rows
            rows = present[at - stack.train_start(k)]
            encoded = stack.tensors.x[torch.from_numpy(at).to(stack.tensors.x.device)]
            nets = [net] if trained else []
            target = self.folds[k].test_target[rows]
            found.append(Part(k, nets, rows, encoded, *self.cut(rows), target, f"net {net}"))
        return found

    def scored_on(self, rows: Rows) -> FoldedTable:
        """The same table, to be scored on some of the rows alone."""
        found = copy.copy(self)
        found.__dict__.pop("digest", None)
        X, y, weight, ((train, _),), score_params = self._source
        found._source = X, y, weight, [(train, rows)], score_params
        found._stacks = {}
        (fold,) = self.folds
        X_test, y_test, params = self.cut(rows)
        target = fold.test_target[rows]
        found.folds = [replace(fold, X_test=X_test, y_test=y_test, score_params=params, test_target=target)]
        return found


def together(
    n_rows: int, told: Sequence[tuple[Rows, Floats]], of: Callable[[Floats, Rows], npt.NDArray[Any]]
) -> Floats:
    """What nets say together of the rows that each of them left out.

    Parameters
    ----------
    n_rows : int
    told : sequence of (rows, outputs)
        By net: rows in ascending order, and its outputs for them, [n, out].
    of : callable
        What outputs [P, n, out] of nets for rows [n] come to, [n, ...].

    Returns
    -------
    ndarray of float64, shape [n_rows, ...]
        NaN for rows that no net left out.
    """
    left_out = np.zeros((n_rows, len(told)), dtype=bool)
    for net, (rows, _) in enumerate(told):
        left_out[rows, net] = True
    kinds, kind = np.unique(left_out, axis=0, return_inverse=True)
    found: Floats | None = None
    for i, nets in enumerate(kinds):
        if not nets.any():
            continue
        rows = np.flatnonzero(kind.reshape(-1) == i)
        own = [each for each, is_one in zip(told, nets, strict=True) if is_one]
        raw = [outputs[np.searchsorted(left_out_by, rows)] for left_out_by, outputs in own]
        values = of(np.stack(raw), rows)
        if found is None:
            found = np.full((n_rows, *values.shape[1:]), np.nan)
        found[rows] = values
    assert found is not None, "some net leaves out some row"
    return found

"""Scores of settings on the folds: all folds of all trials in hand train as one population."""

import hashlib
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from sklearn.base import clone, is_classifier
from torch import Tensor

from inna_tune.engine import Member, MemberProgress, TableTensors, outputs
from inna_tune.engine.width import torch_threads
from inna_tune.estimators.base import InnaEstimator
from inna_tune.estimators.columns import Matrix
from inna_tune.estimators.encoded import EncodedTable
from inna_tune.estimators.splitting import Rows
from inna_tune.nets import Net
from inna_tune.study.routing import of_rows
from inna_tune.study.scoring import PredictedClassifier, PredictedRegressor, Scorer, quick_loss, rung_score


@dataclass(frozen=True)
class Fold:
    """One fold, encoded from its own training rows only.

    Attributes
    ----------
    estimator : InnaEstimator
        Holds the encoder and the target's scale that were fitted on the training rows.
    encoded : EncodedTable
        The training rows.
    train_start, test_start, test_end : int
        Where the training rows, and the test rows, begin in the table of all folds, and where the latter end.
    X_test, y_test, score_params
        What the scorer sees.
    """

    estimator: InnaEstimator
    encoded: EncodedTable
    train_start: int
    test_start: int
    test_end: int
    X_test: pd.DataFrame
    y_test: Any
    score_params: dict[str, Any]

    @cached_property
    def test_target(self) -> npt.NDArray[Any]:
        """Targets of the test rows as `rung_score` takes them: places of the classes, or values."""
        target = np.asarray(self.y_test)
        classes = getattr(self.estimator, "classes_", None)
        return target.astype(np.float64) if classes is None else np.searchsorted(classes, target)


class FoldedTable:
    """A table, encoded once for every fold and laid one below the other.

    Parameters
    ----------
    estimator : InnaEstimator
        Unfitted; every fold gets a clone.
    X : DataFrame
    y : array or Series of shape [n_samples]
    sample_weight : ndarray of shape [n_samples] or None
    splits : sequence of (train, test) index arrays
    score_params : dict, optional
        What the scorer gets beside rows and labels, such as weights.
    before_fold : callable, optional
        Called with the number of each fold before it is encoded; what it raises comes out.

    Attributes
    ----------
    folds : list of Fold
    sections : tuple of three int
        Widths of the sections of a table that is wide enough for every fold: numbers, other floats, codes.
    categories : tuple of int
        Numbers of codes that are enough for every fold.
    out_features : int
        Of the nets.
    tensors : TableTensors
        All folds' rows; narrower folds are filled up with zeros, section by section.
    measured : dict
        What has been found out of the table and takes time, such as the curvature.
    """

    def __init__(
        self,
        estimator: InnaEstimator,
        X: pd.DataFrame,
        y: Any,
        sample_weight: Any,
        splits: Sequence[tuple[Rows, Rows]],
        score_params: dict[str, Any] | None = None,
        *,
        before_fold: Callable[[int], None] | None = None,
    ) -> None:
        classes = np.unique(y) if is_classifier(estimator) else None
        labels = y.to_numpy() if hasattr(y, "to_numpy") else np.asarray(y)
        parts: list[Matrix] = []
        targets: list[npt.NDArray[Any]] = []
        weights: list[npt.NDArray[np.float64]] = []
        self.folds: list[Fold] = []
        start = 0
        for number, (train, test) in enumerate(splits):
            if before_fold is not None:
                before_fold(number)
            template = cast("InnaEstimator", clone(estimator))
            weight = None if sample_weight is None else sample_weight[train]
            encoded = template._encode_for_fit(X.iloc[train], labels[train], weight)
            if classes is not None:
                # A fold may lack a rare class; its nets still have an output for it, so that the folds stack.
                encoded.target = np.searchsorted(classes, cast("Any", template).classes_)[encoded.target]
                cast("Any", template).classes_ = classes
            x_test = template.encoder_.encode(X.iloc[test], encoded.x.dtype.type)
            n_train, n_test = len(encoded.x), len(x_test)
            self.folds.append(
                Fold(
                    template,
                    encoded,
                    start,
                    start + n_train,
                    start + n_train + n_test,
                    X.iloc[test],
                    labels[test],
                    of_rows(score_params or {}, test, len(X)),
                )
            )
            parts += [encoded.x, x_test]
            targets += [encoded.target, np.zeros((n_test, *encoded.target.shape[1:]), encoded.target.dtype)]
            weights += [np.ones(n_train) if encoded.weight is None else encoded.weight, np.ones(n_test)]
            start += n_train + n_test
        first = self.folds[0].estimator
        own = [fold.estimator.encoder_.sections for fold in self.folds]
        self.sections = (max(s[0] for s in own), max(s[1] for s in own), max(s[2] for s in own))
        coded = [fold.estimator.encoder_.categories_ for fold in self.folds]
        self.categories = tuple(max(codes) for codes in zip_longest(*coded, fillvalue=1))
        # float64 where every fold, fitted alone, would train in it; else one type that serves all.
        dtype = np.float64 if all(f.encoded.x.dtype == np.float64 for f in self.folds) else np.float32
        x: Matrix = np.zeros((start, sum(self.sections)), dtype=dtype)
        begins = np.cumsum([0, *self.sections])
        row = 0
        for part, widths in zip(parts, (w for w in own for _ in ("training", "test")), strict=True):
            ends = np.cumsum(widths)
            for begin, end, width in zip(begins, ends, widths, strict=False):
                x[row : row + len(part), begin : begin + width] = part[:, end - width : end]
            row += len(part)
        weighted = any(f.encoded.weight is not None for f in self.folds)
        everything = EncodedTable(x, np.concatenate(targets), np.concatenate(weights) if weighted else None)
        self.tensors: TableTensors = everything.tensors(first._torch_device())
        self.out_features = first._out_features
        self._nets: dict[Hashable, Net] = {}
        self.measured: dict[Hashable, dict[str, float]] = {}

    @cached_property
    def digest(self) -> str:
        """Of all that training sees of the table: other rows, folds, weights or encoders give another one."""
        found = hashlib.blake2b(digest_size=16)
        for tensor in (self.tensors.x, self.tensors.target, self.tensors.weight):
            if tensor is not None:
                found.update(f"{tensor.dtype} {list(tensor.shape)}".encode())
                found.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        places = [(f.train_start, f.test_start, f.test_end) for f in self.folds]
        found.update(repr((places, self.sections, self.categories, self.out_features)).encode())
        return found.hexdigest()

    def test_rows(self, fold: int) -> Tensor:
        """Encoded test rows of a fold, a view [n_test, in_features]."""
        place = self.folds[fold]
        return self.tensors.x[place.test_start : place.test_end]

    def net_for(self, estimator: InnaEstimator) -> Net:
        """The net of a trial's settings, the same one for trials whose nets are alike."""
        key = estimator._population_key()
        if key not in self._nets:
            self._nets[key] = estimator._build_net(self.sections, self.categories, self.out_features)
        return self._nets[key]

    def members(self, estimator: InnaEstimator) -> list[Member]:
        """The members that train one trial: fold by fold, ``n_members`` each.

        They are those that ``estimator.fit`` would train on each fold.
        """
        members = []
        for fold in self.folds:
            seed, *member_seeds = estimator._seeds()
            train, validation = estimator._split(fold.encoded.target, fold.encoded.weight, seed)
            for member_seed in member_seeds:
                members.append(
                    estimator._member(
                        train + fold.train_start,
                        validation + fold.train_start,
                        member_seed,
                        used_features=fold.estimator.encoder_.sections[:2],
                    )
                )
        return members


class Cohort:
    """Trials that train together; they share architecture, batch size and epochs.

    Parameters
    ----------
    table : FoldedTable
    estimators : sequence of InnaEstimator
        One a trial, with its settings and a whole number as ``random_state``.
    progress : sequence of lists of MemberProgress, optional
        What `progress` gave for each trial, to go on with their training.
    """

    def __init__(
        self,
        table: FoldedTable,
        estimators: Sequence[InnaEstimator],
        progress: Sequence[Sequence[MemberProgress]] | None = None,
    ) -> None:
        self.table = table
        self.n_members = estimators[0].n_members
        self._per_trial = self.n_members * len(table.folds)
        members = [m for e in estimators for m in table.members(e)]
        # Stacked, even where there is but one, so that a trial's scores do not depend on its company in one bit.
        self.training = estimators[0]._training(
            table.tensors,
            members,
            table.net_for(estimators[0]),
            stacked=True,
            progress=None if progress is None else [p for trial in progress for p in trial],
        )

    @property
    def epoch(self) -> int:
        """Epochs done by those that still train."""
        return self.training.epoch

    def _members(self, trial: int) -> range:
        return range(trial * self._per_trial, (trial + 1) * self._per_trial)

    def run(
        self,
        until_epoch: int | None = None,
        *,
        deadline: float | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> None:
        """Train up to an epoch (all to their ends by default), a deadline, or until ``stop`` says so."""
        self.training.run(until_epoch, deadline=deadline, stop=stop)

    def rows_an_epoch(self) -> int:
        """Rows that the nets which still train see in an epoch, all of them together."""
        members = self.training.members
        return sum(len(members[m].train_rows) for m in self.training.active)

    def progress(self, trial: int) -> list[MemberProgress]:
        """How far the members of a trial are."""
        return [self.training.progress(m) for m in self._members(trial)]

    def is_active(self, trial: int) -> bool:
        """Whether any member of the trial still trains."""
        active = set(self.training.active)
        return any(m in active for m in self._members(trial))

    def drop(self, trials: Iterable[int]) -> None:
        """Take trials out."""
        self.training.drop(m for t in trials for m in self._members(t))

    def diverged(self, trial: int) -> bool:
        """Whether some fold of the trial has no member with finite weights, and so no score."""
        return any(all(w is None for w in weights) for weights in self._fold_weights(trial))

    def _fold_weights(self, trial: int) -> list[list[Tensor | None]]:
        weights = [self.training.best_weights(m) for m in self._members(trial)]
        return [weights[i : i + self.n_members] for i in range(0, len(weights), self.n_members)]

    def scores(self, trial: int, scorer: Scorer, *, final: bool = True) -> list[float]:
        """Score of every fold's test rows with the best weights so far; higher is better, NaN where there are none.

        ``final=False`` computes outputs in float32, in half the time: exact enough to compare trials at a rung.
        """
        found = []
        for k, (fold, weights) in enumerate(zip(self.table.folds, self._fold_weights(trial), strict=True)):
            finite = [w for w in weights if w is not None]
            if not finite:
                found.append(float("nan"))
                continue
            stacked = torch.stack(finite)
            # NOTE: a copy, since products round by how the memory is aligned, and a part of a table begins anywhere.
            rows = self.table.test_rows(k).clone()
            if final:
                stacked, rows = stacked.double(), rows.double()
            with torch_threads(self.training.threads):
                raw = outputs(self.training.net, stacked, rows).double().cpu().numpy()
            predicted = fold.estimator._from_outputs(raw)
            kind = None if final else quick_loss(scorer)
            if kind is not None and set(fold.score_params) <= {"sample_weight"}:
                found.append(
                    rung_score(kind, predicted, fold.test_target, fold.score_params.get("sample_weight"))
                )
                continue
            model: Any
            if hasattr(fold.estimator, "classes_"):
                model = PredictedClassifier(predicted, fold.estimator.classes_)
            else:
                model = PredictedRegressor(predicted)
            found.append(float(scorer(model, fold.X_test, fold.y_test, **fold.score_params)))
        return found

    def results(self, trial: int) -> list[Any]:
        """The members' results, fold by fold."""
        return [self.training.results[m] for m in self._members(trial)]

"""A table, cut into folds: each is encoded as `fit` would encode its training rows, and those that can are stacked."""

import copy
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import clone, is_classifier
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing
from torch import Tensor

from inna_tune.engine import Member, TableTensors
from inna_tune.estimators.base import InnaEstimator
from inna_tune.estimators.columns import Matrix
from inna_tune.estimators.encoded import EncodedTable
from inna_tune.estimators.frames import as_frame
from inna_tune.estimators.member_plan import MemberPlan
from inna_tune.estimators.memory import refuse_what_never_fits
from inna_tune.estimators.splitting import Rows
from inna_tune.nets import Net
from inna_tune.study.routing import of_rows
from inna_tune.study.tuned import as_ours, encoding_key, fit_steps, steps_before

# Encodings of the same table that are kept for later trials, besides the first.
_KEPT_BYTES = 2**30


class FoldError(ValueError):
    """A fold can't be encoded; the message says which one, and why."""


@dataclass(frozen=True)
class Part:
    """Rows that one of a trial's scores is of, and who of its nets predicts them.

    Attributes
    ----------
    fold : int
    nets : sequence of int
        Places among the fold's members that have weights.
    rows : ndarray of int64
        Of the table as it was given.
    encoded : Tensor of shape [n, in_features]
        The same rows.
    X, y, score_params
        What a scorer that is known to change nothing sees of them.
    target : ndarray
        As `Fold.test_target`.
    words : str
        What a message calls it.
    """

    fold: int
    nets: Sequence[int]
    rows: Rows
    encoded: Tensor
    X: Any
    y: Any
    score_params: dict[str, Any]
    target: npt.NDArray[Any]
    words: str


@dataclass(frozen=True)
class Fold:
    """One fold, encoded from its own training rows only.

    Attributes
    ----------
    before : Pipeline or None
        Transformers of a pipeline, fitted to the training rows.
    estimator : InnaEstimator
        Holds the encoder, the labels and the target's scale that were fitted on the training rows.
    encoded : EncodedTable
        The training rows.
    x_test : ndarray of shape [n_test, n_columns]
        The test rows.
    X_test, y_test, score_params
        What a scorer that is known to change nothing sees.
    test_target : ndarray
        Targets of the test rows as `rung_score` takes them: places among all classes, or values.
    """

    before: Pipeline | None
    estimator: InnaEstimator
    encoded: EncodedTable
    x_test: Matrix
    X_test: Any
    y_test: Any
    score_params: dict[str, Any]
    test_target: npt.NDArray[Any]

    def whole(self, model: InnaEstimator) -> Any:
        """What a scorer sees of a fitted net: itself, or the pipeline that ends in it."""
        if self.before is None:
            return model
        return Pipeline([*copy.deepcopy(self.before).steps, ("net", model)])

    @cached_property
    def fitted(self) -> dict[str, Any]:
        """What encoding has fitted, by name of the attribute."""
        settings = self.estimator.get_params(deep=False)
        own = vars(self.estimator).items()
        return {name: value for name, value in own if name not in settings and not name.startswith("_skl_")}


class FoldStack:
    """Folds whose nets are of one shape, laid one below the other in one table.

    Parameters
    ----------
    folds : mapping of int to Fold
        By their numbers.

    Attributes
    ----------
    folds : tuple of int
    sections : tuple of three int
        Widths of the sections of a table that is wide enough for each: numbers, other floats, codes.
    categories : tuple of int
        Numbers of codes.
    out_features : int
    tensors : TableTensors
        All rows; narrower folds are filled up with zeros, section by section.
    """

    def __init__(self, folds: dict[int, Fold]) -> None:
        self.folds = tuple(folds)
        first = next(iter(folds.values()))
        own = [fold.estimator.encoder_.sections for fold in folds.values()]
        self.sections = (max(s[0] for s in own), max(s[1] for s in own), max(s[2] for s in own))
        self.categories = first.estimator.encoder_.categories_
        self.out_features = first.estimator._out_features
        n_rows = sum(len(f.encoded.x) + len(f.x_test) for f in folds.values())
        x: Matrix = np.zeros((n_rows, sum(self.sections)), dtype=first.encoded.x.dtype)
        begins = np.cumsum([0, *self.sections])
        self._starts: dict[int, tuple[int, int, int]] = {}
        targets: list[npt.NDArray[Any]] = []
        weights: list[npt.NDArray[np.float64]] = []
        row = 0
        for (k, fold), widths in zip(folds.items(), own, strict=True):
            n_train, n_test, target = len(fold.encoded.x), len(fold.x_test), fold.encoded.target
            self._starts[k] = row, row + n_train, row + n_train + n_test
            for part in (fold.encoded.x, fold.x_test):
                for begin, end, width in zip(begins, np.cumsum(widths), widths, strict=False):
                    x[row : row + len(part), begin : begin + width] = part[:, end - width : end]
                row += len(part)
            targets += [target, np.zeros((n_test, *target.shape[1:]), target.dtype)]
            weight = fold.encoded.weight
            weights += [np.ones(n_train) if weight is None else weight, np.ones(n_test)]
        weighted = any(f.encoded.weight is not None for f in folds.values())
        everything = EncodedTable(x, np.concatenate(targets), np.concatenate(weights) if weighted else None)
        self.tensors: TableTensors = everything.tensors(first.estimator._torch_device())
        self._nets: dict[Hashable, Net] = {}

    def train_start(self, fold: int) -> int:
        """Where the training rows of a fold begin."""
        return self._starts[fold][0]

    def test_rows(self, fold: int) -> Tensor:
        """Encoded test rows of a fold, a view [n_test, in_features]."""
        _, start, end = self._starts[fold]
        return self.tensors.x[start:end]

    def net_for(self, estimator: InnaEstimator) -> Net:
        """The net of a trial's settings, the same one for trials whose nets are alike."""
        key = estimator._population_key()
        if key not in self._nets:
            self._nets[key] = estimator._build_net(self.sections, self.categories, self.out_features)
        return self._nets[key]


@dataclass
class _Tables:
    """The tables of one data set, by what they were encoded by; those that were not used for longest go first."""

    by_key: OrderedDict[Hashable, "FoldedTable"] = field(default_factory=OrderedDict)
    lock: Any = field(default_factory=threading.Lock)

    def __reduce__(self) -> Any:
        # Another process encodes for itself what it needs.
        return _Tables, ()

    def find(self, key: Hashable) -> "FoldedTable | None":
        with self.lock:
            if key in self.by_key:
                self.by_key.move_to_end(key)
            return self.by_key.get(key)

    def keep(self, key: Hashable, table: "FoldedTable") -> None:
        with self.lock:
            self.by_key[key] = table
            while len(self.by_key) > 1 and sum(t.nbytes for t in self.by_key.values()) > _KEPT_BYTES:
                self.by_key.popitem(last=False)


class FoldedTable:
    """A table, encoded for every fold as a separate fit on its training rows would.

    Parameters
    ----------
    estimator : InnaEstimator, or Pipeline that ends in one
        Unfitted; every fold gets a clone, of the pipeline's transformers too.
    X : DataFrame or array of shape [n_samples, n_features]
    y : array, Series or DataFrame of shape [n_samples] or [n_samples, n_targets]
    sample_weight : ndarray of shape [n_samples] or None
    splits : sequence of (train, test) index arrays
    score_params : dict, optional
        What the scorer gets beside rows and labels, such as weights.
    before_fold : callable, optional
        Called with the number of each fold before it is encoded; what it raises comes out.

    Attributes
    ----------
    folds : list of Fold
    classes : ndarray or None
        All labels, of which a fold may lack some.
    measured : dict
        What has been found out of the table and takes time, such as the curvature.
    scores_nets_alone : bool
        Whether every net of a trial is scored by itself.

    Raises
    ------
    FoldError
        If a fold can't be encoded.
    """

    scores_nets_alone: ClassVar[bool] = False

    def __init__(
        self,
        estimator: Any,
        X: Any,
        y: Any,
        sample_weight: Any,
        splits: Sequence[tuple[Rows, Rows]],
        score_params: dict[str, Any] | None = None,
        *,
        before_fold: Callable[[int], None] | None = None,
    ) -> None:
        self.key = encoding_key(estimator)
        self.classes = (
            np.unique(clone(as_ours(estimator))._plain_target(y)) if is_classifier(estimator) else None
        )
        self._source = X, y, sample_weight, splits, score_params
        self._n_rows = len(y)
        self._others = _Tables()
        self._stacks: dict[Hashable, list[FoldStack]] = {}
        self.measured: dict[Hashable, dict[str, float]] = {}
        self.folds: list[Fold] = []
        for k in range(len(splits)):
            if before_fold is not None:
                before_fold(k)
            self.folds.append(self._fold(k, estimator))

    def _fold(self, k: int, estimator: Any) -> Fold:
        X, y, sample_weight, splits, _ = self._source
        train, _ = splits[k]
        template, before = cast("InnaEstimator", clone(as_ours(estimator))), steps_before(estimator)
        X_test, y_test, params = self.test_part(k)
        try:
            weight = None if sample_weight is None else sample_weight[train]
            rows, target, rows_test = _safe_indexing(X, train), _safe_indexing(y, train), X_test
            if before is not None:
                rows = fit_steps(before, rows, target, weight)
                rows_test = before.transform(X_test)
            encoded = template._encode_for_fit(rows, target, weight)
            x_test = self._encoded_test(template, rows_test, encoded)
        except (ValueError, TypeError) as error:
            raise FoldError(f"{self._name(k)}: {error}") from error
        except Exception as error:
            error.add_note(f"while {self._name(k)} was encoded")
            raise
        target = clone(as_ours(estimator))._plain_target(y_test)
        if self.classes is not None:
            target = np.searchsorted(self.classes, target)
        return Fold(before, template, encoded, x_test, X_test, y_test, params, target)

    def _encoded_test(self, template: InnaEstimator, rows: Any, encoded: EncodedTable) -> Matrix:
        """The test rows of a fold, whose encoder a template has."""
        return template.encoder_.encode(as_frame(template, rows, reset=False), encoded.x.dtype.type)

    def _name(self, fold: int) -> str:
        train, test = self._source[3][fold]
        return f"fold {fold}, of {len(train)} training and {len(test)} test rows"

    def __getstate__(self) -> dict[str, Any]:
        # Stacks are copies of the folds, quicker made than sent to another process.
        return self.__dict__ | {"_stacks": {}}

    def test_part(self, fold: int, given: Mapping[str, Any] | None = None) -> tuple[Any, Any, dict[str, Any]]:
        """Rows, labels and the rest that the scorer gets of a fold, cut out anew: the scorer may change them.

        ``given`` is the rest of all rows, where it is not what the table was made with.
        """
        return self.cut(self._source[3][fold][1], given)

    def cut(self, rows: Rows, given: Mapping[str, Any] | None = None) -> tuple[Any, Any, dict[str, Any]]:
        """Some rows, as `test_part` gives those of a fold."""
        X, y, _, _, score_params = self._source
        return (
            _safe_indexing(X, rows),
            _safe_indexing(y, rows),
            of_rows(dict((score_params if given is None else given) or {}), rows, self._n_rows),
        )

    def parts(
        self, k: int, stack: FoldStack, members: Sequence[Member], trained: Sequence[int]
    ) -> list[Part]:
        """What a trial is scored on of fold k: its test rows, by those of its members, in places of them, that are trained."""
        fold = self.folds[k]
        own = fold.X_test, fold.y_test, fold.score_params, fold.test_target
        return [Part(k, trained, self._source[3][k][1], stack.test_rows(k), *own, f"fold {k}")]

    def test_weight(self, fold: int) -> npt.NDArray[np.float64] | None:
        """Training's weights of the test rows of a fold, where there are such."""
        _, _, weight, splits, _ = self._source
        return None if weight is None else np.asarray(weight[splits[fold][1]], dtype=np.float64)

    def is_of(self, estimator: Any, *asked: Any) -> bool:
        """Whether it is the table that these arguments would make."""
        own = zip(self._source, asked, strict=True)
        return self.key == encoding_key(estimator) and all(_is_same(one, other) for one, other in own)

    def encoded_for(self, estimator: Any) -> "FoldedTable":
        """The same rows and folds, encoded for an estimator of other settings; once for all that encode alike.

        Raises
        ------
        FoldError
            If a fold can't be encoded.
        """
        key = encoding_key(estimator)
        if key == self.key:
            return self
        found = self._others.find(key)
        if found is None:
            found = type(self)(estimator, *self._source)
            self._others.keep(key, found)
        return found

    @property
    def nbytes(self) -> int:
        """Memory of the encoded rows, which are held by the folds and in stacks."""
        return 2 * sum(f.encoded.x.nbytes + f.x_test.nbytes for f in self.folds)

    def stacks(self, estimator: InnaEstimator) -> list[FoldStack]:
        """The folds, stacked as far as this leaves an estimator's training as it is; the first holds fold 0."""
        exact = not estimator._may_be_padded
        plans = tuple(self.plan_for(estimator, k) for k in range(len(self.folds)))
        if (exact, plans) not in self._stacks:
            alike: dict[Hashable, dict[int, Fold]] = {}
            for k, fold in enumerate(self.folds):
                encoder = fold.estimator.encoder_
                kind = fold.encoded.x.dtype, fold.estimator._out_features, encoder.categories_, plans[k]
                alike.setdefault((kind, encoder.sections if exact else None), {})[k] = fold
            given = [tuple(folds) for folds in alike.values()]
            same = [s for s in self._stacks.values() if [stack.folds for stack in s] == given]
            # Where all folds are equally wide there is but one way to stack them.
            self._stacks[exact, plans] = same[0] if same else [FoldStack(folds) for folds in alike.values()]
        return self._stacks[exact, plans]

    def plan_for(self, estimator: InnaEstimator, fold: int) -> MemberPlan:
        """What an estimator's number of members comes to on the training rows of a fold."""
        return estimator._plan_for(len(self.folds[fold].encoded.target))

    @cached_property
    def digest(self) -> str:
        """Of all that training sees of the table: other rows, folds, weights or encoders give another one."""
        found = hashlib.blake2b(digest_size=16)
        for fold in self.folds:
            encoder, own = fold.estimator.encoder_, fold.encoded
            shape = (len(own.x), len(fold.x_test), encoder.sections, encoder.categories_)
            found.update(repr((shape, fold.estimator._out_features, str(own.x.dtype))).encode())
            for array in (own.x, fold.x_test, own.target, own.weight):
                if array is not None:
                    found.update(repr((str(array.dtype), array.shape)).encode())
                    found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        return found.hexdigest()

    def members(self, estimator: InnaEstimator, stack: FoldStack) -> Iterator[tuple[int, list[Member]]]:
        """The members that train one trial on the folds of a stack, fold by fold, as many in each as the plan says.

        They are those that ``estimator.fit`` would train on each fold.
        """
        for k in stack.folds:
            fold, plan = self.folds[k], self.plan_for(estimator, k)
            # A clone's, since a generator of numbers given as random_state is to be in the same place for every fold.
            own = cast("InnaEstimator", clone(estimator))
            used = fold.estimator.encoder_.sections[:2]
            refuse_what_never_fits(
                own,
                stack.net_for(own),
                plan,
                n_rows=len(fold.encoded.target),
                itemsize=stack.tensors.x.element_size(),
            )
            yield k, own._members_for(fold.encoded, plan, row=stack.train_start(k), used_features=used)

    def tensor_sizes(self, estimator: InnaEstimator) -> list[list[int]]:
        """Numbers in each tensor of the net of each member of a trial, fold by fold."""
        found: dict[int, list[int]] = {}
        for stack in self.stacks(estimator):
            sizes = [int(np.prod(s)) for s in stack.net_for(estimator).parameter_shapes.values()]
            found |= dict.fromkeys(stack.folds, sizes)
        return [
            found[k] for k in range(len(self.folds)) for _ in range(self.plan_for(estimator, k).n_members)
        ]


def _is_same(one: Any, other: Any) -> bool:
    """Whether two arguments of a table are alike to the last bit; where that is not easily said, they are not."""
    if isinstance(one, pd.DataFrame | pd.Series):
        return type(one) is type(other) and one.equals(other)
    if isinstance(one, np.ndarray):
        return isinstance(other, np.ndarray) and one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(_is_same(a, b) for a, b in zip(one, other, strict=True))
    return one is other or (isinstance(one, dict) and not one and other == {})


def sliceable(X: Any, frame: Any) -> Any:
    """A table that scikit-learn can cut into rows: the one given, or else the DataFrame made of it."""
    if hasattr(X, "tocsr"):
        return X.tocsr()
    try:
        _safe_indexing(X, np.arange(1))
    except Exception:  # whatever a container of somebody else's raises
        return frame
    return X

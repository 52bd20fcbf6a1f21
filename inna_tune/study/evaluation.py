"""Scores of settings on the folds: all folds of all trials in hand train as one population."""

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import clone
from torch import Tensor

from inna_tune.engine import Member, MemberProgress, MemberResult, Training, outputs
from inna_tune.engine.members import who_counts
from inna_tune.engine.threads import torch_threads
from inna_tune.estimators import InnaClassifier, InnaRegressor
from inna_tune.estimators.base import RETRIES, InnaEstimator
from inna_tune.nets import TabularNet
from inna_tune.records.attributes import NETS
from inna_tune.records.functions import is_of_library
from inna_tune.study.folding import Fold, FoldedTable, FoldStack, Part
from inna_tune.study.left_out import together
from inna_tune.study.scoring import (
    PredictedClassifier,
    Scorer,
    UndefinedScoreError,
    as_number,
    describe_scorer,
    of_all_classes,
    quick_loss,
    rung_score,
    sees_predictions_only,
)

_NAMED = 5  # folds that a message names


@dataclass
class _Cell:
    """One trial on one fold: its members, and the training they are in."""

    stack: FoldStack
    members: list[Member]
    training: Training
    places: range
    retries: int = 0

    @property
    def results(self) -> list[MemberResult]:
        found = self.training.results
        return [found[place] for place in self.places]

    @property
    def weights(self) -> dict[int, Tensor]:
        """Best weights so far of the members that count, by their places among its members."""
        found = [self.training.best_weights(place) for place in self.places]
        counts = who_counts(self.results, (w is not None for w in found))
        return {i: w for i, w in enumerate(found) if w is not None and counts[i]}


def _of_fold(
    table: FoldedTable, estimator: InnaEstimator, progress: Sequence[MemberProgress], fold: int
) -> Sequence[MemberProgress]:
    """The part of a trial's members, fold by fold, that is a fold's."""
    counts = [table.plan_for(estimator, k).n_members for k in range(fold + 1)]
    return progress[sum(counts[:fold]) : sum(counts)]


class Cohort:
    """Trials that train together; they share architecture, batch size, epochs, and how tables are encoded.

    Parameters
    ----------
    table : FoldedTable
        Encoded for these estimators, see `FoldedTable.encoded_for`.
    estimators : sequence of InnaEstimator
        One a trial, with its settings and a whole number as ``random_state``.
    progress : sequence of lists of MemberProgress, optional
        What `progress` gave for each trial, to go on with their training.
    retries : sequence of lists of int, optional
        What `retries` gave for each trial.
    n_begun : sequence of int, optional
        On how many folds each trial begins, the first ones; None: on all. `begin_rest` begins the others.
    deadline : float, optional
        Value of `inna_tune.clock` by which all has to be trained; see `Training`.

    Notes
    -----
    Folds whose nets differ in shape, such as those that lack a class, train in turns, epoch by epoch.
    """

    def __init__(
        self,
        table: FoldedTable,
        estimators: Sequence[InnaEstimator],
        progress: Sequence[Sequence[MemberProgress]] | None = None,
        retries: Sequence[Sequence[int]] = (),
        n_begun: Sequence[int] | None = None,
        deadline: float | None = None,
    ) -> None:
        self._deadline = deadline
        self.table, self._estimators = table, list(estimators)
        self._cells: dict[tuple[int, int], _Cell] = {}
        self._trainings: list[Training] = []
        n_folds = len(table.folds)
        begun = [n_folds] * len(self._estimators) if n_begun is None else n_begun
        self._begin({t: range(n) for t, n in enumerate(begun)}, progress, retries)

    def _begin(
        self,
        folds: Mapping[int, range],
        progress: Sequence[Sequence[MemberProgress]] | None = None,
        retries: Sequence[Sequence[int]] = (),
    ) -> None:
        """Begin trials, by their places, on folds of theirs."""
        table, estimators = self.table, self._estimators
        for stack in table.stacks(estimators[0]):
            wanted = [
                (t, k, members)
                for t, own in folds.items()
                if not set(own).isdisjoint(stack.folds)
                for k, members in table.members(estimators[t], stack)
                if k in own
            ]
            if not wanted:
                continue
            plan = table.plan_for(estimators[0], stack.folds[0])
            known = None
            if progress is not None:
                known = [p for t, k, _ in wanted for p in _of_fold(table, estimators[t], progress[t], k)]
            training = self._train(stack, [members for *_, members in wanted], plan.max_epochs, known)
            for i, (t, k, members) in enumerate(wanted):
                places = range(i * plan.n_members, (i + 1) * plan.n_members)
                begun_anew = retries[t][k] if retries and retries[t] else 0
                self._cells[t, k] = _Cell(stack, members, training, places, begun_anew)

    def n_begun(self, trial: int) -> int:
        """On how many folds a trial has begun."""
        return len(self._of(trial))

    def has_begun_all(self, trial: int) -> bool:
        """Whether a trial has begun on every fold."""
        return self.n_begun(trial) == len(self.table.folds)

    def begin_rest(self, trials: Iterable[int]) -> None:
        """Begin trials on the folds that they have not begun on."""
        n_folds = len(self.table.folds)
        self._begin({t: range(self.n_begun(t), n_folds) for t in trials})

    def _train(
        self,
        stack: FoldStack,
        members: Iterable[Sequence[Member]],
        max_epochs: int,
        progress: Sequence[MemberProgress] | None = None,
    ) -> Training:
        estimator = self._estimators[0]
        # Stacked, even where there is but one, so that a trial's scores do not depend on its company in one bit.
        training = estimator._training(
            stack.tensors,
            [m for own in members for m in own],
            stack.net_for(estimator),
            stacked=True,
            progress=progress,
            max_epochs=max_epochs,
            deadline=self._deadline,
        )
        self._trainings.append(training)
        return training

    def _of(self, trial: int) -> list[_Cell]:
        folds = range(len(self.table.folds))
        return [self._cells[trial, k] for k in folds if (trial, k) in self._cells]

    @property
    def last_epoch(self) -> int:
        """At which the last of them ends."""
        return max(training.max_epochs for training in self._trainings)

    @property
    def epoch(self) -> int:
        """Epochs done by those that still train."""
        return min((t.epoch for t in self._trainings if t.active), default=self.last_epoch)

    @property
    def n_active(self) -> int:
        """Members that still train."""
        return sum(len(training.active) for training in self._trainings)

    def run(
        self,
        until_epoch: int | None = None,
        *,
        deadline: float | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> None:
        """Train up to an epoch (all to their ends by default), a deadline, or until ``stop`` says so."""
        until = self.last_epoch if until_epoch is None else min(until_epoch, self.last_epoch)
        while True:
            # In turns, so that a deadline or a stop finds all equally far.
            while (behind := [t for t in self._trainings if t.active and t.epoch < until]) and not (
                stop is not None and stop()
            ):
                epoch = min(t.epoch for t in behind) + 1
                for training in behind:
                    training.run(epoch, deadline=deadline)
            if behind or not self._retry():
                return

    def _retry(self) -> bool:
        """As `fit` does, let those whose automatic step size diverged begin anew with a quarter of it."""
        found: dict[int, list[tuple[_Cell, list[Member]]]] = {}
        for (trial, _), cell in self._cells.items():
            if cell.retries < RETRIES:
                members = self._estimators[trial]._retried(cell.members, cell.results)
                if members:
                    found.setdefault(id(cell.stack), []).append((cell, members))
        for cells in found.values():
            first = cells[0][0]
            training = self._train(first.stack, [m for _, m in cells], first.training.max_epochs)
            start = 0
            for cell, members in cells:
                cell.members, cell.training, cell.retries = members, training, cell.retries + 1
                cell.places = range(start, start + len(members))
                start += len(members)
        return bool(found)

    def rows_an_epoch(self) -> int:
        """Rows that the nets which still train see in an epoch, all of them together."""
        return sum(len(t.members[m].train_rows) for t in self._trainings for m in t.active)

    def progress(self, trial: int) -> list[MemberProgress]:
        """How far the members of a trial are, fold by fold."""
        return [cell.training.progress(place) for cell in self._of(trial) for place in cell.places]

    def retries(self, trial: int) -> list[int]:
        """How often each fold of a trial began anew with a shorter step."""
        return [cell.retries for cell in self._of(trial)]

    def is_active(self, trial: int) -> bool:
        """Whether any member of the trial still trains."""
        return any(not set(cell.places).isdisjoint(cell.training.active) for cell in self._of(trial))

    def drop(self, trials: Iterable[int]) -> None:
        """Take trials out."""
        for trial in trials:
            for cell in self._of(trial):
                cell.training.drop(cell.places)
                cell.retries = RETRIES

    def results(self, trial: int) -> list[MemberResult]:
        """The members' results, fold by fold."""
        return [result for cell in self._of(trial) for result in cell.results]

    def diverged(self, trial: int) -> bool:
        """Whether some fold of the trial has no member with finite weights, and so no score."""
        return any(not cell.weights for cell in self._of(trial))

    def ended(self, trial: int) -> list[MemberProgress]:
        """The members of a trial as they would be had all of them ended: their best weights, and no state to go on from."""
        return [
            MemberProgress(replace(result, state=None, weights=cell.training.best_weights(place)), None)
            for cell in self._of(trial)
            for place, result in zip(cell.places, cell.results, strict=True)
        ]

    # ------------------------------------------------------------------ scores

    def parts(self, trial: int) -> list[tuple[Part, list[Tensor]]]:
        """What a trial is scored on, of the folds that it has begun on, and the weights of the nets that predict it."""
        found = []
        for k in range(self.n_begun(trial)):
            cell = self._cells[trial, k]
            weights = cell.weights
            own = self.table.parts(k, cell.stack, cell.members, list(weights))
            found += [(part, [weights[net] for net in part.nets]) for part in own]
        return found

    def which_nets(self, trial: int) -> dict[str, list[int]]:
        """Where nets are scored by themselves: the places of those that the scores are of, if they are not all."""
        found = {NETS: [part.nets[0] for part, _ in self.parts(trial) if part.nets]}
        is_part = self.table.scores_nets_alone and 0 < len(found[NETS]) < len(self._cells[trial, 0].members)
        return found if is_part else {}

    def predictions(self, trial: int) -> list[npt.NDArray[np.float64]]:
        """With the best weights so far, probabilities of all classes, or values, for the test rows of every fold.

        Where nets are scored alone: for all rows, by those together that left a row out, and NaN where none did.
        """

        def of(raw: npt.NDArray[Any], k: int, X: Any) -> npt.NDArray[np.float64]:
            model = self._standing_in(trial, k, raw)
            own = (model.predict if self.table.classes is None else model.predict_proba)(X)
            return np.asarray(self._known(self.table.folds[k], own), dtype=np.float64)

        if self.table.scores_nets_alone:
            return [self.told_of_left_out(trial, lambda raw, rows: of(raw, 0, self.table.cut(rows)[0]))]
        return [
            of(self._raw(trial, part, weights, exact=True), part.fold, part.X)
            for part, weights in self.parts(trial)
        ]

    def told_of_left_out(
        self, trial: int, of: Callable[[npt.NDArray[Any], npt.NDArray[np.int64]], npt.NDArray[Any]]
    ) -> npt.NDArray[np.float64]:
        """What a trial's nets say together of the rows that each left out, by what ``of`` makes of it, see `together`."""
        told = [
            (part.rows, self._raw(trial, part, weights, exact=True)[0]) for part, weights in self.parts(trial)
        ]
        return together(len(self.table.folds[0].test_target), told, of)

    def scores(
        self,
        trial: int,
        scorer: Scorer,
        *,
        final: bool = True,
        params: Mapping[str, Any] | None = None,
    ) -> list[float]:
        """Scores with the best weights so far; higher is better, NaN where there are none.

        They are of the test rows of every fold begun, or of the rows that each net with weights left out. ``final=False``
        computes outputs in float32, in half the time: exact enough to compare trials at a rung. ``params`` are what the scorer
        gets of all rows, where it is not the table's own.
        """
        return [self._score(trial, *own, scorer, params, final=final) for own in self.parts(trial)]

    def check(self, trial: int, scorer: Scorer, scores: Sequence[float]) -> None:
        """Refuse scores that are no numbers though there are predictions.

        Raises
        ------
        UndefinedScoreError
            With the scorer and the folds.
        """
        bad = [
            (part, score)
            for (part, weights), score in zip(self.parts(trial), scores, strict=True)
            if not math.isfinite(score) and self._predicts(trial, part, weights)
        ]
        if bad:
            part, score = bad[0]
            kind, _, first = part.words.partition(" ")
            which = ", ".join([first, *(other.words.rpartition(" ")[2] for other, _ in bad[1:_NAMED])])
            target, n_rows = np.unique(np.asarray(part.y)), len(part.target)
            what = f"{n_rows} test row{'s' * (n_rows > 1)}"
            if len(target) == 1 and n_rows > 1:
                what += f", all of target {target.tolist()[0]!r}"
            more = f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
            raise UndefinedScoreError(
                f"scoring: {describe_scorer(scorer)} gave no number ({score}) on {kind}{'s' * (len(bad) > 1)} "
                f"{which}{more}; {part.words} has {what}. Give folds (cv) on which it is defined, or another scoring."
            )

    def _predicts(self, trial: int, part: Part, weights: Sequence[Tensor]) -> bool:
        return bool(weights) and bool(np.isfinite(self._raw(trial, part, weights, exact=True)).all())

    def _raw(
        self, trial: int, part: Part, weights: Sequence[Tensor], *, exact: bool
    ) -> npt.NDArray[np.float64]:
        """Outputs for the rows of a part, [members, n, out]."""
        cell, stacked = self._cells[trial, part.fold], torch.stack(list(weights))
        # NOTE: a copy, since products round by how the memory is aligned, and a part of a table begins anywhere.
        rows = part.encoded.clone()
        if exact:
            stacked, rows = stacked.double(), rows.double()
        with torch_threads(cell.training.threads):
            return np.asarray(outputs(cell.training.net, stacked, rows).double().cpu().numpy())

    def _score(
        self,
        trial: int,
        part: Part,
        weights: Sequence[Tensor],
        scorer: Scorer,
        given: Mapping[str, Any] | None,
        *,
        final: bool,
    ) -> float:
        if not weights:
            return math.nan
        try:
            if not sees_predictions_only(scorer):
                X, y, params = self.table.cut(part.rows, given)
                model = self.model(trial, part.fold)
                if self.table.scores_nets_alone:
                    model._alone(list(self._cells[trial, part.fold].weights).index(part.nets[0]))
                return as_number(scorer(self.table.folds[part.fold].whole(model), X, y, **params))
            raw = self._raw(trial, part, weights, exact=final)
            if not np.isfinite(raw).all():
                return math.nan
            return self._score_predictions(trial, part, raw, scorer, given, final=final)
        except Exception as error:
            error.add_note(f"while {part.words} was scored")
            raise

    def _score_predictions(
        self,
        trial: int,
        part: Part,
        raw: npt.NDArray[Any],
        scorer: Scorer,
        given: Mapping[str, Any] | None,
        *,
        final: bool,
    ) -> float:
        """Score by a scorer that asks for nothing but the predictions of the rows."""
        estimator, fold = self._estimators[trial], self.table.folds[part.fold]
        kind = quick_loss(scorer)
        if (
            kind is not None
            and not final
            and type(estimator) in (InnaClassifier, InnaRegressor)
            and set(part.score_params) <= {"sample_weight"}
        ):
            quick: Any = copy.copy(estimator)
            quick.__dict__.update(fold.fitted)
            predicted = self._known(fold, quick._from_outputs(raw))
            return rung_score(kind, predicted, part.target, part.score_params.get("sample_weight"))
        model = self._standing_in(trial, part.fold, raw)
        if kind == "log_loss":
            # That of all classes, whichever the fold was trained on.
            known = self._known(fold, model.predict_proba(part.X))
            model = PredictedClassifier(known, self.table.classes)
        y, params = part.y, part.score_params
        if given is not None or not is_of_library(getattr(scorer, "_score_func", None)):
            _, y, params = self.table.cut(part.rows, given)
        return as_number(scorer(model, part.X, y, **params))

    def _standing_in(self, trial: int, k: int, raw: npt.NDArray[Any]) -> Any:
        """A fitted estimator of a trial, whose outputs for the rows in question are known."""
        model: Any = copy.copy(self._estimators[trial])
        model.__dict__.update(self.table.folds[k].fitted, _outputs=lambda X: raw)
        return model

    def _known(self, fold: Fold, predicted: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Probabilities with a column for every class; values as they are."""
        own, classes = getattr(fold.estimator, "classes_", None), self.table.classes
        return predicted if own is None or classes is None else of_all_classes(predicted, own, classes)

    def model(self, trial: int, k: int) -> InnaEstimator:
        """The estimator of a trial as a fit on the training rows of a fold leaves it, with the best weights so far."""
        cell, fold = self._cells[trial, k], self.table.folds[k]
        model: InnaEstimator = clone(self._estimators[trial])
        model.__dict__.update(copy.deepcopy(fold.fitted))
        net = cell.training.net
        own = fold.estimator.encoder_.sections
        weights = cell.weights
        if own == cell.stack.sections:
            model.net_ = net
        else:
            model.net_ = model._own_net()
            assert isinstance(net, TabularNet)
            used = net.used_entries(own[:2])
            weights = {i: w[used.to(w.device)] for i, w in weights.items()}
        results = cell.results
        model._keep([replace(results[i], weights=w.clone()) for i, w in weights.items()])
        start = cell.stack.train_start(k)
        left_out = [cell.members[i].validation_rows - start for i in weights]
        model._learn_from_left_out(fold.encoded.tensors(model.weights_.device), left_out)
        return model

"""The ensemble of a study: what its best trials have left, chosen and put together as one estimator."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial
from sklearn.base import clone, is_classifier

from inna_tune.estimators import DivergenceError, EnsembleClassifier, EnsembleRegressor
from inna_tune.estimators.base import InnaEstimator
from inna_tune.estimators.encoder import TableEncoder
from inna_tune.records.attributes import SEED
from inna_tune.records.record import value_of
from inna_tune.store.opening import storage_errors
from inna_tune.study.checkpoints import Checkpoint
from inna_tune.study.folding import FoldedTable
from inna_tune.study.kept import Kept, Predictions, contributors
from inna_tune.study.left_out import LeftOutTable
from inna_tune.study.rebuilding import cohort_of, nets_of
from inna_tune.study.selection import Judge, Selection, heaviest, restricted, select
from inna_tune.study.training import NetEvaluation, identity_of
from inna_tune.visible import get_logger

logger = get_logger(__name__)

# So many nets of a trial, each trained on all folds but one, are worth what a fit on all rows is, and cost nothing more. With
# fewer they have seen too few rows, and the settings of the heaviest so many trials are fitted on all; likewise where the nets
# were too large to be kept.
ENOUGH_FOLDS, MOST_FITS = 5, 5


@dataclass(frozen=True)
class _Contribution:
    """A trial that may be in an ensemble; without its nets only if it is fitted on all rows."""

    trial: FrozenTrial
    estimator: InnaEstimator
    table: FoldedTable
    predictions: Predictions
    nets: Checkpoint | None


@dataclass(frozen=True)
class Chosen:
    """An ensemble, fitted, and the trials that are in it.

    Attributes
    ----------
    model : EnsembleClassifier or EnsembleRegressor
    weights : dict of int to float
        By the trials' numbers; they sum to one.
    selection : Selection
    on_all_rows : bool
        Whether their settings were fitted on all rows, as trials that are one fit were; else it holds the nets of their folds.
    """

    model: EnsembleClassifier | EnsembleRegressor
    weights: dict[int, float]
    selection: Selection
    on_all_rows: bool

    def note(self) -> dict[str, Any]:
        """For the study's user attributes."""
        return {
            "weights": {str(number): weight for number, weight in self.weights.items()},
            "value": self.selection.score,
            "scores": self.selection.scores.tolist(),
            "on_all_rows": self.on_all_rows,
        }


def choose(
    study: optuna.Study, evaluation: NetEvaluation, whole: Any, fit: Callable[[Any], object] | None = None
) -> Chosen | None:
    """Make an ensemble of the best trials of a study: of their nets, or where folds are few, fitted on all rows.

    Parameters
    ----------
    study : optuna.Study
    evaluation : NetEvaluation
        Of the same table, folds and scorer as the trials.
    whole : object
        That has read the whole table, with ``n_features_in_``, ``schema_`` and, of a classifier, ``classes_``.
    fit : callable, optional
        Fits an estimator on all rows; None: there is no time for it.

    Returns
    -------
    Chosen or None
        None where no trial has left anything that can be used.
    """
    found, table = _contributions(study, evaluation), evaluation.folded
    # What is one fit is on all rows already.
    are_fits = table.scores_nets_alone
    if found and isinstance(table, LeftOutTable):
        found, table = _of_the_same_rows(found, table)
    judge = Judge(table, evaluation.scorer)
    kind = EnsembleClassifier if is_classifier(evaluation.estimator) else EnsembleRegressor
    chosen: Selection | None = None
    if found and fit is not None:
        predictions = [c.predictions for c in found]
        chosen = select(predictions, judge)
        has_few_folds = judge.n_folds < ENOUGH_FOLDS and not are_fits
        if has_few_folds or any(c.nets is None for c, _ in _taken(found, chosen)):
            places = heaviest(chosen, predictions, judge, MOST_FITS)
            fitted = {i: own for i in places if (own := _fitted(found[i], fit)) is not None}
            if fitted:
                chosen = restricted(chosen, predictions, judge, list(fitted))
                taken = _taken(found, chosen)
                shares = [w for _, w in taken]
                model = kind([c.estimator for c, _ in taken], weights=shares)
                model._take(list(fitted.values()), np.array(shares), next(iter(fitted.values())))
                return Chosen(model, {c.trial.number: w for c, w in taken}, chosen, True)
            logger.warning("the ensemble is one of the folds' nets")
    with_nets = [c for c in found if c.nets is not None]
    if not with_nets:
        return None
    if chosen is None or len(with_nets) < len(found):
        found, chosen = with_nets, select([c.predictions for c in with_nets], judge)
    taken = _taken(found, chosen)
    model = kind([c.estimator for c, _ in taken], weights=[w for _, w in taken])
    encoders = dict[int, TableEncoder]()
    nets = [_models(contribution, encoders) for contribution, _ in taken]
    weights = [w / len(own) for own, (_, w) in zip(nets, taken, strict=True) for _ in own]
    model._take([net for own in nets for net in own], np.array(weights), whole)
    if isinstance(model, EnsembleRegressor) and model._quantiles:
        _learn_from_left_out(model, taken, nets)
    return Chosen(model, {c.trial.number: w for c, w in taken}, chosen, are_fits)


def _taken(found: Sequence[_Contribution], chosen: Selection) -> list[tuple[_Contribution, float]]:
    """Those that have a weight, with it."""
    return [(c, float(w)) for c, w in zip(found, chosen.weights, strict=True) if w > 0]


def _learn_from_left_out(
    model: EnsembleRegressor, taken: Sequence[tuple[_Contribution, float]], nets: Sequence[Sequence[Any]]
) -> None:
    """Let an ensemble scale its quantiles by what the nets of each fold say together of the rows of its test part."""
    table = taken[0][0].table
    if table.scores_nets_alone:
        told = sum(w * _quantiles_of_left_out(c, own[0]) for (c, w), own in zip(taken, nets, strict=True))
        known = np.flatnonzero(np.isfinite(told).all(axis=1))
        weight = table.test_weight(0)
        target = np.reshape(table.folds[0].test_target, -1)[known]
        model._learn_from_left_out(told[known], target, None if weight is None else weight[known])
        return
    found = [
        sum(
            weight * own[k]._quantiles_from(own[k]._outputs_of(contribution.table.folds[k].x_test))
            for (contribution, weight), own in zip(taken, nets, strict=True)
        )
        for k in range(len(table.folds))
    ]
    target = np.concatenate([np.reshape(fold.test_target, -1) for fold in table.folds])
    weights = [w for k in range(len(table.folds)) if (w := table.test_weight(k)) is not None]
    weight = np.concatenate(weights) if len(weights) == len(table.folds) else None
    model._learn_from_left_out(np.concatenate(found), target, weight)


def _quantiles_of_left_out(contribution: _Contribution, model: Any) -> Any:
    """What a trial's nets say together of the rows that each left out, [n_samples, n_quantiles]; NaN where none did."""
    assert contribution.nets is not None
    cohort = cohort_of(contribution.estimator, contribution.table, contribution.nets)
    return cohort.told_of_left_out(0, lambda raw, rows: model._quantiles_from(raw))


def _of_the_same_rows(
    found: Sequence[_Contribution], table: LeftOutTable
) -> tuple[list[_Contribution], FoldedTable]:
    """Trials with their predictions of the rows that the best of them left out, as far as they left these out, too."""
    best = max(found, key=lambda c: (value_of(c.trial), -c.trial.number))

    def known(predictions: Predictions) -> Any:
        return np.isfinite(predictions[0]).reshape(len(predictions[0]), -1).all(axis=1)

    rows = np.flatnonzero(known(best.predictions))
    own = [
        replace(c, predictions=[c.predictions[0][rows]]) for c in found if known(c.predictions)[rows].all()
    ]
    if len(own) < len(found):
        logger.warning(
            "%d trials leave out other rows than the best, and are in no ensemble", len(found) - len(own)
        )
    return own, table.scored_on(rows)


def _fitted(contribution: _Contribution, fit: Callable[[Any], object]) -> InnaEstimator | None:
    """A trial's settings fitted on all rows; None where they diverge there, though they did not on the folds."""
    model: InnaEstimator = clone(contribution.estimator)
    try:
        fit(model)
    except DivergenceError as error:
        logger.warning(
            "trial %d is not in the ensemble, since on all rows: %s", contribution.trial.number, error
        )
        return None
    return model


def _contributions(study: optuna.Study, evaluation: NetEvaluation) -> list[_Contribution]:
    """Trials of which predictions are there, with their nets where these are, too."""
    kept, found = Kept(study), []
    with storage_errors(study):
        trials = contributors(study.get_trials(deepcopy=False))
        seed = study.user_attrs[SEED]
    for trial in trials:
        value = value_of(trial)
        assert value is not None
        try:
            estimator = evaluation.estimator_of(trial.number, trial.params, seed)
            table = evaluation.folded.encoded_for(estimator)
        except (ValueError, TypeError) as error:
            # Of an earlier question, where a mismatch was allowed.
            logger.warning("trial %d is in no ensemble: %s", trial.number, error)
            continue
        predictions = kept.predictions(trial.number, identity_of(estimator, table), value)
        nets = nets_of(kept, trial, estimator, table)
        if predictions is not None and _fit(predictions, table):
            found.append(_Contribution(trial, estimator, table, predictions, nets))
    if 0 < len(found) < len(trials):
        logger.warning(
            "study %s: %d of its %d best trials have left their predictions here; an ensemble is made of these alone",
            study.study_name,
            len(found),
            len(trials),
        )
    return found


def _fit(predictions: Predictions, table: FoldedTable) -> bool:
    """Whether predictions are of the test rows of a table's folds."""
    wide = () if table.classes is None else (len(table.classes),)
    return len(predictions) == len(table.folds) and all(
        len(p) == len(fold.test_target)
        and (not wide or p.shape[1:] == wide)
        and bool(np.isfinite(p).any() if table.scores_nets_alone else np.isfinite(p).all())
        for p, fold in zip(predictions, table.folds, strict=True)
    )


def _models(contribution: _Contribution, encoders: dict[int, TableEncoder]) -> list[InnaEstimator]:
    """The fitted estimator of every fold; those of one fold and encoding share their encoder."""
    table = contribution.table
    assert contribution.nets is not None
    cohort = cohort_of(contribution.estimator, table, contribution.nets)
    found = []
    for k, fold in enumerate(table.folds):
        model = cohort.model(0, k)
        encoder = fold.estimator.encoder_
        if id(encoder) not in encoders:
            encoders[id(encoder)] = copy.deepcopy(encoder)
        model.encoder_ = encoders[id(encoder)]
        found.append(model)
    return found

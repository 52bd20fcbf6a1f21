"""The main job: tune on a table, score on rows that tuning never saw, and say what tuning bought."""

import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from optuna.study import StudyDirection
from sklearn.base import clone
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.metrics import (
    accuracy_score,
    get_scorer,
    log_loss,
    r2_score,
    root_mean_squared_error,
)

from inna_tune import clock
from inna_tune.estimators.base import InnaEstimator
from inna_tune.estimators.ensemble import Ensemble
from inna_tune.estimators.interruption import interrupts_end_all
from inna_tune.estimators.jackknife import told_without
from inna_tune.jobs.begun import as_begun
from inna_tune.jobs.joining import FitRequest
from inna_tune.jobs.metric import check_metric
from inna_tune.jobs.settings import make_estimator
from inna_tune.jobs.validation import splitter_of
from inna_tune.records.attributes import FINGERPRINT, JOB
from inna_tune.records.certainty import relative_change
from inna_tune.records.fingerprint import MismatchError
from inna_tune.records.heldout import HeldOut, record_held_out, summarize_held_out
from inna_tune.records.importance import column_importances
from inna_tune.records.leaderboard import EnsembleNote, losses_of_folds, scores_of_folds
from inna_tune.records.losses import log_losses, places_of
from inna_tune.records.overview import find_study, opened_to_resume
from inna_tune.records.record import Metric, StudyRecord
from inna_tune.records.wording import describe_trial, tuning_gain
from inna_tune.space import Prior, SearchSpace
from inna_tune.store.opening import storage_errors
from inna_tune.study.callbacks import Callback
from inna_tune.study.fitting import Untuned, fit_search
from inna_tune.study.folding import FoldedTable
from inna_tune.study.parameters import check_search
from inna_tune.study.search import InnaSearchCV
from inna_tune.study.splits import MEMBERS, NoRowsLeftOutError
from inna_tune.study.unsaved import TUNED, UNTUNED, Unsaved
from inna_tune.study.whole import without_time_warnings
from inna_tune.tables import split_rows
from inna_tune.tables.problem import Problem

# Of a budget: what the untuned default may take, and what is left over for all that is not timed. One that takes more leaves
# no time for trials, and what would be worth their time would be trained less than a plain fit is.
_DEFAULT_SHARE, _BOOKKEEPING = 0.9, 0.02
# What the columns are worth is measured for so many seconds at most, and so much of a budget.
_IMPORTANCE_SECONDS, _IMPORTANCE_SHARE = 10.0, 0.03


@dataclass(frozen=True)
class TuningReport:
    """What a tuning run found.

    Attributes
    ----------
    search : InnaSearchCV
        Fitted on the tuning rows.
    n_tuning_rows, n_held_out_rows : int
    scores : DataFrame
        Index: ``baseline`` (most frequent classes, or mean), ``untuned default``, ``tuned``. Columns: log-loss and accuracy, or
        RMSE and R², on the held-out rows.
    held_out : HeldOut
        The same with what the tuned model predicts there, as the study keeps it.
    cut : tuple of str
        What time cut off: ``"trials"``, ``"untuned default"``, ``"tuned"``.
    ensemble : EnsembleNote or None
        What the tuned model is made of; None where it is the best settings, fitted on all tuning rows.
    untuned : InnaClassifier, InnaRegressor or None
        The untuned default, fitted on the tuning rows.
    """

    search: InnaSearchCV
    n_tuning_rows: int
    n_held_out_rows: int
    scores: pd.DataFrame
    held_out: HeldOut
    cut: tuple[str, ...] = ()
    ensemble: EnsembleNote | None = None
    untuned: InnaEstimator | None = None

    def keep_models(self) -> Path | None:
        """Keep the fitted models beside the study, since they can't be saved now: a resume does not fit them again.

        Returns
        -------
        Path or None
            The folder; None where they can't be kept there either.
        """
        models = {TUNED: self.search.best_estimator_, UNTUNED: self.untuned}
        return self._unsaved.keep({name: model for name, model in models.items() if model is not None})

    def forget_models(self) -> None:
        """Delete what `keep_models` has kept, once the model is saved."""
        self._unsaved.remove()

    @property
    def _unsaved(self) -> Unsaved:
        return Unsaved(self.search.study_, self.search.refit)

    def summary(self) -> dict[str, Any]:
        """Summarize as plain data: the study, its trials and the best of them, scores on held-out rows, what tuning bought."""
        record = StudyRecord(self.search.study_)
        best = record.best_first[0] if record.best_first else None
        return {
            "study": record.name,
            "task": self.held_out.task,
            "metric": record.metric.name,
            "rows": {"tuned_on": self.n_tuning_rows, "held_out": self.n_held_out_rows},
            "scored_on": record.scored_on,
            "trials": record.counts,
            "best": None
            if best is None
            else {
                "trial": best.number,
                record.metric.name: record.score(best),
                "settings": dict(best.params),
                "words": describe_trial(record, best),
            },
            "failed": [
                {"reason": reason, "trials": numbers}
                for state, reason, numbers in record.reasons
                if state == "failed"
            ],
            "cut": list(self.cut),
            "ensemble": None if self.ensemble is None else asdict(self.ensemble),
            "held_out": self.held_out.scores,
            "change": self.held_out.gain,
            "gain": tuning_gain(self.held_out, record.metric),
            "counts_luck": self.held_out.luck,
            "importances": None if self.held_out.importances is None else asdict(self.held_out.importances),
            "misleading": record.misleading,
        }


def tune(
    problem: Problem,
    *,
    n_trials: int,
    storage: Any,
    study_name: str,
    resume: bool = False,
    timeout: float | None = None,
    n_jobs: int | None = 1,
    seed: int = 0,
    held_out: float = 0.2,
    estimator: InnaEstimator | None = None,
    settings: Sequence[str] = (),
    metric: str | None = None,
    cv: str | int | None = None,
    space: SearchSpace | Prior | None = None,
    refit: bool | str = True,
    callbacks: Sequence[Callback] = (),
    allow_mismatch: bool = False,
    importances: bool = True,
    encoded: FoldedTable | None = None,
) -> TuningReport:
    """Tune, refit, and compare on held-out rows; the study keeps the comparison for its report.

    Parameters
    ----------
    problem : Problem
    n_trials, storage, study_name, resume, n_jobs, space, callbacks, allow_mismatch
        As in :class:`InnaSearchCV`.
    metric : str, optional
        Scikit-learn's name of the scorer that the study maximises; None: the loss that the net is trained on. The held-out
        rows are scored by it, too.
    cv : "members", int or None, default=None
        What trials are scored on, as there; but a number of folds is that of shuffled ones, as those of None are.
    refit : True or "ensemble", default=True
        As there: what the tuned model is.
    timeout : float, optional
        Seconds for all of it, the untuned default and the held-out scores too.
    seed : int
        Of the held-out split, the study and the baselines.
    held_out : float
        Share of the rows that tuning never sees.
    estimator : InnaClassifier or InnaRegressor, optional
        What is tuned; None: the default.
    importances : bool, default=True
        Whether to measure what the columns are worth, for ten seconds or a thirtieth of the timeout at most.
    settings : sequence of str
        Of the default estimator, as :func:`inna_tune.jobs.settings.make_estimator` takes them; workers that join get them too.
        Of what the study tunes they are where it begins.
    encoded : FoldedTable, optional
        What `inna_tune.jobs.validation.choose_validation` has encoded, so that trials need not once more.

    Raises
    ------
    ValueError
        If a setting makes no sense, or comes with an estimator.
    TableError
        If there are too few rows to hold some out and tune on the rest.
    MismatchError
        If the study was made for something else, or begun with another seed.
    """
    began = clock.now()
    classifier = problem.task != "regression"
    tuning, held = split_rows(problem, held_out=held_out, seed=seed)
    notes = None
    studies = opened_to_resume(storage) if resume else storage
    if estimator is None:
        # A worker that joins makes the default estimator itself; another one it could not know.
        notes = FitRequest(
            n_trials=n_trials,
            target=problem.target,
            task=problem.task,
            seed=seed,
            held_out=held_out,
            settings=tuple(settings),
            drop=problem.dropped,
            metric=metric,
            cv=cv,
        ).note()
        earlier = find_study(studies, study_name) if resume else None
        estimator = as_begun(make_estimator(problem.task, settings), earlier, settings)
    elif settings:
        raise ValueError(
            f"settings={list(settings)!r} are of the default estimator; set those of the one that is given"
        )
    X, y = problem.X.iloc[tuning], problem.y.iloc[tuning]
    if metric is not None:
        check_metric(metric, problem.task, y)
    X_held, y_held = problem.X.iloc[held], problem.y.iloc[held]
    search = InnaSearchCV(
        estimator,
        space,
        n_trials=n_trials,
        timeout=timeout,
        n_jobs=n_jobs,
        storage=studies,
        study_name=study_name,
        resume=resume,
        refit=refit,
        cv=splitter_of(cv, y, task=problem.task),
        scoring=metric,
        random_state=seed,
        callbacks=callbacks,
        allow_mismatch=allow_mismatch,
    )
    check_search(search)
    if not refit:
        raise ValueError(f"refit={refit!r} must be True or 'ensemble': there is a model to be scored")
    default = clone(estimator).set_params(random_state=seed)
    untuned = None
    if timeout is not None:
        # First, as it gives a model whatever comes, and tells how long fits and scores take.
        own, before_fit = default.max_time, clock.now()
        with without_time_warnings(), interrupts_end_all():
            default.set_params(max_time=min(own or math.inf, _DEFAULT_SHARE * timeout)).fit(X, y)
        default.set_params(max_time=own)
        before_scores = clock.now()
        untuned = Untuned(default, before_scores - before_fit)
        score_rows(default, X_held, y_held)
        # Of the default and of the model, which may be several; and once more of each, without its nets.
        scoring = (4.5 if cv == MEMBERS else 2.5) * (clock.now() - before_scores) + _BOOKKEEPING * timeout
        scoring += _importance_seconds(timeout) if importances else 0.0
        left = timeout - (clock.now() - began) - scoring
        search.timeout = max(left, _BOOKKEEPING * timeout)
    try:
        with without_time_warnings():  # the report says what was cut
            # Where no trial gets a score, a second fit of the same would be time lost.
            fit_search(search, X, y, {}, notes=notes, untuned=untuned, encoded=encoded)
    except (MismatchError, NoRowsLeftOutError) as error:
        found = getattr(search, "study_", None) or (find_study(studies, study_name) if resume else None)
        said_of_it = {} if found is None else StudyRecord(found).attributes
        begun = said_of_it.get(JOB)
        if not isinstance(begun, dict):
            raise
        what: object = error
        if isinstance(error, NoRowsLeftOutError):
            if begun.get("cv") != MEMBERS:
                raise
            n_rows = (said_of_it.get(FINGERPRINT) or {}).get("rows")
            if n_rows != len(y):
                raise MismatchError(
                    f"study {study_name!r} was tuned on {n_rows} rows, and these are {len(y)}: give the rows it was begun "
                    "with, or another study name"
                ) from None
            what = (
                f"study {study_name!r} is by the rows that nets leave out, and now they would leave out none"
            )
        how = _how_it_began(begun, seed, settings, metric, cv)
        if how is None:
            raise
        raise MismatchError(f"{what}. It was begun {how}") from None
    if timeout is None:
        kept = None if allow_mismatch else Unsaved(search.study_, refit).find(UNTUNED)
        with interrupts_end_all():
            default = default.fit(X, y) if kept is None else kept
    baseline = (DummyClassifier() if classifier else DummyRegressor()).fit(np.zeros((len(y), 1)), y)
    study, best = search.study_, search.best_estimator_
    of_baseline, _ = score_rows(baseline, np.zeros((len(held), 1)), y_held, metric)
    of_default, before = score_rows(default, X_held, y_held, metric)
    of_tuned, after = (of_default, before) if best is default else score_rows(best, X_held, y_held, metric)
    scores = pd.DataFrame({"baseline": of_baseline, "untuned default": of_default, "tuned": of_tuned}).T
    fits = {"untuned default": default, "tuned": best}
    cut = [name for name, model in fits.items() if any(m["stop_reason"] == "time" for m in model.members_)]
    worth = None
    if importances:
        worth = column_importances(best, X_held, y_held, seconds=_importance_seconds(timeout), seed=seed)
    with storage_errors(study._storage):
        record = StudyRecord(study)
        note = EnsembleNote.of(record) if isinstance(best, Ensemble) else None
        # Nothing is said of a gain over what time cut off, nor of settings over themselves.
        says = bool(record.best_first) and not cut and not _is_untuned(record, note)
        # How lucky the trainings were is told by the nets that a fit averages, or by fits on folds.
        folds = without = gain = None
        if says and record.is_by_members:
            without = [_losses_without_nets(model, X_held, y_held) for model in (default, best)]
            if not all(len(losses) > 1 and min(losses) > 0 for losses in without):
                without = None
        elif says:
            folds = _folds(record, note, metric=scores.columns[0])
        if says:
            gain = relative_change(before, after, root=not classifier, folds=folds, without=without)
        found = summarize_held_out(
            best,
            X_held,
            y_held,
            scores=scores,
            gain=gain,
            luck=folds is not None or without is not None,
            trial=record.best_first[0].number if record.best_first else None,
            importances=worth,
        )
        record_held_out(study, found)
    cut = ["trials", *cut] if record.cut else cut
    return TuningReport(search, len(tuning), len(held), scores, found, tuple(cut), note, default)


def _how_it_began(
    begun: dict[str, Any], seed: int, settings: Sequence[str], metric: str | None, cv: str | int | None
) -> str | None:
    """With what a study was begun that it is not to go on with, and what to give; None where that is the same."""
    was = begun.get("seed")
    if was != seed:
        return f"with seed={was!r}, and seed={seed} holds out other rows: give seed={was!r}, or --seed {was}, to go on with it"
    before = list(begun.get("settings", ()))
    if before != list(settings):
        words = [word for each in before for word in ("--set", each)]
        return f"{shlex.join(words) or 'without settings'}: give the same to go on with it"
    was = begun.get("metric")
    if was != metric:
        said = "without --metric" if was is None else f"with --metric {shlex.quote(str(was))}"
        return f"{said}: give the same to go on with it"
    was = begun.get("cv")
    if was != cv:
        said = "by folds, as many as the rows decide" if was is None else f"with --cv {shlex.quote(str(was))}"
        return f"{said}: leave --cv out, or give cv={was!r}, to go on with it"
    return None


def _importance_seconds(timeout: float | None) -> float:
    return _IMPORTANCE_SECONDS if timeout is None else min(_IMPORTANCE_SECONDS, _IMPORTANCE_SHARE * timeout)


def _is_untuned(record: StudyRecord, note: EnsembleNote | None) -> bool:
    """Whether the model has the settings of the untuned default."""
    best = {record.best_first[0].number} if note is None else set(note.weights)
    return record.untuned is not None and best == {record.untuned.number}


def _folds(
    record: StudyRecord, note: EnsembleNote | None, *, metric: str
) -> tuple[list[float], list[float]] | None:
    """Losses on the folds of the untuned settings and of the model's; None where one of them is not known."""
    if record.untuned is None or record.metric.name != metric:
        return None
    before = losses_of_folds(record, scores_of_folds(record.untuned))
    after = losses_of_folds(record, scores_of_folds(record.best_first[0]) if note is None else note.scores)
    return None if before is None or after is None or len(before) != len(after) else (before, after)


def _losses_without_nets(model: InnaEstimator | Ensemble, X: Any, y: pd.Series) -> list[float]:
    """Mean losses of rows, or their roots, each time without another net of a model; nothing where it has but one."""
    found = [float(_losses(model, told, y)[0].mean()) for told in told_without(model, X)]
    return found if hasattr(model, "classes_") else [math.sqrt(loss) for loss in found]


def _losses(
    model: Any, told: npt.NDArray[Any], y: pd.Series
) -> tuple[npt.NDArray[np.float64], npt.NDArray[Any]]:
    """Losses of the rows whose class a model knows, by its probabilities, and which these are; or squared errors of all."""
    if hasattr(model, "classes_"):
        places = places_of(model.classes_, y)
        known = places >= 0
        return log_losses(told[known], places[known]), known
    squared = np.asarray((y.to_numpy() - told) ** 2, dtype=np.float64)
    return squared.reshape(len(squared), -1).sum(axis=1), np.ones(len(y), dtype=bool)


def score_rows(
    model: Any, X: Any, y: pd.Series, metric: str | None = None
) -> tuple[dict[str, float], npt.NDArray[np.float64]]:
    """Score a model on rows.

    ``metric`` names a further scorer, whose score is as `Metric` shows it; NaN where it is not defined on these rows.

    Returns
    -------
    scores : dict of str to float
        A loss and a share: log-loss and accuracy, or RMSE and R².
    losses : ndarray [n_samples]
        Of the rows whose class the model knows, or squared errors, summed over the targets.
    """
    if hasattr(model, "predict_proba"):
        probabilities = model.predict_proba(X)
        # As `predict` chooses, which would ask the nets once more.
        chosen = np.asarray(model.classes_)[probabilities.argmax(axis=1)]
        losses, known = _losses(model, probabilities, y)
        loss = log_loss(y[known], probabilities[known], labels=model.classes_)
        scores = {"log-loss": float(loss), "accuracy": float(accuracy_score(y, chosen))}
        return _with_metric(scores, model, X, y, metric), losses
    predicted = model.predict(X)
    scores = {"RMSE": float(root_mean_squared_error(y, predicted)), "R²": float(r2_score(y, predicted))}
    return _with_metric(scores, model, X, y, metric), _losses(model, predicted, y)[0]


def _with_metric(
    scores: dict[str, float], model: Any, X: Any, y: Any, metric: str | None
) -> dict[str, float]:
    if metric is None:
        return scores
    shown = Metric.of(metric, StudyDirection.MAXIMIZE)
    if shown.name in scores:
        return scores
    try:
        return scores | {shown.name: shown.shown(float(get_scorer(metric)(model, X, y)))}
    except ValueError:
        return scores | {shown.name: math.nan}

"""What a search's ``fit`` does: check, run the study, and leave results and the best settings fitted."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, cast

import numpy as np
from optuna.trial import FrozenTrial
from sklearn.base import clone, is_classifier
from sklearn.exceptions import ConvergenceWarning

from inna_tune import clock
from inna_tune.estimators.base import InnaEstimator
from inna_tune.estimators.fitted import DivergenceError
from inna_tune.estimators.interruption import interrupts_end_all
from inna_tune.estimators.schema import TableSchema
from inna_tune.estimators.watching import without_callbacks
from inna_tune.records.attributes import ENSEMBLE as CHOSEN
from inna_tune.records.attributes import REASON
from inna_tune.records.record import StudyRecord, value_of
from inna_tune.store.opening import storage_errors
from inna_tune.study.budget import Budget, OutOfTimeError
from inna_tune.study.callbacks import is_stopped
from inna_tune.study.ensemble import choose
from inna_tune.study.folding import FoldedTable
from inna_tune.study.foldwise import FoldwiseEvaluation
from inna_tune.study.job import Evaluation
from inna_tune.study.metrics import ENSEMBLE, Metrics
from inna_tune.study.parameters import check_search
from inna_tune.study.question import Question
from inna_tune.study.rebuilding import kept_model
from inna_tune.study.results import choose_row, collect_results
from inna_tune.study.routing import Routed, route
from inna_tune.study.run import StudyOptions, StudyRun, run_study
from inna_tune.study.rungs import default_pruner
from inna_tune.study.scoring import describe_scorer, sees_predictions_only, takes_weights
from inna_tune.study.training import NetEvaluation
from inna_tune.study.tuned import is_ours, net_of, own_settings
from inna_tune.study.unsaved import TUNED, Unsaved
from inna_tune.study.whole import fit_in_time, grown


@dataclass(frozen=True)
class Untuned:
    """The estimator as it is, fitted on all rows, and the seconds that took."""

    model: Any
    seconds: float


def fit_search(
    search: Any,
    X: Any,
    y: Any,
    given: Mapping[str, Any],
    *,
    notes: Mapping[str, Any] | None = None,
    untuned: Untuned | None = None,
    encoded: FoldedTable | None = None,
) -> None:
    """Fit an `InnaSearchCV`.

    ``given`` came with the rows, by name; ``notes`` are user attributes for the study, such as what other workers have to
    know; ``untuned`` is the estimator as it is, fitted on these rows, and ``encoded`` the table for the trials, where these are
    there already.

    Under a ``timeout`` that fit comes first: it is what a person would have without a search, so that no search ends with
    less, and it tells what trials and the last fit take.
    """
    check_search(search)
    if y is None:
        raise ValueError(f"{type(search).__name__} requires y to be passed, but the target y is None.")
    began = clock.now()

    def routed(n_rows: int, metrics: Metrics) -> Routed:
        return route(
            search,
            n_rows,
            given,
            takes_weights=lambda name: takes_weights(metrics.scorers[name]),
            objective=metrics.objective,
            others=list(metrics.others),
        )

    # Trials train beside each other, and nobody watches one of them.
    template = clone(search.estimator)
    if is_ours(template):
        without_callbacks(net_of(template))
    question = Question.of(
        search,
        template,
        X,
        y,
        cv=search.cv,
        scoring=search.scoring,
        refit=search.refit,
        route=routed,
        stacklevel=3,
    )
    metrics = question.metrics
    search.scorer_ = dict(metrics.scorers) if metrics.are_several else metrics.scorer
    search.multimetric_, search.n_splits_ = metrics.are_several, question.n_scores
    wants_ensemble = search.refit == ENSEMBLE
    if wants_ensemble and not sees_predictions_only(question.scorer):
        raise ValueError(
            f"refit={ENSEMBLE!r}: an ensemble is chosen by scores of averaged predictions, and scoring="
            f"{describe_scorer(question.scorer)} may ask for more than predictions. Make a scorer of it by "
            "sklearn.metrics.make_scorer, or give refit=True."
        )
    if wants_ensemble and not isinstance(search.estimator, InnaEstimator):
        raise ValueError(
            f"refit={ENSEMBLE!r}: an ensemble is of InnaClassifier or InnaRegressor alone, and estimator is a "
            f"{type(search.estimator).__name__}. Give refit=True."
        )
    budget = Budget.of(
        search,
        len(question.frame),
        [len(train) for train, _ in question.splits],
        begun=began,
        trials_are_fits=question.is_by_members,
    )
    if budget is not None and search.refit and is_ours(search.estimator):
        if untuned is None:
            untuned = _untuned(search, question, budget)
        if untuned is not None:
            budget.note_fit(untuned.seconds, net_of(untuned.model).n_iter_)

    made: list[NetEvaluation] = []

    def evaluation() -> Evaluation:
        if not is_ours(search.estimator):
            return FoldwiseEvaluation.of(question, search.space, search.first)
        if budget is not None and not budget.has_time_for_trials:
            raise OutOfTimeError
        made.append(
            NetEvaluation(
                question.folded(budget, encoded),
                template,
                question.scorer,
                search.space,
                search.first,
                keeps=wants_ensemble or (question.is_by_members and bool(search.refit)),
                others=question.others,
            )
        )
        return made[-1]

    def opened(run: StudyRun) -> None:
        search.study_, search.resumed_ = run.study, run.resumed

    options = _options(search, question)
    run_study(evaluation, question.fingerprint, options, budget=budget, notes=notes, opened=opened)
    _finish(search, question, budget, made[-1] if made else None, untuned)


def _untuned(search: Any, question: Question, budget: Budget) -> Untuned | None:
    """The fit that comes first; None where the settings as they are diverge, so that trials have to find others."""
    began = clock.now()
    try:
        with interrupts_end_all():
            model = fit_in_time(search.estimator, {}, search.random_state, question, budget)
    except DivergenceError:
        return None
    return Untuned(model, clock.now() - began)


def _options(search: Any, question: Question) -> StudyOptions:
    own = {f.name: getattr(search, f.name) for f in fields(StudyOptions) if hasattr(search, f.name)}
    own["callbacks"] = tuple(search.callbacks or ())
    if search.random_state is not None:
        own["seed"] = int(np.random.SeedSequence(search.random_state).generate_state(1)[0])
        own["seed_words"] = f"random_state={search.random_state}"
    if search.pruner is None:
        own["pruner"] = default_pruner(len(question.splits), by_members=question.is_by_members)
    return StudyOptions(**own)


# ---------------------------------------------------------------------- when the trials are done


def _finish(
    search: Any,
    question: Question,
    budget: Budget | None,
    evaluation: NetEvaluation | None,
    untuned: Untuned | None,
) -> None:
    """Set the fitted attributes, and the estimator that is wanted; an error if no trial gave a score, but for time.

    ``evaluation`` is that of the trials, where the encoded table is there; ``untuned`` as for `fit_search`.
    """
    record = StudyRecord(search.study_)
    cut = {t.number for t in record.cut}
    trials = [t for t in record.trials if t.state.is_finished() or t.number in cut]
    best = record.best_first[0] if record.best_first else None
    if best is None:
        _say_that_none_scored(search, trials, by_time=budget is not None and not is_stopped(search.study_))
    search.cv_results_ = collect_results(trials, search.n_splits_, question.metrics, search.estimator)
    best_first = record.best_first
    if callable(search.refit):
        # As in scikit-learn: who chooses by other than the score has none.
        vars(search).pop("best_score_", None)
        if best is not None:
            best = trials[choose_row(search.refit, search.cv_results_)]
            best_first = [best]
    else:
        search.best_score_ = math.nan if best is None else float(cast("float", value_of(best)))
    search.best_index_ = -1 if best is None else [t.number for t in trials].index(best.number)
    search.best_params_ = {} if best is None else own_settings(search.estimator, best.params)
    if is_classifier(search.estimator):
        search.classes_ = np.unique(question.labels)
    if search.refit:
        began = clock.now()
        with interrupts_end_all():
            kept = None if best is None else _unsaved(search)
            model = kept
            if model is None and best is not None and search.refit == ENSEMBLE:
                model = _ensemble(search, question, evaluation, budget)
            if model is None and untuned is not None:
                if best not in (None, record.untuned) and not cast("Budget", budget).has_time_to_fit:
                    warnings.warn(
                        f"timeout={search.timeout:g}: no time was left to fit the best settings on all rows; the estimator "
                        "was fitted as it is, untuned. Give more time.",
                        ConvergenceWarning,
                        stacklevel=4,
                    )
                    best = None
                if best in (None, record.untuned):
                    model = untuned.model
            if model is None and best is None:
                model = fit_in_time(
                    search.estimator, search.best_params_, search.random_state, question, budget
                )
            if model is None:
                model = _refitted(search, best_first, question, budget, evaluation)
            if budget is not None and kept is None and search.refit != ENSEMBLE:
                model = grown(model, question, budget)
            search.best_estimator_ = model
        search.refit_time_ = clock.now() - began


def _refitted(
    search: Any,
    best_first: Sequence[FrozenTrial],
    question: Question,
    budget: Budget | None,
    evaluation: NetEvaluation | None,
) -> Any:
    """The best settings fitted on all rows; where they diverge there, though they did not on the folds, the next best.

    Where a trial was that fit its nets are the model, if it has left them.
    """
    if question.is_by_members and evaluation is not None:
        kept = kept_model(search.study_, evaluation, best_first[0])
        if kept is not None:
            return kept
    for trial, following in zip(best_first, [*best_first[1:], None], strict=True):
        settings = own_settings(search.estimator, trial.params)
        try:
            return fit_in_time(search.estimator, settings, trial.user_attrs.get("seed"), question, budget)
        except DivergenceError as error:
            if following is None:
                raise
            warnings.warn(
                f"the settings of trial {trial.number} diverge on all rows, and those of trial {following.number} are fitted "
                f"in their place: {error}",
                ConvergenceWarning,
                stacklevel=5,
            )
    raise AssertionError("a search with a best trial has one")


def _unsaved(search: Any) -> Any:
    """The model of an earlier run that had no place where it was to be saved."""
    # Of other data, which were let pass, it would be another one; and what a function chooses only it can tell.
    return (
        None
        if search.allow_mismatch or callable(search.refit)
        else Unsaved(search.study_, search.refit).find(TUNED)
    )


def _ensemble(
    search: Any, question: Question, evaluation: NetEvaluation | None, budget: Budget | None
) -> Any:
    """An ensemble of what the study's best trials have left; None, with a warning, where they left nothing."""

    def fit(model: Any) -> None:
        model.fit(question.frame, question.labels, sample_weight=question.routed.weight)

    chosen = None
    if evaluation is not None:
        whole = clone(search.estimator)
        names = ("n_features_in_", "feature_names_in_", "classes_")
        whole.__dict__.update({name: getattr(search, name) for name in names if hasattr(search, name)})
        whole.schema_ = TableSchema.of_frame(question.frame)
        chosen = choose(search.study_, evaluation, whole, None if budget is not None else fit)
    if chosen is None:
        warnings.warn(
            f"refit={ENSEMBLE!r}: none of the best trials has left its nets here: they are of other versions or another "
            "place, or time was up; the best settings are fitted on all rows instead.",
            ConvergenceWarning,
            stacklevel=5,
        )
        return None
    with storage_errors(search.study_._storage):
        search.study_.set_user_attr(CHOSEN, chosen.note())
    return chosen.model


def _say_that_none_scored(search: Any, trials: Sequence[FrozenTrial], *, by_time: bool) -> None:
    """An error; or, where only time was missing, a warning: the settings as they are give a model all the same."""
    reasons = [t.user_attrs[REASON] for t in trials if REASON in t.user_attrs]
    if search.refit and by_time and not reasons:
        where = "" if isinstance(search.cv, str) else " on all folds"
        warnings.warn(
            f"timeout={search.timeout:g}: the time was up before any trial had a score{where}; the estimator was "
            "fitted as it is, untuned. Give more time.",
            ConvergenceWarning,
            stacklevel=5,
        )
        return
    raise ValueError(
        f"None of {len(trials)} finished trials gave a score"
        + (f"; the first one: {reasons[0]}" if reasons else "; give it more time (timeout)")
    )

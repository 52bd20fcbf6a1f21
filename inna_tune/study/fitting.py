"""What a search's ``fit`` does: check, run the study, and leave results and the best settings fitted."""

from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from typing import Any

import numpy as np

from inna_tune import clock
from inna_tune.study.budget import Budget
from inna_tune.study.ending import finish
from inna_tune.study.parameters import check_search
from inna_tune.study.question import Question
from inna_tune.study.routing import Routed, route
from inna_tune.study.run import StudyOptions, StudyRun, run_study
from inna_tune.study.rungs import default_pruner
from inna_tune.study.scoring import Scorer, takes_weights
from inna_tune.study.training import NetEvaluation


def fit_search(
    search: Any, X: Any, y: Any, given: Mapping[str, Any], *, notes: Mapping[str, Any] | None = None
) -> None:
    """Fit an `InnaSearchCV`.

    Parameters
    ----------
    search : InnaSearchCV
    X, y
        As for its ``fit``.
    given : mapping
        What came with the rows, by name.
    notes : mapping, optional
        User attributes for the study, such as what other workers have to know.
    """
    check_search(search)
    if y is None:
        raise ValueError(f"{type(search).__name__} requires y to be passed, but the target y is None.")
    began = clock.now()

    def routed(n_rows: int, scorer: Scorer) -> Routed:
        return route(search, n_rows, given, scorer_takes_weights=lambda: takes_weights(scorer))

    question = Question.of(
        search, search.estimator, X, y, cv=search.cv, scoring=search.scoring, route=routed, stacklevel=3
    )
    search.scorer_, search.n_splits_ = question.scorer, len(question.splits)
    budget = Budget.of(search, len(question.frame), begun=began)
    check = None if budget is None else partial(budget.check_preparation, steps=len(question.splits) + 1)

    def evaluation() -> NetEvaluation:
        return NetEvaluation(
            question.folded(check), search.estimator, question.scorer, search.space, search.first
        )

    def opened(run: StudyRun) -> None:
        search.study_, search.resumed_ = run.study, run.resumed

    run_study(evaluation, question.fingerprint, _options(search), budget=budget, notes=notes, opened=opened)
    finish(search, question.frame, question.labels, question.routed.weight, budget)


def _options(search: Any) -> StudyOptions:
    own = {f.name: getattr(search, f.name) for f in fields(StudyOptions) if hasattr(search, f.name)}
    if search.random_state is not None:
        own["seed"] = int(np.random.SeedSequence(search.random_state).generate_state(1)[0])
        own["seed_words"] = f"random_state={search.random_state}"
    if search.pruner is None:
        own["pruner"] = default_pruner(search.estimator.max_epochs)
    return StudyOptions(**own)

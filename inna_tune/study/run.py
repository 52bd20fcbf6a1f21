"""Run a study: create or resume it, and let workers bring it up to its number of trials."""

import copy
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import joblib
import numpy as np
import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage

from inna_tune.records.attributes import CURVATURE, FINGERPRINT, POPULATION, RACE, RULES, SEED
from inna_tune.records.fingerprint import MismatchError, UnseededFoldsWarning, check, is_unseeded
from inna_tune.space import PriorSampler
from inna_tune.store.errors import StorageError
from inna_tune.store.keeping import in_memory
from inna_tune.store.opening import create_study, open_storage, storage_errors, store_of
from inna_tune.store.workers import ResumeSummary, resume_summary
from inna_tune.study.beginning import has_begun, try_first
from inna_tune.study.budget import Budget, OutOfTimeError
from inna_tune.study.callbacks import Callback
from inna_tune.study.job import Evaluation, StudyJob
from inna_tune.study.kept import Kept
from inna_tune.study.parallel import run_here, run_parallel, shared_storage
from inna_tune.study.rungs import RULES_NOW, cohort_size
from inna_tune.visible import get_logger

logger = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """How a study is run, as in :class:`inna_tune.InnaSearchCV`.

    But for ``seed``: of a study that has none, None being a fresh one; and ``seed_words``, what a person calls it.
    """

    n_trials: int
    storage: Any = None
    study_name: str | None = None
    resume: bool = False
    seed: int | None = None
    seed_words: str = ""
    sampler: BaseSampler | None = None
    pruner: BasePruner | None = None
    population: int | str = "auto"
    n_jobs: int | None = 1
    error_score: float | str = np.nan
    callbacks: Sequence[Callback] = ()
    allow_mismatch: bool = False
    verbose: int = 0

    @property
    def log_level(self) -> int:
        return logging.INFO if self.verbose else logging.DEBUG


@dataclass(frozen=True)
class StudyRun:
    """A study that work goes on at, and what it held when this began."""

    study: optuna.Study
    resumed: ResumeSummary


def run_study(
    evaluation: Callable[[], Evaluation],
    asked: Callable[..., dict[str, Any]],
    options: StudyOptions,
    *,
    budget: Budget | None = None,
    notes: Mapping[str, Any] | None = None,
    opened: Callable[[StudyRun], object] = lambda run: None,
) -> StudyRun:
    """Create or resume a study, and run it up to its number of trials.

    Parameters
    ----------
    evaluation : callable
        Makes what scores the trials; called once the storage is open, and before anything is stored. Where it raises an
        `OutOfTimeError`, trials are left to a run with more time, and those that the study has already count.
    asked : callable
        Gives the fingerprint of the question, by ``space=`` the JSON of the space.
    options : StudyOptions
    budget : Budget, optional
        Of time.
    notes : mapping, optional
        User attributes of the study, written when others may join it.
    opened : callable
        Told of the run as soon as the study is open; once more where it leaves a temporary database for memory.

    Raises
    ------
    StorageError, MismatchError
        If the study cannot be used, or is another's.
    """
    storage = open_storage(options.storage)
    try:
        made = evaluation()
    except OutOfTimeError:
        run = _open(storage, options, opened)
        with storage_errors(run.study):
            if (described := run.study.user_attrs.get(FINGERPRINT)) is not None:
                known_space = described.get("space") if isinstance(described, dict) else None
                check(run.study, asked(space=known_space), allow_mismatch=options.allow_mismatch)
        return run
    if joblib.effective_n_jobs(options.n_jobs) == 1:
        run = _open(storage, options, opened)
        with _leaving_nothing(run, options), storage_errors(run.study):
            job = _begin(run, made, asked, options, notes or {})
        run_here(job, run.study, budget, options.callbacks)
        return run
    with shared_storage(storage, options.storage) as shared:
        run = _open(shared, options, opened)
        try:
            with _leaving_nothing(run, options), storage_errors(run.study):
                job = _begin(run, made, asked, options, notes or {})
            run_parallel(job, run.study, budget, options.callbacks, options.n_jobs)
        finally:
            if shared is not storage:
                moved = in_memory(run.study)
                Kept(run.study).copy_to(Kept(moved))
                run = replace(run, study=moved)
                opened(run)
    return run


def _open(storage: BaseStorage, options: StudyOptions, opened: Callable[[StudyRun], object]) -> StudyRun:
    # Copies, here and below, since a run leaves what it was given as it was.
    pruner = copy.deepcopy(options.pruner)
    study = create_study(storage, options.study_name, "maximize", None, pruner, resume=options.resume)
    run = StudyRun(study, resume_summary(study, options.n_trials))
    opened(run)
    return run


@contextmanager
def _leaving_nothing(run: StudyRun, options: StudyOptions) -> Iterator[None]:
    """Take a study away that an error ends before it has a trial, so that its name is free for who mends the settings."""
    try:
        yield
    except StorageError:
        raise
    except Exception:
        study = run.study
        # One that may be resumed may be another's as well.
        with suppress(StorageError, KeyError), storage_errors(study):
            if not options.resume and not study.get_trials(deepcopy=False):
                study._storage.delete_study(study._study_id)
        raise


def _begin(
    run: StudyRun,
    evaluation: Evaluation,
    asked: Callable[..., dict[str, Any]],
    options: StudyOptions,
    notes: Mapping[str, Any],
) -> StudyJob:
    """Write seed, fingerprint, curvature and first trials into a new study, or read them from a resumed one."""
    study, attrs = run.study, run.study.user_attrs
    seed = attrs.get(SEED)
    if seed is None:
        fresh = int(np.random.SeedSequence().generate_state(1)[0]) if options.seed is None else options.seed
        seed = store_of(study).settle(study._study_id, SEED, fresh)
        if options.seed not in (None, seed):
            raise MismatchError(
                f"another search has begun study {study.study_name!r} in this moment, with another seed than "
                f"{options.seed_words or options.seed}; give both the same, or another study name"
            )
    beginning = evaluation.begin(study, seed)
    space = beginning.space
    described = asked(space=space.to_json())
    if FINGERPRINT not in attrs and options.storage is not None and is_unseeded(described):
        warnings.warn(
            f"cv={described['cv']} shuffles without a seed: the study cannot be resumed, nor can a second process "
            "join it, since its folds would be others. Give a whole number as its random_state.",
            UnseededFoldsWarning,
            stacklevel=5,
        )
    check(study, described, allow_mismatch=options.allow_mismatch, begins=FINGERPRINT not in attrs)
    if SEED in attrs and options.seed not in (None, seed):
        logger.warning(
            "study %s goes on with the seed that it was begun with, not with %s",
            study.study_name,
            options.seed_words or options.seed,
        )
    if beginning.curvature is not None and CURVATURE not in attrs:
        study.set_user_attr(CURVATURE, beginning.curvature)
    if not has_begun(study):
        study.set_user_attr(RULES, RULES_NOW)
        if getattr(study.pruner, "races_folds", False):
            study.set_user_attr(RACE, True)
        try_first(study, beginning.first())
    # Last: by these other workers know that they may join, and what is to be tried first has to wait for them by then.
    for name, note in notes.items():
        if attrs.get(name) != note:
            study.set_user_attr(name, note)
    population = _population(study, options)
    sampler = copy.deepcopy(options.sampler)
    study.sampler = sampler if isinstance(sampler, PriorSampler) else PriorSampler(sampler, space, seed=seed)
    logger.log(options.log_level, "study %s: %s", study.study_name, run.resumed)
    return StudyJob(
        evaluation=evaluation,
        space=space,
        seed=seed,
        n_trials=options.n_trials,
        population=population,
        error_score=options.error_score,
        log_level=options.log_level,
    )


def _population(study: optuna.Study, options: StudyOptions) -> int:
    """Trials that train together; a resumed study goes on in cohorts of the size it began with."""
    stored = study.user_attrs.get(POPULATION)
    size = options.population
    if size == "auto":
        size = stored or cohort_size(options.n_trials)
    if size != stored:
        study.set_user_attr(POPULATION, int(size))
    return int(size)

"""InnaSearchCV: tune an estimator by an Optuna study that survives."""

import copy
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar, Self

import joblib
import numpy as np
import numpy.typing as npt
import optuna
import pandas as pd
from optuna.pruners import BasePruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone, is_classifier
from sklearn.utils.metadata_routing import UNUSED, MetadataRouter, MethodMapping, process_routing
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from inna_tune import clock
from inna_tune.estimators.frames import as_frame
from inna_tune.records.attributes import CURVATURE, FINGERPRINT, POPULATION, SEED
from inna_tune.records.fingerprint import UnseededFoldsWarning, check, fingerprint, is_unseeded
from inna_tune.records.frames import trials_frame
from inna_tune.space import Prior, PriorSampler, SearchSpace
from inna_tune.store.keeping import in_memory, without_storage
from inna_tune.store.opening import create_study, open_storage, store_of
from inna_tune.store.workers import resume_summary
from inna_tune.study.beginning import curvature_of, first_settings, has_begun, space_at, try_first
from inna_tune.study.budget import Budget, OutOfTimeError
from inna_tune.study.callbacks import Callback
from inna_tune.study.ending import finish
from inna_tune.study.folding import FoldedTable, sliceable
from inna_tune.study.job import Job
from inna_tune.study.parallel import run_here, run_parallel, shared_storage
from inna_tune.study.parameters import check_search
from inna_tune.study.routing import route, routing_is_on
from inna_tune.study.rungs import REDUCTION_FACTOR, cohort_size, rungs
from inna_tune.study.scoring import named_scorer, resolve_scorer, scorer_name, takes_weights
from inna_tune.study.splits import resolve_splits
from inna_tune.study.targets import read_target

logger = logging.getLogger(__name__)


def _has_probabilities(search: "InnaSearchCV") -> bool:
    return hasattr(search.estimator, "predict_proba")


class InnaSearchCV(MetaEstimatorMixin, BaseEstimator):  # type: ignore[misc]
    """Tune InnaClassifier or InnaRegressor by cross-validation, and refit the best settings on all rows.

    Parameters
    ----------
    estimator : InnaClassifier or InnaRegressor
        Settings that the space does not name stay as they are here.
    space : SearchSpace or Prior, optional
        Priors over the estimator's parameters, also those of its encoder (``encoder__numeric``). A `inna_tune.space.Prior`
        learned from other studies is moved to the curvature of this one, and its portfolio is tried first. None:
        ``SearchSpace.inna`` centred on the curvature of the loss at the initial weights, which is measured once a study and
        stored in it.
    n_trials : int, default=50
        Trials of the study in all, over every restart and worker.
    timeout : float, optional
        Seconds for all of ``fit``, the refit included, for which time is kept by what trials took. A trial in hand when the
        trials' time is up waits to be taken up by the next resume, from its checkpoint if the storage is a database; until
        then it counts with the best that it had reached on all folds (user attribute ``inna_tune:cut``). Where no trial got
        so far, the estimator is fitted as it is, with a warning. (The estimator's ``max_time`` ends a single trial, which
        keeps the best it has: seconds for all its folds, trials of a cohort sharing theirs.)
    cv : int, splitter, iterable or None, default=None
        As in scikit-learn; None: five folds under 2,000 rows, three under 10,000, one held-out fifth above.
    scoring : str, callable or None, default=None
        As in scikit-learn, but None means negative log-loss or negative root mean squared error. A function gets the fitted
        estimator of the fold. Log-loss is that of all classes; one that a fold was not trained on has no probability there.
    storage : Optuna storage, URL or None
        Where the study lives; None keeps it in memory (while ``n_jobs`` > 1: in a temporary file).
    study_name : str, optional
        Its name; None lets Optuna make one.
    resume : bool, default=False
        Go on with the study of that name if there is one. All that its trials see must be the same: data, weights, folds,
        scorer, and the estimator with its settings that the space does not name.
    first : "auto", "default" or sequence of mappings, default="auto"
        Settings to try before the sampler's own, in a study that has not begun. "default": what the estimator is set to, by
        numbers for what is "auto", so that tuning does not end with less on its folds; "auto": that, and the portfolio of a
        `Prior`, unless a `SearchSpace` is given, whose study begins with the sampler's; or natural values, of some parameters
        or all.
    sampler : optuna.samplers.BaseSampler, optional
        Base sampler, seen through the priors by :class:`inna_tune.PriorSampler`; None: TPE.
    pruner : optuna.pruners.BasePruner, optional
        Asked at every rung; None: successive halving. Where trials differ in their law of decay, those with the
        cosine law are not pruned, since their early scores say little about the end.
    population : int or "auto", default="auto"
        Trials that are drawn together and train together, folds and all, as one stacked model; 1 draws each trial with
        the knowledge of all before it. "auto": see `cohort_size`.
    n_jobs : int, default=1
        Workers: processes of this machine; -1 means one a core. Within ``joblib.parallel_config(backend="dask")`` a Dask
        cluster has them, one a thread of it whatever is said here, and likewise Ray, with ``backend="ray"`` after
        ``ray.util.joblib.register_ray()``; on several machines the storage must be a server's, ``postgresql+psycopg://``.
        Each opens the storage, and trains with its share of the cores. Trials are trained as by one worker, but drawn
        knowing less of each other, so that with several workers the same seed does not give the same study twice. In a
        script, guard the call by ``if __name__ == "__main__":`` where it has classes or functions of its own.
    refit : bool, default=True
        Fit the best settings on all rows.
    error_score : "raise" or number, default=nan
        What becomes of a trial that raises, or whose score is not defined on a fold: "raise" lets the error through, a number
        marks the trial as failed and goes on.
    random_state : int or None, default=None
        Root of all streams: trial t draws from SeedSequence([random_state, t]). A resumed study keeps its first seed, and
        says so where another one is given.
    callbacks : sequence of callables (study, trial), default=()
        Called after each trial, in this process. ``study.stop()`` ends the search with the trials that train at the time (by
        ``n_jobs`` workers, with what is finished; the rest is left for a resume); what a callback raises ends it at once. One
        with a method ``on_training(study, training)`` also hears, before each rung, what trains in this process: an
        `inna_tune.study.job.Training`.
    allow_mismatch : bool, default=False
        Resume in spite of such differences; the study records them.
    verbose : int, default=0
        1 logs every trial at INFO level under "inna_tune", which ``logging.basicConfig(level="INFO")`` shows. For a progress
        bar see `inna_tune.study.ProgressBar`.

    Attributes
    ----------
    study_ : optuna.Study
    best_params_, best_score_, best_index_ : dict, float, int
        Of the best finished trial; the index is its row in ``cv_results_``.
    best_estimator_ : fitted estimator
        Where ``refit`` is true.
    cv_results_ : dict of arrays
        One row a finished trial, as in scikit-learn, with ``state`` and ``number`` beside.
    n_splits_, refit_time_ : int, float
    resumed_ : ResumeSummary
        What the study held when this call began.

    Raises
    ------
    ValueError
        If a parameter makes no sense, the study belongs to other data, or every trial failed (with the first error).

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from inna_tune import InnaClassifier, InnaSearchCV
    >>> X, y = load_iris(return_X_y=True, as_frame=True)
    >>> net = InnaClassifier(hidden_layer_sizes=(16,), max_epochs=20)
    >>> search = InnaSearchCV(net, n_trials=3, cv=3, random_state=0).fit(X, y)
    >>> len(search.trials_dataframe())
    3
    """

    study_: optuna.Study
    best_estimator_: Any

    def __init__(
        self,
        estimator: Any,
        space: SearchSpace | Prior | None = None,
        *,
        n_trials: int = 50,
        timeout: float | None = None,
        cv: Any = None,
        scoring: Any = None,
        storage: Any = None,
        study_name: str | None = None,
        resume: bool = False,
        first: str | Sequence[Mapping[str, Any]] = "auto",
        sampler: BaseSampler | None = None,
        pruner: BasePruner | None = None,
        population: int | str = "auto",
        n_jobs: int | None = 1,
        refit: bool = True,
        error_score: float | str = np.nan,
        random_state: int | None = None,
        callbacks: Sequence[Callback] = (),
        allow_mismatch: bool = False,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.space = space
        self.n_trials = n_trials
        self.timeout = timeout
        self.cv = cv
        self.scoring = scoring
        self.storage = storage
        self.study_name = study_name
        self.resume = resume
        self.first = first
        self.sampler = sampler
        self.pruner = pruner
        self.population = population
        self.n_jobs = n_jobs
        self.refit = refit
        self.error_score = error_score
        self.random_state = random_state
        self.callbacks = callbacks
        self.allow_mismatch = allow_mismatch
        self.verbose = verbose

    def __getstate__(self) -> dict[str, Any]:
        return without_storage(super().__getstate__())

    # What whoever runs the search wants kept in the study's user attributes.
    _study_notes: Mapping[str, Any] = MappingProxyType({})

    # ------------------------------------------------------------------ fit

    def fit(self, X: Any, y: Any, *, sample_weight: Any = None, groups: Any = None, **params: Any) -> Self:
        """Run the study up to ``n_trials`` and refit the best settings.

        Parameters
        ----------
        X : DataFrame or array of shape [n_samples, n_features]
        y : array of shape [n_samples]
        sample_weight : array of shape [n_samples], optional
            Used in training and in scoring; with metadata routing by those of estimator and scorer that ask for it.
        groups : array of shape [n_samples], optional
            For the splitter.
        **params
            With metadata routing: further things that splitter or scorer ask for, such as an array of shape [n_samples].

        Returns
        -------
        self
        """
        check_search(self)
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None.")
        began = clock.now()
        frame = as_frame(self, X, reset=True)
        check_consistent_length(frame, y)
        classifier = is_classifier(self.estimator)
        given = read_target(y, classifier=classifier)
        labels = clone(self.estimator)._plain_target(given)
        # Learning the labels here lets a target that makes no sense fail before anything is stored.
        clone(self.estimator)._fit_target(labels, None)
        self.scorer_ = resolve_scorer(self.estimator, self.scoring, np.unique(labels) if classifier else None)
        routed = route(
            self,
            len(frame),
            scorer_takes_weights=lambda: takes_weights(self.scorer_),
            sample_weight=sample_weight,
            groups=groups,
            **params,
        )
        splitter, splits = resolve_splits(self.cv, frame, labels, routed.split, classifier=classifier)
        self.n_splits_ = len(splits)
        budget = Budget.of(self, len(frame), begun=began)
        asked = partial(
            fingerprint,
            frame,
            given,
            task=self._task(labels),
            cv=splitter,
            splits=splits,
            metric=scorer_name(self.estimator, self.scoring),
            scorer=named_scorer(self.estimator, self.scoring),
            estimator=self.estimator,
            split=routed.split,
            rows={"sample weights": routed.weight, **routed.scored_by},
        )
        n_workers = joblib.effective_n_jobs(self.n_jobs)
        storage = open_storage(self.storage)
        try:
            folded = FoldedTable(
                self.estimator,
                sliceable(X, frame),
                given,
                routed.weight,
                splits,
                routed.score,
                before_fold=None
                if budget is None
                else partial(budget.check_preparation, steps=len(splits) + 1),
            )
        except OutOfTimeError:
            # Trials are left to a fit with more time; those that the study has already count.
            self._open_study(storage)
            self.resumed_ = resume_summary(self.study_, self.n_trials)
            if (described := self.study_.user_attrs.get(FINGERPRINT)) is not None:
                known_space = described.get("space") if isinstance(described, dict) else None
                check(self.study_, asked(space=known_space), allow_mismatch=self.allow_mismatch)
            self._finish(frame, labels, routed.weight, budget)
            return self
        if n_workers == 1:
            self._tune(storage, n_workers, folded, asked, budget)
        else:
            with shared_storage(storage, self.storage) as shared:
                try:
                    self._tune(shared, n_workers, folded, asked, budget)
                finally:
                    if shared is not storage and hasattr(self, "study_"):
                        self.study_ = in_memory(self.study_)
        self._finish(frame, labels, routed.weight, budget)
        return self

    def _tune(
        self,
        storage: BaseStorage,
        n_workers: int,
        folded: FoldedTable,
        asked: Callable[..., dict[str, Any]],
        budget: Budget | None,
    ) -> None:
        """Create or resume the study, and run it up to ``n_trials``."""
        self._open_study(storage)
        seed, space = self._prepare_study(folded, asked)
        population = self._population()
        self.study_.sampler = self._sampler(space, seed)
        self.resumed_ = resume_summary(self.study_, self.n_trials)
        logger.log(
            logging.INFO if self.verbose else logging.DEBUG,
            "study %s: %s",
            self.study_.study_name,
            self.resumed_,
        )
        job = Job(
            folded=folded,
            estimator=self.estimator,
            space=space,
            scorer=self.scorer_,
            seed=seed,
            n_trials=self.n_trials,
            population=population,
            error_score=self.error_score,
            log_level=logging.INFO if self.verbose else logging.DEBUG,
        )
        if n_workers == 1:
            run_here(job, self.study_, budget, self.callbacks)
        else:
            run_parallel(job, self.study_, budget, self.callbacks, self.n_jobs)

    def _open_study(self, storage: BaseStorage) -> None:
        pruner = copy.deepcopy(self.pruner) or self._default_pruner()
        self.study_ = create_study(storage, self.study_name, "maximize", None, pruner, resume=self.resume)

    def _prepare_study(
        self, folded: FoldedTable, asked: Callable[..., dict[str, Any]]
    ) -> tuple[int, SearchSpace]:
        """Seed, curvature and space of the study, written into a new one and read from a resumed one."""
        study = self.study_
        attrs = study.user_attrs
        seed = attrs.get(SEED)
        if seed is None:
            seed = store_of(study).settle(study._study_id, SEED, self._seed())
        curvature = attrs.get(CURVATURE)
        if curvature is None and not isinstance(self.space, SearchSpace):
            curvature = curvature_of(folded, self.estimator, seed)
        space, portfolio = space_at(self.space, study, curvature)
        described = asked(space=space.to_json())
        if FINGERPRINT not in attrs and self.storage is not None and is_unseeded(described):
            warnings.warn(
                f"cv={described['cv']} shuffles without a seed: the study cannot be resumed, nor can a second process "
                "join it, since its folds would be others. Give a whole number as its random_state.",
                UnseededFoldsWarning,
                stacklevel=4,
            )
        check(study, described, allow_mismatch=self.allow_mismatch)
        if SEED in attrs and self.random_state is not None and self._seed() != seed:
            logger.warning(
                "study %s goes on with the seed that it was begun with, not with random_state=%s",
                study.study_name,
                self.random_state,
            )
        if curvature is not None and CURVATURE not in attrs:
            study.set_user_attr(CURVATURE, curvature)
        if not has_begun(study):
            try_first(study, first_settings(self, folded, space, portfolio, seed))
        # Last: by these other workers know that they may join, and what is to be tried first has to wait for them by then.
        for name, note in self._study_notes.items():
            if attrs.get(name) != note:
                study.set_user_attr(name, note)
        return seed, space

    def _seed(self) -> int:
        return int(np.random.SeedSequence(self.random_state).generate_state(1)[0])

    def _task(self, y: Any) -> str:
        if not is_classifier(self.estimator):
            return "regression"
        return "binary" if len(np.unique(y)) == 2 else "multiclass"

    def _population(self) -> int:
        """Trials that train together; a resumed study goes on in cohorts of the size it began with."""
        stored = self.study_.user_attrs.get(POPULATION)
        if self.population == "auto":
            size = stored or cohort_size(self.n_trials)
        else:
            size = int(self.population)
        if size != stored:
            self.study_.set_user_attr(POPULATION, size)
        return int(size)

    def _sampler(self, space: SearchSpace, seed: int) -> BaseSampler:
        # A copy, since a search leaves what it was given as it was.
        sampler = copy.deepcopy(self.sampler)
        return sampler if isinstance(sampler, PriorSampler) else PriorSampler(sampler, space, seed=seed)

    def _default_pruner(self) -> BasePruner:
        first = rungs(self.estimator.max_epochs)[:1] or [1]
        return SuccessiveHalvingPruner(min_resource=first[0], reduction_factor=REDUCTION_FACTOR)

    # ------------------------------------------------------------------ the end

    def _finish(self, frame: pd.DataFrame, y: Any, weight: Any, budget: Budget | None) -> None:
        finish(self, frame, y, weight, budget)

    def trials_dataframe(self) -> pd.DataFrame:
        """All trials of the study, one row each, ready to plot: see :func:`inna_tune.records.frames.trials_frame`."""
        check_is_fitted(self, "study_")
        return trials_frame(self.study_)

    def _sk_visual_block_(self) -> Any:
        """What scikit-learn draws in a notebook: as its own searches, what is tuned, or the best that was found."""
        # NOTE: sklearn has no public way; tests/study/test_notebook.py tells when this one moves.
        from sklearn.utils._repr_html.estimator import _VisualBlock

        key = "best_estimator_" if hasattr(self, "best_estimator_") else "estimator"
        shown = getattr(self, key)
        return _VisualBlock(
            "parallel", [shown], names=[f"{key}: {type(shown).__name__}"], name_details=[str(shown)]
        )

    # ------------------------------------------------------------------ the best estimator

    def _best(self) -> Any:
        check_is_fitted(
            self, "best_estimator_", msg="This %(name)s is not fitted yet, or was fitted with refit=False."
        )
        return self.best_estimator_

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Predictions of the best estimator, shape [n_samples]."""
        return np.asarray(self._best().predict(X))

    @available_if(_has_probabilities)  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:
        """Probabilities of the best estimator, shape [n_samples, n_classes]."""
        return np.asarray(self._best().predict_proba(X))

    @available_if(_has_probabilities)  # type: ignore[untyped-decorator]
    def predict_log_proba(self, X: Any) -> npt.NDArray[np.float64]:
        """Logarithms of ``predict_proba``, shape [n_samples, n_classes]."""
        return np.asarray(self._best().predict_log_proba(X))

    def score(self, X: Any, y: Any, sample_weight: Any = None, **params: Any) -> float:
        """Score of the best estimator by the search's own scorer; higher is better.

        Parameters
        ----------
        X : DataFrame or array of shape [n_samples, n_features]
        y : array of shape [n_samples]
        sample_weight : array of shape [n_samples], optional
            For the scorer.
        **params
            With metadata routing: further things that the scorer asks for.
        """
        best = self._best()
        given = params if sample_weight is None else params | {"sample_weight": sample_weight}
        if routing_is_on():
            given = process_routing(self, "score", **given).scorer.score
        return float(self.scorer_(best, X, y, **given))

    # ------------------------------------------------------------------ routing

    # Whether the weights go to estimator, scorer or splitter is theirs to say (``set_fit_request`` and the like); the
    # search itself has no use for any, so that it has no such methods.
    __metadata_request__fit: ClassVar = {"sample_weight": UNUSED, "groups": UNUSED}
    __metadata_request__score: ClassVar = {"sample_weight": UNUSED}

    def get_metadata_routing(self) -> MetadataRouter:
        """Who is asked what to take of that which is given to ``fit`` and ``score``."""
        scorer = resolve_scorer(self.estimator, self.scoring, None)
        return (
            MetadataRouter(owner=self)
            .add(estimator=self.estimator, method_mapping=MethodMapping().add(caller="fit", callee="fit"))
            .add(
                scorer=scorer,
                method_mapping=MethodMapping()
                .add(caller="fit", callee="score")
                .add(caller="score", callee="score"),
            )
            .add(splitter=self.cv, method_mapping=MethodMapping().add(caller="fit", callee="split"))
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        if hasattr(self.estimator, "__sklearn_tags__"):
            own = self.estimator.__sklearn_tags__()
            tags.estimator_type, tags.classifier_tags, tags.regressor_tags = (
                own.estimator_type,
                own.classifier_tags,
                own.regressor_tags,
            )
            tags.target_tags, tags.input_tags = own.target_tags, own.input_tags
        return tags

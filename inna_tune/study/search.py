"""InnaSearchCV: tune an estimator by an Optuna study that survives."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import optuna
import pandas as pd
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from sklearn.base import BaseEstimator, MetaEstimatorMixin
from sklearn.utils.metadata_routing import UNUSED, MetadataRouter, MethodMapping, process_routing
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from inna_tune.engine import ordinary_tensors
from inna_tune.records.frames import leaderboard_frame, trials_frame
from inna_tune.space import Prior, SearchSpace
from inna_tune.store.keeping import without_storage
from inna_tune.study.callbacks import Callback
from inna_tune.study.fitting import fit_search
from inna_tune.study.metrics import Metrics
from inna_tune.study.routing import receiver, routing_is_on


def _has_probabilities(search: "InnaSearchCV") -> bool:
    return hasattr(search.estimator, "predict_proba")


class InnaSearchCV(MetaEstimatorMixin, BaseEstimator):  # type: ignore[misc]
    """Tune InnaClassifier or InnaRegressor by cross-validation, and refit the best settings on all rows, or average the best.

    Parameters
    ----------
    estimator : InnaClassifier or InnaRegressor, or Pipeline that ends in one; or a net of skorch
        Settings that the space does not name stay as they are here. Of a pipeline the transformers are fitted to the training
        rows of each fold; weights go to the net. A net of skorch (or a pipeline that ends in one) trains fold by fold, with a
        fit each; after the first fold the better half of the trials goes on.
    space : SearchSpace or Prior, optional
        Priors over the estimator's parameters, also those of its encoder (``encoder__numeric``). Names are as ``set_params``
        takes them; those of the net that a pipeline ends in, and of the optimizer of a skorch net, may do without what stands
        before them (``lr`` for ``innaclassifier__lr``, ``alpha`` for ``optimizer__alpha``). A `inna_tune.space.Prior`
        learned from other studies is moved to the curvature of this one, and its portfolio is tried first. None:
        ``SearchSpace.inna`` centred on the curvature of the loss at the initial weights, which is measured once a study and
        stored in it; with ``block`` and ``hidden_layer_sizes``, where the estimator has those it comes with (and no
        ``module``): a net that a person has chosen is the one that is trained.
    n_trials : int, default=50
        Trials of the study in all, over every restart and worker.
    timeout : float, optional
        Seconds for all of ``fit``. The estimator is fitted as it is first, which gives a model whatever comes and tells what
        trials and the refit take; trials begin if the first one ends in time; what is left at the end trains further nets of an
        automatic number. A trial in hand when the trials' time is up waits to be taken up by the next resume, from its
        checkpoint if the storage is a database; until then it counts with the best that it had reached on all folds (user
        attribute ``inna_tune:cut``). Where no trial got so far, the first fit is the model, with a warning. (The estimator's
        ``max_time`` ends a single trial, which keeps the best it has: seconds for all its folds, trials of a cohort sharing
        theirs.)
    cv : int, splitter, iterable, "members" or None, default=None
        As in scikit-learn; None: five folds under 2,000 rows, three under 10,000, one held-out fifth above. "members": a trial
        is one fit of its settings on all rows, and its value the mean over its nets of the score on the rows that each was
        trained without, each net alone. That costs one fit in place of several, and the best trial's nets are the model, with
        nothing to refit: ``fit`` with its settings and seed trains the same, on a CPU by one thread to the last bit (where a
        fit has one net, up to rounding). All trials have one seed, and so leave out the same rows. As these rows also stop
        training early, and the table is encoded with them, the value is a little better than a score of new rows, for all
        trials alike. The estimator must be one that leaves out rows (see its ``n_members`` and ``early_stopping``).
    scoring : str, callable, None, or several: list, tuple, set or dict, default=None
        As in scikit-learn, but None means negative log-loss or negative root mean squared error. A function gets the fitted
        estimator of the fold. Log-loss is that of all classes; one that a fold was not trained on has no probability there.
        Of several metrics, names of scorers or a dict of names to scorers, ``refit`` names the one that the study maximises;
        complete trials are scored by the others too (``mean_test_NAME`` and the like in ``cv_results_``).
    storage : Optuna storage, URL or None
        Where the study lives; None keeps it in memory (while ``n_jobs`` > 1: in a temporary file).
    study_name : str, optional
        Its name; None lets Optuna make one.
    resume : bool, default=False
        Go on with the study of that name if there is one. All that its trials see must be the same: data, weights, folds,
        scorer, and the estimator with its settings that the space does not name. If not, a name that is taken is refused.
    first : "auto", "default" or sequence of mappings, default="auto"
        Settings to try before the sampler's own, in a study that has not begun. "default": what the estimator is set to, by
        numbers for what is "auto", so that tuning does not end with less on its folds; "auto": that, and the portfolio of a
        `Prior`, unless a `SearchSpace` is given, whose study begins with the sampler's; or natural values, of some parameters
        or all.
    sampler : optuna.samplers.BaseSampler, optional
        Base sampler, seen through the priors by :class:`inna_tune.PriorSampler`; None: TPE.
    pruner : optuna.pruners.BasePruner, optional
        Asked at every rung, and shown those of the earlier trials whose law of decay ends at a horizon as this one's does, or
        that have none, too. None: asynchronous successive halving over folds, too (`inna_tune.study.rungs.RungPruner`): a
        trial trains on its first fold, where at each rung the better half goes on, and on the others only if it is still there
        at the end; of a single fold, or with ``cv="members"``, the best third. The first trial is never pruned; the score of a
        complete trial is always that of all folds.
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
    refit : bool, "ensemble", name of a metric or callable, default=True
        True: fit the best settings on all rows. "ensemble": average several of the best trials. By log-loss and RMSE these
        are all that the rows which their nets did not see cannot tell from the best, or the best three where these score
        nearly as well; by other metrics those, and with the weights, that score best on these rows (greedy selection with
        replacement, Caruana et al. 2004). A scorer must ask for nothing but predictions. With five folds or more,
        ``cv="members"``, or a ``timeout``, the trials' nets are averaged, which costs no further training; else, or where
        they are large, the heaviest five settings are fitted on all rows. False: neither. Of several metrics the name of the
        one that counts, whose best settings are refitted; with "ensemble", False or a function it is the first. A function, as
        in scikit-learn, gets ``cv_results_`` and returns the row whose settings are fitted on all rows, such as the smallest
        net of those that score nearly as well. The row's ``state`` must be "COMPLETE" or "CUT", since others have no score.
    error_score : "raise" or number, default=nan
        What becomes of a trial that raises, or whose score is not defined on a fold: "raise" lets the error through, a number
        marks the trial as failed and goes on.
    random_state : int or None, default=None
        Root of all streams: trial t draws from SeedSequence([random_state, t]), with ``cv="members"`` every one as the first.
        What an estimator without a ``random_state`` of its own gets is the trial's user attribute "seed". A resumed study keeps
        its first seed, and says so where another one is given.
    callbacks : sequence of callables (study, trial), or None, default=()
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
        Of the best finished trial, or of the one that ``refit`` chose, without ``best_score_`` then; the index is its row in
        ``cv_results_``.
    best_estimator_ : fitted estimator
        Where ``refit`` is true; an `inna_tune.estimators.EnsembleClassifier` or ``EnsembleRegressor`` where it is "ensemble".
    cv_results_ : dict of arrays
        One row a finished trial, as in scikit-learn, with ``state`` and ``number`` beside. A metric that is not maximised is
        NaN where a trial was scored before the study knew of it, or where it is not defined.
    scorer_, multimetric_ : callable or dict of str to callable, bool
        What scores the folds; by name of several metrics.
    n_splits_, refit_time_ : int, float
        With ``cv="members"`` the first is the number of nets of a fit of the estimator as it is.
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
        refit: bool | str | Callable[[dict[str, npt.NDArray[Any]]], int] = True,
        error_score: float | str = np.nan,
        random_state: int | None = None,
        callbacks: Sequence[Callback] | None = (),
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
        with ordinary_tensors():
            fit_search(self, X, y, {"sample_weight": sample_weight, "groups": groups, **params})
        return self

    # ------------------------------------------------------------------ the end

    def trials_dataframe(self) -> pd.DataFrame:
        """All trials of the study, one row each, ready to plot: see :func:`inna_tune.records.frames.trials_frame`."""
        check_is_fitted(self, "study_")
        return trials_frame(self.study_)

    def leaderboard(self) -> pd.DataFrame:
        """The trials that have a score, and the ensemble of them if there is one, the best first.

        Returns
        -------
        DataFrame
            See :func:`inna_tune.records.frames.leaderboard_frame`.
        """
        check_is_fitted(self, "study_")
        return leaderboard_frame(self.study_)

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
        scorer = self.scorer_[self._metrics().objective] if self.multimetric_ else self.scorer_
        return float(scorer(best, X, y, **given))

    def _metrics(self) -> Metrics:
        return Metrics.of(self.estimator, self.scoring, refit=self.refit)

    # ------------------------------------------------------------------ routing

    # Whether the weights go to estimator, scorer or splitter is theirs to say (``set_fit_request`` and the like); the
    # search itself has no use for any, so that it has no such methods.
    __metadata_request__fit: ClassVar = {"sample_weight": UNUSED, "groups": UNUSED}
    __metadata_request__score: ClassVar = {"sample_weight": UNUSED}

    def get_metadata_routing(self) -> MetadataRouter:
        """Who is asked what to take of that which is given to ``fit`` and ``score``."""
        metrics = self._metrics()
        beside = {receiver(name): scorer for name, scorer in metrics.others.items()}
        return (
            MetadataRouter(owner=self)
            .add(estimator=self.estimator, method_mapping=MethodMapping().add(caller="fit", callee="fit"))
            .add(
                scorer=metrics.scorer,
                method_mapping=MethodMapping()
                .add(caller="fit", callee="score")
                .add(caller="score", callee="score"),
            )
            .add(**beside, method_mapping=MethodMapping().add(caller="fit", callee="score"))
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

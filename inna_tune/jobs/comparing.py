"""Is INNA worth it on these data? Optimizers and baselines tuned alike, and compared on rows that tuning never saw."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.storages import BaseStorage
from optuna.trial import TrialState
from sklearn.base import clone
from sklearn.dummy import DummyClassifier, DummyRegressor

from inna_tune.estimators.base import InnaEstimator
from inna_tune.estimators.ensemble import Ensemble
from inna_tune.estimators.interruption import interrupts_end_all
from inna_tune.jobs.baselines import BASELINES, fit_baseline, tune_baseline
from inna_tune.jobs.settings import make_estimator
from inna_tune.jobs.tuning import score_rows
from inna_tune.jobs.verdict import CONSTANT, Comparison, Contender, ensemble_of
from inna_tune.optim.optimizers import OPTIMIZERS
from inna_tune.records.certainty import Gain, interval, resample_log_means
from inna_tune.records.fingerprint import MismatchError
from inna_tune.records.heldout import record_held_out, summarize_held_out
from inna_tune.records.leaderboard import EnsembleNote
from inna_tune.records.record import StudyRecord, seconds_of
from inna_tune.records.wording import describe_trial
from inna_tune.space import Law, SearchSpace
from inna_tune.store.errors import StorageError
from inna_tune.store.opening import open_storage, storage_errors, store_of
from inna_tune.study.beginning import net_is_as_it_comes
from inna_tune.study.callbacks import Callback
from inna_tune.study.search import InnaSearchCV
from inna_tune.tables import split_rows
from inna_tune.tables.problem import Problem, TableError

Watch = Callable[[str], AbstractContextManager[Callback]]


def space_of(optimizer: str, *, net: bool = False) -> SearchSpace | None:
    """What is tuned of an optimizer: all of its own, and decay, weight decay and dropout by the same priors for each.

    INNA has the shipped priors, centred on the curvature of the loss. The others' step sizes have priors around what is usual,
    wide enough for a factor of ten to either side; AdamW's betas stay at 0.9 and 0.999, Muon's momentum at 0.95.

    Parameters
    ----------
    optimizer : str
        One of `inna_tune.optim.optimizers.OPTIMIZERS`.
    net : bool, default=False
        Whether what the net is like is tuned, too, as a search does where nobody has chosen it.

    Returns
    -------
    SearchSpace or None
        As `InnaSearchCV` takes it.
    """
    own = OPTIMIZERS[optimizer].space
    if own is None:
        return None
    shared = {n: law for n, law in SearchSpace.inna(net=net).items() if n not in {"alpha", "beta", "lr"}}
    return SearchSpace({name: Law.from_json(law) for name, law in own.items()} | shared)


def compare(
    problem: Problem,
    *,
    optimizers: Iterable[str] = OPTIMIZERS,
    baselines: Sequence[str] = ("hgb",),
    n_trials: int,
    storage: Any,
    study_name: str,
    resume: bool = False,
    timeout: float | None = None,
    seed: int = 0,
    held_out: float = 0.2,
    n_fits: int = 5,
    n_jobs: int = 1,
    ensemble: bool = True,
    estimator: InnaEstimator | None = None,
    settings: Sequence[str] = (),
    watch: Watch | None = None,
    allow_mismatch: bool = False,
) -> Comparison:
    """Tune optimizers and baselines alike, and compare them on rows that tuning never saw.

    Every contender gets the same rows, folds and score, and as many trials, in a study ``NAME-CONTENDER`` of its own. The
    nets differ in nothing but the optimizer and what is tuned of it (`space_of`), and each begins with its untuned setting; a
    trial that lags at a rung ends there.
    Equal numbers of trials need not take equal time: the seconds are told.

    Parameters
    ----------
    problem : Problem
    optimizers : iterable of str
        Of `inna_tune.optim.optimizers.OPTIMIZERS`.
    baselines : sequence of str
        Of `inna_tune.jobs.baselines.BASELINES`; may be empty.
    n_trials : int
        Of every study in all.
    storage, resume, allow_mismatch
        As in :class:`inna_tune.InnaSearchCV`.
    study_name : str
        What the studies' names begin with.
    timeout : float, optional
        Seconds to tune each contender, and for a net to fit its best settings once.
    seed : int
        Of the held-out split, the studies and the baselines.
    held_out : float
        Share of the rows that tuning never sees.
    n_fits : int
        How often the best settings are fitted, each time with another seed: the luck of training counts in the
        intervals, which are wide with fewer than five, and know nothing of it with one.
    n_jobs : int
        Workers that tune a net, as in :class:`inna_tune.InnaSearchCV`; the baselines' trials run one by one.
    ensemble : bool, default=True
        Let the ensemble of the first net's trials take part, too, as ``NAME-ensemble``: it costs no further training.
    estimator : InnaClassifier or InnaRegressor, optional
        Its other settings are those of every net; None: the default.
    settings : sequence of str
        Of the default estimator, as :func:`inna_tune.jobs.settings.make_estimator` takes them; none of the optimizer.
    watch : callable, optional
        Study name -> context manager of a callback (study, trial), as of the search.

    Returns
    -------
    Comparison

    Raises
    ------
    ValueError
        If an optimizer or baseline is unknown or named twice, ``n_fits`` is less than 1, or a setting makes no sense.
    TableError
        If there are too few rows, or several targets.
    MismatchError, StorageError
        If a study is another's, is there already (without ``resume``), or cannot be used.
    """
    optimizers = list(optimizers)
    _check_names("optimizer", optimizers, tuple(OPTIMIZERS))
    _check_names("baseline", baselines, tuple(BASELINES))
    if not optimizers:
        raise ValueError(f"optimizers is empty; give one or more of {', '.join(OPTIMIZERS)}")
    if n_fits < 1:
        raise ValueError(f"n_fits={n_fits!r} must be a whole number of at least 1")
    if estimator is None:
        estimator = make_estimator(problem.task, settings, compares_optimizers=True)
    elif settings:
        raise ValueError(
            f"settings={list(settings)!r} are of the default estimator; set those of the one that is given"
        )
    if len(problem.targets) > 1:
        raise TableError(
            f"A comparison is by one target, and {', '.join(map(repr, problem.targets))} are {len(problem.targets)}; "
            "compare for each of them."
        )
    reference = "inna" if "inna" in optimizers else optimizers[0]
    nets = [reference, *(name for name in optimizers if name != reference)]
    opened = open_storage(storage)
    names = {name: f"{study_name}-{name}" for name in (*nets, *baselines)}
    if not resume:
        _check_free(opened, list(names.values()))
    classifier = problem.task != "regression"
    tuning, held = split_rows(problem, held_out=held_out, seed=seed)
    X, y = problem.X.iloc[tuning], problem.y.iloc[tuning]
    X_held, y_held = problem.X.iloc[held], problem.y.iloc[held]
    field = _Field(
        X=X,
        y=y,
        task=problem.task,
        estimator=estimator,
        seed=seed,
        seeds=[int(word) for word in np.random.SeedSequence(seed).generate_state(n_fits)],
        storage=opened,
        n_jobs=n_jobs,
        options={
            "n_trials": n_trials,
            "timeout": timeout,
            "resume": resume,
            "allow_mismatch": allow_mismatch,
        },
    )
    entries = []
    for name, full_name in names.items():
        with nullcontext() if watch is None else watch(full_name) as callback:
            callbacks = [] if callback is None else [callback]
            entries += field.tune(name, full_name, callbacks, ensemble=ensemble and name == reference)
    # Last of those that are tuned, since it is no contender of its own.
    entries.sort(key=lambda entry: entry.is_ensemble)
    constant = (DummyClassifier() if classifier else DummyRegressor()).fit(X, y)
    entries.append(_Entry(CONSTANT, None, [constant]))
    contenders = _score(entries, X_held, y_held, root=not classifier)
    return Comparison(
        task=problem.task,
        metric="log-loss" if classifier else "RMSE",
        reference=reference,
        n_trials=n_trials,
        n_tuning_rows=len(tuning),
        n_held_out_rows=len(held),
        contenders=tuple(contenders),
        n_fits=n_fits,
    )


def _check_names(what: str, given: Sequence[str], known: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            raise ValueError(f"{what} {name!r} must be one of {', '.join(known)}")
        if given.count(name) > 1:
            raise ValueError(f"{what} {name!r} is named twice")


def _check_free(storage: BaseStorage, names: Sequence[str]) -> None:
    """Refuse names that are taken before anything is trained."""
    with storage_errors(storage):
        taken = sorted(set(names) & set(optuna.get_all_study_names(storage)))
    if taken:
        raise StorageError(
            f"studies named {', '.join(map(repr, taken))} are already in {store_of(storage).words}; "
            "resume them (resume=True, or --resume), or choose another name (study_name=, or --study)"
        )


@dataclass(frozen=True)
class _Entry:
    """A contender that was tuned: its study, and models with its best settings; none where no trial gave a score.

    Of an ensemble the one model, which is made of the study of another contender.
    """

    name: str
    study: optuna.Study | None
    models: list[Any]
    failed: str = ""
    is_ensemble: bool = False


@dataclass(frozen=True)
class _Field:
    """What all contenders share."""

    X: pd.DataFrame
    y: pd.Series
    task: str
    estimator: InnaEstimator
    seed: int
    seeds: list[int]
    storage: BaseStorage
    n_jobs: int
    options: dict[str, Any]

    def tune(
        self, name: str, study_name: str, callbacks: Sequence[Callback], *, ensemble: bool = False
    ) -> list[_Entry]:
        """Tune a contender, and fit its best settings on all tuning rows; its ensemble, if wanted, comes second."""
        try:
            if name in BASELINES:
                return [self._tune_baseline(name, study_name, callbacks)]
            return self._tune_net(name, study_name, callbacks, ensemble=ensemble)
        except (MismatchError, StorageError):
            raise  # no contender is to blame, also where its study has no score
        except ValueError:
            # A contender of which nothing came has lost; any other error concerns them all.
            study = self._without_score(study_name)
            if study is None:
                raise
            record = StudyRecord(study)
            reason = record.reasons[0][1] if record.reasons else "it had no time"
            return [_Entry(name, study, [], f"no trial gave a score; the first: {reason}")]

    def _tune_net(
        self, name: str, study_name: str, callbacks: Sequence[Callback], *, ensemble: bool
    ) -> list[_Entry]:
        space = space_of(name, net=net_is_as_it_comes(self.estimator))
        options = OPTIMIZERS[name].options
        # What is tuned of them has to be there, so that the untuned setting knows it.
        tuned = {option: options[option] for option in options if f"optimizer__{option}" in (space or ())}
        search = InnaSearchCV(
            clone(self.estimator).set_params(optimizer=name, optimizer_params=tuned or None),
            space,
            first="default",
            storage=self.storage,
            study_name=study_name,
            random_state=self.seed,
            callbacks=callbacks,
            n_jobs=self.n_jobs,
            refit="ensemble" if ensemble else True,
            **self.options,
        ).fit(self.X, self.y)
        found = search.best_estimator_
        best = found
        with interrupts_end_all():
            if isinstance(found, Ensemble):
                best = clone(search.estimator).set_params(**search.best_params_, random_state=self.seeds[0])
                best.fit(self.X, self.y)
            others = [clone(best).set_params(random_state=s).fit(self.X, self.y) for s in self.seeds[1:]]
        entries = [_Entry(name, search.study_, [best, *others])]
        if isinstance(found, Ensemble):
            entries.append(_Entry(ensemble_of(name), search.study_, [found], is_ensemble=True))
        return entries

    def _tune_baseline(self, name: str, study_name: str, callbacks: Sequence[Callback]) -> _Entry:
        study = tune_baseline(
            name,
            self.X,
            self.y,
            task=self.task,
            storage=self.storage,
            study_name=study_name,
            seed=self.seed,
            callbacks=callbacks,
            **self.options,
        )
        with storage_errors(study):
            best = study.best_params
        models = [fit_baseline(name, self.X, self.y, best, task=self.task, seed=s) for s in self.seeds]
        return _Entry(name, study, models)

    def _without_score(self, study_name: str) -> optuna.Study | None:
        """The study, if it has trials and none of them a score."""
        with storage_errors(self.storage):
            if study_name not in optuna.get_all_study_names(self.storage):
                return None
            study = optuna.load_study(study_name=study_name, storage=self.storage)
            states = [t.state for t in study.get_trials(deepcopy=False)]
        return study if states and TrialState.COMPLETE not in states else None


def _score(entries: Sequence[_Entry], X: pd.DataFrame, y: pd.Series, *, root: bool) -> Iterator[Contender]:
    """The contenders on the held-out rows, the first being the reference; every study keeps its own part."""
    measured = {e.name: [score_rows(model, X, y) for model in e.models] for e in entries if e.models}
    losses = {name: np.stack([rows for _, rows in fits]) for name, fits in measured.items()}
    power = 0.5 if root else 1.0
    # NOTE: the smallest float, since the loss of a model that is always right has no logarithm.
    safe = {name: np.maximum(rows, np.finfo(np.float64).tiny) for name, rows in losses.items()}
    # There is one ensemble of a search: it counts as being as lucky as one fit of its best settings.
    like = {e.name: entries[0].name for e in entries if e.is_ensemble and e.name in safe}
    drawn = {name: power * draws for name, draws in resample_log_means(safe, like=like).items()}
    centre = {name: power * math.log(rows.mean()) for name, rows in safe.items()}
    reference = entries[0].name
    # Bonferroni: that all intervals hold together has the 95%.
    confidence = 1 - 0.05 / max(1, len(losses) - 1)
    for entry in entries:
        name, gain, low, high = entry.name, None, math.nan, math.nan
        scores: dict[str, float] = {}
        if name in losses:
            averages = pd.DataFrame([found for found, _ in measured[name]]).mean()
            scores = {str(metric): float(value) for metric, value in averages.items()}
            low, high = (math.exp(end) for end in interval(drawn[name], 0.95))
            if name != reference and reference in losses:
                ends = interval(drawn[reference] - drawn[name], confidence)
                change = centre[reference] - centre[name]
                gain = Gain.of_logs(change, *ends)
        yield _contender(entry, scores, low, high, gain)
        if entry.study is not None and entry.models and not entry.is_ensemble:
            table = {CONSTANT: measured[CONSTANT][0][0], "tuned": measured[name][0][0]}
            with storage_errors(entry.study._storage):
                record = StudyRecord(entry.study)
                number = record.best_first[0].number if record.best_first else None
                kept = summarize_held_out(entry.models[0], X, y, scores=pd.DataFrame(table).T, trial=number)
                record_held_out(entry.study, kept.beside(record.held_out))


def _contender(
    entry: _Entry, scores: dict[str, float], low: float, high: float, gain: Gain | None
) -> Contender:
    if entry.study is None:
        return Contender(entry.name, None, {}, 0.0, None, scores, low, high, gain, {}, "")
    record = StudyRecord(entry.study)
    best = record.best_first[0] if record.best_first else None
    seconds = [seconds_of(t) for t in record.trials]
    score = None if best is None else record.score(best)
    words = "" if best is None else describe_trial(record, best)
    note = EnsembleNote.of(record) if entry.is_ensemble else None
    if note is not None:
        best, score, words = None, record.metric.shown(note.value), note.words
    return Contender(
        name=entry.name,
        study=record.name,
        trials=record.counts,
        seconds=float(np.nansum(seconds)),
        cross_validated=score,
        scores=scores,
        low=low,
        high=high,
        against=gain,
        settings={} if best is None else dict(best.params),
        words=words,
        failed=entry.failed,
    )

import pickle

import joblib
import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss
from sklearn.model_selection import (
    KFold,
    RepeatedKFold,
    ShuffleSplit,
    StratifiedKFold,
    StratifiedShuffleSplit,
    cross_val_score,
    cross_validate,
)

from inna_tune import InnaClassifier, InnaRegressor, InnaSearchCV, SearchSpace
from inna_tune.estimators import DivergenceError
from inna_tune.records.attributes import CURVATURE, SEED
from inna_tune.space import Categorical, LogUniform, Uniform, learn
from inna_tune.study import MismatchError, StorageError
from inna_tune.study.rungs import rungs
from inna_tune.study.splits import resolve_splits

NET = InnaClassifier(hidden_layer_sizes=(4,), n_members=1, max_epochs=8, numeric_embedding="none")
IRIS = tuple(part.iloc[::2].reset_index(drop=True) for part in load_iris(return_X_y=True, as_frame=True))


def search(**changes):
    return InnaSearchCV(NET, **({"n_trials": 4, "cv": 2, "random_state": 0} | changes))


def comparable(study):
    return [(t.number, t.params, t.value, t.state, t.intermediate_values) for t in study.trials]


def test_a_search_tunes_and_refits():
    X, y = IRIS
    found = search(n_trials=6).fit(X, y)
    finished = [t for t in found.study_.trials if t.state.is_finished()]
    assert len(finished) == len(found.study_.trials) == 6
    assert found.best_score_ == max(t.value for t in finished if t.state == TrialState.COMPLETE)
    assert found.best_params_ == found.study_.best_trial.params
    assert found.cv_results_["params"][found.best_index_] == found.best_params_
    assert found.cv_results_["rank_test_score"][found.best_index_] == 1
    assert found.n_splits_ == 2
    assert found.refit_time_ > 0
    assert found.best_estimator_.get_params()["lr"] == found.best_params_["lr"]
    assert found.predict(X).shape == (75,)
    assert found.score(X, y) == pytest.approx(-log_loss(y, found.predict_proba(X)))
    assert isinstance(found.trials_dataframe(), pd.DataFrame)


def test_a_trial_scores_what_cross_validation_scores():
    """Folds train stacked, each encoded from its own rows only: the scores are those of separate fits."""
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    X, y = X.iloc[:360, :10], y[:360]
    folds = StratifiedKFold(3, shuffle=True, random_state=1)
    found = search(cv=folds, n_trials=2, pruner=optuna.pruners.NopPruner()).fit(X, y)
    for trial in found.study_.trials:
        alone = clone(NET).set_params(**trial.params, random_state=trial.user_attrs["seed"])
        scores = cross_val_score(alone, X, y, cv=folds, scoring="neg_log_loss")
        np.testing.assert_allclose(trial.user_attrs["scores"], scores, rtol=2e-3)
        assert trial.value == pytest.approx(np.mean(trial.user_attrs["scores"]))


def test_regression_with_several_members_and_a_named_metric():
    X, y = load_diabetes(return_X_y=True)
    net = InnaRegressor(hidden_layer_sizes=(8,), max_epochs=10, n_members=2)
    found = InnaSearchCV(net, n_trials=2, cv=2, scoring="r2", random_state=0).fit(X, y)
    assert found.best_score_ > 0.2
    assert len(found.best_estimator_.members_) == 2


def test_what_a_trial_leaves_in_the_study():
    found = search().fit(*IRIS)
    for trial in found.study_.trials:
        assert {"seed", "epochs", "seconds", "best_epoch"} <= set(trial.user_attrs)
        if trial.state == TrialState.COMPLETE:
            assert len(trial.user_attrs["scores"]) == 2
        at = rungs(NET.max_epochs, races=True)
        first, then = [*at, NET.max_epochs], [NET.max_epochs + rung for rung in at]
        assert set(trial.intermediate_values) <= {*first, *then}
        assert 0 < trial.params["lr"] < 100, "natural values"
    assert found.study_.user_attrs[CURVATURE] > 0
    assert isinstance(found.study_.user_attrs[SEED], int)


def test_same_seed_same_study_and_another_seed_another():
    first, again, other = (search(random_state=s).fit(*IRIS) for s in (0, 0, 1))
    assert comparable(first.study_) == comparable(again.study_)
    assert comparable(first.study_) != comparable(other.study_)


def test_a_resumed_study_is_the_study_that_would_have_been(tmp_path):
    url = f"sqlite:///{tmp_path}/s.db"
    straight = search(n_trials=7).fit(*IRIS)
    search(n_trials=3, storage=url, study_name="s").fit(*IRIS)
    resumed = search(n_trials=7, storage=url, study_name="s", resume=True, random_state=99).fit(*IRIS)
    assert resumed.resumed_.finished == 3
    assert comparable(resumed.study_) == comparable(straight.study_)
    assert resumed.best_params_ == straight.best_params_


def test_a_finished_study_resumes_without_another_trial(tmp_path):
    url = f"sqlite:///{tmp_path}/s.db"
    first = search(storage=url, study_name="s").fit(*IRIS)
    again = search(storage=url, study_name="s", resume=True).fit(*IRIS)
    assert comparable(again.study_) == comparable(first.study_)
    assert np.array_equal(again.predict_proba(IRIS[0]), first.predict_proba(IRIS[0]))


def test_fitting_twice_makes_two_studies():
    one = search(n_trials=2)
    first = one.fit(*IRIS).study_
    assert one.fit(*IRIS).study_.study_name != first.study_name
    assert len(first.trials) == 2


def test_a_name_already_taken_is_refused(tmp_path):
    url = f"sqlite:///{tmp_path}/s.db"
    search(storage=url, study_name="s", n_trials=1).fit(*IRIS)
    with pytest.raises(StorageError, match="already.*resume"):
        search(storage=url, study_name="s").fit(*IRIS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X, y: (X.iloc[:70], y.iloc[:70]), "75 rows.*70"),
        (lambda X, y: (X.drop(columns="petal width (cm)"), y), "petal width"),
        (lambda X, y: (X * 2, y), "the values differ in columns .sepal length"),
        (lambda X, y: (X, (y + 1) % 3), "values of the target differ"),
    ],
)
def test_a_study_belongs_to_its_data(change, message, tmp_path):
    url = f"sqlite:///{tmp_path}/s.db"
    before = search(storage=url, study_name="s", n_trials=1).fit(*IRIS)
    with pytest.raises(MismatchError, match=message):
        search(storage=url, study_name="s", resume=True).fit(*change(*IRIS))
    assert len(before.study_.trials) == 1, "nothing was added"
    allowed = search(storage=url, study_name="s", resume=True, n_trials=2, allow_mismatch=True).fit(
        *change(*IRIS)
    )
    assert len(allowed.study_.trials) == 2


def test_diverged_trials_are_told_with_a_reason_and_do_not_stop_the_search():
    space = SearchSpace(
        {"lr": Categorical([1e8, 0.1]), "alpha": Uniform(0.1, 0.5), "beta": Categorical([1e8, 0.2])}
    )
    found = search(space=space, n_trials=12).fit(*IRIS)
    wild = [t for t in found.study_.trials if t.params["lr"] == 1e8 and t.params["beta"] == 1e8]
    assert wild
    for trial in wild:
        assert trial.state == TrialState.PRUNED
        assert "diverged" in trial.user_attrs["reason"]
    assert np.isfinite(found.best_score_)


def test_where_the_best_settings_diverge_on_all_rows_the_next_best_are_fitted(monkeypatch):
    fit = InnaClassifier.fit

    def diverge(self, X, y, sample_weight=None):
        if self.random_state in gone:
            raise DivergenceError("Training diverged")
        return fit(self, X, y, sample_weight)

    gone = set()
    monkeypatch.setattr(InnaClassifier, "fit", diverge)
    options = {"pruner": optuna.pruners.NopPruner(), "n_trials": 3}
    trials = sorted(search(**options).fit(*IRIS).study_.trials, key=lambda t: -t.value)
    gone |= {trials[0].user_attrs["seed"], trials[1].user_attrs["seed"]}
    with pytest.warns(ConvergenceWarning, match="diverge on all rows, and those of trial") as said:
        found = search(**options).fit(*IRIS)
    assert [str(w.message).split(" diverge")[0] for w in said] == [
        f"the settings of trial {t.number}" for t in trials[:2]
    ]
    assert found.best_estimator_.random_state == trials[2].user_attrs["seed"]
    assert found.best_params_ == trials[0].params
    gone.add(trials[2].user_attrs["seed"])
    with pytest.warns(ConvergenceWarning), pytest.raises(DivergenceError):
        search(**options).fit(*IRIS)


def test_when_every_trial_fails_the_first_error_is_told():
    space = SearchSpace(
        {"lr": LogUniform(1e8, 1e9), "alpha": Uniform(0.1, 0.5), "beta": LogUniform(1e8, 1e9)}
    )
    with pytest.raises(ValueError, match="None of 3 finished trials.*diverged"):
        search(space=space, n_trials=3).fit(*IRIS)


def bad_scorer(estimator, X, y):
    raise RuntimeError("no score today")


def test_a_raising_scorer_fails_the_trial_or_comes_through():
    with pytest.raises(ValueError, match="RuntimeError: no score today"):
        search(scoring=bad_scorer, n_trials=2).fit(*IRIS)
    with pytest.raises(RuntimeError, match="no score today"):
        search(scoring=bad_scorer, n_trials=2, error_score="raise").fit(*IRIS)


class PruneAll(optuna.pruners.BasePruner):
    def prune(self, study, trial):
        return trial.number > 0


def test_pruned_trials_stop_at_a_rung():
    space = SearchSpace({"lr": LogUniform(0.01, 0.1), "alpha": Uniform(0.1, 0.5), "beta": Uniform(0.1, 0.5)})
    found = search(space=space, pruner=PruneAll()).fit(*IRIS)
    states = [t.state for t in found.study_.trials]
    assert states == [TrialState.COMPLETE] + [TrialState.PRUNED] * 3
    for trial in found.study_.trials[1:]:
        assert trial.user_attrs["epochs"] == rungs(NET.max_epochs)[0]
        assert list(trial.intermediate_values) == rungs(NET.max_epochs)[:1]
    assert np.isnan(found.cv_results_["mean_test_score"][1:]).all()


def test_rungs_lie_at_shares_of_a_training():
    assert rungs(100) == [3, 12, 50]
    assert rungs(30) == [1, 4, 15]
    assert rungs(8) == [1, 4]
    assert rungs(2) == [1]
    assert rungs(1) == []
    assert rungs(100, races=True) == rungs(30, races=True), "by then many have stopped"
    assert rungs(100, by_members=True) == [1, 8, 15, 30]
    assert rungs(30, by_members=True) == [1, 8, 15]
    assert rungs(100, by_members=True, rules=0) == rungs(30, by_members=True, rules=0) == [2, 8]
    assert rungs(30, races=True) == [4, 15]
    assert rungs(2, races=True) == [1]


def test_a_timeout_ends_the_search_with_what_it_has():
    found = search(n_trials=10_000, timeout=1.5).fit(*IRIS)
    assert len(found.study_.trials) < 10_000
    assert not any(t.state == TrialState.RUNNING for t in found.study_.trials)


def test_callbacks_see_every_trial():
    seen = []
    search(callbacks=(lambda study, trial: seen.append(trial.number),)).fit(*IRIS)
    assert seen == [0, 1, 2, 3]
    # As in Study.optimize.
    assert search(callbacks=None, n_trials=1).fit(*IRIS).best_index_ == 0


def test_a_search_leaves_sampler_and_pruner_as_they_were():
    sampler, pruner = optuna.samplers.GPSampler(n_startup_trials=1, seed=3), optuna.pruners.MedianPruner()
    before = pickle.dumps((sampler, pruner))
    found = search(sampler=sampler, pruner=pruner).fit(*IRIS)
    assert pickle.dumps((sampler, pruner)) == before
    assert found.study_.sampler is not sampler
    again = search(sampler=sampler, pruner=pruner).fit(*IRIS)
    assert comparable(again.study_) == comparable(found.study_)


def test_what_a_callback_raises_ends_the_search():
    seen = []

    def of_no_use(study, trial):
        seen.append(trial.number)
        raise LookupError("no such screen")

    with pytest.raises(LookupError, match="no such screen"):
        search(callbacks=(of_no_use,)).fit(*IRIS)
    assert seen == [0]


def test_what_hears_of_trainings_and_raises_ends_the_search():
    class Watch:
        def __call__(self, study, trial):
            pass

        def on_training(self, study, training):
            raise LookupError("no such screen")

    with pytest.raises(LookupError, match="no such screen"):
        search(callbacks=(Watch(),)).fit(*IRIS)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_callback_may_stop_the_study(n_jobs):
    def enough(study, trial):
        if trial.state == TrialState.COMPLETE:
            study.stop()

    with joblib.parallel_config("threading"):
        # So many that they last longer than it takes the process that has the callback to look.
        found = search(n_trials=400, population=3, n_jobs=n_jobs, callbacks=(enough,)).fit(*IRIS)
    assert 0 < sum(t.state.is_finished() for t in found.study_.trials) < 400
    assert found.predict(IRIS[0]).shape == (75,)
    with pytest.raises(RuntimeError, match="stop"):
        found.study_.stop()


@pytest.mark.parametrize("n_classes", [2, 2500])
def test_default_folds_of_a_large_table_whose_classes_can_not_be_shared_out(n_classes):
    y = np.arange(10_000) % n_classes
    y[0] = n_classes  # on one row only, or: more classes than rows are held out
    X = pd.DataFrame({"a": np.zeros(len(y))})
    _, [(train, test)] = resolve_splits(None, X, y, {}, classifier=True)
    assert len(test) == 2_000
    assert len(np.intersect1d(train, test)) == 0


@pytest.mark.parametrize(
    "cv",
    [ShuffleSplit(80), StratifiedShuffleSplit(80, test_size=0.2), RepeatedKFold(n_splits=2, n_repeats=40)],
)
def test_only_what_cuts_rows_into_parts_is_limited_by_their_number(cv):
    X, y = pd.DataFrame({"a": np.arange(60.0)}), np.arange(60) % 2
    _, splits = resolve_splits(cv, X, y, {}, classifier=True)
    assert len(splits) == 80
    with pytest.raises(ValueError, match=r"n_splits=61.*samples: n_samples=60"):
        resolve_splits(KFold(61), X, y, {}, classifier=True)


@pytest.mark.parametrize(
    ("cv", "message"),
    [
        ([], "gives no folds"),
        ([([0, 1], [60])], "fold 0 does not fit 60 rows"),
        ([(np.ones(9, bool), [1])], "fold 0"),
    ],
)
def test_folds_that_the_table_does_not_have(cv, message):
    X, y = pd.DataFrame({"a": np.arange(60.0)}), np.arange(60) % 2
    with pytest.raises(ValueError, match=message):
        resolve_splits(cv, X, y, {}, classifier=True)


def test_sample_weights_reach_training_and_scoring():
    X, y = IRIS
    weight = np.where(y == 2, 0.0, 1.0)
    found = search(n_trials=2).fit(X, y, sample_weight=weight)
    assert found.predict_proba(X)[:, :2].sum(1).mean() > 0.9, "the class of weight 0 is unknown to it"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_trials": 0}, "n_trials=0"),
        ({"timeout": -1.0}, "timeout=-1.0"),
        ({"timeout": float("inf")}, "timeout=inf must be a positive number"),
        ({"timeout": "10"}, "timeout='10' must be a positive number"),
        ({"callbacks": print}, "callbacks=<built-in function print> must be functions"),
        ({"callbacks": "print"}, "callbacks='print' must be functions"),
        ({"random_state": np.random.RandomState(0)}, "random_state=RandomState.* must be a whole number"),
        ({"random_state": -1}, "random_state=-1 must be a whole number of at least 0"),
        ({"error_score": True}, "error_score=True"),
        ({"cv": 200}, "200.*samples"),
        ({"error_score": "ignore"}, "error_score='ignore'"),
        ({"scoring": "nonsense"}, "nonsense"),
        ({"scoring": ["accuracy", "r2"]}, "must name the one"),
        ({"space": SearchSpace({"speed": Uniform(0, 1)})}, r"\['speed'\]"),
    ],
)
def test_bad_parameters_are_named(changes, message, tmp_path):
    url = f"sqlite:///{tmp_path}/s.db"
    with pytest.raises(ValueError, match=message):
        search(storage=url, **changes).fit(*IRIS)
    assert not (tmp_path / "s.db").exists(), "nothing is written for wrong input"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampler": "tpe"}, "sampler: .*'tpe' must be an Optuna sampler"),
        ({"sampler": optuna.samplers.TPESampler}, "sampler: .*must be an Optuna sampler"),
        ({"sampler": optuna.samplers.GridSampler({"lr": [0.1]})}, "sampler: .*natural values of its own"),
        ({"pruner": "median"}, "pruner='median' must be an Optuna pruner"),
    ],
)
def test_samplers_and_pruners_that_are_none_are_refused_before_anything_is_stored(changes, message, tmp_path):
    with pytest.raises(TypeError, match=message):
        search(storage=f"sqlite:///{tmp_path}/s.db", **changes).fit(*IRIS)
    assert not (tmp_path / "s.db").exists()


# The others count by their truth.
NAMED = sorted(InnaSearchCV(NET).get_params(deep=False).keys() - {"resume", "allow_mismatch", "verbose"})


@pytest.mark.parametrize("name", NAMED)
def test_every_parameter_that_makes_no_sense_names_itself(name):
    with pytest.raises((ValueError, TypeError), match=name):
        search().set_params(**{name: object()}).fit(*IRIS)


def test_only_our_estimators():
    from sklearn.linear_model import LogisticRegression

    with pytest.raises(TypeError, match="InnaClassifier or an InnaRegressor"):
        InnaSearchCV(LogisticRegression()).fit(*IRIS)


def test_a_space_over_the_encoder_needs_one():
    space = SearchSpace({"encoder__numeric": Categorical(("scale", "quantile"))})
    with pytest.raises(ValueError, match=r"does not have: \['encoder__numeric'\].*encoder=TableEncoder\(\)"):
        search(space=space).fit(*IRIS)


def test_a_learned_prior_and_its_portfolio_serve_another_table(tmp_path):
    first = search(n_trials=6).fit(*IRIS).study_
    prior = learn([first], n_portfolio=2)
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    X, y = X.iloc[:100, :6], y[:100]
    url = f"sqlite:///{tmp_path}/s.db"
    found = search(space=prior, n_trials=2, storage=url, study_name="s").fit(X, y)
    curvature = found.study_.user_attrs[CURVATURE]
    space, settings = prior.at(curvature)
    untuned, *others = found.study_.trials
    assert untuned.params["decay"] == "cosine"
    # The best of the first study may have been its untuned setting, which is tried once.
    settings = [s for s in settings if s != pytest.approx(untuned.params)]
    assert [t.params for t in others][: len(settings)] == [pytest.approx(s) for s in settings]
    resumed = search(space=prior, n_trials=5, storage=url, study_name="s", resume=True).fit(X, y)
    assert [t.state.is_finished() for t in resumed.study_.trials] == [True] * 5
    assert resumed.study_.trials[4].distributions["lr"] == space.distribution("lr")
    straight = search(space=prior, n_trials=5).fit(X, y).study_
    assert [t.params for t in straight.trials[:2]] == [t.params for t in resumed.study_.trials[:2]]


def test_nested_cross_validation_leaks_nothing(tmp_path):
    """Every outer fold has a study of its own, which saw its training rows and no others."""
    X, y = load_iris(return_X_y=True, as_frame=True)
    rows = np.random.default_rng(0).permutation(len(X))[:60]
    X, y = X.iloc[rows].reset_index(drop=True), y.iloc[rows].reset_index(drop=True)
    url = f"sqlite:///{tmp_path}/s.db"
    nested = InnaSearchCV(
        InnaClassifier(hidden_layer_sizes=(4,), n_members=1, max_epochs=2),
        n_trials=2,
        cv=2,
        storage=url,
        random_state=0,
    )
    outer = KFold(3)
    found = cross_validate(nested, X, y, cv=outer, return_estimator=True)
    searches = found["estimator"]
    assert len({s.study_.study_name for s in searches}) == 3
    assert not hasattr(nested, "study_")
    seen = [s.study_.user_attrs["inna_tune:fingerprint"] for s in searches]
    for (train, test), search, data, score in zip(
        outer.split(X), searches, seen, found["test_score"], strict=True
    ):
        assert data["rows"] == len(train)
        alone = clone(nested).set_params(storage=None).fit(X.iloc[train], y.iloc[train])
        assert [t.params for t in alone.study_.trials] == [t.params for t in search.study_.trials]
        assert alone.score(X.iloc[test], y.iloc[test]) == pytest.approx(score, abs=1e-12)
    assert len({str(data["columns"]) for data in seen}) == 3


def test_clones_share_nothing():
    X, y = load_iris(return_X_y=True, as_frame=True)
    first = InnaSearchCV(
        InnaClassifier(hidden_layer_sizes=(4,), n_members=1, max_epochs=2), n_trials=2, cv=2, random_state=0
    )
    second = clone(first).fit(X, y)
    assert not hasattr(first, "study_")
    assert first.estimator is not second.estimator
    third = clone(second)
    assert not hasattr(third, "study_")
    assert third.fit(X, y).study_ is not second.study_
    assert [t.params for t in third.study_.trials] == [t.params for t in second.study_.trials]

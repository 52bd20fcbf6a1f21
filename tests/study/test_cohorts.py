"""Trials that are drawn and trained together: the same study, sooner."""

import numpy as np
import optuna
import pytest
from optuna.samplers import GPSampler, RandomSampler, TPESampler
from optuna.trial import TrialState
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.model_selection import KFold, ShuffleSplit, cross_val_score

from inna_tune import InnaClassifier, InnaRegressor, InnaSearchCV, PriorSampler, SearchSpace, cross_validate
from inna_tune.records.attributes import POPULATION
from inna_tune.space import Categorical, LogUniform, Uniform
from inna_tune.study import running
from inna_tune.study.evaluation import Cohort
from inna_tune.study.group import Group
from inna_tune.study.rungs import cohort_size

NET = InnaClassifier(hidden_layer_sizes=(4,), n_members=1, max_epochs=8, numeric_embedding="none")
IRIS = tuple(part.iloc[::2] for part in load_iris(return_X_y=True, as_frame=True))


def search(**changes):
    return InnaSearchCV(NET, **({"n_trials": 9, "cv": 2, "random_state": 0, "population": 4} | changes))


def comparable(study):
    return [
        (t.number, t.params, t.value, t.state, t.intermediate_values, t.user_attrs.get("scores"))
        for t in study.trials
    ]


def test_a_population_of_one_and_of_many_score_the_same_settings_alike():
    """With a sampler that learns nothing, whoever trains together, the study is the same to the last bit."""
    space = SearchSpace.inna(curvature=20.0)
    sampler = PriorSampler(RandomSampler(), space, k=np.inf, seed=0)
    studies = [
        search(n_trials=7, space=space, sampler=sampler, population=size).fit(*IRIS).study_
        for size in (1, 3, 7)
    ]
    assert comparable(studies[0]) == comparable(studies[1]) == comparable(studies[2])
    states = {t.state for t in studies[0].trials}
    assert states == {TrialState.COMPLETE, TrialState.PRUNED}, "the example must have both kinds"


class Interruption(BaseException):
    """Stands for a kill: nothing that runs may catch it."""


POINTS = [
    ("inna_tune.study.running.ask", 3),
    ("inna_tune.study.running.ask", 6),
    ("inna_tune.space.space._suggest", 5),
    ("inna_tune.space.space._suggest", 31),
    ("inna_tune.study.evaluation.Cohort.run", 2),
    ("inna_tune.study.evaluation.Cohort.run", 5),
    ("inna_tune.study.evaluation.Cohort.begin_rest", 1),
    ("inna_tune.study.group.Group._should_prune", 5),
    ("inna_tune.study.group.Group._should_prune", 10),
    ("inna_tune.study.running.tell", 2),
    ("inna_tune.study.running.tell", 5),
    ("inna_tune.study.running.tell", 7),
]


@pytest.fixture(scope="module")
def straight():
    found = search().fit(*IRIS).study_
    states = {t.state for t in found.trials}
    assert states == {TrialState.COMPLETE, TrialState.PRUNED}, "the example must have both kinds"
    return comparable(found)


@pytest.mark.parametrize(("target", "call"), POINTS, ids=lambda p: str(p).rsplit(".", 1)[-1])
def test_interrupted_anywhere_in_a_cohort_and_resumed_it_is_the_study_that_would_have_been(
    target, call, straight, tmp_path, monkeypatch
):
    url = f"sqlite:///{tmp_path}/s.db"
    module, _, name = target.rpartition(".")
    owner = Group if module.endswith("Group") else Cohort if module.endswith("Cohort") else None
    if owner is None:
        owner = running if module.endswith("running") else __import__(module, fromlist=["x"])
    original, calls = getattr(owner, name), []

    def interrupting(*args, **kwargs):
        calls.append(1)
        if len(calls) == call:
            raise Interruption
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, interrupting)
        with pytest.raises(Interruption):
            search(storage=url, study_name="s").fit(*IRIS)
    resumed = search(storage=url, study_name="s", resume=True, population="auto").fit(*IRIS)
    assert comparable(resumed.study_) == straight
    assert not any(t.state == TrialState.RUNNING for t in resumed.study_.trials)


@pytest.mark.parametrize("sampler", [TPESampler, GPSampler], ids=lambda s: s.__name__)
def test_a_cohort_of_sixteen_never_holds_two_equal_points(sampler):
    space = SearchSpace({"x": Uniform(0, 1), "y": LogUniform(1e-3, 1)})
    study = optuna.create_study(sampler=PriorSampler(sampler(n_startup_trials=6), space, seed=0))
    study.optimize(lambda t: (space.suggest(t)["x"] - 0.3) ** 2, n_trials=8)
    trials = [study.ask() for _ in range(16)]
    points = np.array([[space.suggest(t)[name] for name in space] for t in trials])
    points[:, 1] = np.log(points[:, 1]) / np.log(1e3)
    apart = np.linalg.norm(points[:, None] - points[None], axis=2)[np.triu_indices(16, 1)]
    assert apart.min() > 1e-5


def test_trials_of_other_architectures_and_batch_sizes_train_apart(monkeypatch):
    space = SearchSpace(
        {
            "lr": LogUniform(0.05, 0.3),
            "hidden_layer_sizes": Categorical(["4", "8-4"]),
            "batch_size": Categorical([16, 64]),
        }
    )
    groups, train = [], Group.train

    def watching(self):
        groups.append([c.estimator for c in self.candidates])
        train(self)

    monkeypatch.setattr(Group, "train", watching)
    net = InnaClassifier(alpha=0.5, beta=0.2, n_members=1, max_epochs=4)
    found = InnaSearchCV(net, space, n_trials=12, cv=2, population=12, random_state=0).fit(*IRIS)
    assert len(found.study_.trials) == sum(map(len, groups)) == 12
    assert 1 < len(groups) <= 4
    for group in groups:
        assert len({(e.hidden_layer_sizes, e.batch_size) for e in group}) == 1


def test_one_trial_that_fails_fails_alone(monkeypatch):
    init = Cohort.__init__

    def failing(self, table, estimators, *progress, **begun):
        if any(e.lr > 0.15 for e in estimators):
            raise RuntimeError("this one is to blame")
        init(self, table, estimators, *progress, **begun)

    monkeypatch.setattr(Cohort, "__init__", failing)
    space = SearchSpace({"lr": LogUniform(0.05, 0.4), "dropout": Uniform(-0.2, 0.5)})
    net = InnaClassifier(alpha=0.5, beta=0.2, hidden_layer_sizes=(4,), n_members=1, max_epochs=4)
    found = InnaSearchCV(net, space, n_trials=10, cv=2, population=10, random_state=0).fit(*IRIS)
    failed = [t for t in found.study_.trials if t.state == TrialState.FAIL]
    assert 0 < len(failed) < 10
    for trial in found.study_.trials:
        to_blame = trial.params["lr"] > 0.15 or trial.params["dropout"] < 0
        assert (trial.state == TrialState.FAIL) == to_blame
        if to_blame:
            assert any(word in trial.user_attrs["reason"] for word in ("to blame", "dropout"))
    with pytest.raises((RuntimeError, ValueError), match="to blame|dropout"):
        InnaSearchCV(net, space, n_trials=10, cv=2, population=10, random_state=0, error_score="raise").fit(
            *IRIS
        )


@pytest.mark.parametrize(
    "pruner",
    [
        optuna.pruners.MedianPruner(n_startup_trials=1),
        optuna.pruners.PercentilePruner(50.0, n_startup_trials=1),
        optuna.pruners.HyperbandPruner(min_resource=1, max_resource=8),
        optuna.pruners.PatientPruner(optuna.pruners.MedianPruner(n_startup_trials=1), patience=1),
        optuna.pruners.ThresholdPruner(lower=-0.9),
        optuna.pruners.WilcoxonPruner(),
        optuna.pruners.NopPruner(),
    ],
    ids=lambda p: type(p).__name__,
)
def test_any_pruner_of_optuna_works(pruner):
    found = search(pruner=pruner).fit(*IRIS)
    assert len(found.study_.trials) == 9
    assert all(t.state.is_finished() for t in found.study_.trials)
    for trial in found.study_.trials:
        if trial.state == TrialState.PRUNED and "pruned" in trial.user_attrs["reason"]:
            assert trial.user_attrs["epochs"] < NET.max_epochs


def test_a_cohort_is_as_large_as_the_study_allows():
    assert [cohort_size(n) for n in (1, 7, 8, 20, 50, 64, 1000)] == [1, 1, 1, 2, 6, 8, 16]
    found = search(n_trials=16, population="auto").fit(*IRIS)
    assert found.study_.user_attrs[POPULATION] == 2


def test_trials_given_in_advance_are_run_first(tmp_path):
    url = f"sqlite:///{tmp_path}/s.db"
    first = search(storage=url, study_name="s", n_trials=2, population=2).fit(*IRIS)
    given = {**first.study_.trials[0].params, "lr": first.study_.trials[0].params["lr"] * 0.9}
    first.study_.enqueue_trial(given)
    resumed = search(storage=url, study_name="s", n_trials=6, resume=True).fit(*IRIS)
    assert resumed.study_.trials[2].params == given
    assert len(resumed.study_.trials) == 6


@pytest.mark.parametrize("value", [0, -1, 2.0, "many", True])
def test_populations_that_make_no_sense(value):
    with pytest.raises(ValueError, match=r"population=.* must be a whole number of at least 1, or 'auto'"):
        search(population=value).fit(*IRIS)


def test_folds_and_callbacks_that_make_no_sense():
    rows = np.arange(75)
    with pytest.raises(ValueError, match="fold 1 trains on 10 of the rows it is scored on, row 20"):
        search(cv=[(rows[:50], rows[50:]), (rows[:30], rows[20:])]).fit(*IRIS)
    with pytest.raises(ValueError, match="fold 0 has no test rows"):
        search(cv=[(rows, rows[:0])]).fit(*IRIS)
    with pytest.raises(TypeError, match="cannot be called"):
        search(callbacks=["print"]).fit(*IRIS)


def test_cross_validate_is_scikit_learns_with_all_folds_at_once():
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    X, y = X.iloc[:360, :10], y[:360]
    model = InnaClassifier(hidden_layer_sizes=(4,), max_epochs=4, random_state=3)
    folds = KFold(4, shuffle=True, random_state=1)
    found = cross_validate(model, X, y, cv=folds, scoring="neg_log_loss")
    np.testing.assert_allclose(
        found["test_score"], cross_val_score(model, X, y, cv=folds, scoring="neg_log_loss"), rtol=2e-3
    )
    assert all(len(values) == 4 and (values > 0).all() for name, values in found.items() if "time" in name)
    assert not hasattr(model, "weights_")
    values = X.iloc[:, 0].to_numpy()
    regressor = InnaRegressor(hidden_layer_sizes=(4,), max_epochs=2, random_state=0)
    by_default = cross_validate(regressor, X.iloc[:, 1:], values, cv=2)
    assert (by_default["test_score"] < 0).all()


def test_cross_validate_refuses_what_it_cannot_do():
    with pytest.raises(TypeError, match=r"use sklearn.model_selection.cross_validate"):
        cross_validate(object(), *IRIS)
    with pytest.raises(ValueError, match="lr=-1"):
        cross_validate(InnaClassifier(lr=-1), *IRIS)
    with pytest.raises(ValueError, match="target y is None"):
        cross_validate(NET, IRIS[0], None)


def test_a_fold_that_diverges_has_no_score():
    model = InnaClassifier(lr=1e8, alpha=0.1, beta=1e8, hidden_layer_sizes=(4,), n_members=1, max_epochs=2)
    found = cross_validate(model, *IRIS, cv=ShuffleSplit(2, random_state=0))
    assert np.isnan(found["test_score"]).all()

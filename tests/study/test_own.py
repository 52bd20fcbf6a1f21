"""A study goes on with what is its own, and refuses everything else by its name."""

from functools import partial

import numpy as np
import optuna
import pandas as pd
import pytest
import sklearn
import torch
from sklearn.metrics import fbeta_score, get_scorer, make_scorer, mean_absolute_error
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    LeaveOneGroupOut,
    PredefinedSplit,
    RepeatedKFold,
    ShuffleSplit,
    StratifiedKFold,
)

from inna_tune import InnaClassifier, InnaRegressor, InnaSearchCV
from inna_tune.estimators import TableEncoder
from inna_tune.jobs.baselines import tune_baseline
from inna_tune.jobs.comparing import compare
from inna_tune.records.attributes import ALLOWED_MISMATCH, FINGERPRINT
from inna_tune.records.fingerprint import UnseededFoldsWarning
from inna_tune.space import LogUniform, SearchSpace, Uniform
from inna_tune.study import MismatchError, StorageError
from inna_tune.tables.problem import make_problem

N = 60
RNG = np.random.default_rng(0)
X = pd.DataFrame({"a": RNG.normal(size=N), "b": RNG.normal(size=N)})
Y = pd.Series(RNG.permutation(np.arange(N) % 2), name="y")
GROUPS = np.arange(N) % 6
SPACE = SearchSpace({"lr": LogUniform(1e-3, 0.1), "alpha": Uniform(0.1, 0.5), "beta": Uniform(0.1, 0.5)})
TINY = {"hidden_layer_sizes": (4,), "numeric_embedding": "none", "n_members": 1}
TINY |= {"max_epochs": 1, "early_stopping": False}


class Own:
    """A splitter of one's own, whose parameters nobody knows."""

    def __init__(self, step):
        self.step = step

    def get_n_splits(self, *rows):
        return 2

    def split(self, X, y=None, groups=None):
        rows = np.arange(len(X)) // self.step
        for k in range(2):
            yield np.flatnonzero(rows % 2 != k), np.flatnonzero(rows % 2 == k)


class Scorer:
    def __init__(self, cost):
        self.cost, self.calls = cost, 0

    def __call__(self, estimator, X, y):
        self.calls += 1
        return self.cost * float(np.mean(estimator.predict(X) == y))


def share(estimator, X, y, cost=1.0):
    return cost * float(np.mean(estimator.predict(X) == y))


def with_cost(cost):
    return lambda estimator, X, y: share(estimator, X, y, cost)


def linear(i, o):
    return torch.nn.Linear(i, o)


def biased(i, o):
    return torch.nn.Linear(i, o, bias=False)


def wide(i, o, width=3):
    return torch.nn.Sequential(torch.nn.Linear(i, width), torch.nn.Tanh(), torch.nn.Linear(width, o))


def tune(storage, n_trials=1, fit=None, net=None, kind=InnaClassifier, y=Y, **options):
    options = {"cv": 3, "space": SPACE, "resume": True, "random_state": 0, "refit": False} | options
    search = InnaSearchCV(
        kind(**TINY | (net or {})), n_trials=n_trials, storage=storage, study_name="s", **options
    )
    return search.fit(X, y, **(fit or {})).study_


def nets(before, after):
    return {"net": before}, {"net": after}


def scorings(before, after):
    return {"scoring": before}, {"scoring": after}


def folds(before, after, **fit):
    return {"cv": before, "fit": fit}, {"cv": after, "fit": fit}


TEST_FOLD = GROUPS // 2
OTHER_FOLD = np.r_[TEST_FOLD[:56], TEST_FOLD[56:][::-1]]
ROWS = np.arange(N)

# What a study began with, what it is to go on with, and words of the message that refuses it.
NOT_ITS_OWN = {
    "other groups": (
        {"cv": GroupKFold(3), "fit": {"groups": GROUPS}},
        {"cv": GroupKFold(3), "fit": {"groups": GROUPS // 2}},
        "the groups differ",
    ),
    "other groups of one each": (
        {"cv": LeaveOneGroupOut(), "fit": {"groups": TEST_FOLD}},
        {"cv": LeaveOneGroupOut(), "fit": {"groups": OTHER_FOLD}},
        "the groups differ",
    ),
    "another PredefinedSplit": (
        *folds(PredefinedSplit(TEST_FOLD), PredefinedSplit(OTHER_FOLD)),
        "the folds of PredefinedSplit",
    ),
    "no seed": (*folds(KFold(3, shuffle=True), KFold(3, shuffle=True)), "give it a whole number as its random_state"),
    "no seed, repeated": (*folds(*(RepeatedKFold(n_splits=2, n_repeats=2) for _ in range(2))), "random_state"),
    "no seed, drawn": (*folds(ShuffleSplit(2), ShuffleSplit(2)), "random_state"),
    "another seed": (
        *folds(KFold(3, shuffle=True, random_state=0), KFold(3, shuffle=True, random_state=1)),
        "now it is KFold(n_splits=3, random_state=1",
    ),
    "another number of folds": (*folds(3, 4), "cross-validation is 3, now it is 4"),
    "an own splitter": (*folds(Own(1), Own(10)), "the folds of Own"),
    "a list of folds": (*folds([(ROWS[:30], ROWS[30:])], [(ROWS[30:], ROWS[:30])]), "the folds of 1 given splits"),
    "weights": ({}, {"fit": {"sample_weight": 1 + GROUPS}}, "no sample weights, now there are some"),
    "no weights": ({"fit": {"sample_weight": 1 + GROUPS}}, {}, "has sample weights, now there are none"),
    "other weights": (
        {"fit": {"sample_weight": 1 + GROUPS}},
        {"fit": {"sample_weight": 2 + GROUPS}},
        "the sample weights differ",
    ),
    "a named scorer": (*scorings("accuracy", "roc_auc"), "metric is accuracy, now it is roc_auc"),
    "the default scorer": (*scorings(None, "accuracy"), "metric is neg_log_loss, now it is accuracy"),
    "a lambda": (
        *scorings(lambda e, X, y: share(e, X, y), lambda e, X, y: -share(e, X, y)),
        "the scorer <lambda> (compiled code) differs",
    ),
    "a closure": (*scorings(with_cost(1.0), with_cost(2.0)), "(around it: cost) was 1.0, now it is 2.0"),
    "a partial": (*scorings(partial(share, cost=1.0), partial(share, cost=2.0)), "cost=1.0), now it is functools.partial"),
    "another function": (*scorings(share, Scorer(1.0)), "metric is share, now it is"),
    "an object": (*scorings(Scorer(1.0), Scorer(2.0)), "(cost) was 1.0, now it is 2.0"),
    "keywords of make_scorer": (
        *scorings(make_scorer(fbeta_score, beta=1), make_scorer(fbeta_score, beta=2)),
        "metric is make_scorer(fbeta_score, response_method='predict', beta=1), now it is",
    ),
    "epochs": (*nets({"max_epochs": 2}, {"max_epochs": 1}), "max_epochs was 2, now it is 1"),
    "optimizer": (*nets({"optimizer": "inna"}, {"optimizer": "adamw"}), "optimizer was 'inna', now it is 'adamw'"),
    "parameters of the optimizer": (
        *nets({"optimizer": "sgd", "optimizer_params": {"momentum": 0.5}}, {"optimizer": "sgd"}),
        "optimizer_params",
    ),
    "widths": (*nets({"hidden_layer_sizes": (4,)}, {"hidden_layer_sizes": (3, 3)}), "hidden_layer_sizes was [4]"),
    "encoder": (*nets({}, {"encoder": TableEncoder(numeric="quantile")}), "encoder__numeric was 'blend'"),
    "module": (*nets({"module": linear}, {"module": biased}), "the estimator's module"),
    "a module's width": (
        *nets({"module": partial(wide, width=3)}, {"module": partial(wide, width=4)}),
        "module (keywords: width) was 3, now it is 4",
    ),
    "class weights": (*nets({"class_weight": {0: 1, 1: 2}}, {"class_weight": {0: 1, 1: 3}}), "class_weight (1) was 2"),
    "no class weights": (*nets({"class_weight": "balanced"}, {}), "class_weight was 'balanced', now it is None"),
    "members": (*nets({"n_members": 2}, {"n_members": "auto"}), "n_members was 2, now it is 'auto'"),
    "seed of the nets": (*nets({"random_state": 1}, {"random_state": 2}), "random_state was 1, now it is 2"),
    "another estimator": ({}, {"kind": InnaRegressor}, "the estimator was InnaClassifier"),
    "what a narrower space does not name": (
        {"net": {"dropout": 0.1}},
        {"net": {"dropout": 0.2}, "space": SearchSpace({"lr": LogUniform(1e-3, 0.1)})},
        "dropout was 0.1, now it is 0.2",
    ),
}  # fmt: skip

ITS_OWN = {
    "the same": ({}, {}),
    "other words for the same folds": folds(3, StratifiedKFold(3)),
    "the folds as a list": folds(3, list(StratifiedKFold(3).split(X, Y))),
    "the folds as masks": folds([(ROWS[:30], ROWS[30:])], [(ROWS < 30, ROWS >= 30)]),
    "a seed": folds(KFold(3, shuffle=True, random_state=0), KFold(3, shuffle=True, random_state=0)),
    "no seed and no shuffling": folds(KFold(3), KFold(3)),
    "a stream that begins anew": folds(
        KFold(3, shuffle=True, random_state=np.random.RandomState(0)),
        KFold(3, shuffle=True, random_state=np.random.RandomState(0)),
    ),
    "groups by other names": (
        {"cv": GroupKFold(3), "fit": {"groups": GROUPS}},
        {"cv": GroupKFold(3), "fit": {"groups": GROUPS + 10}},
    ),
    "weights in another form": (
        {"fit": {"sample_weight": 1 + GROUPS}},
        {"fit": {"sample_weight": pd.Series(1.0 + GROUPS)}},
    ),
    "the default scorer by name": scorings(None, "neg_log_loss"),
    "a scorer by name and itself": scorings("accuracy", get_scorer("accuracy")),
    "a lambda of the same code": scorings(*(lambda e, X, y: share(e, X, y) for _ in range(2))),
    "a closure over the same": scorings(with_cost(1.0), with_cost(1.0)),
    "a partial of the same": scorings(partial(share, cost=2.0), partial(share, cost=2.0)),
    "an object that counts": scorings(Scorer(1.0), Scorer(1.0)),
    "a scorer made anew": scorings(
        *(make_scorer(mean_absolute_error, greater_is_better=False) for _ in range(2))
    ),
    "other words for the same widths": nets({"hidden_layer_sizes": (4,)}, {"hidden_layer_sizes": "4"}),
    "the default encoder": nets({}, {"encoder": TableEncoder()}),
    "the same module": nets({"module": linear}, {"module": linear}),
    "device": nets({"device": "auto"}, {"device": "cpu"}),
    "what the space tunes": nets({"lr": 0.1, "alpha": 0.2}, {"lr": 0.2, "alpha": 0.1}),
    "what does not change a trial": (
        {},
        {
            "timeout": 100.0,
            "n_jobs": 1,
            "verbose": 1,
            "refit": True,
            "callbacks": [lambda study, trial: None],
            "population": 2,
            "error_score": "raise",
            "pruner": optuna.pruners.NopPruner(),
            "sampler": optuna.samplers.RandomSampler(),
            "first": "default",
        },
    ),
    "a wider prior": ({}, {"space": SearchSpace(dict(SPACE) | {"lr": LogUniform(1e-4, 0.2)})}),
    "no space named": ({}, {"space": None}),
    "what the space names now": (
        {"net": {"dropout": 0.1}},
        {"net": {"dropout": 0.2}, "space": SearchSpace(dict(SPACE) | {"dropout": Uniform(0.0, 0.5)})},
    ),
}


@pytest.mark.filterwarnings("ignore::inna_tune.records.fingerprint.UnseededFoldsWarning")
@pytest.mark.parametrize("name", NOT_ITS_OWN)
def test_what_is_not_its_own_is_refused_and_named(name):
    before, after, words = NOT_ITS_OWN[name]
    storage = optuna.storages.InMemoryStorage()
    study = tune(storage, **before)
    with pytest.raises(MismatchError) as refused:
        tune(storage, n_trials=2, **after)
    message = str(refused.value)
    assert words in message
    assert "\n" not in message
    assert " at 0x" not in message
    assert len(study.trials) == 1
    assert ALLOWED_MISMATCH not in study.user_attrs
    tune(storage, n_trials=1, **after, allow_mismatch=True)
    assert any(words in sentence for sentence in study.user_attrs[ALLOWED_MISMATCH])
    assert study.user_attrs[FINGERPRINT] == tune(optuna.storages.InMemoryStorage(), **before).user_attrs[
        FINGERPRINT
    ] or ("no seed" in name)


@pytest.mark.parametrize("name", ITS_OWN)
def test_what_is_its_own_goes_on(name):
    before, after = ITS_OWN[name]
    storage = optuna.storages.InMemoryStorage()
    tune(storage, **before)
    study = tune(storage, n_trials=2, **after)
    assert len(study.trials) == 2
    assert ALLOWED_MISMATCH not in study.user_attrs


def test_with_other_folds_that_were_allowed_there_are_results():
    storage = optuna.storages.InMemoryStorage()
    tune(storage, cv=3)
    search = InnaSearchCV(
        InnaClassifier(**TINY), SPACE, n_trials=2, cv=4, storage=storage, study_name="s", resume=True,
        refit=False, allow_mismatch=True, first=[],
    ).fit(X, Y)  # fmt: skip
    found = search.cv_results_
    assert np.isnan(found["split0_test_score"]).tolist() == [True, False]
    assert np.isfinite(found["mean_test_score"]).all()


def test_a_study_that_nobody_can_resume_says_so_when_it_begins(tmp_path):
    storage = f"sqlite:///{tmp_path}/studies.db"
    with pytest.warns(UnseededFoldsWarning, match=r"KFold.*random_state") as warned:
        tune(storage, cv=KFold(2, shuffle=True))
    assert {each.filename for each in warned if each.category is UnseededFoldsWarning} == {__file__}


@pytest.mark.filterwarnings("error::inna_tune.records.fingerprint.UnseededFoldsWarning")
def test_others_say_nothing(tmp_path):
    tune(None, cv=KFold(2, shuffle=True))
    tune(f"sqlite:///{tmp_path}/studies.db", cv=KFold(2, shuffle=True, random_state=0))
    tune(f"sqlite:///{tmp_path}/others.db", cv=GroupKFold(2), fit={"groups": GROUPS})


def test_what_a_routed_scorer_gets_counts():
    with sklearn.config_context(enable_metadata_routing=True):
        scorer = make_scorer(fbeta_score, beta=1).set_score_request(sample_weight=True)
        net = InnaClassifier(**TINY).set_fit_request(sample_weight=False)
        storage = optuna.storages.InMemoryStorage()

        def fit(weight, n_trials):
            search = InnaSearchCV(
                net,
                SPACE,
                n_trials=n_trials,
                cv=2,
                scoring=scorer,
                storage=storage,
                study_name="s",
                resume=True,
                refit=False,
            )
            search.fit(X, Y, sample_weight=weight)

        fit(1 + GROUPS, 1)
        fit((1 + GROUPS).tolist(), 2)
        with pytest.raises(MismatchError, match="the sample_weight of the scorer differ"):
            fit(2 + GROUPS, 3)


def test_a_resume_with_another_seed_keeps_the_first_and_says_so(caplog):
    storages = [optuna.storages.InMemoryStorage() for _ in range(2)]
    for storage in storages:
        tune(storage)
    assert "seed" not in caplog.text
    straight = tune(storages[0], n_trials=3, random_state=None)
    assert "seed" not in caplog.text
    other = tune(storages[1], n_trials=3, random_state=1)
    assert "goes on with the seed that it was begun with, not with random_state=1" in caplog.text
    assert [t.params for t in other.trials] == [t.params for t in straight.trials]


def test_a_baseline_goes_on_with_its_seed_and_nothing_else():
    def run(storage, n_trials, seed=0, **more):
        options = {"task": "binary", "study_name": "s", "cv": 2, "resume": True} | more
        return tune_baseline("linear", X, Y, n_trials=n_trials, storage=storage, seed=seed, **options)

    straight = run(None, 4, study_name=None, resume=False)
    storage = optuna.storages.InMemoryStorage()
    run(storage, 2)
    assert [t.params for t in run(storage, 4, seed=9).trials] == [t.params for t in straight.trials]
    with pytest.raises(MismatchError, match="cross-validation is 2, now it is 3"):
        run(storage, 5, cv=3)


@pytest.mark.parametrize("has_score", [True, False])
def test_a_comparison_lets_mismatches_and_storage_errors_through(has_score, monkeypatch):
    """Also where the study that is another's has no score, and looks like a contender of which nothing came."""
    storage = optuna.storages.InMemoryStorage()

    def run(**more):
        options = {
            "n_trials": 1,
            "n_fits": 1,
            "resume": True,
            "optimizers": ("adamw",),
            "baselines": (),
        } | more
        frame = more.pop("frame", X).assign(label=Y)
        options.pop("frame", None)
        net = InnaClassifier(**TINY)
        return compare(
            make_problem(frame, "label"), storage=storage, study_name="c", estimator=net, **options
        )

    with monkeypatch.context() as patch:
        if not has_score:
            patch.setattr(
                "inna_tune.study.running.TrialRunner._prepare",
                lambda self, trial: self.fail(trial, ValueError()),
            )
        run()
    with pytest.raises(MismatchError, match="the values differ in columns 'a'"):
        run(frame=X.assign(a=-X["a"]), n_trials=2)
    assert len(optuna.load_study(study_name="c-adamw", storage=storage).trials) == 1

    def fail(*arguments, **options):
        raise StorageError("the disk is full")

    monkeypatch.setattr("inna_tune.study.run.create_study", fail)
    with pytest.raises(StorageError, match="the disk is full"):
        run(n_trials=2)

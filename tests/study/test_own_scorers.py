"""Whatever a scorer does with the model, it is scikit-learn's score to the last digits."""

import functools
import logging

import numpy as np
import optuna
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.inspection import permutation_importance
from sklearn.metrics import (
    accuracy_score,
    fbeta_score,
    get_scorer,
    get_scorer_names,
    log_loss,
    make_scorer,
    mean_pinball_loss,
    roc_auc_score,
)
from sklearn.model_selection import GroupKFold, KFold, LeaveOneOut, StratifiedKFold, cross_val_score

from inna_tune import InnaClassifier, InnaRegressor, InnaSearchCV, SearchSpace, cross_validate
from inna_tune.space import Categorical
from inna_tune.study.evaluation import Cohort
from inna_tune.study.folding import FoldedTable
from inna_tune.study.scoring import resolve_scorer

pytestmark = pytest.mark.filterwarnings("ignore")

RNG = np.random.default_rng(0)
N = 60
ROWS = pd.DataFrame({"a": RNG.normal(size=N), "b": RNG.normal(size=N), "c": RNG.choice(list("xyz"), N)})
SIGNAL = (ROWS.a + 0.5 * ROWS.b + 0.3 * RNG.normal(size=N)).to_numpy()
BINARY = np.where(SIGNAL > 0, "yes", "no")
MANY = np.digitize(SIGNAL, [-0.5, 0.5])
POSITIVE = np.exp(SIGNAL)
CLASSIFIER = InnaClassifier(
    hidden_layer_sizes=(4,), n_members=1, numeric_embedding="none", max_epochs=3, random_state=0
)
REGRESSOR = InnaRegressor(
    hidden_layer_sizes=(4,), n_members=1, numeric_embedding="none", max_epochs=3, random_state=0
)
FOLDS = KFold(2, shuffle=True, random_state=0)


@functools.cache
def problem(kind):
    return {
        "binary": (CLASSIFIER, BINARY),
        "numbers as labels": (CLASSIFIER, (SIGNAL > 0).astype(int)),
        "many": (CLASSIFIER, MANY),
        "regression": (REGRESSOR, POSITIVE),
        "two targets": (REGRESSOR, np.column_stack([POSITIVE, -SIGNAL])),
    }[kind]


def outcome(function):
    try:
        return function()
    except Exception as error:
        return type(error)


def agree(net, X, y, scoring, cv=FOLDS):
    expected = outcome(lambda: cross_val_score(net, X, y, cv=cv, scoring=scoring, error_score="raise"))
    found = outcome(lambda: cross_validate(net, X, y, cv, scoring=scoring)["test_score"])
    if isinstance(expected, type):
        assert found is expected
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    return expected


@pytest.mark.parametrize("kind", ["binary", "numbers as labels", "many", "regression", "two targets"])
def test_every_scorer_of_scikit_learn(kind):
    net, y = problem(kind)
    folds = list(FOLDS.split(ROWS))
    cohort = Cohort(FoldedTable(net, ROWS, y, None, folds), [net])
    cohort.run()
    alone = [(clone(net).fit(ROWS.iloc[train], y[train]), ROWS.iloc[test], y[test]) for train, test in folds]
    n_applicable = 0
    for name in get_scorer_names():
        scorer = get_scorer(name)
        expected = outcome(lambda own=scorer: [own(*fold) for fold in alone])
        resolved = resolve_scorer(net, name, np.unique(y) if hasattr(net, "predict_proba") else None)
        found = outcome(lambda own=resolved: cohort.scores(0, own))
        if isinstance(expected, type):
            assert found is expected, name
        else:
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12, err_msg=name)
            n_applicable += 1
    assert n_applicable > 5


def permutes(model, X, y):
    before = accuracy(model, X, y)
    X = X.copy()
    X["a"] = X["a"].to_numpy()[::-1]
    return before - accuracy(model, X, y)


def accuracy(model, X, y):
    return float((model.predict(X) == y).mean())


def writes_into_what_it_gets(model, X, y):
    X.loc[:, "a"] = 0.0
    y[:] = y[0]
    return accuracy(model, X, y)


def mirrors(model, X, y):
    return float(np.abs(model.predict_proba(X) - model.predict_proba(X.assign(a=-X.a))).mean())


def of_some_rows(model, X, y):
    return accuracy_score(y[X.a > 0], model.predict(X[X.a > 0]))


def of_one_row(model, X, y):
    return float(model.predict_proba(X.iloc[:1])[0, 0])


def reads_what_is_fitted(model, X, y):
    assert model.history_["epoch"].max() == model.n_iter_ == 3
    assert list(model.feature_names_in_) == list(X.columns)
    assert len(model.members_) == 8
    assert len(model.history_) == 8 * 3
    assert model.net_.in_features == sum(model.encoder_.sections)
    return model.n_features_in_ + len(model.classes_) + float(model.weights_.double().square().sum())


def reads_its_settings(model, X, y):
    return float(model.get_params()["max_epochs"] + model.random_state)


def by_scikit_learn(model, X, y):
    return float(permutation_importance(model, X, y, n_repeats=2, random_state=0).importances_mean[0])


def own_score(model, X, y):
    return model.score(X, y)


def logarithms(model, X, y):
    return float(model.predict_log_proba(X)[:, 0].mean())


def changes_the_model(model, X, y):
    found = accuracy(model, X, y)
    model.set_params(max_epochs=99)
    model.weights_.zero_()
    model.encoder_.plan_.clear()
    return found


def asks_for_more_than_there_is(model, X, y):
    return float(model.decision_function(X).mean())


def returns_an_array(model, X, y):
    return np.array([accuracy(model, X, y)])


def returns_text(model, X, y):
    return "good"


def returns_several(model, X, y):
    return np.zeros(3)


OWN = [
    permutes, writes_into_what_it_gets, mirrors, of_some_rows, of_one_row, reads_what_is_fitted, reads_its_settings,
    by_scikit_learn, own_score, logarithms, changes_the_model, asks_for_more_than_there_is, returns_an_array, returns_text,
    returns_several,
]  # fmt: skip


@pytest.mark.parametrize("scorer", OWN, ids=lambda s: s.__name__)
@pytest.mark.parametrize("kind", ["binary", "many"])
def test_a_function_of_ones_own(kind, scorer):
    net, y = problem(kind)
    agree(net, ROWS, y, scorer)


def test_a_function_of_ones_own_gets_arrays_where_arrays_were_given():
    numbers = ROWS[["a", "b"]].to_numpy()

    def first_column(model, X, y):
        assert type(X) is np.ndarray
        mirrored = np.column_stack([-X[:, 0], X[:, 1]])
        return float((model.predict(mirrored) == y).mean())

    net = clone(CLASSIFIER).set_params(max_epochs=20)
    expected = agree(net, numbers, BINARY, first_column)
    assert expected.mean() < 0.5

    def series(model, X, y):
        assert isinstance(y, pd.Series)
        return accuracy(model, X, y)

    agree(CLASSIFIER, ROWS, pd.Series(BINARY, index=range(1000, 1000 + N)), series)


def spread(y, predicted):
    return float(np.std(predicted))


def chosen(y, probabilities):
    return float(np.asarray(probabilities).reshape(len(y), -1)[:, 0].mean())


def writes_into_labels(y, predicted):
    error = float(np.abs(np.asarray(y) - predicted).mean())
    y *= 0
    predicted *= 0
    return error


class Subclass(type(get_scorer("accuracy"))):
    def _score(self, method_caller, estimator, X, y_true, **kwargs):
        return super()._score(method_caller, estimator, X.assign(a=-X.a), y_true, **kwargs)


MADE = {
    "own function": (make_scorer(spread), "regression"),
    "own, of probabilities": (make_scorer(chosen, response_method="predict_proba"), "many"),
    "own, of logarithms": (make_scorer(chosen, response_method=["predict_log_proba"]), "many"),
    "own, of what there is not": (make_scorer(chosen, response_method="decision_function"), "many"),
    "one of several methods": (
        make_scorer(roc_auc_score, response_method=("decision_function", "predict_proba")),
        "binary",
    ),
    "with arguments": (make_scorer(fbeta_score, beta=2, pos_label="no"), "binary"),
    "a loss": (make_scorer(mean_pinball_loss, greater_is_better=False, alpha=0.9), "regression"),
    "log-loss the wrong way round": (make_scorer(log_loss, response_method="predict_proba"), "many"),
    "log-loss, summed": (
        make_scorer(log_loss, greater_is_better=False, response_method="predict_proba", normalize=False),
        "many",
    ),
    "log-loss of classes": (make_scorer(log_loss, greater_is_better=False), "numbers as labels"),
    "own, that writes": (make_scorer(writes_into_labels), "regression"),
    "derived": (Subclass(accuracy_score, 1, {}), "binary"),
    "partial": (functools.partial(lambda model, X, y, sign: sign * accuracy(model, X, y), sign=-1), "many"),
}


@pytest.mark.parametrize("name", MADE)
def test_made_scorers(name):
    scorer, kind = MADE[name]
    net, y = problem(kind)
    agree(net, ROWS, y, scorer)


@pytest.mark.parametrize("series", [True, False])
def test_a_made_scorer_that_writes_into_labels_finds_them_whole_the_next_time(series):
    y = pd.Series(POSITIVE) if series else POSITIVE
    scorer = make_scorer(writes_into_labels, greater_is_better=False)
    search = InnaSearchCV(
        REGRESSOR, n_trials=2, cv=FOLDS, scoring=scorer, pruner=optuna.pruners.NopPruner(), refit=False, random_state=0
    ).fit(ROWS, y)  # fmt: skip
    for trial in search.study_.trials:
        alone = clone(REGRESSOR).set_params(**trial.params)
        assert trial.value == pytest.approx(cross_val_score(alone, ROWS, y, cv=FOLDS, scoring=scorer).mean())


@pytest.mark.parametrize("scoring", [None, "roc_auc"])
@pytest.mark.parametrize(("kind", "series"), [(int, True), (float, True), (bool, True), (bool, False)])
def test_labels_that_come_as_objects_are_scored_as_what_they_are(series, kind, scoring):
    y = pd.Series((SIGNAL > 0).astype(kind), index=range(1000, 1000 + N))
    found = [
        cross_validate(CLASSIFIER, ROWS, each if series else each.to_numpy(), FOLDS, scoring=scoring)["test_score"]
        for each in (y, y.astype(object))
    ]  # fmt: skip
    np.testing.assert_array_equal(*found)
    assert np.isfinite(found[0]).all()


class Cautious(InnaClassifier):
    """Says yes to few."""

    def predict_proba(self, X):
        return np.column_stack([1 - (p := 0.5 * super().predict_proba(X)[:, 1]), p])

    def decision_function(self, X):
        return np.asarray(X["a"])


@pytest.mark.parametrize("scoring", ["accuracy", "neg_log_loss", "roc_auc", permutes])
def test_an_estimator_derived_from_ours(scoring):
    net = Cautious(**CLASSIFIER.get_params())
    agree(net, ROWS, BINARY, scoring)
    search = InnaSearchCV(
        net, SearchSpace({"dropout": Categorical((0.0,))}), n_trials=1, cv=FOLDS, scoring=scoring, refit=False,
        error_score="raise", random_state=0,
    ).fit(ROWS, BINARY)  # fmt: skip
    [trial] = search.study_.trials
    assert trial.intermediate_values, "it has a rung"


@pytest.mark.parametrize("scoring", [permutes, "roc_auc", "neg_log_loss"])
def test_rungs_go_by_the_same_scorer(scoring):
    # Steps too short to move anything: what was said at the rung is what is said at the end.
    net = clone(CLASSIFIER).set_params(
        lr=1e-12, alpha=0.4, beta=0.2, averaging=None, early_stopping=False, max_epochs=4
    )
    search = InnaSearchCV(
        net, SearchSpace({"dropout": Categorical((0.0,))}), n_trials=1, cv=FOLDS, scoring=scoring, refit=False,
        error_score="raise", pruner=optuna.pruners.NopPruner(), random_state=0,
    ).fit(ROWS, BINARY)  # fmt: skip
    [trial] = search.study_.trials
    assert list(trial.intermediate_values) == [2]
    for value in trial.intermediate_values.values():
        assert value == pytest.approx(trial.value, abs=1e-6)
    assert trial.value == pytest.approx(cross_val_score(net, ROWS, BINARY, cv=FOLDS, scoring=scoring).mean())


# ---------------------------------------------------------------------- what comes with the rows


def weighted(model, X, y, sample_weight=None):
    return float(np.average(model.predict(X) == y, weights=sample_weight))


@pytest.mark.parametrize("scoring", [None, "accuracy", "neg_log_loss", "roc_auc", weighted])
def test_weights_reach_training_and_every_scorer(scoring):
    weight = np.where(np.arange(N) % 5 == 0, 0.0, RNG.random(N) + 0.1)
    found = cross_validate(CLASSIFIER, ROWS, BINARY, FOLDS, scoring=scoring, sample_weight=weight)
    with sklearn.config_context(enable_metadata_routing=True):
        net = clone(CLASSIFIER).set_fit_request(sample_weight=True)
        scorer = get_scorer(scoring or "neg_log_loss") if scoring is not weighted else None
        if scorer is not None:
            scorer = scorer.set_score_request(sample_weight=True)
            expected = cross_val_score(
                net,
                ROWS,
                BINARY,
                cv=FOLDS,
                scoring=scorer,
                params={"sample_weight": weight},
                error_score="raise",
            )
            np.testing.assert_allclose(found["test_score"], expected, rtol=1e-9)
            return
    for (train, test), score in zip(FOLDS.split(ROWS), found["test_score"], strict=True):
        alone = clone(CLASSIFIER).fit(ROWS.iloc[train], BINARY[train], sample_weight=weight[train])
        assert score == pytest.approx(weighted(alone, ROWS.iloc[test], BINARY[test], weight[test]), rel=1e-9)


def test_routed_metadata_is_cut_into_folds_as_it_came():
    price = pd.Series(RNG.random(N), index=range(5, N + 5))
    with sklearn.config_context(enable_metadata_routing=True):
        scorer = make_scorer(own_price).set_score_request(price=True)
        search = InnaSearchCV(
            CLASSIFIER, SearchSpace({"dropout": Categorical((0.0,))}), n_trials=1, cv=FOLDS, scoring=scorer, refit=False,
            error_score="raise", random_state=0,
        ).fit(ROWS, BINARY, price=price)  # fmt: skip
        net = clone(CLASSIFIER).set_params(dropout=0.0)
        expected = cross_val_score(
            net, ROWS, BINARY, cv=FOLDS, scoring=scorer, params={"price": price}, error_score="raise"
        )
    np.testing.assert_allclose(search.study_.trials[0].user_attrs["scores"], expected, rtol=1e-9)


def own_price(y_true, y_pred, price):
    assert isinstance(price, pd.Series)
    return float((price.to_numpy() * (y_true == y_pred)).sum())


# ---------------------------------------------------------------------- where there is no score


def search(net=CLASSIFIER, **changes):
    settings = {"n_trials": 2, "cv": FOLDS, "random_state": 0, "refit": False}
    return InnaSearchCV(net, SearchSpace({"dropout": Categorical((0.0, 0.2))}), **(settings | changes))


GROUPS = np.arange(N) // 10
SORTED = np.sort(BINARY)


def test_an_undefined_score_names_scorer_and_fold(caplog):
    with pytest.raises(
        ValueError, match=r"roc_auc_score gave no number \(nan\) on folds 0, 1.*all of target"
    ) as caught:
        search(cv=GroupKFold(6), scoring="roc_auc").fit(ROWS, SORTED, groups=GROUPS)
    assert "diverged" not in str(caught.value)
    with pytest.raises(
        ValueError,
        match="r2_score gave no number .nan. on folds 0, 1, 2, 3, 4 and 7 more; fold 0 has 1 test row",
    ):
        search(REGRESSOR, cv=LeaveOneOut(), scoring="r2").fit(ROWS[:12], SIGNAL[:12])
    found = search(cv=LeaveOneOut(), n_trials=1).fit(ROWS[:12], BINARY[:12])
    assert np.isfinite(found.best_score_), "the log-loss of one row is a number"


def sometimes(model, X, y):
    return np.nan if 3 in X.index else accuracy(model, X, y)


@pytest.mark.parametrize("error_score", ["raise", np.nan, 0.0])
def test_an_undefined_score_is_an_error_of_the_trial(error_score):
    which = next(k for k, (_, test) in enumerate(FOLDS.split(ROWS)) if 3 in test)
    reason = f"sometimes gave no number \\(nan\\) on fold {which};"
    with pytest.raises(ValueError, match=reason):
        search(scoring=sometimes, error_score=error_score).fit(ROWS, BINARY)
    study = search(scoring=sometimes, error_score=error_score)
    with pytest.raises(ValueError, match=reason):
        study.fit(ROWS, BINARY)
    states = {t.state for t in study.study_.trials if t.state.is_finished()}
    assert states == {optuna.trial.TrialState.FAIL}


def test_cross_validate_gives_nan_there_and_says_why():
    with pytest.warns(sklearn.exceptions.UndefinedMetricWarning, match="sometimes gave no number"):
        found = cross_validate(CLASSIFIER, ROWS, BINARY, FOLDS, scoring=sometimes)["test_score"]
    np.testing.assert_allclose(
        found, cross_val_score(CLASSIFIER, ROWS, BINARY, cv=FOLDS, scoring=sometimes), rtol=1e-9
    )
    assert np.isnan(found).sum() == 1


def fails_on_a_fold(model, X, y):
    if 3 in X.index and model.dropout > 0:
        raise LookupError("no price today")
    return accuracy(model, X, y)


def test_what_a_scorer_raises_fails_its_trial_alone_and_names_the_fold(caplog):
    first = [{"dropout": 0.0}, {"dropout": 0.2}]
    settings = {"scoring": fails_on_a_fold, "first": first, "population": 2}
    found = search(**settings).fit(ROWS, BINARY)
    good, bad = found.study_.trials
    which = next(k for k, (_, test) in enumerate(FOLDS.split(ROWS)) if 3 in test)
    assert good.state == optuna.trial.TrialState.COMPLETE
    assert bad.state == optuna.trial.TrialState.FAIL
    assert bad.user_attrs["reason"] == f"LookupError: no price today (while fold {which} was scored)"
    assert bad.user_attrs["seconds"] > 0
    with pytest.raises(LookupError, match="no price today"):
        search(**settings, error_score="raise").fit(ROWS, BINARY)


def test_folds_of_one_class_are_named(caplog):
    cv = StratifiedKFold(3)
    one = [(np.arange(20), np.arange(20, N)), *cv.split(ROWS, SORTED)]
    for attempt in (
        lambda: search(cv=one).fit(ROWS, SORTED),
        lambda: cross_validate(CLASSIFIER, ROWS, SORTED, one),
    ):
        with pytest.raises(ValueError, match=r"fold 0, of 20 training and 40 test rows: .*one class|1 class"):
            attempt()
    with caplog.at_level(logging.WARNING), pytest.raises(ValueError, match="fold 0"):
        search(cv=[(np.arange(30), np.arange(30, N))]).fit(
            ROWS, BINARY, sample_weight=np.r_[np.zeros(30), np.ones(30)]
        )

"""Several metrics, of which one is maximised: as scikit-learn's searches have them."""

import logging

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.metrics import get_scorer, make_scorer, roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_validate

import inna_tune
from inna_tune import InnaClassifier, InnaRegressor, InnaSearchCV
from inna_tune.records.attributes import FINGERPRINT
from tests.study.sending import sent  # noqa: F401  (a fixture)

X, Y = (part.iloc[:120] for part in load_breast_cancer(return_X_y=True, as_frame=True))
WEIGHT = np.linspace(0.1, 3.0, len(X))
NET = InnaClassifier(
    hidden_layer_sizes=(4,), n_members=1, max_epochs=4, numeric_embedding="none", random_state=0
)
CV = StratifiedKFold(2, shuffle=True, random_state=0)


def search(**changes):
    given = {
        "n_trials": 4,
        "cv": CV,
        "random_state": 0,
        "scoring": ["accuracy", "roc_auc"],
        "refit": "roc_auc",
    }
    return InnaSearchCV(NET, **(given | changes))


@pytest.fixture(scope="module")
def found():
    return search().fit(X, Y)


def test_its_results_have_the_keys_of_scikit_learns_searches(found):
    theirs = GridSearchCV(NET, {"alpha": [0.1]}, cv=CV, scoring=["accuracy", "roc_auc"], refit=False).fit(
        X, Y
    )
    scores = {key for key in theirs.cv_results_ if "_test_" in key}
    assert scores == {key for key in found.cv_results_ if "_test_" in key}
    assert {type(found.cv_results_[k]) for k in scores} == {np.ndarray}
    for key in scores:
        assert found.cv_results_[key].dtype == theirs.cv_results_[key].dtype
    assert found.multimetric_
    assert set(found.scorer_) == {"accuracy", "roc_auc"}


def test_each_is_what_cross_validation_gives(found):
    row, trial = found.best_index_, found.study_.best_trial
    model = clone(NET).set_params(**trial.params)
    theirs = cross_validate(model, X, Y, cv=CV, scoring=["accuracy", "roc_auc"])
    for name in ("accuracy", "roc_auc"):
        own = [found.cv_results_[f"split{k}_test_{name}"][row] for k in range(2)]
        assert own == pytest.approx(theirs[f"test_{name}"], abs=1e-12)
        assert found.cv_results_[f"mean_test_{name}"][row] == pytest.approx(np.mean(own))


def test_the_one_that_is_named_is_maximised(found):
    assert found.best_score_ == found.cv_results_["mean_test_roc_auc"][found.best_index_]
    assert found.best_score_ == np.nanmax(found.cv_results_["mean_test_roc_auc"])
    assert found.cv_results_["rank_test_roc_auc"][found.best_index_] == 1
    assert found.study_.user_attrs[FINGERPRINT]["metric"] == "roc_auc"
    assert found.score(X, Y) == pytest.approx(roc_auc_score(Y, found.predict_proba(X)[:, 1]))


def test_it_is_the_study_of_that_metric_alone(found):
    alone = search(scoring="roc_auc", refit=True).fit(X, Y)
    assert [t.values for t in alone.study_.trials] == [t.values for t in found.study_.trials]
    assert not alone.multimetric_
    assert alone.cv_results_["mean_test_score"] == pytest.approx(
        found.cv_results_["mean_test_roc_auc"], nan_ok=True
    )


def test_metrics_by_names_of_ones_own():
    scoring = {"area": "roc_auc", "brier": make_scorer(roc_auc_score, response_method="predict_proba")}
    found = search(scoring=scoring, refit="brier", n_trials=2).fit(X, Y)
    results = found.cv_results_
    assert results["mean_test_area"] == pytest.approx(results["mean_test_brier"], nan_ok=True)
    named = search(scoring=scoring, refit="area", n_trials=2).fit(X, Y)
    assert named.study_.user_attrs[FINGERPRINT]["metric"] == "roc_auc"


@pytest.mark.parametrize("refit", [False, "ensemble"])
def test_the_first_is_maximised_where_none_is_named(refit):
    found = search(refit=refit, n_trials=2).fit(X, Y)
    assert found.best_score_ == found.cv_results_["mean_test_accuracy"][found.best_index_]
    assert hasattr(found, "best_estimator_") == (refit == "ensemble")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"refit": True}, "'accuracy', 'roc_auc'"),
        ({"refit": "recall"}, "refit='recall'"),
        ({"scoring": []}, "names no metric"),
        ({"scoring": ["accuracy", "accuracy"]}, "twice"),
        ({"scoring": [roc_auc_score]}, "give callables by name"),
        ({"scoring": {"score": "accuracy"}}, "other than 'score'"),
        ({"scoring": ["accuracy", "nonsense"], "refit": "accuracy"}, "nonsense"),
        ({"scoring": "accuracy", "refit": "accuracy"}, "for several"),
    ],
)
def test_what_makes_no_sense_is_refused_before_training(changes, message):
    with pytest.raises(ValueError, match=message):
        search(**changes).fit(X, Y)


def test_a_metric_beside_that_fails_fails_no_trial(caplog):
    def broken(model, X, y):
        raise RuntimeError("no such thing")

    scoring = {"area": "roc_auc", "broken": broken}
    with caplog.at_level(logging.WARNING, logger="inna_tune"):
        found = search(scoring=scoring, refit="area", n_trials=1).fit(X, Y)
    assert np.isnan(found.cv_results_["mean_test_broken"]).all()
    assert np.isfinite(found.cv_results_["mean_test_area"]).all()
    assert "no broken: RuntimeError: no such thing" in caplog.text
    with pytest.raises(RuntimeError, match="no such thing"):
        search(scoring=scoring, refit="area", n_trials=1, error_score="raise").fit(X, Y)


def test_a_resumed_study_has_no_scores_by_metrics_that_it_did_not_know(tmp_path):
    options = {"storage": f"sqlite:///{tmp_path}/s.db", "study_name": "s"}
    search(scoring="roc_auc", refit=True, n_trials=1, **options).fit(X, Y)
    found = search(n_trials=2, resume=True, population=1, **options).fit(X, Y)
    assert np.isnan(found.cv_results_["mean_test_accuracy"][0])
    assert np.isfinite(found.cv_results_["mean_test_roc_auc"][0])
    with pytest.raises(inna_tune.study.MismatchError, match="metric is roc_auc, now it is accuracy"):
        search(refit="accuracy", resume=True, **options).fit(X, Y)


def test_weights_go_to_each_metric_that_takes_them():
    found = search(n_trials=1).fit(X, Y, sample_weight=WEIGHT)
    best = clone(NET).set_params(**found.best_params_)
    for name in ("accuracy", "roc_auc"):
        expected = []
        for train, test in CV.split(X, Y):
            model = clone(best).fit(X.iloc[train], Y.iloc[train], sample_weight=WEIGHT[train])
            expected.append(get_scorer(name)(model, X.iloc[test], Y.iloc[test], sample_weight=WEIGHT[test]))
        assert found.cv_results_[f"mean_test_{name}"][0] == pytest.approx(np.mean(expected), abs=1e-9)


def test_with_routing_weights_go_to_the_metrics_that_ask():
    with sklearn.config_context(enable_metadata_routing=True):
        net = clone(NET).set_fit_request(sample_weight=True)
        weighted = get_scorer("accuracy").set_score_request(sample_weight=True)
        plain = get_scorer("accuracy").set_score_request(sample_weight=False)
        scoring = {"weighted": weighted, "plain": plain}
        options = {"scoring": scoring, "n_trials": 1, "cv": CV, "random_state": 0}
        found = [InnaSearchCV(net, refit=name, **options).fit(X, Y, sample_weight=WEIGHT) for name in scoring]
    for name in scoring:
        first, second = (each.cv_results_[f"mean_test_{name}"] for each in found)
        assert first == pytest.approx(second)
    assert found[0].cv_results_["mean_test_weighted"] != pytest.approx(
        found[0].cv_results_["mean_test_plain"]
    )


def test_processes_score_by_all_of_them(sent):  # noqa: F811
    found = search(n_trials=2, n_jobs=2).fit(X, Y)
    assert np.isfinite(found.cv_results_["mean_test_accuracy"]).any()


def test_folds_at_once_by_several_metrics():
    rows, target = load_diabetes(return_X_y=True, as_frame=True)
    rows, target = rows.iloc[:90], target.iloc[:90]
    net = InnaRegressor(hidden_layer_sizes=(4,), n_members=1, max_epochs=3, random_state=0)
    theirs = cross_validate(net, rows, target, cv=2, scoring=["r2", "neg_mean_absolute_error"])
    own = inna_tune.cross_validate(net, rows, target, cv=2, scoring=["r2", "neg_mean_absolute_error"])
    for name in ("r2", "neg_mean_absolute_error"):
        assert own[f"test_{name}"] == pytest.approx(theirs[f"test_{name}"])
    assert "test_score" not in own

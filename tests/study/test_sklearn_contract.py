"""What scikit-learn asks of a search."""

import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.exceptions import UnsetMetadataPassedError
from sklearn.metrics import accuracy_score, make_scorer, max_error
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from inna_tune import InnaClassifier, InnaRegressor, InnaSearchCV, SearchSpace
from inna_tune.space import LogNormal, Uniform
from inna_tune.study import cross_validate

# Two trials and two folds are the least that is a search. Nets without embeddings, which the estimators' own checks have. Few
# epochs, since the classifier's checks need little training, and a regressor wide enough to reach the score asked for in few.
PLAIN = {"hidden_layer_sizes": (4,), "n_members": 1, "numeric_embedding": "none"}
CLASSIFIER = InnaClassifier(max_epochs=5, **PLAIN)
REGRESSOR = InnaRegressor(max_epochs=12, **PLAIN | {"hidden_layer_sizes": (16,)})
LEAST = {"n_trials": 2, "cv": 2}


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


# A check of regressors wants score() > 0.5, which says nothing of an error with its sign turned: hence R² for this one.
@parametrize_with_checks(
    [InnaSearchCV(CLASSIFIER, **LEAST), InnaSearchCV(REGRESSOR, scoring="r2", **LEAST)],
)
def test_scikit_learn_check(estimator, check):
    check(estimator)


def quick_search(model=CLASSIFIER, **settings):
    return InnaSearchCV(model, **LEAST | {"random_state": 0} | settings)


def test_a_space_that_was_used_hashes_like_a_new_one():
    """scikit-learn's check that fit changes no parameter goes by this hash."""
    X, y = load_iris(return_X_y=True)
    space = SearchSpace({"alpha": LogNormal(0.3, 1.0, low=0.05, high=1.0), "dropout": Uniform(0.0, 0.5)})
    before = joblib.hash(space)
    search = quick_search(space=space).fit(X, y)
    assert joblib.hash(search.space) == before
    assert pickle.loads(pickle.dumps(space)) == space


def test_several_targets():
    X, y = load_diabetes(return_X_y=True, as_frame=True)
    both = pd.DataFrame({"up": y, "down": -3.0 * y + 5.0})
    for targets in (both, both.to_numpy()):
        search = quick_search(REGRESSOR, scoring="r2").fit(X, targets)
        assert search.predict(X).shape == both.shape
        assert search.score(X, targets) > 0.3
        assert search.best_score_ > 0.2
    default = quick_search(REGRESSOR).fit(X, both)
    assert -200 < default.best_score_ < -50, "the mean of the targets' root mean squared errors"
    assert quick_search(REGRESSOR, scoring="r2").fit(X, y).predict(X).shape == y.shape


def test_what_a_fitted_search_has():
    X, y = load_iris(return_X_y=True, as_frame=True)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    search = quick_search().fit(X, names)
    assert list(search.classes_) == ["setosa", "versicolor", "virginica"]
    assert search.n_features_in_ == 4
    assert list(search.feature_names_in_) == list(X.columns)
    np.testing.assert_allclose(search.predict_log_proba(X), np.log(search.predict_proba(X)))
    assert not hasattr(quick_search(REGRESSOR), "predict_proba")
    assert "InnaSearchCV" in search._repr_html_()
    copy = pickle.loads(pickle.dumps(search))
    assert np.array_equal(copy.predict_proba(X), search.predict_proba(X))
    assert clone(search).get_params(deep=False)["n_trials"] == 2
    assert search.get_params()["estimator__max_epochs"] == 5


def test_same_seed_same_bits_and_global_streams_untouched():
    X, y = load_iris(return_X_y=True)
    streams = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    first, second = (quick_search().fit(X, y) for _ in range(2))
    assert first.best_params_ == second.best_params_
    assert np.array_equal(first.predict_proba(X), second.predict_proba(X))
    assert np.array_equal(np.random.get_state()[1], streams[0])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), streams[1])


def test_the_number_of_jobs_makes_no_difference():
    X, y = load_iris(return_X_y=True)
    alone = cross_val_score(quick_search(), X, y, cv=2)
    # Threads share torch's global settings, which processes do not; and they need not import everything anew.
    with joblib.parallel_config("threading", n_jobs=2):
        together = cross_val_score(quick_search(), X, y, cv=2)
    assert np.array_equal(alone, together)


def test_inside_scikit_learns_own():
    X, y = load_breast_cancer(return_X_y=True)
    pipeline = make_pipeline(StandardScaler(), quick_search())
    assert cross_val_score(pipeline, X, y, cv=2, scoring="accuracy").min() > 0.9
    assert CalibratedClassifierCV(quick_search(), cv=2).fit(X, y).score(X, y) > 0.9


# ---------------------------------------------------------------------- what comes with the rows


def test_a_scorer_that_takes_no_weights_is_told_so():
    X, y = load_diabetes(return_X_y=True)
    weight = np.ones(len(y))
    search = quick_search(
        REGRESSOR, scoring=make_scorer(max_error, greater_is_better=False), error_score="raise"
    )
    with pytest.warns(UserWarning, match="takes no sample_weight"):
        search.fit(X, y, sample_weight=weight)
    with pytest.warns(UserWarning, match="takes no sample_weight"):
        cross_validate(REGRESSOR, X, y, 2, scoring=lambda model, X, y: 1.0, sample_weight=weight)


def test_score_takes_weights():
    X, y = load_iris(return_X_y=True)
    search = quick_search(scoring="accuracy").fit(X, y)
    weight = np.where(search.predict(X) == y, 1.0, 0.0)
    assert search.score(X, y, sample_weight=weight) == 1.0


def test_without_routing_nothing_else_may_come():
    X, y = load_iris(return_X_y=True)
    with pytest.raises(TypeError, match=r"\['price'\].*enable_metadata_routing"):
        quick_search().fit(X, y, price=y)


def test_the_search_itself_asks_for_nothing(routing):
    assert not hasattr(quick_search(), "set_fit_request")
    assert not hasattr(quick_search(), "set_score_request")


def test_weights_go_where_they_are_asked_for(routing):
    X, y = load_iris(return_X_y=True)
    weight = np.where(y == 2, 1.0, 1e-6)
    with pytest.raises(UnsetMetadataPassedError, match="sample_weight"):
        quick_search().fit(X, y, sample_weight=weight)
    slow = clone(CLASSIFIER).set_params(max_epochs=30)
    both = slow.set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
    trained = quick_search(both).fit(X, y, sample_weight=weight)
    assert (trained.predict(X) == 2).mean() > 0.9
    scorer = make_scorer(accuracy_score).set_score_request(sample_weight=True)
    unmoved = clone(CLASSIFIER).set_params(max_epochs=40).set_fit_request(sample_weight=False)
    only_scored = quick_search(unmoved, scoring=scorer).fit(X, y, sample_weight=weight)
    assert (only_scored.predict(X) == 2).mean() < 0.6
    expected = accuracy_score(y, only_scored.predict(X), sample_weight=weight)
    assert only_scored.score(X, y, sample_weight=weight) == expected
    quick_search().fit(X, y)
    outer = cross_val_score(quick_search(both), X, y, cv=2, params={"sample_weight": weight})
    assert (outer > -0.1).all(), "the log-loss is that of the rows that weigh"


def test_groups_and_further_things_go_where_they_are_asked_for(routing):
    X, y = load_iris(return_X_y=True)
    groups = np.arange(len(y)) % 3
    seen = []

    def priced(y_true, y_pred, price):
        seen.append(len(price))
        assert np.array_equal(price, 10.0 * y_true)
        return float(price.mean())

    scorer = make_scorer(priced).set_score_request(price=True)
    search = quick_search(cv=GroupKFold(3), scoring=scorer, error_score="raise")
    search.fit(X, y, groups=groups, price=10.0 * y)
    assert search.n_splits_ == 3
    assert set(seen) == {50}
    assert search.score(X, y, price=10.0 * y) == pytest.approx(10.0)
    with pytest.raises(TypeError, match="unexpected argument"):
        quick_search(cv=2).fit(X, y, groups=groups)

"""A search over a pipeline that ends in one of our nets."""

import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.feature_selection import SelectKBest
from sklearn.metrics import log_loss
from sklearn.model_selection import KFold, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import PowerTransformer, StandardScaler

import inna_tune
from inna_tune import InnaClassifier, InnaRegressor, InnaSearchCV, SearchSpace
from inna_tune.records.attributes import CURVATURE, FINGERPRINT
from inna_tune.records.record import StudyRecord
from inna_tune.space import Categorical, LogUniform
from inna_tune.study import MismatchError
from tests.study.sending import sent  # noqa: F401  (a fixture)

X, Y = (part.iloc[:100] for part in load_breast_cancer(return_X_y=True, as_frame=True))
X = X.iloc[:, :6]
NET = InnaClassifier(hidden_layer_sizes=(4,), n_members=1, max_epochs=4, numeric_embedding="none")
CV = KFold(2, shuffle=True, random_state=0)


def search(estimator=None, space=None, **changes):
    estimator = make_pipeline(PowerTransformer(), NET) if estimator is None else estimator
    return InnaSearchCV(estimator, space, **({"n_trials": 3, "cv": CV, "random_state": 0} | changes))


class Watching(TransformerMixin, BaseEstimator):
    """Notes in a file which rows it was fitted to."""

    def __init__(self, path=""):
        self.path = path

    def fit(self, X, y=None):
        with open(self.path, "a") as file:
            file.write(f"{sorted(X.index)}\n")
        self.n_ = len(X)
        return self

    def transform(self, X):
        return X


@pytest.fixture(scope="module")
def found():
    return search(scoring="neg_log_loss").fit(X, Y)


def test_it_predicts_through_the_whole_pipeline(found):
    best = found.best_estimator_
    assert isinstance(best, Pipeline)
    assert [name for name, _ in best.steps] == ["powertransformer", "innaclassifier"]
    assert found.predict(X).shape == (100,)
    by_hand = best[-1].predict_proba(best[0].transform(X))
    assert np.array_equal(found.predict_proba(X), by_hand)
    assert found.score(X, Y) == pytest.approx(-log_loss(Y, by_hand))
    assert list(found.classes_) == [0, 1]


def test_parameters_are_named_as_set_params_of_the_pipeline_takes_them(found):
    assert "innaclassifier__lr" in found.best_params_
    assert set(found.best_params_) <= set(found.estimator.get_params())
    assert (
        found.best_estimator_.get_params()["innaclassifier__lr"] == found.best_params_["innaclassifier__lr"]
    )
    assert found.cv_results_["params"][found.best_index_] == found.best_params_
    assert "param_innaclassifier__alpha" in found.cv_results_
    # The study itself speaks of the net, so that priors can be learned of it.
    assert "lr" in found.study_.best_params


def test_a_trial_scores_what_cross_validation_of_the_pipeline_scores(found):
    for trial in found.study_.trials[:2]:
        if trial.value is None:
            continue
        own = {f"innaclassifier__{name}": value for name, value in trial.params.items()}
        model = clone(found.estimator).set_params(
            **own, innaclassifier__random_state=trial.user_attrs["seed"]
        )
        theirs = cross_val_score(model, X, Y, cv=CV, scoring="neg_log_loss")
        assert trial.user_attrs["scores"] == pytest.approx(theirs.tolist(), rel=1e-6)


def test_transformers_see_the_training_rows_of_their_fold_alone(tmp_path):
    path = tmp_path / "seen.txt"
    search(make_pipeline(Watching(str(path)), NET), n_trials=2).fit(X, Y)
    of_folds = [sorted(X.index[train]) for train, _ in CV.split(X)]
    assert path.read_text().splitlines() == [str(rows) for rows in (*of_folds, sorted(X.index))]


def test_a_scorer_of_ones_own_gets_the_whole_pipeline_and_raw_rows():
    def own(model, rows, target):
        assert isinstance(model, Pipeline)
        assert list(rows.columns) == list(X.columns)
        return model.score(rows, target)

    found = search(scoring=own, n_trials=1).fit(X, Y)
    accurate = search(scoring="accuracy", n_trials=1).fit(X, Y)
    assert found.best_score_ == accurate.best_score_


def test_the_space_may_name_parameters_of_any_step():
    space = SearchSpace(
        {
            "powertransformer__standardize": Categorical((True, False)),
            "innaclassifier__lr": LogUniform(0.05, 0.2),
            "dropout": Categorical((0.0, 0.1)),
        }
    )
    found = search(space=space, n_trials=6, population=3, first="default").fit(X, Y)
    assert {t.params["powertransformer__standardize"] for t in found.study_.trials} == {True, False}
    assert set(found.best_params_) == {
        "powertransformer__standardize",
        "innaclassifier__lr",
        "innaclassifier__dropout",
    }
    trial = found.study_.best_trial
    model = clone(found.estimator).set_params(
        **found.best_params_, innaclassifier__random_state=trial.user_attrs["seed"]
    )
    theirs = cross_val_score(model, X, Y, cv=CV, scoring="neg_log_loss")
    assert trial.value == pytest.approx(theirs.mean(), rel=1e-6)


def test_the_untuned_setting_of_the_last_step_comes_first(found):
    first = found.study_.trials[0]
    assert "fixed_params" in first.system_attrs
    assert found.study_.user_attrs[CURVATURE] > 0


def test_the_curvature_is_that_of_the_transformed_rows(found):
    transformed = make_pipeline(StandardScaler(), NET)
    other = search(transformed, n_trials=1).fit(X * 1000.0, Y).study_
    same = search(transformed, n_trials=1).fit(X, Y).study_
    assert other.user_attrs[CURVATURE] == pytest.approx(same.user_attrs[CURVATURE], rel=1e-3)


def test_it_goes_on_with_the_same_transformers_only(tmp_path):
    options = {"storage": f"sqlite:///{tmp_path}/s.db", "study_name": "s"}
    search(n_trials=1, **options).fit(X, Y)
    again = search(n_trials=2, resume=True, **options).fit(X, Y)
    assert len(again.study_.trials) == 2
    with pytest.raises(MismatchError, match="PowerTransformer"):
        search(NET, n_trials=3, resume=True, **options).fit(X, Y)
    other = make_pipeline(PowerTransformer(standardize=False), NET)
    with pytest.raises(MismatchError, match="step powertransformer"):
        search(other, n_trials=3, resume=True, **options).fit(X, Y)


def test_the_record_speaks_of_the_net(found):
    record = StudyRecord(found)
    assert record.settings["class"] == "PowerTransformer, InnaClassifier"
    assert record.horizon == 4
    assert record.is_by_inna
    assert found.study_.user_attrs[FINGERPRINT]["estimator"]["parameters"]["max_epochs"] == 4


@pytest.mark.parametrize("keep", [pickle, joblib], ids=["pickle", "joblib"])
def test_it_can_be_kept_and_loaded(found, keep, tmp_path):
    with (tmp_path / "model").open("wb") as file:
        keep.dump(found.best_estimator_, file)
    with (tmp_path / "model").open("rb") as file:
        again = keep.load(file)
    assert np.array_equal(again.predict_proba(X), found.predict_proba(X))
    found.best_estimator_[-1].save(tmp_path / "net.inna")
    net = inna_tune.load(tmp_path / "net.inna")
    assert np.array_equal(net.predict_proba(found.best_estimator_[0].transform(X)), found.predict_proba(X))


def test_weights_go_to_the_net():
    weight = np.linspace(0.1, 2.0, len(X))
    found = search(n_trials=1, scoring="accuracy").fit(X, Y, sample_weight=weight)
    again = clone(found.best_estimator_).fit(X, Y, innaclassifier__sample_weight=weight)
    assert np.array_equal(again.predict_proba(X), found.predict_proba(X))


def test_with_routing_weights_go_to_the_steps_that_ask():
    weight = np.linspace(0.1, 2.0, len(X))
    with sklearn.config_context(enable_metadata_routing=True):
        scaler = StandardScaler().set_fit_request(sample_weight=True)
        net = clone(NET).set_params(random_state=0).set_fit_request(sample_weight=True)
        net.set_score_request(sample_weight=False)
        whole = make_pipeline(scaler, net)
        found = search(whole, n_trials=1).fit(X, Y, sample_weight=weight)
        train, test = next(CV.split(X))
        model = clone(whole).set_params(**found.best_params_)
        model.fit(X.iloc[train], Y.iloc[train], sample_weight=weight[train])
        expected = -log_loss(Y.iloc[test], model.predict_proba(X.iloc[test]))
    assert found.cv_results_["split0_test_score"][0] == pytest.approx(expected, rel=1e-6)


def test_processes_tune_it(sent):  # noqa: F811
    assert search(n_trials=2, n_jobs=2).fit(X, Y).study_.trials[1].state.is_finished()


def test_a_regression_of_an_array():
    rows, target = load_diabetes(return_X_y=True)
    net = InnaRegressor(hidden_layer_sizes=(4,), n_members=1, max_epochs=3)
    found = search(make_pipeline(SelectKBest(k=3), "passthrough", net), n_trials=2)
    found.fit(rows[:80], target[:80])
    assert found.predict(rows[:5]).shape == (5,)
    assert found.best_estimator_[-1].n_features_in_ == 3


def test_folds_at_once():
    whole = make_pipeline(PowerTransformer(), clone(NET).set_params(random_state=0))
    own = inna_tune.cross_validate(whole, X, Y, cv=CV, scoring="neg_log_loss")["test_score"]
    assert own == pytest.approx(cross_val_score(whole, X, Y, cv=CV, scoring="neg_log_loss"), rel=1e-6)


def test_a_transformer_that_fails_names_its_fold():
    class Failing(Watching):
        def fit(self, X, y=None):
            raise ValueError("cannot be fitted")

    with pytest.raises(ValueError, match="fold 0.*cannot be fitted"):
        search(make_pipeline(Failing(), NET)).fit(X, Y)


@pytest.mark.parametrize(
    ("estimator", "changes", "message"),
    [
        (make_pipeline(PowerTransformer(), NET), {"refit": "ensemble"}, "estimator is a Pipeline"),
        (make_pipeline(PowerTransformer()), {}, "a pipeline that ends in one"),
        (
            make_pipeline(PowerTransformer(), NET),
            {"space": SearchSpace({"ridge__alpha": LogUniform(0.1, 1.0)})},
            "ridge__alpha",
        ),
        (make_pipeline(PowerTransformer(), clone(NET).set_params(dropout=2.0)), {}, "dropout"),
    ],
)
def test_what_makes_no_sense_is_refused_before_training(estimator, changes, message):
    with pytest.raises(ValueError, match=message):
        search(estimator, **changes).fit(X, Y)


def test_a_frame_of_words_goes_through_transformers(tmp_path):
    rows = pd.DataFrame({"a": X.iloc[:, 0], "b": np.where(Y > 0, "u", "v")})
    column = sklearn.compose.make_column_transformer(
        (StandardScaler(), ["a"]), (sklearn.preprocessing.OneHotEncoder(), ["b"])
    )
    assert search(make_pipeline(column, NET), n_trials=1).fit(rows, Y).predict(rows).shape == (100,)

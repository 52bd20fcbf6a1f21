"""An ensemble averages fitted nets, behaves as any estimator, and is one file that runs no code."""

import json
import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.datasets import load_diabetes, load_iris
from sklearn.utils.estimator_checks import parametrize_with_checks

import inna_tune
from inna_tune import InnaClassifier, InnaRegressor
from inna_tune.estimators import EnsembleClassifier, EnsembleRegressor, ModelFileError, save
from inna_tune.estimators.saving import ENSEMBLE_VERSION
from tests.estimators.test_saving import rewrite

PLAIN = {"hidden_layer_sizes": (4,), "n_members": 1, "numeric_embedding": "none"}
CLASSIFIERS = [InnaClassifier(max_epochs=5, **PLAIN), InnaClassifier(max_epochs=3, **PLAIN)]
# As wide as lets few epochs reach the score that scikit-learn asks for.
WIDER = PLAIN | {"hidden_layer_sizes": (16,)}
REGRESSORS = [InnaRegressor(max_epochs=16, **WIDER), InnaRegressor(max_epochs=15, **PLAIN)]
IRIS = load_iris(return_X_y=True, as_frame=True)


@parametrize_with_checks(
    [
        EnsembleClassifier(CLASSIFIERS[:1], random_state=0),
        EnsembleRegressor(REGRESSORS[:1], random_state=0),
    ]
)
def test_scikit_learn_check(estimator, check):
    check(estimator)


def fitted(kind=EnsembleClassifier, **settings):
    if kind is EnsembleClassifier:
        return kind(CLASSIFIERS, weights=[1.0, 3.0], random_state=0, **settings).fit(*IRIS)
    X, y = load_diabetes(return_X_y=True, as_frame=True)
    return kind(REGRESSORS, random_state=0, **settings).fit(X, np.stack([y, -y], axis=1))


@pytest.fixture(scope="module")
def classifier():
    return fitted()


def test_it_is_the_weighted_mean_of_its_models(classifier):
    X, _ = IRIS
    own = [model.predict_proba(X) for model in classifier.models_]
    np.testing.assert_allclose(classifier.predict_proba(X), 0.25 * own[0] + 0.75 * own[1], rtol=1e-12)
    regressor = fitted(EnsembleRegressor)
    X = load_diabetes(as_frame=True).data
    np.testing.assert_allclose(
        regressor.predict(X), np.mean([m.predict(X) for m in regressor.models_], axis=0), rtol=1e-12
    )


def test_a_model_that_lacks_a_class_gives_it_no_probability(classifier):
    X, y = IRIS
    lacking = clone(CLASSIFIERS[0]).set_params(random_state=0).fit(X[y != 1], y[y != 1])
    found = EnsembleClassifier(CLASSIFIERS)._take(
        [lacking, classifier.models_[0]], np.array([0.5, 0.5]), classifier
    )
    probabilities = found.predict_proba(X)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    np.testing.assert_allclose(probabilities[:, 1], 0.5 * classifier.models_[0].predict_proba(X)[:, 1])


@pytest.mark.parametrize("kind", [EnsembleClassifier, EnsembleRegressor])
def test_a_loaded_ensemble_predicts_the_same_bytes(kind, tmp_path):
    model = fitted(kind)
    X = (IRIS if kind is EnsembleClassifier else load_diabetes(return_X_y=True, as_frame=True))[0]
    save(model, tmp_path / "e.inna", extra={"note": 1})
    again = inna_tune.load(tmp_path / "e.inna")
    of = "predict_proba" if kind is EnsembleClassifier else "predict"
    assert type(again) is kind
    assert getattr(again, of)(X).tobytes() == getattr(model, of)(X).tobytes()
    assert again.extra_ == {"note": 1}
    assert again.members_ == model.members_
    assert again.weights_.tobytes() == model.weights_.tobytes()
    assert list(again.feature_names_in_) == list(model.feature_names_in_)
    assert again.schema_ == model.schema_
    assert repr(clone(again)) == repr(clone(model))
    again.save(tmp_path / "f.inna")
    assert (tmp_path / "f.inna").stat().st_size <= (tmp_path / "e.inna").stat().st_size
    assert getattr(pickle.loads(pickle.dumps(again)), of)(X).tobytes() == getattr(model, of)(X).tobytes()


def test_models_that_share_an_encoder_share_it_in_the_file(classifier, tmp_path):
    found = EnsembleClassifier(CLASSIFIERS)._take(
        [classifier.models_[0]] * 3, np.array([1.0, 1.0, 2.0]), classifier
    )
    found.save(tmp_path / "e.inna")
    again = inna_tune.load(tmp_path / "e.inna")
    assert len({id(model.encoder_) for model in again.models_}) == 1
    assert again.predict_proba(IRIS[0]).tobytes() == found.predict_proba(IRIS[0]).tobytes()


def plain_of(path):
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        return json.loads(file.metadata()["model"]), {n: file.get_tensor(n) for n in file.keys()}  # noqa: SIM118


@pytest.mark.parametrize(
    "wrong",
    [
        lambda c, t: ({"models": c["models"][:1]}, {}),
        lambda c, t: ({"models": []}, {}),
        lambda c, t: ({"models": [c["models"][0] | {"class": "InnaRegressor"}, c["models"][1]]}, {}),
        lambda c, t: ({"models": [c["models"][0] | {"class": "EnsembleClassifier"}, c["models"][1]]}, {}),
        lambda c, t: ({"models": [c["models"][0] | {"encoder": 9}, c["models"][1]]}, {}),
        lambda c, t: ({"models": [c["models"][0] | {"net": {}}, c["models"][1]]}, {}),
        lambda c, t: ({"encoders": []}, {}),
        lambda c, t: ({"estimators": []}, {}),
        lambda c, t: ({"estimators": [["os.system", {}]]}, {}),
        lambda c, t: ({"parameter_weights": [1, -1]}, {}),
        lambda c, t: ({"target": {"classes": [["int", 0]], "dtype": "int64"}}, {}),
        lambda c, t: ({"n_features_in": 3}, {}),
        lambda c, t: ({}, {"weights": t["weights"] * 2}),
        lambda c, t: ({}, {"weights": t["weights"] * float("nan")}),
        lambda c, t: ({}, {"weights": t["weights"][:1]}),
        lambda c, t: ({}, {"0.weights": t["0.weights"][:, :-1].contiguous()}),
        lambda c, t: ({}, {"1.weights": None}),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(classifier, tmp_path, wrong):
    path = tmp_path / "e.inna"
    classifier.save(path)
    content, tensors = wrong(*plain_of(path))
    rewrite(path, tensors=tensors, **content)
    with pytest.raises(ModelFileError, match="damaged"):
        inna_tune.load(path)


def test_a_version_that_knows_no_ensembles_says_so(classifier, tmp_path):
    """It refuses a file of a version that it does not know, by a message, once the file has a tensor of this name."""
    classifier.save(tmp_path / "e.inna")
    from safetensors import safe_open

    with safe_open(str(tmp_path / "e.inna"), framework="pt") as file:
        assert file.metadata()["version"] == str(ENSEMBLE_VERSION)
        assert "weights" in file.keys()  # noqa: SIM118


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"estimators": []}, "estimators=.* must be a sequence of one InnaClassifier or more"),
        ({"estimators": [InnaRegressor()]}, "must be an InnaClassifier"),
        ({"estimators": [InnaClassifier(lr=-1.0)]}, "lr"),
        ({"weights": [1.0]}, "weights=.* must be 2 numbers of at least 0"),
        ({"weights": [0.0, 0.0]}, "one of them more"),
        ({"weights": [2.0, -1.0]}, "at least 0"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(settings, message):
    with pytest.raises((TypeError, ValueError), match=message):
        EnsembleClassifier(**{"estimators": CLASSIFIERS} | settings).fit(*IRIS)


def test_seeds_come_from_its_own():
    X, y = IRIS
    one, same, other = (
        EnsembleClassifier(CLASSIFIERS[:1] * 2, random_state=s).fit(X, y).predict_proba(X) for s in (0, 0, 1)
    )
    assert (one == same).all()
    assert (one != other).any()
    assert is_classifier(EnsembleClassifier())
    assert is_regressor(EnsembleRegressor())


def test_other_columns_are_refused(classifier):
    X, _ = IRIS
    with pytest.raises(ValueError, match="feature names"):
        classifier.predict(X.rename(columns=str.upper))
    assert isinstance(classifier.predict_proba(pd.DataFrame(X)), np.ndarray)

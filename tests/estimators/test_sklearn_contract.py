"""What scikit-learn asks of an estimator, and its other tools of one that they hold."""

import pickle

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse
import sklearn
import torch
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.ensemble import StackingClassifier, StackingRegressor
from sklearn.exceptions import UnsetMetadataPassedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

from inna_tune import InnaClassifier, InnaRegressor, load
from inna_tune.estimators import TableEncoder
from tests.warm import Program

QUICK = {"hidden_layer_sizes": (16,), "n_members": 1, "max_epochs": 15, "random_state": 0}
# A narrow net is enough for the checks' small tables, whose fits then take a tenth of a second. Few epochs are enough for the
# classifier's; the regressor's want a score after training, on a table that gives two steps an epoch.
CLASSIFIER = InnaClassifier(hidden_layer_sizes=(8,), n_members=1, max_epochs=10)
REGRESSOR = InnaRegressor(hidden_layer_sizes=(16,), n_members=1, max_epochs=15)


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


@parametrize_with_checks(
    [
        CLASSIFIER,
        REGRESSOR,
        TableEncoder(),
    ]
)
def test_scikit_learn_check(estimator, check):
    check(estimator)


# What several nets, cross-fitted and stopped together, could get wrong where one does not.
OF_MANY_NETS = {
    "check_class_weight_classifiers",
    "check_classifiers_one_label",
    "check_classifiers_train",
    "check_estimators_pickle",
    "check_fit2d_1sample",
    "check_fit_idempotent",
    "check_methods_sample_order_invariance",
    "check_methods_subset_invariance",
    "check_non_transformer_estimators_n_iter",
    "check_regressor_multioutput",
    "check_regressors_train",
    "check_sample_weight_equivalence_on_dense_data",
    "check_supervised_y_2d",
}


def checks_of_many_nets():
    """Each once, also where scikit-learn runs it on several forms of a table."""
    for estimator in (CLASSIFIER, REGRESSOR):
        default = clone(estimator).set_params(n_members="auto", hidden_layer_sizes=(4,))
        left = set(OF_MANY_NETS)
        for model, check in estimator_checks_generator(default, mark=None):
            name = getattr(check, "func", check).__name__
            if name in left:
                left.remove(name)
                yield pytest.param(model, check, id=f"{type(model).__name__}-{name}")


ON_THE_DEFAULT = list(checks_of_many_nets())


def test_the_checks_on_the_default_number_of_nets_are_there():
    assert {each.id.split("-")[1] for each in ON_THE_DEFAULT} == OF_MANY_NETS


@pytest.mark.parametrize(("estimator", "check"), ON_THE_DEFAULT)
def test_scikit_learn_check_on_the_default_number_of_nets(estimator, check):
    check(estimator)


# ---------------------------------------------------------------------- weights


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"n_members": "auto"},
        {"class_weight": "balanced"},
        {"n_members": 3, "dropout": 0.5},
        {"optimizer": "adamw"},
        {"numeric_embedding": "pbld"},
        {"averaging": 0.9, "gradient_clip": 1.0},
    ],
)
def test_weights_are_repeated_rows_where_a_batch_holds_them_all(settings):
    X, y = load_iris(return_X_y=True)
    X, y = X[::2], y[::2]
    weight = np.random.default_rng(0).integers(0, 4, len(X))
    model = InnaClassifier(**QUICK | settings)
    weighted = clone(model).fit(X, y, sample_weight=weight)
    repeated = clone(model).fit(np.repeat(X, weight, axis=0), np.repeat(y, weight))
    assert weighted.weights_.dtype == torch.float64
    # Logistic models, which half of the default's nets begin as, are found by iteration.
    np.testing.assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), rtol=1e-7, atol=1e-11)


def test_weights_are_repeated_rows_for_a_mixed_table_and_several_targets():
    rng = np.random.default_rng(1)
    n = 60
    X = pd.DataFrame(
        {
            "size": np.where(rng.random(n) < 0.2, np.nan, rng.normal(size=n)),
            "kind": rng.choice(["a", "b", "c", None], n),
            "day": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 500, n), unit="D"),
        }
    )
    y = rng.normal(size=(n, 2))
    weight = rng.integers(0, 4, n)
    rows = np.repeat(np.arange(n), weight)
    weighted = InnaRegressor(**QUICK).fit(X, y, sample_weight=weight)
    repeated = InnaRegressor(**QUICK).fit(X.iloc[rows], y[rows])
    np.testing.assert_allclose(weighted.predict(X), repeated.predict(X), rtol=1e-7)
    scaled = InnaRegressor(**QUICK).fit(X, y, sample_weight=weight * 7.3)
    np.testing.assert_allclose(weighted.predict(X), scaled.predict(X), rtol=1e-6)


def test_small_tables_train_in_float64_and_stay_there(tmp_path):
    X, y = load_breast_cancer(return_X_y=True)
    assert InnaClassifier(**QUICK).fit(X, y).weights_.dtype == torch.float32
    assert InnaClassifier(**QUICK).partial_fit(X[:50], y[:50]).weights_.dtype == torch.float32, (
        "the first of many parts is no small table"
    )
    assert InnaClassifier(precision="bf16", **QUICK).fit(X[:50], y[:50]).weights_.dtype == torch.float32
    small = InnaClassifier(warm_start=True, **QUICK).fit(X[:100], y[:100])
    assert small.weights_.dtype == torch.float64
    small.save(tmp_path / "model")
    loaded = load(tmp_path / "model")
    assert loaded.weights_.dtype == torch.float64
    assert np.array_equal(loaded.predict_proba(X), small.predict_proba(X))
    before = small.score(X, y)
    small.fit(X, y)
    assert small.weights_.dtype == torch.float64
    assert small.score(X, y) >= before - 0.02


# ---------------------------------------------------------------------- randomness


def test_the_global_streams_stay_as_they_are():
    X, y = load_iris(return_X_y=True)
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    streams = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    for model in (InnaClassifier(dropout=0.1, **QUICK), InnaClassifier(**QUICK | {"random_state": None})):
        model.fit(X, y).partial_fit(X, y).predict_proba(X)
    InnaRegressor(**QUICK).fit(X, y).predict(X)
    assert np.array_equal(np.random.get_state()[1], streams[0])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), streams[1])


# Workers are forks of a process that has no threads: they load nothing.
SEARCHED = """
import joblib, numpy as np
from sklearn.model_selection import GridSearchCV
from tests.estimators.test_sklearn_contract import QUICK, InnaClassifier, load_iris
X, y = load_iris(return_X_y=True)
model = InnaClassifier(dropout=0.1, **QUICK)
with joblib.parallel_config("multiprocessing"):
    found = [GridSearchCV(model, {"alpha": [0.1, 1.0]}, cv=2, n_jobs=n).fit(X, y) for n in (2, 1)]
for name in ("split0_test_score", "split1_test_score"):
    assert np.array_equal(found[0].cv_results_[name], found[1].cv_results_[name])
assert np.array_equal(found[0].predict_proba(X), found[1].predict_proba(X))
"""


def test_the_number_of_jobs_makes_no_difference():
    with Program(SEARCHED) as program:
        _, said = program.communicate()
    assert program.returncode == 0, said


# ---------------------------------------------------------------------- copies


@pytest.mark.parametrize("model", [InnaClassifier(**QUICK), InnaRegressor(**QUICK | {"n_members": 2})])
def test_copies_by_pickle_and_joblib_predict_the_same(model, tmp_path):
    X, y = load_iris(return_X_y=True, as_frame=True)
    model.fit(X, y)
    joblib.dump(model, tmp_path / "model.joblib")
    for copy in (pickle.loads(pickle.dumps(model)), joblib.load(tmp_path / "model.joblib")):
        assert np.array_equal(copy.predict(X), model.predict(X))
        assert list(copy.feature_names_in_) == list(X.columns)
        copy.partial_fit(X, y)


def test_clones_have_the_settings_and_nothing_that_was_learned():
    X, y = load_iris(return_X_y=True)
    model = InnaClassifier(lr=0.1, **QUICK).fit(X, y)
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    assert not [name for name in vars(copy) if name.endswith("_")]
    assert copy.set_params(alpha=0.3).alpha == 0.3
    with pytest.raises(ValueError, match="Invalid parameter 'gamma'"):
        copy.set_params(gamma=1)


def test_what_a_notebook_shows():
    X, y = load_iris(return_X_y=True)
    html = InnaClassifier(**QUICK).fit(X, y)._repr_html_()
    assert "InnaClassifier" in html
    assert repr(InnaRegressor(**QUICK)).startswith("InnaRegressor(")


# ---------------------------------------------------------------------- inside scikit-learn's own


def test_inside_pipeline_and_grid_search():
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    pipeline = make_pipeline(StandardScaler().set_output(transform="pandas"), InnaClassifier(**QUICK))
    search = GridSearchCV(pipeline, {"innaclassifier__hidden_layer_sizes": [(8,), "16-8"]}, cv=2).fit(X, y)
    assert search.best_score_ > 0.9
    assert list(search.best_estimator_[-1].feature_names_in_) == list(X.columns)
    weighted = clone(pipeline).fit(X, y, innaclassifier__sample_weight=np.where(y == 1, 10.0, 0.1))
    assert weighted.predict(X).mean() > pipeline.fit(X, y).predict(X).mean()


def test_inside_calibration_and_stacks_and_cross_val_predict():
    X, y = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    model = InnaClassifier(**QUICK | {"max_epochs": 40})
    calibrated = CalibratedClassifierCV(model, cv=2).fit(X, names)
    assert calibrated.score(X, names) > 0.9
    stack = StackingClassifier([("inna", model), ("line", LogisticRegression())], cv=2).fit(X, names)
    assert stack.score(X, names) > 0.9
    probabilities = cross_val_predict(model, X, names, cv=3, method="predict_proba")
    assert probabilities.shape == (150, 3)
    np.testing.assert_allclose(
        cross_val_predict(model, X, names, cv=3, method="predict_log_proba"), np.log(probabilities)
    )


def test_regressors_inside_stacks_and_target_transformers():
    X, y = load_diabetes(return_X_y=True)
    model = InnaRegressor(**QUICK | {"max_epochs": 30})
    assert StackingRegressor([("inna", model)], cv=2).fit(X, y).score(X, y) > 0.3
    logs = TransformedTargetRegressor(model, func=np.log, inverse_func=np.exp).fit(X, y)
    assert logs.score(X, y) > 0.3
    both = cross_val_predict(model, X, np.column_stack([y, -y]), cv=2)
    assert both.shape == (len(y), 2)


def test_the_encoder_writes_frames_where_it_is_told_to():
    X = pd.DataFrame({"n": [1.0, 2.0, 3.0, np.nan], "c": list("abab")})
    frame = TableEncoder(min_count=0).set_output(transform="pandas").fit_transform(X)
    assert list(frame.columns) == ["n", "n_missing", *[c for c in frame.columns if c.startswith("c_")]]
    assert list(frame.index) == list(X.index)


# ---------------------------------------------------------------------- routing


def test_weights_go_where_they_are_asked_for(routing):
    X, y = load_iris(return_X_y=True)
    weight = np.where(y == 2, 1.0, 1e-6)
    model = InnaClassifier(**QUICK)
    with pytest.raises(UnsetMetadataPassedError, match="sample_weight"):
        GridSearchCV(model, {"alpha": [0.5]}, cv=2).fit(X, y, sample_weight=weight)
    asking = clone(model).set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
    search = GridSearchCV(asking, {"alpha": [0.5]}, cv=2).fit(X, y, sample_weight=weight)
    assert (search.predict(X) == 2).mean() > 0.9
    assert search.best_score_ > 0.99, "the score was weighted too"
    declining = clone(model).set_fit_request(sample_weight=False).set_score_request(sample_weight=True)
    unmoved = GridSearchCV(declining, {"alpha": [0.5]}, cv=2).fit(X, y, sample_weight=weight)
    assert (unmoved.predict(X) == 2).mean() < 0.6
    pipeline = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), asking)
    assert (pipeline.fit(X, y, sample_weight=weight).predict(X) == 2).mean() > 0.9
    scores = cross_validate(asking, X, y, cv=2, params={"sample_weight": weight})
    assert (scores["test_score"] > 0.99).all()
    asking.set_partial_fit_request(sample_weight=True, classes=True)


# ---------------------------------------------------------------------- kinds of tables


@pytest.mark.parametrize(
    "kind",
    ["float64", "float32", "ints", "csr", "csc", "nullable", "string", "pyarrow", "polars", "lists", "bool"],
)
def test_the_same_numbers_predict_the_same_in_any_kind_of_table(kind):
    rng = np.random.default_rng(0)
    whole = rng.integers(0, 2 if kind == "bool" else 5, (80, 4))
    y = (whole[:, 0] + whole[:, 1] > whole[:, 2]).astype(int)
    expected = InnaClassifier(**QUICK).fit(whole.astype(float), y).predict_proba(whole.astype(float))
    frame = pd.DataFrame(whole, columns=list("abcd"))
    labels = y
    if kind in ("float64", "float32", "ints", "bool"):
        X = whole.astype({"ints": np.int16}.get(kind, kind))
    elif kind in ("csr", "csc"):
        X = getattr(scipy.sparse, f"{kind}_array")(whole)
    elif kind == "nullable":
        X, labels = frame.astype("Int32"), pd.Series(y, dtype="Int64")
    elif kind == "string":
        X, labels = frame, pd.Series(np.array(["no", "yes"])[y], dtype="string")
    elif kind == "pyarrow":
        X, labels = frame.astype("double[pyarrow]"), pd.Series(y, dtype="int64[pyarrow]")
    elif kind == "polars":
        X, labels = pl.from_pandas(frame), pl.Series(y)
    else:
        X, labels = whole.tolist(), y.tolist()
    model = InnaClassifier(**QUICK).fit(X, labels)
    np.testing.assert_array_equal(model.predict_proba(X), expected)
    assert set(np.asarray(model.predict(X))) == set(np.asarray(labels))
    regressor = InnaRegressor(**QUICK).fit(X, y.astype(bool) if kind == "bool" else y)
    assert np.isfinite(regressor.predict(X)).all()

"""scikit-learn's tools of an estimator hold ours: each fits clones of it, predicts, and keeps to its own promise."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    BaggingRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.feature_selection import SequentialFeatureSelector
from sklearn.frozen import FrozenEstimator
from sklearn.inspection import partial_dependence, permutation_importance
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    HalvingRandomSearchCV,
    RandomizedSearchCV,
    TunedThresholdClassifierCV,
    cross_val_predict,
    learning_curve,
    validation_curve,
)
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier, OutputCodeClassifier
from sklearn.multioutput import (
    ClassifierChain,
    MultiOutputClassifier,
    MultiOutputRegressor,
    RegressorChain,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.semi_supervised import SelfTrainingClassifier

from inna_tune import InnaClassifier, InnaRegressor

TINY = {"hidden_layer_sizes": (4,), "n_members": 1, "max_epochs": 2, "random_state": 0}
CLASSIFIER, REGRESSOR = InnaClassifier(**TINY), InnaRegressor(**TINY)
_random = np.random.default_rng(0)
# Of numbers, since some of these tools take nothing else; and with words and gaps, which ours need nobody's help with.
X = pd.DataFrame(_random.normal(size=(72, 3)), columns=["a", "b", "c"])
MIXED = X.assign(word=_random.choice(["lo", "hi"], len(X)), b=X["b"].where(X["b"] < 1))
LABELS = np.where(X["a"] + 0.3 * _random.normal(size=len(X)) > 0, "yes", "no")
MANY = np.array(["p", "q", "r"])[np.digitize(X["a"], [-0.5, 0.5])]
VALUES = (2 * X["a"] + X["b"]).to_numpy()
SPACE = {"step_ratio": [1.0, 2.0], "dropout": [0.0, 0.1]}

ON_FRAMES = {
    "grid": lambda: GridSearchCV(CLASSIFIER, SPACE, cv=2, scoring="neg_log_loss"),
    "random": lambda: RandomizedSearchCV(CLASSIFIER, SPACE, n_iter=2, cv=2, random_state=0),
    "halving by epochs": lambda: HalvingRandomSearchCV(
        CLASSIFIER,
        SPACE,
        resource="max_epochs",
        max_resources=2,
        min_resources=1,
        cv=2,
        factor=2,
        random_state=0,
    ),
    "threshold, tuned": lambda: TunedThresholdClassifierCV(CLASSIFIER, cv=2),
    "threshold, fixed": lambda: FixedThresholdClassifier(CLASSIFIER, threshold=0.3),
    "calibrated": lambda: CalibratedClassifierCV(CLASSIFIER, cv=2),
    "calibrated, frozen": lambda: CalibratedClassifierCV(
        FrozenEstimator(clone(CLASSIFIER).fit(MIXED, LABELS)), cv=2
    ),
    "stacked": lambda: StackingClassifier([("net", CLASSIFIER)], LogisticRegression(), cv=2),
    "voting": lambda: VotingClassifier([("one", CLASSIFIER), ("two", clone(CLASSIFIER))], voting="soft"),
    "columns": lambda: make_pipeline(
        make_column_transformer((OneHotEncoder(), ["word"]), (StandardScaler(), ["a", "b"])),
        clone(CLASSIFIER),  # a pipeline fits what it holds itself
    ),
}
ON_NUMBERS = {
    "halving by rows": lambda: HalvingRandomSearchCV(
        CLASSIFIER, SPACE, min_resources=30, cv=2, factor=2, random_state=0
    ),
    "bagged": lambda: BaggingClassifier(CLASSIFIER, 2, max_features=0.7, oob_score=False, random_state=0),
    "boosted": lambda: AdaBoostClassifier(CLASSIFIER, n_estimators=2, random_state=0),
    "one against the rest": lambda: OneVsRestClassifier(CLASSIFIER),
    "one against one": lambda: OneVsOneClassifier(CLASSIFIER),
    "codes": lambda: OutputCodeClassifier(CLASSIFIER, code_size=1.0, random_state=0),
    "chosen columns": lambda: make_pipeline(
        SequentialFeatureSelector(CLASSIFIER, n_features_to_select=1, cv=2), clone(CLASSIFIER)
    ),
}
REGRESSORS = {
    "bagged": lambda: BaggingRegressor(REGRESSOR, 2, random_state=0),
    "voting": lambda: VotingRegressor([("net", REGRESSOR), ("ridge", Ridge())]),
    "stacked": lambda: StackingRegressor([("net", REGRESSOR)], Ridge(), cv=2),
    "transformed": lambda: TransformedTargetRegressor(REGRESSOR, func=np.arcsinh, inverse_func=np.sinh),
    "grid": lambda: GridSearchCV(REGRESSOR, SPACE, cv=2, scoring="neg_mean_absolute_error"),
}


@pytest.mark.parametrize("name", ON_FRAMES)
def test_a_tool_of_classifiers_on_columns_of_any_kind(name):
    tool = ON_FRAMES[name]().fit(MIXED, LABELS)
    assert set(tool.predict(MIXED)) <= {"yes", "no"}
    assert tool.predict_proba(MIXED).sum(axis=1) == pytest.approx(np.ones(len(X)))
    assert not hasattr(CLASSIFIER, "classes_"), "it was fitted itself, where a clone of it should be"


@pytest.mark.parametrize("name", ON_NUMBERS)
def test_a_tool_of_classifiers_on_numbers(name):
    tool = ON_NUMBERS[name]().fit(X, MANY)
    assert set(tool.predict(X)) <= set(MANY)
    assert not hasattr(CLASSIFIER, "classes_")


@pytest.mark.parametrize("name", REGRESSORS)
def test_a_tool_of_regressors(name):
    tool = REGRESSORS[name]().fit(X, VALUES)
    assert np.isfinite(tool.predict(X)).all()
    assert tool.predict(X).shape == (len(X),)
    assert not hasattr(REGRESSOR, "n_features_in_")


def test_several_targets_by_a_net_each():
    labels = np.column_stack([LABELS, MANY])
    for tool in (MultiOutputClassifier(CLASSIFIER), ClassifierChain(CLASSIFIER, cv=2)):
        # A chain counts in numbers, what it predicts of one target being a column of the next.
        known = labels if isinstance(tool, MultiOutputClassifier) else labels == ["yes", "q"]
        found = tool.fit(X, known).predict(X)
        assert found.shape == known.shape
    values = np.column_stack([VALUES, -VALUES])
    for tool in (MultiOutputRegressor(REGRESSOR), RegressorChain(REGRESSOR)):
        assert tool.fit(X, values).predict(X).shape == values.shape


def test_labels_of_few_rows():
    some = np.where(np.arange(len(X)) % 2, (LABELS == "yes").astype(int), -1)
    tool = SelfTrainingClassifier(CLASSIFIER, max_iter=2).fit(X, some)
    assert set(tool.predict(X)) <= {0, 1}


def test_predictions_of_rows_not_seen_and_curves():
    found = cross_val_predict(CLASSIFIER, MIXED, MANY, cv=2, method="predict_proba")
    assert found.shape == (len(X), 3)
    sizes, train, test = learning_curve(
        CLASSIFIER, MIXED, LABELS, train_sizes=[20, 30], cv=2, shuffle=True, random_state=0
    )
    assert sizes.tolist() == [20, 30]
    assert np.isfinite(train).all()
    assert np.isfinite(test).all()
    _, test = validation_curve(REGRESSOR, MIXED, VALUES, param_name="friction", param_range=[0.05, 0.5], cv=2)
    assert np.isfinite(test).all()


def test_what_a_fitted_net_hangs_on():
    net = clone(REGRESSOR).set_params(max_epochs=40).fit(MIXED, VALUES)
    found = permutation_importance(net, MIXED, VALUES, n_repeats=2, random_state=0)
    assert found.importances_mean.argmax() == 0
    (average,) = partial_dependence(net, X.assign(word="lo"), ["a"], grid_resolution=5)["average"]
    assert average[-1] > average[0]

"""Settings of the estimator as text: any parameter, the right type, and no code."""

import pytest
from sklearn.base import clone

from inna_tune import InnaClassifier, InnaRegressor
from inna_tune.estimators import TableEncoder
from inna_tune.jobs.comparing import compare
from inna_tune.jobs.settings import make_estimator
from inna_tune.jobs.tuning import tune


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("hidden_layer_sizes=8", 8),
        ("hidden_layer_sizes=(8, 4)", (8, 4)),
        ("hidden_layer_sizes=[8, 4]", [8, 4]),
        ("hidden_layer_sizes=8-4", "8-4"),
        ("max_epochs= 3", 3),
        (" max_epochs =1_000", 1000),
        ("dropout=1e-1", 0.1),
        ("early_stopping=false", False),
        ("early_stopping=True", True),
        ("max_time=null", None),
        ("max_time=None", None),
        ("numeric_embedding=none", "none"),
        ("activation='relu'", "relu"),
        ("activation = relu ", "relu"),
        ("class_weight={'a=b': 2.0}", {"a=b": 2.0}),
        ("optimizer_params={'momentum': 0.5}", {"momentum": 0.5}),
    ],
)
def test_a_value_is_a_literal_of_python_or_json_or_a_text(text, value):
    more = ("optimizer=sgd",) if text.startswith("optimizer_params") else ()
    found = getattr(make_estimator("binary", (*more, text)), text.partition("=")[0].strip())
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize("kind", [InnaClassifier, InnaRegressor])
def test_every_parameter_that_has_a_text_can_be_set(kind):
    task = "regression" if kind is InnaRegressor else "multiclass"
    for name, value in kind().get_params().items():
        if name != "random_state":
            assert make_estimator(task, [f"{name}={value}"]).get_params()[name] == value
    for name, value in TableEncoder().get_params().items():
        made = make_estimator(task, [f"encoder__{name}={value}"])
        assert clone(made).encoder.get_params()[name] == value
    assert type(make_estimator(task)) is kind
    assert make_estimator(task).get_params() == kind().get_params()


@pytest.mark.parametrize(
    "settings", [("encoder=None", "encoder__numeric=quantile"), ("encoder__text=never", "encoder=5")]
)
def test_an_encoder_and_its_parameters_are_not_set_at_once(settings):
    with pytest.raises(ValueError, match="encoder.*encoder__"):
        make_estimator("binary", settings)


def test_options_of_the_optimizer_and_the_encoder_are_set_one_by_one():
    made = make_estimator("binary", ["optimizer=sgd", "optimizer__momentum=0.5", "encoder__numeric=quantile"])
    assert made.optimizer_params == {"momentum": 0.5}
    assert made.encoder.numeric == "quantile"


WRONG = [
    ("hidden_layer_size=8", "no setting 'hidden_layer_size'; did you mean hidden_layer_sizes"),
    ("encoder__numerics=scale", "did you mean encoder__numeric"),
    ("zzz=1", "there are activation"),
    ("max_epochs", "'max_epochs' must be NAME=VALUE"),
    ("=3", "'=3' must be NAME=VALUE"),
    ("max_epochs=many", "max_epochs='many'"),
    ("max_epochs=3.5", "max_epochs=3.5"),
    ("dropout=2", "dropout=2"),
    ("dropout=NaN", "dropout=nan"),
    ("encoder__numeric=cube", "numeric='cube'"),
    ("encoder=TableEncoder()", "encoder='TableEncoder\\(\\)'"),
    ("module=__import__('os').abort", "module=.*must be a function"),
    ("hidden_layer_sizes=" + "(" * 5000, "hidden_layer_sizes="),
    ("hidden_layer_sizes=" + "[" * 100_000, "hidden_layer_sizes="),
    ("random_state=3", "--seed"),
    ("optimizer_params={1: 2}", "optimizer_params=.*1 is none of the options"),
]


@pytest.mark.parametrize(("text", "message"), WRONG, ids=[text[:30] for text, _ in WRONG])
def test_what_makes_no_sense_is_refused_by_name(text, message):
    with pytest.raises(ValueError, match=message):
        make_estimator("binary", [text])


def test_one_name_has_one_value():
    with pytest.raises(ValueError, match="max_epochs is given twice"):
        make_estimator("binary", ["max_epochs=3", "max_epochs=4"])


@pytest.mark.parametrize("text", ["optimizer=sgd", "optimizer__momentum=0.5", "optimizer_params=None"])
def test_what_is_compared_cannot_be_set(text):
    with pytest.raises(ValueError, match="name them by optimizers="):
        make_estimator("binary", [text], compares_optimizers=True)


@pytest.mark.parametrize("work", [tune, compare])
def test_settings_and_an_estimator_are_not_given_together(work):
    from tests.jobs.test_joining import frame, make_problem

    question = {"problem": make_problem(frame(), "label"), "n_trials": 1, "storage": None, "study_name": "s"}
    with pytest.raises(ValueError, match="settings=.*set those of the one that is given"):
        work(**question, estimator=InnaClassifier(), settings=["max_epochs=3"])

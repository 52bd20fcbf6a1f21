"""Studies that were begun when other settings were the defaults go on with those, and workers join them, without a word."""

import logging

import optuna
import pytest

from inna_tune import InnaClassifier
from inna_tune.jobs.begun import as_begun
from inna_tune.jobs.joining import join, read_job
from inna_tune.jobs.tuning import tune
from inna_tune.records.attributes import FINGERPRINT, JOB
from inna_tune.records.fingerprint import MismatchError
from inna_tune.tables.problem import make_problem
from tests.jobs.test_joining import frame

# What an earlier version had, and nobody said.
THEN = (
    "hidden_layer_sizes=(4, 4)",
    "max_epochs=2",
    "patience=15",
    "n_members=1",
    "encoder__numeric=scale",
)


@pytest.fixture
def storage():
    return optuna.storages.InMemoryStorage()


def fit(storage, n_trials, *, settings=(), **more):
    found = make_problem(frame(), "label")
    more = {"study_name": "old", "importances": False} | more
    return tune(found, n_trials=n_trials, storage=storage, settings=settings, **more)


def begin_then(storage, *, said=(), **more):
    """A study as a version left it whose defaults were these, of which some were said all the same."""
    study = fit(storage, 1, settings=(*THEN, *said), **more).search.study_
    study.set_user_attr(JOB, study.user_attrs[JOB] | {"settings": list(said)})
    return study


def test_an_old_study_goes_on_with_the_defaults_of_then(storage, caplog):
    study = begin_then(storage)
    before = study.user_attrs[FINGERPRINT]
    with caplog.at_level(logging.WARNING, "inna_tune"):
        found = fit(storage, 3, resume=True)
    assert len(study.trials) == 3
    assert study.user_attrs[FINGERPRINT] == before
    assert found.search.estimator.get_params()["max_epochs"] == 2
    assert found.search.estimator.patience == found.untuned.patience == 15
    assert found.search.estimator.encoder.numeric == found.untuned.encoder.numeric == "scale"
    assert "study old goes on with what were the defaults when it was begun: " in caplog.text
    assert (
        "hidden_layer_sizes=[4, 4], max_epochs=2, n_members=1, patience=15, encoder__numeric=scale"
        in caplog.text
    )
    assert read_job(storage, "old").settings == ()


def test_a_worker_joins_an_old_study(storage):
    study = begin_then(storage)
    study.set_user_attr(JOB, study.user_attrs[JOB] | {"n_trials": 3})
    join(make_problem(frame(), "label"), storage=storage, study_name="old")
    assert len(study.trials) == 3
    assert max(t.user_attrs["epochs"] for t in study.trials) == 2


def test_what_was_said_then_is_to_be_said_again(storage):
    begin_then(storage, said=("batch_size=16",))
    with pytest.raises(MismatchError, match="begun --set batch_size=16: give the same"):
        fit(storage, 2, resume=True)
    assert len(fit(storage, 2, resume=True, settings=("batch_size=16",)).search.study_.trials) == 2


@pytest.mark.parametrize("said", ["max_epochs=3", "patience=auto"])
def test_what_is_said_now_is_no_other_question_unnoticed(storage, said):
    begin_then(storage)
    with pytest.raises(MismatchError, match=f"the estimator's {said.partition('=')[0]} was"):
        fit(storage, 2, resume=True, settings=(said,))


def test_a_new_study_has_the_defaults_of_now(storage):
    begin_then(storage)
    estimator = InnaClassifier()
    assert as_begun(estimator, None) is estimator
    assert as_begun(estimator, optuna.create_study()) is estimator


@pytest.mark.parametrize(
    "stored",
    [
        None,
        "text",
        {"estimator": None},
        {"estimator": {"class": "InnaRegressor", "parameters": {"patience": 15}}},
        {"estimator": {"class": "InnaClassifier", "parameters": ["patience"]}},
        {
            "estimator": {
                "class": "InnaClassifier",
                "parameters": {"patience": -1, "linear_path": True, "longest_step": 0.1},
            }
        },
        {
            "estimator": {
                "class": "InnaClassifier",
                "parameters": {"patience": {"a": 1}, "unknown": 1, "linear_path": True, "longest_step": 0.1},
            }
        },
        {
            "estimator": {
                "class": "InnaClassifier",
                "parameters": {"device": "cuda", "n_jobs": 7, "linear_path": True, "longest_step": 0.1},
            }
        },
    ],
)
def test_what_makes_no_sense_leaves_the_estimator_as_it_is(stored):
    study, estimator = optuna.create_study(), InnaClassifier()
    study.set_user_attr(FINGERPRINT, stored)
    study.set_user_attr(JOB, {"settings": 3})
    assert as_begun(estimator, study) is estimator


def described_as(**parameters):
    study = optuna.create_study()
    study.set_user_attr(FINGERPRINT, {"estimator": {"class": "InnaClassifier", "parameters": parameters}})
    study.set_user_attr(JOB, {"settings": []})
    return study


def test_one_value_that_is_none_any_more_leaves_the_others():
    found = as_begun(
        InnaClassifier(), described_as(block="gone", patience=15, linear_path=True, longest_step=0.1)
    )
    assert (found.block, found.patience, found.linear_path) == ("plain", 15, True)


def test_what_a_version_did_not_know_is_as_if_it_were_not_there():
    assert as_begun(InnaClassifier(), described_as(patience="auto")).linear_path is False
    assert as_begun(InnaClassifier(), described_as(patience="auto")).longest_step is None


def encoder_of_then(**settings):
    return {"object": "inna_tune.TableEncoder", "settings": settings}


@pytest.mark.parametrize(
    ("settings", "said", "expected"),
    [
        ({"numeric": "scale", "min_count": 5}, (), ("scale", 5)),
        ({"numeric": "scale", "min_count": 5}, ("encoder__min_count=10",), ("scale", 10)),
        ({"numeric": "scale", "min_count": 5}, ("encoder=None",), None),
        ({"numeric": "cube", "min_count": 5}, (), ("blend", 5)),
        ({"numeric": "cube", "unknown": 1}, (), None),
        ({"numeric": {"a": 1}}, (), None),
        ("text", (), None),
        (None, (), None),
    ],
)
def test_settings_of_the_encoder_are_of_then_one_by_one(settings, said, expected):
    own = {"linear_path": True, "longest_step": 0.1}
    encoder = encoder_of_then(**settings) if isinstance(settings, dict) else {"settings": settings}
    estimator = InnaClassifier()
    found = as_begun(estimator, described_as(encoder=encoder, **own), said)
    if expected is None:
        assert found is estimator
    else:
        assert (found.encoder.numeric, found.encoder.min_count) == expected


@pytest.mark.parametrize("job", [None, "nonsense"])
def test_a_study_that_was_begun_in_python_is_left_to_its_own_check(job):
    study, estimator = described_as(patience=15), InnaClassifier()
    study.set_user_attr(JOB, job)
    assert as_begun(estimator, study) is estimator

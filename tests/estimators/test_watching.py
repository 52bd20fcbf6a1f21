"""Callbacks by epoch: functions, and scikit-learn's protocol."""

import math
import pickle
import threading
import warnings

import numpy as np
import pytest
from joblib.externals.loky.backend.reduction import dumps
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from inna_tune import InnaClassifier, InnaRegressor, InnaSearchCV, load
from tests.study.sending import sent  # noqa: F401  (a fixture)

X, Y = load_breast_cancer(return_X_y=True)
X, Y = X[:240, :5], Y[:240]


def net(*callbacks, **changes):
    given = {"hidden_layer_sizes": (4,), "max_epochs": 5, "n_members": 1, "random_state": 0}
    return InnaClassifier(callbacks=list(callbacks), **(given | changes))


def test_a_function_hears_of_every_epoch():
    heard = []
    model = net(heard.append).fit(X, Y)
    assert [epoch.number for epoch in heard] == model.history_["epoch"].tolist()
    for name in ("train_loss", "validation_loss", "lr"):
        assert [getattr(epoch, name) for epoch in heard] == model.history_[name].tolist()
    assert {epoch.n_epochs for epoch in heard} == {5}
    assert np.all(np.diff([epoch.seconds for epoch in heard]) >= 0)
    assert set(heard[0].losses) == {"train_loss", "validation_loss", "lr"}


def test_of_several_nets_it_hears_the_means():
    heard = []
    model = net(heard.append, n_members=3, early_stopping=False).fit(X, Y)
    means = model.history_.groupby("epoch")["train_loss"].mean()
    assert [epoch.train_loss for epoch in heard] == pytest.approx(means.tolist())
    assert {epoch.n_members for epoch in heard} == {3}
    assert all(math.isnan(epoch.validation_loss) for epoch in heard)
    assert "validation_loss" not in heard[0].losses


def test_watching_changes_nothing():
    watched, alone = net(lambda epoch: False).fit(X, Y), net().fit(X, Y)
    assert np.array_equal(watched.predict_proba(X), alone.predict_proba(X))


def test_it_may_end_the_training():
    model = net(lambda epoch: epoch.number == 2).fit(X, Y)
    assert model.n_iter_ == 2
    assert model.history_["stopped"].iloc[-1] == "interrupted"
    assert model.predict(X).shape == (240,)
    # Nothing but the truth ends it: many functions return what they did.
    assert net(lambda epoch: 1).fit(X, Y).n_iter_ == 5


def test_what_it_raises_comes_out():
    def failing(epoch):
        raise RuntimeError("of the callback")

    with pytest.raises(RuntimeError, match="of the callback"):
        net(failing).fit(X, Y)


def test_each_fit_tells_anew():
    heard = []
    model = net(heard.append, warm_start=True)
    model.fit(X, Y).fit(X, Y)
    assert [epoch.number for epoch in heard] == [1, 2, 3, 4, 5, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("callbacks", [3, "print", [3], [print, "x"]])
def test_what_is_no_function_is_refused(callbacks):
    with pytest.raises(ValueError, match="callbacks"):
        net().set_params(callbacks=callbacks).fit(X, Y)


def test_they_are_in_no_file_and_no_fingerprint(tmp_path):
    heard = []
    model = net(heard.append).fit(X, Y)
    model.save(tmp_path / "net.inna")
    assert load(tmp_path / "net.inna").callbacks is None
    options = {"n_trials": 1, "cv": 2, "random_state": 0, "study_name": "s"}
    options |= {"storage": f"sqlite:///{tmp_path}/s.db"}
    heard.clear()
    InnaSearchCV(net(heard.append, max_epochs=2), **options).fit(X, Y)
    # The refit alone: trials train together.
    assert [epoch.number for epoch in heard] == [1, 2]
    InnaSearchCV(net(max_epochs=2), **(options | {"resume": True, "n_trials": 2})).fit(X, Y)


def test_a_search_by_processes_needs_no_callbacks_that_can_be_sent(sent):  # noqa: F811
    heard, lock = [], threading.Lock()

    def hear(epoch):
        with lock:
            heard.append(epoch)

    with pytest.raises(TypeError, match="cannot pickle"):
        dumps(hear)
    search = InnaSearchCV(net(hear, max_epochs=2), n_trials=2, cv=2, n_jobs=2)
    search.fit(X, Y)
    assert len(heard) == 2


class Following:
    """A callback by scikit-learn's protocol, which notes what it is told."""

    def __init__(self, stop_after=math.inf):
        self.told, self.scores, self.stop_after = [], [], stop_after

    def setup(self, estimator, context):
        self.told.append("setup")

    def teardown(self, estimator, context):
        self.told.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.told.append(f"begin {context.task_name}")

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, metadata=None, fitted_estimator=None):
        self.told.append(f"end {context.task_name}")
        self.scores.append(fitted_estimator.score(X, y))
        return len(self.scores) >= self.stop_after


protocol = pytest.mark.skipif(
    not hasattr(InnaClassifier, "set_callbacks"), reason="scikit-learn before 1.9 has no protocol"
)


@protocol
def test_scikit_learns_protocol_is_followed():
    following = Following()
    model = net(max_epochs=2).set_callbacks(following).fit(X, Y)
    assert following.told == [
        *("setup", "begin fit", "begin epoch", "end epoch", "begin epoch", "end epoch"),
        *("end fit", "teardown"),
    ]
    assert following.scores[-1] == model.score(X, Y)
    assert not [name for name in vars(model) if "callback_fit" in name or "teardown" in name]


@protocol
def test_by_the_protocol_training_may_end_and_is_torn_down():
    model = net().set_callbacks(Following(stop_after=1)).fit(X, Y)
    assert model.n_iter_ == 1
    following = Following()
    with pytest.raises(RuntimeError, match="broken"):
        net(lambda epoch: (_ for _ in ()).throw(RuntimeError("broken"))).set_callbacks(following).fit(X, Y)
    assert following.told[-1] == "teardown"


@protocol
def test_scikit_learns_own_callbacks_work():
    from sklearn.callback import ScoringMonitor

    monitor = ScoringMonitor(scoring="accuracy")
    model = net(max_epochs=3).set_callbacks(monitor).fit(X, Y)
    found = monitor.get_logs().data_as_pandas
    assert len(found) == 4  # the epochs, and the whole
    assert found["accuracy"].iloc[-1] == pytest.approx(model.score(X, Y))
    assert np.array_equal(clone(model).fit(X, Y).predict(X), model.predict(X))


@protocol
def test_a_pipeline_hands_its_progress_on(capfd):
    from sklearn.callback import ProgressBar

    whole = make_pipeline(StandardScaler(), net(max_epochs=2)).set_callbacks(ProgressBar())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole.fit(X, Y)
    assert "InnaClassifier" in capfd.readouterr().out
    assert not hasattr(whole[-1], "_parent_callback_ctx")


@protocol
def test_trials_of_a_search_are_watched_by_nobody():
    following = Following()
    watched = net(max_epochs=2).set_callbacks(following)
    InnaSearchCV(watched, n_trials=2, cv=2).fit(X, Y)
    assert following.told.count("begin fit") == 1


def test_a_watched_model_can_be_pickled():
    model = net(print, max_epochs=1).fit(X, Y)
    assert np.array_equal(pickle.loads(pickle.dumps(model)).predict(X), model.predict(X))


def test_a_regression_is_watched_too():
    heard = []
    InnaRegressor(hidden_layer_sizes=(4,), n_members=1, max_epochs=2, callbacks=(heard.append,)).fit(
        X, X[:, 0]
    )
    assert len(heard) == 2

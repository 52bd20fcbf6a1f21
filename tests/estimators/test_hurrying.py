"""Where time is short and steps are long, fewer nets are trained."""

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from inna_tune import InnaClassifier, clock
from inna_tune.engine.forward import stacked_views
from inna_tune.engine.population import Population
from inna_tune.estimators import hurrying

X = np.random.default_rng(0).normal(size=(60, 3))
Y = (X[:, 0] > 0).astype(int)


@pytest.mark.parametrize(
    ("n_members", "seconds", "left"),
    [("auto", 0.0, 8), ("auto", 50.0, 3), ("auto", 1e6, 1), (2, 1e6, 2)],
)
def test_as_many_as_have_a_few_epochs_are_trained(n_members, seconds, left, monkeypatch):
    monkeypatch.setattr(clock, "now", lambda: 1000.0)
    monkeypatch.setattr(hurrying, "seconds_a_step", lambda *given, **options: seconds)
    net = InnaClassifier(
        hidden_layer_sizes=(4,),
        n_members=n_members,
        max_epochs=2,
        max_time=1000.0,
        linear_path=False,
        random_state=0,
    )
    assert len(net.fit(X, Y).members_) == left


def test_wide_tables_have_fewer_where_there_is_a_deadline(monkeypatch):
    monkeypatch.setattr(hurrying, "_MOST_NUMBERS", 45 * 3 * 64 * 2)
    net = InnaClassifier(hidden_layer_sizes=(4,), max_epochs=2, max_time=1000.0, random_state=0)
    assert len(net.fit(X, Y).members_) == 2


def test_without_a_deadline_all_are_trained(monkeypatch):
    monkeypatch.setattr(hurrying, "seconds_a_step", None)
    net = InnaClassifier(hidden_layer_sizes=(4,), max_epochs=2, linear_path=False, random_state=0)
    assert len(net.fit(X, Y).members_) == 8


@pytest.mark.parametrize(("tick", "steps"), [(0.0, {15}), (0.06, set(range(2, 15))), (10.0, {1})])
@pytest.mark.parametrize("n_members", [1, 3])
def test_what_has_no_time_is_trained_all_the_same_and_says_so(tick, steps, n_members, monkeypatch):
    """As on a busy machine: time is up before the first step."""
    held = iter([1000.0])
    now = [2000.0]

    def look():
        now[0] += tick
        return next(held, now[0])

    made = []
    step = Population._step
    monkeypatch.setattr(
        Population, "_step", lambda self, *given: made.append(len(self)) or step(self, *given)
    )
    monkeypatch.setattr("inna_tune.engine.training.quickest_layout", lambda *a, **o: (n_members, 1))
    monkeypatch.setattr(clock, "now", look)
    net = InnaClassifier(
        hidden_layer_sizes=(4,), n_members=n_members, batch_size=4, max_time=1.0, random_state=0
    )
    with pytest.warns(ConvergenceWarning, match="max_time=1: the time was up within the first epoch"):
        net.fit(X, Y)
    assert len(made) in steps
    assert set(made) == {n_members}
    assert {(m["stop_reason"], m["best_epoch"]) for m in net.members_} == {("time", 1)}
    assert np.isfinite(net.predict_proba(X)).all()


def test_of_nets_that_time_makes_fewer_none_begins_as_a_linear_model(monkeypatch):
    """There would be too few of the other kind to choose by."""
    monkeypatch.setattr(clock, "now", lambda: 1000.0)
    monkeypatch.setattr(hurrying, "seconds_a_step", lambda *given, **options: 50.0)
    net = InnaClassifier(hidden_layer_sizes=(4,), max_epochs=2, max_time=1000.0, random_state=0).fit(X, Y)
    assert len(net.members_) == 3
    assert net.net_.linear_outputs(stacked_views(net.net_, net.weights_)) is None

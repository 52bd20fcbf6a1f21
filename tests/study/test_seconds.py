"""The seconds of a study's trials add up to the time that was spent on them."""

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState
from sklearn.datasets import load_iris

from inna_tune import InnaClassifier, InnaSearchCV, SearchSpace
from inna_tune.engine import Training
from inna_tune.space import Categorical, Uniform
from inna_tune.study import group
from inna_tune.study.evaluation import Cohort

IRIS = load_iris(return_X_y=True, as_frame=True)


class Clock:
    """Time that passes only where the test says so."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now

    def spend(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    """A second for each active member and epoch, two for each population that is made, a half for each score."""
    held = Clock()
    monkeypatch.setattr("inna_tune.clock.now", held.monotonic)
    init, advance = Cohort.__init__, Training._advance

    def made(self, *args, **kwargs):
        held.spend(2.0)
        init(self, *args, **kwargs)

    def advanced(self, *args):
        held.spend(len(self.active))
        advance(self, *args)

    monkeypatch.setattr(Cohort, "__init__", made)
    monkeypatch.setattr(Training, "_advance", advanced)

    def score(model, X, y):
        held.spend(0.5)
        return float((model.predict(X) == y).mean())

    held.score = score
    return held


class PruneOdd(optuna.pruners.BasePruner):
    def prune(self, study, trial):
        return trial.number % 2 == 1


def search(clock, **changes):
    space = SearchSpace(
        {
            "lr": Uniform(0.05, 0.3),
            "hidden_layer_sizes": Categorical(["4", "6"]),
            "patience": Categorical([1, 9]),
        }
    )
    net = InnaClassifier(alpha=0.5, beta=0.2, max_epochs=8, n_members=1, random_state=0)
    settings = {
        "n_trials": 6,
        "population": 6,
        "cv": 2,
        "scoring": clock.score,
        "pruner": PruneOdd(),
        "refit": False,
    }
    return InnaSearchCV(net, space, random_state=0, **(settings | changes))


def seconds(study):
    return [t.user_attrs["seconds"] for t in study.trials]


@pytest.mark.parametrize("population", [1, 4, 6])
def test_they_add_up_and_each_pays_for_what_it_trained(clock, population):
    began = clock.now
    study = search(clock, population=population).fit(*IRIS).study_
    assert sum(seconds(study)) == pytest.approx(clock.now - began, abs=1e-3)
    states = {t.state for t in study.trials}
    assert states == {TrialState.COMPLETE, TrialState.PRUNED}
    for trial in study.trials:
        # Two folds: a second an epoch each; and half a second a score, at the rungs and at the end.
        least = 2 * trial.user_attrs["epochs"] + 1.0 * (len(trial.intermediate_values) + 1)
        assert least <= trial.user_attrs["seconds"] <= least + 2.0


def test_what_fails_counts_too(clock):
    def failing(model, X, y):
        clock.spend(3.0)
        raise LookupError("no score")

    began = clock.now
    found = search(clock, scoring=failing)
    with pytest.raises(ValueError, match="no score"):
        found.fit(*IRIS)
    assert sum(seconds(found.study_)) == pytest.approx(clock.now - began, abs=1e-3)


class Interruption(BaseException):
    """Stands for a kill."""


def test_a_trial_that_goes_on_from_a_checkpoint_keeps_the_seconds_of_its_earlier_life(
    clock, tmp_path, monkeypatch
):
    monkeypatch.setattr(group, "_WORTH_KEEPING", 0.0)
    url = f"sqlite:///{tmp_path}/s.db"
    began, told = clock.now, []
    original = Cohort.run

    def broken(self, until_epoch=None, **kwargs):
        if until_epoch == 4 and not told:
            told.append(clock.now)
            raise Interruption
        original(self, until_epoch, **kwargs)

    monkeypatch.setattr(Cohort, "run", broken)
    settings = {"storage": url, "study_name": "s", "resume": True, "pruner": optuna.pruners.NopPruner()}
    one = {
        "n_trials": 2,
        "population": 2,
        "first": [{"lr": x, "hidden_layer_sizes": "4"} for x in (0.1, 0.2)],
    }
    with pytest.raises(Interruption):
        search(clock, **settings, **one).fit(*IRIS)
    study = search(clock, **settings, **one).fit(*IRIS).study_
    assert sum(seconds(study)) == pytest.approx(clock.now - began, abs=1e-3)
    assert np.all(np.array(seconds(study)) > (told[0] - began) / 2)

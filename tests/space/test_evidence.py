"""Priors placed wrong on purpose: the study says so, and their weight falls faster."""

import logging
import math

import numpy as np
import optuna
import pytest
from optuna.samplers import RandomSampler, TPESampler

from inna_tune.space import Categorical, LogNormal, Normal, PriorSampler, SearchSpace, Uniform, When
from inna_tune.space.evidence import MISLEADING, is_misleading, misleading_text
from tests.space.reference import best_tenth, prior_evidence

WRONG = SearchSpace({"x": Normal(1.0, 0.5, low=0.0, high=10.0), "y": LogNormal(0.1, 1.0, low=0.01, high=1.0)})


def regret(config):
    return (config["x"] - 8.0) ** 2 + abs(math.log(config["y"] / 0.1))


def run(sampler, space=WRONG, n_trials=40, value=regret, direction="minimize"):
    study = optuna.create_study(sampler=sampler, direction=direction)
    for _ in range(n_trials):
        trial = study.ask()
        study.tell(trial, value(space.suggest(trial)))
    return study


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_a_study_says_which_prior_misleads(caplog, direction):
    sign = 1.0 if direction == "minimize" else -1.0
    with caplog.at_level(logging.WARNING, logger="inna_tune"):
        study = run(
            PriorSampler(TPESampler(), WRONG, seed=1), direction=direction, value=lambda c: sign * regret(c)
        )
    assert set(study.user_attrs[MISLEADING]) == {"x"}
    assert study.user_attrs[MISLEADING]["x"] < -2
    assert len([r for r in caplog.records if "prior of x" in r.getMessage()]) == 1
    assert "x (" in misleading_text(study.user_attrs[MISLEADING])
    assert is_misleading(prior_evidence(study, WRONG)["x"])
    assert not is_misleading(prior_evidence(study, WRONG)["y"])


@pytest.mark.parametrize("seed", range(5))
def test_a_prior_that_is_right_is_not_accused(seed):
    study = run(
        PriorSampler(TPESampler(), WRONG, seed=seed),
        value=lambda c: abs(c["x"] - 1.0) + abs(math.log(c["y"] / 0.1)),
    )
    assert MISLEADING not in study.user_attrs
    assert misleading_text({}) == ""


def test_its_weight_falls_faster_and_only_its_own():
    sampler = PriorSampler(RandomSampler(), WRONG, seed=0)
    study = run(sampler, n_trials=30)
    sampler.before_trial(study, study.get_trials()[0])
    (view,) = sampler._views
    evidence = prior_evidence(study, WRONG)
    assert view.evidence == pytest.approx(evidence)
    assert view.weight("x") == pytest.approx(sampler.weight(30, evidence["x"]))
    assert view.weight("x") < 0.3 * sampler.weight(30)
    assert view.weight("y") > 0.6 * sampler.weight(30)


def test_evidence_weakens_and_never_strengthens_a_prior():
    sampler = PriorSampler(None, WRONG, k=10)
    assert sampler.weight(10, 5.0) == sampler.weight(10) == 0.5
    assert sampler.weight(10, -math.log(10)) == pytest.approx(1 / 11)
    assert PriorSampler(None, WRONG, k=math.inf).weight(10, -9.0) == 1.0


def test_a_wrong_prior_is_left_sooner_than_by_counting_alone(monkeypatch):
    """Against the same sampler whose evidence is silenced: the draws between trials 10 and 30."""
    far = lambda study: np.mean([t.params["x"] > 4.0 for t in study.trials[12:30]])  # noqa: E731
    with_it = [far(run(PriorSampler(RandomSampler(), WRONG, seed=s))) for s in range(8)]
    monkeypatch.setattr("inna_tune.space.view.n_winners", lambda count: 0)
    without = [far(run(PriorSampler(RandomSampler(), WRONG, seed=s))) for s in range(8)]
    assert np.mean(with_it) > np.mean(without) + 0.05


def test_the_best_tenth():
    study = run(RandomSampler(), n_trials=45)
    assert best_tenth(study.trials[:9], study.direction) == []
    assert len(best_tenth(study.trials[:12], study.direction)) == 3
    best = best_tenth(study.trials, study.direction)
    assert [t.value for t in best] == sorted(t.value for t in study.trials)[:5]


def test_several_objectives_have_no_best_tenth():
    study = optuna.create_study(
        directions=["minimize", "minimize"], sampler=PriorSampler(RandomSampler(), WRONG, seed=0)
    )
    for _ in range(12):
        trial = study.ask()
        config = WRONG.suggest(trial)
        study.tell(trial, [config["x"], config["y"]])
    assert prior_evidence(study, WRONG) == {}
    assert MISLEADING not in study.user_attrs


def test_choices_and_parameters_that_come_and_go():
    space = SearchSpace(
        {
            "kind": Categorical(["a", "b"], [0.95, 0.05]),
            "depth": When("kind", ("b",), Normal(0.1, 0.05, low=0.0, high=1.0)),
            "rest": Uniform(0.0, 1.0),
        }
    )
    study = run(
        PriorSampler(TPESampler(), space, seed=0),
        space,
        60,
        lambda c: 1.0 - c["depth"] if c["kind"] == "b" else 2.0,
    )
    evidence = prior_evidence(study, space)
    assert is_misleading(evidence["kind"])
    assert is_misleading(evidence["depth"])
    assert evidence["rest"] == 0.0


def test_log_ratios_of_the_coordinates_are_those_of_the_pure_numbers():
    space = SearchSpace.inna(curvature=30.0)
    config = space.sample(np.random.default_rng(0))
    found = space.log_ratios(config)
    assert set(found) == set(config)
    pure = space["lr"].to_pure(config["lr"], config)
    assert found["lr"] == pytest.approx(space["lr"].law.log_ratio(pure))


def test_the_prior_of_a_parameter_that_does_not_matter_is_seldom_accused():
    """Its winners lie anywhere, and so now and then where a wide prior is low."""
    space = SearchSpace({"x": Uniform(0.0, 1.0), "idle": LogNormal(1e-4, 2.0, low=1e-7, high=0.1)})
    accused = 0
    for seed in range(20):
        study = run(PriorSampler(RandomSampler(), space, seed=seed), space, 40, lambda c: c["x"])
        accused += MISLEADING in study.user_attrs and bool(study.user_attrs[MISLEADING])
    assert accused <= 3

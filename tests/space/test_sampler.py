import pickle

import numpy as np
import optuna
import pytest
from optuna.samplers import (
    BruteForceSampler,
    CmaEsSampler,
    GPSampler,
    GridSampler,
    PartialFixedSampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)
from optuna.trial import TrialState
from scipy import stats

from inna_tune.space import Categorical, LogNormal, Normal, PriorSampler, SearchSpace, Uniform, When

SPACE = SearchSpace.inna(curvature=20.0)
BASES = {
    "tpe": lambda: TPESampler(n_startup_trials=3),
    "independent tpe": lambda: TPESampler(n_startup_trials=3, multivariate=False),
    "random": RandomSampler,
    "gp": lambda: GPSampler(n_startup_trials=3),
    "qmc": lambda: QMCSampler(seed=0),
    "cma-es": lambda: CmaEsSampler(n_startup_trials=3, seed=0),
}


def objective(config):
    return (np.log(config["lr"]) + 1) ** 2 + abs(config["alpha"] - 0.2) + config["dropout"]


def check_in_bounds(study):
    for trial in study.trials:
        assert set(trial.params) >= {"lr", "alpha", "beta"}
        for name, value in trial.params.items():
            distribution = SPACE.distribution(name)
            assert distribution._contains(distribution.to_internal_repr(value))


def run(study, n_trials, space=SPACE):
    for _ in range(n_trials):
        trial = study.ask()
        study.tell(trial, objective(space.suggest(trial)))
    return [t.params for t in study.trials]


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("base", BASES.values(), ids=BASES)
def test_every_base_sampler_stores_natural_values_in_bounds(base):
    study = optuna.create_study(sampler=PriorSampler(base(), SPACE, seed=0))
    run(study, 8)
    check_in_bounds(study)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize(
    "name", sorted(set(BASES) - {"gp"})
)  # GP starts its fit from the last one, kept in memory
def test_a_restarted_sampler_goes_on_as_if_never_stopped(name):
    base = BASES[name]
    straight = optuna.create_study(sampler=PriorSampler(base(), SPACE, seed=5))
    stopped = optuna.create_study(sampler=PriorSampler(base(), SPACE, seed=5))
    expected = run(straight, 9)
    run(stopped, 4)
    stopped.sampler = PriorSampler(base(), SPACE, seed=5)
    assert run(stopped, 5) == expected


def test_a_trial_taken_up_again_draws_what_it_would_have_drawn():
    def study():
        return optuna.create_study(sampler=PriorSampler(TPESampler(multivariate=False), SPACE, seed=1))

    whole, cut = study(), study()
    expected = SPACE.suggest(whole.ask())
    trial = cut.ask()
    trial.suggest_float("alpha", SPACE.distribution("alpha").low, SPACE.distribution("alpha").high, log=True)
    again = optuna.trial.Trial(cut, trial._trial_id)
    assert SPACE.suggest(again) == expected


def test_different_seeds_and_trials_draw_differently():
    drawn = [
        SPACE.suggest(optuna.create_study(sampler=PriorSampler(None, SPACE, seed=s)).ask())["lr"]
        for s in range(5)
    ]
    assert len(set(drawn)) == 5
    study = optuna.create_study(sampler=PriorSampler(None, SPACE, seed=0))
    assert len({p["lr"] for p in run(study, 6)}) == 6


def test_over_a_random_sampler_draws_are_the_prior():
    """Nothing is told, so n stays 0 and the weight of the prior 1."""
    law = LogNormal(0.1, 0.5, low=0.01, high=1.0)
    choice = Categorical(["a", "b", "c"], [0.7, 0.2, 0.1])
    space = SearchSpace({"x": law, "c": choice})
    study = optuna.create_study(sampler=PriorSampler(RandomSampler(), space, seed=0))
    drawn = [space.suggest(study.ask()) for _ in range(400)]
    assert stats.kstest([d["x"] for d in drawn], law.cdf).pvalue > 1e-3
    counts = [sum(d["c"] == label for d in drawn) for label in "abc"]
    assert stats.chisquare(counts, [280, 80, 40]).pvalue > 1e-3


def test_the_prior_fades_as_trials_finish():
    sampler = PriorSampler(RandomSampler(), SPACE, k=10)
    assert [sampler.weight(n) for n in (0, 10, 90)] == [1.0, 0.5, 0.1]
    assert PriorSampler(None, SPACE, k=0).weight(0) == 0.0
    assert PriorSampler(None, SPACE, k=float("inf")).weight(10**9) == 1.0
    law = Normal(0.0, 0.1, low=-10.0, high=10.0)
    space = SearchSpace({"x": law})
    study = optuna.create_study(sampler=PriorSampler(RandomSampler(), space, k=10, seed=0))
    values = []
    for _ in range(400):
        trial = study.ask()
        values.append(abs(space.suggest(trial)["x"]))
        study.tell(trial, 0.0)
    assert np.mean(np.array(values[:5]) > 0.5) <= 0.4
    assert np.mean(np.array(values[300:]) > 0.5) > 0.8


def test_a_wrong_prior_is_overcome():
    """The prior sits at 0.5 with a spread of 0.2, the optimum at 9."""
    space = SearchSpace({"x": Normal(0.5, 0.2, low=0.0, high=10.0)})
    study = optuna.create_study(sampler=PriorSampler(TPESampler(), space, seed=0))
    for _ in range(60):
        trial = study.ask()
        study.tell(trial, (space.suggest(trial)["x"] - 9.0) ** 2)
    assert study.best_value < 0.5


def test_parameters_outside_the_space_pass_unchanged():
    study = optuna.create_study(sampler=PriorSampler(TPESampler(n_startup_trials=2), SPACE, seed=0))
    for _ in range(6):
        trial = study.ask()
        config = SPACE.suggest(trial)
        width = trial.suggest_int("width", 8, 64, log=True)
        kind = trial.suggest_categorical("kind", ["u", "v"])
        assert 8 <= width <= 64
        study.tell(trial, objective(config) + (kind == "u") / width)


def test_enqueued_trials_keep_their_values():
    study = optuna.create_study(sampler=PriorSampler(None, SPACE, seed=0))
    wanted = {"alpha": 0.2, "beta": 0.3, "lr": 0.1, "decay": "power", "decay_power": 0.25}
    study.enqueue_trial(wanted)
    config = SPACE.suggest(study.ask())
    assert {k: config[k] for k in wanted} == wanted


def test_what_is_drawn_beside_an_enqueued_value_is_drawn_given_it():
    class Middle(RandomSampler):
        def infer_relative_search_space(self, study, trial):
            return {name: SPACE.distribution(name) for name in ("alpha", "beta", "lr")}

        def sample_relative(self, study, trial, search_space):
            return dict.fromkeys(search_space, 0.5)

    study = optuna.create_study(sampler=PriorSampler(Middle(), SPACE, seed=0))
    study.enqueue_trial({"alpha": SPACE.distribution("alpha").high * 0.99})
    for _ in range(2):
        config = SPACE.suggest(study.ask())
        for name in ("beta", "lr"):
            pure = SPACE[name].to_pure(config[name], config)
            assert pure == pytest.approx(SPACE[name].law.ppf(0.5), rel=1e-9)


@pytest.mark.filterwarnings("ignore:`constraints_func`")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_constraints_function_of_the_base_sampler_sees_natural_values():
    seen = []

    def constraints(trial):
        seen.append(dict(trial.params))
        return (trial.params["lr"] - 0.5,)

    base = TPESampler(n_startup_trials=2, constraints_func=constraints)
    study = optuna.create_study(sampler=PriorSampler(base, SPACE, seed=0))
    stored = run(study, 5)
    assert seen == stored
    assert [list(t.system_attrs["constraints"]) for t in study.trials] == [[p["lr"] - 0.5] for p in stored]


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_partial_fixed_sampler_works_around_it():
    inner = PriorSampler(TPESampler(n_startup_trials=2), SPACE, seed=0)
    study = optuna.create_study(sampler=PartialFixedSampler({"decay": "cosine", "alpha": 0.3}, inner))
    for params in run(study, 6):
        assert params["decay"] == "cosine"
        assert params["alpha"] == 0.3
        assert "decay_power" not in params


def test_several_objectives_and_constraints():
    study = optuna.create_study(
        directions=["minimize", "maximize"],
        sampler=PriorSampler(TPESampler(n_startup_trials=2), SPACE, seed=0),
    )
    for _ in range(6):
        trial = study.ask()
        config = SPACE.suggest(trial)
        trial.set_constraint("lr", config["lr"] - 0.5)
        study.tell(trial, [objective(config), config["beta"]])
    assert len(study.trials) == 6
    assert study.best_trials
    check_in_bounds(study)
    for trial in study.trials:
        assert trial.constraints == {"lr": trial.params["lr"] - 0.5}


def test_pruned_and_failed_trials_are_no_trouble():
    states = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]

    def sample(told):
        study = optuna.create_study(sampler=PriorSampler(TPESampler(n_startup_trials=2), SPACE, seed=0))
        for number in range(8):
            trial = study.ask()
            config = SPACE.suggest(trial)
            trial.report(objective(config), 1)
            state = told[number % len(told)]
            study.tell(trial, objective(config) if state == TrialState.COMPLETE else None, state=state)
        check_in_bounds(study)
        assert [t.state for t in study.trials] == [told[number % len(told)] for number in range(8)]
        return [t.params for t in study.trials]

    mixed = sample(states)
    assert mixed == sample(states)
    # What they tell is heeded: other states, other draws, once the sampler learns.
    assert mixed[:2] == sample([TrialState.COMPLETE])[:2]
    assert mixed[3:] != sample([TrialState.COMPLETE])[3:]


def test_the_base_sampler_sees_places_and_never_natural_values():
    seen = []

    class Spy(RandomSampler):
        def sample_independent(self, study, trial, name, distribution):
            seen.extend(t.params[n] for t in study.get_trials() for n in t.params)
            assert (distribution.low, distribution.high) == (0.0, 1.0)
            return super().sample_independent(study, trial, name, distribution)

    run(optuna.create_study(sampler=PriorSampler(Spy(), SPACE, seed=0)), 5)
    assert seen
    assert all(0.0 <= u <= 1.0 for u in seen)


def test_a_cohort_asked_at_once_holds_no_two_equal_points():
    study = optuna.create_study(sampler=PriorSampler(TPESampler(n_startup_trials=4), SPACE, seed=0))
    run(study, 8)
    cohort = [SPACE.suggest(study.ask()) for _ in range(16)]
    assert len({c["lr"] for c in cohort}) == len({c["alpha"] for c in cohort}) == 16


def test_suggesting_out_of_order_is_told():
    study = optuna.create_study(sampler=PriorSampler(None, SPACE, seed=0))
    distribution = SPACE.distribution("lr")
    with pytest.raises(ValueError, match="in its order"):
        study.ask().suggest_float("lr", distribution.low, distribution.high, log=True)


def test_it_can_be_pickled():
    sampler = PriorSampler(TPESampler(), SPACE, seed=3)
    study = optuna.create_study(sampler=sampler)
    run(study, 2)
    again = pickle.loads(pickle.dumps(sampler))
    assert str(again) == "PriorSampler(TPESampler)"
    assert again.space == SPACE


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tpe", SPACE), "must be an Optuna sampler"),
        ((None, {"x": Uniform(0, 1)}), "must be a SearchSpace"),
        ((PriorSampler(None, SPACE), SPACE), "already"),
        ((GridSampler({"alpha": [0.1]}), SPACE), "natural values of its own"),
        ((None, SPACE, -1), "k=-1"),
        ((None, SPACE, float("nan")), "k=nan"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        PriorSampler(*arguments)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_samplers_with_values_of_their_own_are_refused():
    with pytest.raises(TypeError, match="natural values of its own"):
        PriorSampler(BruteForceSampler(), SPACE)
    with pytest.raises(TypeError, match="put it around"):
        PriorSampler(PartialFixedSampler({"alpha": 0.1}, RandomSampler()), SPACE)


def test_conditional_parameters_come_and_go():
    space = SearchSpace({"kind": Categorical(["a", "b"]), "depth": When("kind", ("b",), Uniform(0.0, 1.0))})
    study = optuna.create_study(sampler=PriorSampler(TPESampler(n_startup_trials=3), space, seed=0))
    for _ in range(20):
        trial = study.ask()
        config = space.suggest(trial)
        study.tell(trial, config.get("depth", 0.5))
        assert ("depth" in config) == (config["kind"] == "b")
    assert study.best_params["kind"] == "b"

"""Priors learned from studies: they find what the studies agree on, and carry over to other data."""

import json
import math

import numpy as np
import optuna
import pytest

from inna_tune.plots.priors import priors
from inna_tune.space import (
    Categorical,
    Coordinate,
    Integer,
    LogUniform,
    Prior,
    PriorFileError,
    SearchSpace,
    Uniform,
    When,
    learn,
    portfolio,
)
from inna_tune.space.learn import CURVATURE

CURVATURES = (0.3, 12.0, 500.0)
BEST = {"alpha": 0.1, "beta": 0.9, "lr": 1.5}  # pure: friction, damping ratio, stable-step ratio


def pure(space, config):
    found = dict(config)
    for name in BEST:
        law = space[name].law
        found[name] = min(max(space[name].to_pure(config[name], config), law.low), law.high)
    return found


def loss(values, best=BEST):
    """Lowest at ``best``, with the cosine law, and dropout 0.2."""
    distance = sum(math.log(values[name] / best[name]) ** 2 for name in best)
    return distance + (values["decay"] != "cosine") + (values["dropout"] - 0.2) ** 2 * 20


def draw_flat(space, rng):
    config = {}
    for name in space:
        if space.is_active(name, config):
            config[name] = space.value(name, float(rng.random()), 0.0, config)
    return config


def toy_study(curvature, seed, n_trials=60, best=BEST, direction="minimize", net=False):
    space = SearchSpace.inna(curvature=curvature, net=net)
    study = optuna.create_study(study_name=f"toy {seed}", direction=direction)
    study.set_user_attr(CURVATURE, curvature)
    rng = np.random.default_rng(seed)
    sign = 1 if direction == "minimize" else -1
    for _ in range(n_trials):
        config = draw_flat(space, rng)
        study.add_trial(
            optuna.trial.create_trial(
                params=config,
                distributions={name: space.distribution(name) for name in config},
                value=sign * loss(pure(space, config), best),
            )
        )
    return study


@pytest.fixture(scope="module")
def studies():
    return [toy_study(c, seed) for seed, c in enumerate(CURVATURES)]


@pytest.mark.parametrize("kind", ["parametric", "empirical"])
def test_the_law_is_where_the_winners_are_whatever_the_curvature(studies, kind):
    prior = learn(studies, kind=kind)
    for curvature in (1.0, 77.0):
        space, _ = prior.at(curvature)
        rng = np.random.default_rng(0)
        drawn = [space.sample(rng) for _ in range(300)]
        learned = np.median([loss(pure(space, d)) for d in drawn])
        flat = np.median([loss(pure(space, draw_flat(space, rng))) for _ in range(300)])
        assert learned < 0.7 * flat
        for name in BEST:
            low, high = space[name].law.ppf(0.1), space[name].law.ppf(0.9)
            assert low < BEST[name] < high
        weights = space["decay"].probabilities
        assert weights[space["decay"].choices.index("cosine")] == max(weights)


def test_what_a_net_is_like_is_learned_where_all_studies_say_it(studies):
    both = [toy_study(c, seed, n_trials=12, net=True) for seed, c in enumerate(CURVATURES[:2])]
    prior = learn(both)
    for setting in (*prior.portfolio, prior.space.sample(np.random.default_rng(0))):
        assert {"block", "hidden_layer_sizes"} <= set(setting)
    mixed = learn([*both, studies[0]])
    assert not {"block", "hidden_layer_sizes"} & set(mixed.space)
    assert all(
        not {"block", "hidden_layer_sizes"} & set(setting) for setting in portfolio([*both, studies[0]], 3)
    )


def test_maximizing_is_minimizing_turned_round(studies):
    turned = [toy_study(c, seed, direction="maximize") for seed, c in enumerate(CURVATURES)]
    assert learn(turned).space == learn(studies).space
    assert learn(turned).portfolio == learn(studies).portfolio


def test_every_study_weighs_the_same():
    many = toy_study(1.0, 0, n_trials=400)
    few = toy_study(1.0, 1, n_trials=30, best=BEST | {"lr": 10.0})
    medians = [learn([study]).space["lr"].law.ppf(0.5) for study in (many, few)]
    both = learn([many, few]).space["lr"].law.ppf(0.5)
    assert math.log(both) == pytest.approx(np.log(medians).mean(), abs=0.35)


def test_few_studies_say_less():
    def width(n):
        law = learn([toy_study(1.0, seed, 200) for seed in range(n)]).space["lr"].law
        return math.log(law.ppf(0.9) / law.ppf(0.1))

    assert width(1) > width(4)


def test_moving_a_space_there_and_back_changes_nothing(studies):
    space = learn(studies).space
    moved = space.at_curvature(50.0)
    assert moved["alpha"].high == pytest.approx(space["alpha"].high * math.sqrt(50.0))
    assert moved["lr"].high == pytest.approx(space["lr"].high / math.sqrt(50.0))
    back = moved.at_curvature(1.0)
    for name in BEST:
        assert back[name].low == pytest.approx(space[name].low)
        assert back[name].law == space[name].law
    # The bounds of the shipped space at a curvature are its bounds elsewhere, moved.
    shipped = SearchSpace.inna(curvature=50.0)
    for name in BEST:
        assert SearchSpace.inna(curvature=1.0).at_curvature(50.0)[name].low == pytest.approx(
            shipped[name].low
        )
    with pytest.raises(ValueError, match="curvature=-1"):
        space.at_curvature(-1)


def test_the_portfolio_covers_studies_that_want_different_things():
    groups = [BEST, {"alpha": 0.02, "beta": 2.0, "lr": 8.0}]
    studies = [toy_study(c, i, 80, best=groups[i % 2]) for i, c in enumerate((1.0, 4.0, 9.0, 16.0))]
    found = portfolio(studies, 2)
    assert len(found) == 2
    for best in groups:
        reached = min(loss(setting, best) for setting in found)
        losses = [
            loss(pure(SearchSpace.inna(curvature=1.0).at_curvature(s.user_attrs[CURVATURE]), t.params), best)
            for s in studies
            for t in s.trials
        ]
        assert reached < np.quantile(losses, 0.15)
    # One more setting never makes the cover worse, and the first stays the first.
    assert portfolio(studies, 1) == found[:1]


def test_a_prior_with_numbers_of_numpys_travels_in_a_file(tmp_path):
    space = SearchSpace({"dropout": Uniform(np.float32(0.0), 0.5), "layers": Categorical(np.array([1, 2]))})
    prior = Prior(space, ({"dropout": np.float32(0.25), "layers": np.int64(2)},), {"rows": np.int64(9)})
    prior.save(tmp_path / "prior.json")
    again = Prior.load(tmp_path / "prior.json")
    assert again.space == space
    assert again.portfolio == ({"dropout": 0.25, "layers": 2},)
    assert again.provenance == {"rows": 9}
    with pytest.raises(TypeError, match="can't be kept in a file"):
        Prior(space, (), {"x": object()}).save(tmp_path / "prior.json")
    assert Prior.load(tmp_path / "prior.json").space == space


def test_a_prior_travels_in_a_file(studies, tmp_path):
    prior = learn(studies)
    prior.save(tmp_path / "prior.json")
    read = Prior.load(tmp_path / "prior.json")
    assert read.space == prior.space
    assert [dict(p) for p in read.portfolio] == [dict(p) for p in prior.portfolio]
    assert [s["name"] for s in read.provenance["studies"]] == ["toy 0", "toy 1", "toy 2"]
    assert read.provenance["studies"][0]["trials"] == 60
    space, first = read.at(12.0)
    for setting in first:
        for name, value in setting.items():
            distribution = space.distribution(name)
            assert distribution._contains(distribution.to_internal_repr(value))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: [], "is no prior file"),
        (lambda c: {"space": c["space"]}, "is no prior file; make one"),
        (lambda c: c | {"inna_tune_prior": 99}, "format 99"),
        (
            lambda c: c | {"space": {"format": 1, "parameters": [{"name": "lr", "law": "Evil"}]}},
            "'lr': unknown law",
        ),
        (lambda c: c | {"portfolio": [{"alpha": 1}]}, "lacks"),
        (lambda c: c | {"portfolio": [{**c["portfolio"][0], "dropout": 7.0}]}, "dropout=7.0 lies outside"),
        (lambda c: c | {"portfolio": "all"}, "portfolio"),
        (lambda c: c | {"provenance": 3}, "provenance"),
    ],
)
def test_a_file_that_is_no_prior_is_refused(studies, tmp_path, change, message):
    path = tmp_path / "prior.json"
    learn(studies).save(path)
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(PriorFileError, match=message):
        Prior.load(path)


def test_what_cannot_be_learned_from_is_named(studies):
    with pytest.raises(ValueError, match="at least one"):
        learn([])
    with pytest.raises(ValueError, match="top=0"):
        learn(studies, top=0)
    with pytest.raises(ValueError, match="kind='best'"):
        learn(studies, kind="best")
    empty = optuna.create_study(study_name="empty")
    with pytest.raises(ValueError, match="'empty' has no finished trial"):
        learn([*studies, empty])
    several = optuna.create_study(study_name="two", directions=["minimize", "minimize"])
    with pytest.raises(ValueError, match="'two' has several objectives"):
        learn([several])
    other = optuna.create_study(study_name="other")
    other.optimize(lambda t: t.suggest_float("x", 0, 1), n_trials=2)
    with pytest.raises(ValueError, match="'other' has no curvature"):
        learn([other])
    other.set_user_attr(CURVATURE, 1.0)
    with pytest.raises(ValueError, match="trial 0 has no parameter 'alpha'"):
        learn([other])


def test_any_space_can_be_learned_in_natural_values():
    space = SearchSpace(
        {
            "depth": Integer(Uniform(1, 9)),
            "rate": LogUniform(1e-4, 1.0),
            "kind": Categorical(("a", "b", None)),
            "power": When("kind", ("b",), Uniform(0, 1)),
        }
    )
    study = optuna.create_study()
    study.sampler = optuna.samplers.RandomSampler(seed=0)

    def objective(trial):
        config = space.suggest(trial)
        return abs(config["depth"] - 6) + abs(math.log10(config["rate"]) + 2) + (config["kind"] != "b")

    study.optimize(objective, n_trials=80)
    learned = learn([study], space=space).space
    assert list(learned) == list(space)
    assert 4 <= learned["depth"].ppf(0.5) <= 8
    assert 1e-3 < learned["rate"].ppf(0.5) < 1e-1
    assert learned["kind"].probabilities[1] == max(learned["kind"].probabilities)
    assert SearchSpace.from_json(json.loads(json.dumps(learned.to_json()))) == learned


def test_a_space_has_a_picture(studies):
    figure = priors(learn(studies).space)
    labels = [ax.get_xlabel() for ax in figure.axes]
    assert any("λ̂" in label for label in labels)
    assert len(labels) == len(learn(studies).space)
    figure.draw_without_rendering()


def test_a_setting_that_several_studies_tried_is_in_a_portfolio_once():
    """On data of other curvature the same pure numbers are other natural ones, equal up to rounding only."""
    rng = np.random.default_rng(0)
    pure = [SearchSpace.inna(curvature=1.0).sample(rng) for _ in range(20)]
    studies = []
    for number, curvature in enumerate((3.0, 17.0, 90.0)):
        space = SearchSpace.inna(curvature=curvature)
        study = optuna.create_study(study_name=str(number))
        study.set_user_attr(CURVATURE, curvature)
        for place, setting in enumerate(pure):
            natural = {}
            for name, value in setting.items():
                law = space[name]
                if isinstance(law, Coordinate):
                    value = float(
                        f"{law.to_natural(law.at_curvature(1.0).to_pure(value, setting), natural):.6g}"
                    )
                natural[name] = value
            distributions = {name: space.distribution(name) for name in natural}
            study.add_trial(
                optuna.trial.create_trial(
                    params=natural, distributions=distributions, value=(place - number) ** 2.0
                )
            )
        studies.append(study)
    found = portfolio(studies, 10)
    places = [(round(math.log(s["alpha"]), 2), round(math.log(s["beta"]), 2)) for s in found]
    assert len(found) > 1
    assert len(set(places)) == len(places)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_the_shipped_priors_have_a_portfolio_and_say_what_they_were_learned_from(task):
    prior = Prior.shipped(task)
    assert len(prior.provenance["studies"]) == 5
    assert 3 <= len(prior.portfolio) <= 8
    space, first = prior.at(40.0)
    assert list(space) == list(SearchSpace.inna(curvature=40.0))
    for setting in first:
        for name, value in setting.items():
            distribution = space.distribution(name)
            assert distribution._contains(distribution.to_internal_repr(value))


def test_a_task_without_a_shipped_prior_is_named():
    with pytest.raises(ValueError, match="task='ranking'"):
        Prior.shipped("ranking")

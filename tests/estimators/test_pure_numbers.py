"""step_ratio, friction and damping: numbers that mean the same on every table, beside lr, alpha and beta."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV

from inna_tune import InnaClassifier, InnaRegressor, InnaSearchCV, load
from inna_tune.engine import CrossEntropy, Member, MemberResult, Method, Pinball, SquaredError
from inna_tune.engine.calibrating import settings_at, usual_friction
from inna_tune.estimators.pure import usual_numbers
from inna_tune.optim.dynamics import is_stable, pure_numbers, settings_from_curvature
from inna_tune.optim.optimizers import PURE
from inna_tune.plots.plane import alpha_beta_plane
from inna_tune.records.record import StudyRecord
from inna_tune.records.wording import describe_trial
from inna_tune.space import LogNormal, SearchSpace
from inna_tune.space.coordinates import Coordinate

X, Y = make_classification(90, 5, random_state=0, flip_y=0.2)
TABLES = [X, 1000 * X**3]
OWN = {"hidden_layer_sizes": (4,), "max_epochs": 2, "n_members": 1, "random_state": 0}
NETS = [InnaClassifier(**OWN), InnaRegressor(**OWN)]
STEPS = ("lr", "alpha", "beta")
both = pytest.mark.parametrize("net", NETS, ids=lambda net: type(net).__name__)

ratios = st.floats(0.05, 50)
frictions = st.floats(0.01, 4)
dampings = st.floats(0.01, 4)
curvatures = st.floats(1e-3, 1e5)
naturals = st.one_of(st.none(), st.floats(0.01, 10))


def steps_of(model):
    return [model.members_[0][name] for name in STEPS]


def at(curvature, *, lr=None, alpha=None, beta=None, steps=1000, **numbers):
    """Settings of one member by the engine, in double precision."""
    member = Member(np.arange(2), np.arange(0), 0, **numbers)
    given_ = {"lr": [lr], "alpha": [alpha], "beta": [beta]}
    column = torch.tensor([[curvature]], dtype=torch.float64)
    found = settings_at(column, [member], given_, [steps], loss=CrossEntropy(), method=Method())
    return [float(found[name]) for name in STEPS]


@given(curvatures, ratios, frictions, dampings)
def test_three_numbers_are_the_closed_form_and_its_inverse(curvature, ratio, friction, damping):
    assume(friction < 1.99 * damping)
    lr, alpha, beta = at(curvature, step_ratio=ratio, friction=friction, damping=damping)
    root = math.sqrt(curvature)
    assert alpha / root == pytest.approx(friction)
    assert (alpha / root + beta * root) / 2 == pytest.approx(damping)
    closed = settings_from_curvature(
        curvature, scaled_alpha=friction, damping_ratio=damping, stable_step_ratio=ratio
    )
    assert [lr, alpha, beta] == pytest.approx(closed, rel=1e-9)
    # What is stable at the ratio's curvature, and at all less; the flattest ask for αγ < 2.
    assert is_stable(alpha, beta, 0.999 * lr, ratio * curvature)
    if alpha * lr < 1.99:
        beyond = ratio * curvature
        assert not is_stable(alpha, beta, 1.001 * lr, beyond) or alpha * lr * 1.001 >= 2


@given(curvatures, ratios, naturals, naturals)
def test_the_ratio_is_of_the_friction_and_damping_in_use(curvature, ratio, alpha, beta):
    lr, alpha, beta = at(curvature, step_ratio=ratio, alpha=alpha, beta=beta)
    assert is_stable(alpha, beta, 0.999 * lr, ratio * curvature)
    if lr * alpha < 1.99:
        assert not is_stable(alpha, beta, 1.001 * lr, ratio * curvature)


@given(curvatures, frictions, st.floats(0.01, 10))
def test_friction_goes_with_any_beta(curvature, friction, beta):
    _, alpha, found = at(curvature, friction=friction, beta=beta)
    assert (alpha / math.sqrt(curvature), found) == pytest.approx((friction, beta))


@given(curvatures, naturals, naturals, naturals)
def test_without_any_of_them_what_is_open_is_what_it_was(curvature, lr, alpha, beta):
    usual = settings_from_curvature(curvature, scaled_alpha=CrossEntropy.scaled_alpha)
    found = at(curvature, lr=lr, alpha=alpha, beta=beta)
    wanted = [u if own is None else own for own, u in zip((lr, alpha, beta), usual, strict=True)]
    assert found == pytest.approx(wanted, rel=1e-14)


@given(st.integers(0, 10**6), st.one_of(st.none(), dampings))
def test_friction_falls_with_the_steps_of_an_epoch_between_two_numbers_of_the_loss(steps, damping):
    for loss, many, few in (
        (CrossEntropy(), 0.06, 0.24),
        (SquaredError(), 0.03, 0.06),
        (Pinball((0.5,)), 0.06, 0.06),
    ):
        found = usual_friction(loss, steps, damping)
        assert usual_friction(loss, steps + 1, damping) <= found
        assert many <= found <= few
        if damping is None:
            assert found == few or found * steps >= 0.999 * 32 * many
            assert found == many or found * steps <= 1.001 * 32 * many
        else:
            assert found < 2 * damping or found == many


@both
def test_the_usual_numbers_are_what_auto_means(net):
    plain = clone(net).fit(X, Y)
    friction = usual_numbers(net, steps=1)["friction"]
    for numbers in (
        {"step_ratio": 2.0},
        {"friction": friction},
        {"damping": 0.75},
        {"step_ratio": 2.0, "friction": friction, "damping": 0.75},
    ):
        assert steps_of(clone(net).set_params(**numbers).fit(X, Y)) == steps_of(plain)


@both
def test_the_same_numbers_on_every_table(net):
    """And they are those that the fitted settings have at the curvature that was measured."""
    wanted = {"step_ratio": 1.5, "friction": 0.3, "damping": 0.9}
    curvature = []
    for table in TABLES:
        model = clone(net).set_params(**wanted).fit(table, Y)
        member = model.members_[0]
        curvature.append(member["curvature"])
        found = pure_numbers(*steps_of(model), member["curvature"])
        assert (found.stable_step_ratio, found.scaled_alpha, found.damping_ratio) == pytest.approx(
            tuple(wanted.values()), rel=1e-6
        )
    assert curvature[0] != curvature[1]


@both
@pytest.mark.parametrize("pure", PURE)
def test_a_number_beside_its_natural_counterpart_is_refused(net, pure):
    model = clone(net).set_params(**{pure: 0.7, PURE[pure]: 0.5})
    with pytest.raises(ValueError, match=rf"{pure}=0.7 and {PURE[pure]}=0.5 are given"):
        model.fit(X, Y)
    assert not hasattr(model, "n_features_in_")


@both
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"friction": 1.5}, r"friction=1.5 must be below twice damping=0.75, its usual value"),
        ({"friction": 1.0, "damping": 0.5}, r"friction=1.0 must be below twice damping=0.5 or"),
        ({"damping": 0.01}, r"its usual value, must be below twice damping=0.01"),
        ({"damping": 0.5, "alpha": 0.1}, r"give friction in place of alpha, or beta in place of damping"),
        ({"step_ratio": 1.0, "optimizer": "adamw"}, r"step_ratio=1.0: optimizer='adamw' does not step by"),
        ({"friction": 0.1, "optimizer": "sgd"}, r"friction=0.1: optimizer='sgd' takes step_ratio alone"),
        ({"damping": 0.5, "optimizer": torch.optim.Adam}, r"damping=0.5: optimizer=<class .*Adam'>"),
    ],
)
def test_numbers_that_do_not_go_together_are_refused_before_training(net, settings, words):
    model = clone(net).set_params(**settings)
    with pytest.raises(ValueError, match=words):
        model.fit(X, Y)
    with pytest.raises(ValueError, match=words):
        InnaSearchCV(model, n_trials=1, cv=2).fit(X, Y)
    assert not hasattr(model, "n_features_in_")


def test_sgd_takes_the_ratio():
    """The largest step of heavy ball that is stable at curvature λ is 2(1 + μ)/λ (Polyak, 1964)."""
    net = InnaClassifier(**OWN, optimizer="sgd", optimizer_params={"momentum": 0.5})
    for ratio in (0.5, 2.0):
        member = clone(net).set_params(step_ratio=ratio).fit(X, Y).members_[0]
        assert member["lr"] == pytest.approx(2 * 1.5 / (ratio * member["curvature"]))
    assert clone(net).fit(X, Y).members_[0]["lr"] == member["lr"]


@both
def test_a_step_that_was_asked_for_is_not_shortened(net):
    """As a natural one: that it diverges is what a foreign search has to learn. An automatic step would be."""
    told = {}
    for numbers in ({"step_ratio": 1e-12}, {"lr": 1e6}, {"friction": 1e-3}):
        model = clone(net).set_params(**numbers)
        diverged = [MemberResult(None, 0, math.inf, 1, "diverged", 1.0, 1.0, 1.0, 1.0)]
        told[next(iter(numbers))] = model._retried([Member(np.arange(2), np.arange(0), 0)], diverged)
    assert (told["step_ratio"], told["lr"]) == ([], [])
    assert told["friction"][0].lr == 0.25


@both
def test_who_goes_on_takes_the_numbers_at_the_curvature_of_the_beginning(net):
    model = clone(net).set_params(step_ratio=3.0, friction=0.1).partial_fit(X, Y)
    before, curvature = steps_of(model), model.members_[0]["curvature"]
    assert steps_of(model.partial_fit(X, Y)) == before
    model.set_params(step_ratio=1.0).partial_fit(X, Y)
    found = pure_numbers(*steps_of(model), model.members_[0]["curvature"])
    assert model.members_[0]["curvature"] == curvature
    assert found.stable_step_ratio == pytest.approx(1.0, rel=1e-5)
    warm = clone(net).set_params(damping=0.6, warm_start=True).fit(X, Y)
    before = steps_of(warm)
    assert steps_of(warm.fit(X, Y)) == before


@both
def test_a_curvature_that_nobody_measured_is_measured_when_it_is_asked_for(net):
    model = clone(net).set_params(lr=0.05, alpha=0.5, beta=0.1).partial_fit(X, Y)
    assert model.members_[0]["curvature"] is None
    model.set_params(lr="auto", step_ratio=2.0).partial_fit(X, Y)
    member = model.members_[0]
    assert pure_numbers(*steps_of(model), member["curvature"]).stable_step_ratio == pytest.approx(2, rel=1e-4)


@both
def test_they_are_parameters_like_others(net, tmp_path):
    model = clone(net).set_params(step_ratio=3.0, friction=0.1, damping=0.6)
    assert clone(model).get_params() == model.get_params()
    assert copy.deepcopy(model).friction == 0.1
    assert "friction=0.1" in repr(model)
    model.fit(X, Y).save(tmp_path / "net.inna")
    again = load(tmp_path / "net.inna")
    assert {name: getattr(again, name) for name in PURE} == {n: getattr(model, n) for n in PURE}
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    assert steps_of(again.partial_fit(X, Y)) == pytest.approx(steps_of(model), rel=1e-6)


def test_files_of_models_without_them_are_those_of_versions_without_them(tmp_path):
    from safetensors import safe_open

    InnaClassifier(**OWN).fit(X, Y).save(tmp_path / "net.inna")
    with safe_open(tmp_path / "net.inna", framework="pt") as file:
        written = file.metadata()["model"]
    assert not [name for name in (*PURE, "eval_metric", "n_jobs") if f'"{name}"' in written]


# ---------------------------------------------------------------------- searches


def test_foreign_searches_find_all_they_need():
    space = SearchSpace.inna(pure=True)
    assert not any(isinstance(entry, Coordinate) for entry in space.values())
    search = RandomizedSearchCV(NETS[0], space.to_scipy(), n_iter=3, cv=2, random_state=0).fit(X, Y)
    assert {*PURE, "dropout", "weight_decay", "decay"} == set(search.best_params_)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    grid = GridSearchCV(NETS[1], {"step_ratio": [1.0, 4.0], "friction": [0.05, 0.2]}, cv=2).fit(X, Y)
    assert np.isfinite(grid.cv_results_["mean_test_score"]).all()


@pytest.mark.parametrize(
    "name", [n for n, e in SearchSpace.inna(pure=True).items() if n not in ("decay", "decay_power")]
)
def test_the_distributions_are_those_of_the_laws(name):
    law = SearchSpace.inna(pure=True)[name]
    found = SearchSpace.inna(pure=True).to_scipy()[name]
    for each in (found, copy.deepcopy(found), found()):
        drawn = each.rvs(size=2000, random_state=0)
        assert law.low <= drawn.min() < drawn.max() <= law.high
        assert stats.kstest(drawn, law.cdf).pvalue > 1e-3
    x = law.ppf(0.3)
    assert (found.cdf(x), found.pdf(x)) == pytest.approx((0.3, math.exp(law.log_pdf(x))))


def test_any_configuration_of_the_shipped_laws_is_taken():
    space, rng = SearchSpace.inna(pure=True), np.random.default_rng(0)
    for _ in range(200):
        InnaClassifier(**space.sample(rng))._check_parameters()
    corners = {n: (space[n].low, space[n].high) for n in PURE}
    InnaClassifier(friction=corners["friction"][1], damping=corners["damping"][0])._check_parameters()


def test_laws_that_hang_on_each_other_are_no_distributions():
    with pytest.raises(ValueError, match=r"alpha: its law is over scaled friction.*inna\(pure=True\)"):
        SearchSpace.inna(curvature=3.0).to_scipy()
    with pytest.raises(ValueError, match="pure numbers are the same at every curvature"):
        SearchSpace.inna(curvature=3.0, pure=True)


def test_the_pure_priors_are_those_at_a_curvature():
    pure, natural = SearchSpace.inna(pure=True), SearchSpace.inna(curvature=7.0)
    assert {name: natural[PURE[name]].law for name in PURE} == {name: pure[name] for name in PURE}


@both
@pytest.mark.parametrize(
    ("fixed", "searched"),
    [
        ({"friction": 0.1}, {"damping", "step_ratio"}),
        ({"friction": 1.2}, {"damping", "step_ratio"}),
        ({"damping": 0.2}, {"friction", "step_ratio"}),
        ({"step_ratio": 3.0}, {"friction", "damping"}),
        ({"step_ratio": 3.0, "alpha": 0.1}, {"beta"}),
        ({"friction": 0.1, "damping": 0.5, "step_ratio": 3.0}, set()),
    ],
)
def test_a_search_leaves_what_the_estimator_fixes_and_searches_the_others(net, fixed, searched):
    model = clone(net).set_params(**fixed)
    search = InnaSearchCV(model, n_trials=4, cv=2, random_state=0, population=2).fit(X, Y)
    for trial in search.study_.trials:
        assert set(trial.params) & {*PURE, *STEPS} == searched
    best = search.best_estimator_.get_params()
    assert {name: best[name] for name in fixed} == fixed
    if not set(fixed) & set(STEPS):
        first = search.study_.trials[0].params
        usual = usual_numbers(clone(net).set_params(**fixed), steps=1)
        space = StudyRecord(search.study_).space
        for name in searched:
            assert first[name] == min(max(usual[name], space[name].low), space[name].high)


def test_a_trial_of_pure_numbers_is_what_cross_validation_gives():
    from sklearn.model_selection import cross_val_score

    space = SearchSpace({n: SearchSpace.inna(pure=True)[n] for n in PURE})
    search = InnaSearchCV(NETS[0], space, n_trials=3, cv=2, random_state=0, scoring="neg_log_loss").fit(X, Y)
    for params, value in zip(
        search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True
    ):
        if not np.isnan(value):
            own = cross_val_score(clone(NETS[0]).set_params(**params), X, Y, cv=2, scoring="neg_log_loss")
            assert own.mean() == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "space", "words"),
    [
        (
            {"lr": 0.1},
            {"step_ratio": LogNormal(2, 1, low=0.1, high=9)},
            "'step_ratio', which sets lr, and so",
        ),
        ({"friction": 0.1}, {"alpha": LogNormal(2, 1, low=0.1, high=9)}, "'alpha', and friction=0.1"),
        (
            {},
            {"beta": LogNormal(2, 1, low=1, high=9), "damping": LogNormal(2, 1, low=1, high=9)},
            "'damping', which",
        ),
    ],
)
def test_a_space_that_sets_a_thing_twice_is_refused(settings, space, words):
    search = InnaSearchCV(InnaClassifier(**OWN, **settings), SearchSpace(space), n_trials=1)
    with pytest.raises(ValueError, match=words):
        search.fit(X, Y)


def test_a_study_of_pure_numbers_is_told_in_natural_ones_too():
    search = InnaSearchCV(
        NETS[0], SearchSpace.inna(pure=True), first="default", n_trials=4, cv=2, random_state=0
    ).fit(X, Y)
    search.study_.set_user_attr("inna_tune:curvature", 9.0)
    record = StudyRecord(search.study_)
    for trial in record.trials:
        numbers = {name: trial.params[name] for name in PURE}
        found = pure_numbers(**record.steps(trial), curvature=9.0)
        assert (found.stable_step_ratio, found.scaled_alpha, found.damping_ratio) == pytest.approx(
            (numbers["step_ratio"], numbers["friction"], numbers["damping"])
        )
        words = describe_trial(record, trial)
        assert f"damping ratio {numbers['damping']:.2g}" in words
        assert "friction" not in words.replace("too much friction", "")
    assert len(alpha_beta_plane(search).axes) >= 1

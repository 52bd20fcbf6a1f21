"""Pictures of a study: what every one of them keeps, and the numbers that they show."""

import itertools
import math

import matplotlib as mpl
import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Text
from scipy.stats import binomtest

from inna_tune import plots
from inna_tune.optim import is_stable
from inna_tune.plots.heldout import wilson
from inna_tune.plots.plane import stable_betas
from inna_tune.plots.priors import _with_needed, density, mass_levels
from inna_tune.plots.progress import expected_best
from inna_tune.plots.style import score_limits, shorten
from inna_tune.records.record import StudyRecord
from inna_tune.space import Categorical, LogNormal, SearchSpace, Uniform, When
from tests.plots.studies import LAMBDA, make_study

optuna.logging.set_verbosity(optuna.logging.WARNING)

OF_TRIALS = [
    plots.best_so_far,
    plots.learning_curves,
    plots.alpha_beta_plane,
    plots.importances,
    plots.slices,
    plots.decay_laws,
    plots.rungs_and_pruning,
]
OF_ROWS = [plots.column_importances, plots.confusion_matrix, plots.calibration, plots.residuals]
EVERY = OF_TRIALS + OF_ROWS
name_of = lambda f: f.__name__  # noqa: E731


@pytest.fixture(scope="module")
def study():
    return make_study(60, running=2)


@pytest.fixture(scope="module")
def numbers():
    return make_study(30, task="regression")


def random_state():
    return np.random.get_state()[1].tolist()  # noqa: NPY002


def draw(function, study, numbers):
    return function(numbers if function is plots.residuals else study)


@pytest.mark.parametrize("function", EVERY, ids=name_of)
def test_a_picture_has_a_title_labelled_axes_and_words(function, study, numbers):
    figure = draw(function, study, numbers)
    assert isinstance(figure, Figure)
    assert figure.get_suptitle()
    assert len(figure.get_label().split()) > 5
    for axes in figure.axes:
        if axes.axison and axes.get_visible() and axes.get_label() != "<colorbar>":
            assert axes.get_ylabel() or axes.get_yticklabels(), axes
    assert any(a.get_xlabel() for a in figure.axes)
    figure.draw_without_rendering()


@pytest.mark.parametrize("function", EVERY, ids=name_of)
def test_a_picture_leaves_the_process_as_it_was(function, study, numbers):
    before, state = dict(mpl.rcParams), random_state()
    draw(function, study, numbers)
    assert dict(mpl.rcParams) == before
    assert random_state() == state
    import matplotlib.pyplot as plt

    assert plt.get_fignums() == []


@pytest.mark.parametrize("function", EVERY, ids=name_of)
def test_nothing_to_plot_is_said(function):
    empty = optuna.create_study(direction="maximize")
    with pytest.raises(plots.NothingToPlotError):
        function(empty)


@pytest.mark.parametrize("function", OF_TRIALS, ids=name_of)
def test_a_study_of_one_trial_and_a_record_will_do(function):
    one = make_study(1, held_out=False)
    if function is plots.importances:
        with pytest.raises(plots.NothingToPlotError, match="10 complete trials"):
            function(one)
    else:
        function(StudyRecord(one)).draw_without_rendering()


@pytest.mark.parametrize("function", OF_TRIALS, ids=name_of)
def test_texts_of_strangers_are_drawn_as_they_are(function):
    wild = r"$\frac{x$ <script>" + "\x00\ud800"
    study = optuna.create_study(direction="minimize", study_name="plain")

    def objective(trial):
        trial.suggest_categorical(wild, [wild, "b"])
        trial.suggest_categorical("decay", ["power"])
        trial.report(1.0, 1)
        return trial.suggest_float("alpha", 0.1, 1) * trial.suggest_float("beta", 0.1, 1, log=True)

    study.optimize(objective, n_trials=12)
    figure = function(study)
    figure.draw_without_rendering()
    texts = {text.get_text() for text in figure.findobj(Text)}
    # But for what cannot be drawn.
    assert (r"$\frac{x$ <script>" in texts) == (function in (plots.importances, plots.slices))


def test_whoever_is_no_study_of_one_objective_is_refused():
    with pytest.raises(TypeError, match=r"optuna\.Study"):
        plots.best_so_far("study")
    with pytest.raises(ValueError, match="2 objectives"):
        plots.best_so_far(optuna.create_study(directions=["minimize", "maximize"]))
    with pytest.raises(ValueError, match="n_best=0"):
        plots.learning_curves(make_study(2), n_best=0)
    with pytest.raises(ValueError, match="'gamma' is in no trial"):
        plots.slice_of(make_study(2), "gamma")


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=5), st.integers(0, 2))
def test_the_flat_expectation_is_the_mean_over_all_orders(scores, without):
    total = len(scores) + without
    trials = [float(s) for s in scores] + [math.nan] * without
    after = np.arange(1, total + 1)
    mean, low, high = expected_best(np.array(scores, float), total, after)
    for n in after:
        bests = [min(seen) for o in itertools.permutations(trials) if (seen := [s for s in o[:n] if s == s])]
        assert mean[n - 1] == pytest.approx(np.mean(bests))
        assert low[n - 1] <= mean[n - 1] + 1e-9
        assert high[n - 1] >= mean[n - 1] - 1e-9 or np.mean(np.array(bests) <= high[n - 1]) >= 0.9


def test_the_flat_expectation_of_thousands_is_finite_and_falls():
    scores = np.random.default_rng(0).normal(size=4000)
    mean, low, high = expected_best(scores, 5000, np.arange(1, 5001, 100))
    assert np.isfinite([mean, low, high]).all()
    assert (np.diff(mean) < 1e-12).all()
    assert (low <= high).all()


@given(st.floats(0.01, 5), st.floats(0.01, 3), st.floats(0.1, 100), st.floats(0.001, 5))
def test_the_edge_of_stability_is_where_the_step_says(alpha, lr, curvature, beta):
    low, high = (float(v[0]) for v in stable_betas(np.array([alpha]), lr, curvature))
    if min(abs(beta - low), abs(beta - high)) > 1e-6:
        assert bool(is_stable(alpha, beta, lr, curvature)) == (low < beta < high)


def test_contours_hold_the_share_that_they_say():
    x = np.linspace(-5, 5, 200)
    normal = np.exp(-(x[:, None] ** 2 + x[None, :] ** 2) / 2)
    for level, share in zip(mass_levels(normal, (0.9, 0.5)), (0.9, 0.5), strict=True):
        assert normal[normal >= level].sum() / normal.sum() == pytest.approx(share, abs=0.01)
        # Of the two-dimensional normal law: 1 - exp(-r²/2) lies within r.
        assert level == pytest.approx(1 - share, rel=0.02)


@pytest.mark.parametrize("name", ["alpha", "beta", "lr", "decay_power", "weight_decay", "dropout"])
def test_a_density_is_one_in_all(name):
    space = SearchSpace.inna(curvature=LAMBDA)
    kind = space.distribution(name)
    log = kind.log
    grid = np.geomspace(kind.low, kind.high, 4000) if log else np.linspace(kind.low, kind.high, 4000)
    found = density(space, name, grid, log=log)
    total = np.trapezoid(found, np.log(grid) if log else grid)
    assert total == pytest.approx(1.0, abs=0.03)


def test_a_density_is_that_of_what_a_parameter_hangs_on():
    """Its condition and what it depends on, and nothing else that is in the space."""
    laws = SearchSpace.inna(curvature=20.0)
    needed = {"kind": Categorical(["a", "b"]), "alpha": laws["alpha"], "beta": laws["beta"]}
    needed |= {"lr": When("kind", ["a"], laws["lr"])}
    others = {"dropout": laws["dropout"], **needed, "wave": Uniform(0.0, 1.0)}
    grid = np.geomspace(1e-3, 10.0, 50)
    found = density(SearchSpace(needed), "lr", grid, log=True)
    assert found.max() > 0.1
    assert np.array_equal(density(SearchSpace(others), "lr", grid, log=True), found)


def test_a_density_agrees_with_draws():
    space = SearchSpace.inna(curvature=LAMBDA)
    rng = np.random.default_rng(1)
    drawn = np.array([space.sample(rng)["beta"] for _ in range(4000)])
    grid = np.geomspace(space.distribution("beta").low, space.distribution("beta").high, 500)
    found = density(space, "beta", grid, log=True)
    cumulative = np.cumsum(found) / found.sum()
    middle = grid[np.searchsorted(cumulative, 0.5)]
    assert np.mean(drawn < middle) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(("hits", "rows"), [(0, 10), (3, 17), (17, 17), (50, 120)])
def test_intervals_are_wilsons(hits, rows):
    low, high = wilson(np.array([hits / rows]), [rows])
    exact = binomtest(hits, rows).proportion_ci(method="wilson")
    assert (low[0], high[0]) == pytest.approx((exact.low, exact.high), abs=1e-4)


def test_importance_is_where_the_score_depends_on_it():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(
        lambda t: t.suggest_float("strong", 0, 1) ** 2 + 0 * t.suggest_float("idle", 0, 1), n_trials=80
    )
    found = plots.importances_of(study)
    assert list(found) == ["strong", "idle"]
    assert sum(found.values()) == pytest.approx(1.0)
    assert found["strong"] > 0.8


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.booleans())
def test_limits_show_the_best_and_the_median(scores, lower):
    study = optuna.create_study(direction="minimize" if lower else "maximize")
    low, high = score_limits(scores, StudyRecord(study))
    best = min(scores) if lower else max(scores)
    assert low < high
    assert low <= best <= high
    assert low <= np.median(scores) <= high


def test_long_and_unprintable_texts_are_cut():
    assert shorten("a" * 50, 10) == "a" * 9 + "…"
    assert shorten("a\x00b\nc\ud800") == "a b c"


def test_a_parameter_under_a_condition_is_drawn_with_what_it_hangs_on():
    law = LogNormal(0.1, 2.0, low=0.01, high=1.0)
    space = SearchSpace({"kind": Categorical(["a", "b"]), "other": law, "step": When("kind", ["a"], law)})
    assert list(_with_needed(space, "step")) == ["kind", "step"]

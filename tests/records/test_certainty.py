"""How sure a comparison is: intervals cover as often as they say, and pairing by rows counts."""

import math

import numpy as np
import pytest

from inna_tune.records.certainty import Gain, interval, relative_change, resample_log_means


def test_the_change_is_that_of_the_means():
    assert relative_change([1.0, 3.0], [1.0, 1.0]).change == pytest.approx(-0.5)
    assert relative_change([4.0, 4.0], [1.0, 1.0], root=True).change == pytest.approx(-0.5)


@pytest.mark.parametrize("root", [False, True])
def test_the_interval_covers_the_true_change_in_19_of_20_tables(root):
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(500):
        common = rng.gamma(2.0, size=300)
        before, after = common * rng.gamma(2.0, size=300), 0.8 * common * rng.gamma(2.0, size=300)
        gain = relative_change(before, after, root=root)
        covered += gain.low <= (0.8**0.5 if root else 0.8) - 1 <= gain.high
    assert 0.92 <= covered / 500 <= 0.98


def lucky(rng, *, change, rows, n_folds, luck):
    """Losses on held-out rows and on folds of two settings, each training with luck of its own."""

    def losses(n):
        common, one, other = rng.gamma(2.0, size=n), rng.lognormal(sigma=luck), rng.lognormal(sigma=luck)
        return one * common * rng.gamma(8.0, size=n), change * other * common * rng.gamma(8.0, size=n)

    folds = [[part.mean() for part in losses(rows)] for _ in range(n_folds)]
    return *losses(rows), tuple(zip(*folds, strict=True))


@pytest.mark.parametrize("n_folds", [2, 3, 5])
@pytest.mark.parametrize("luck", [0.0, 0.02, 0.3])
def test_the_interval_counts_the_luck_of_both_trainings(n_folds, luck):
    rng = np.random.default_rng(1)
    covered = alone = 0
    for _ in range(400):
        before, after, folds = lucky(rng, change=0.9, rows=200, n_folds=n_folds, luck=luck)
        gain = relative_change(before, after, folds=folds)
        covered += gain.low <= 0.9 - 1 <= gain.high
        rows = relative_change(before, after)
        assert gain.change == rows.change
        assert gain.low <= rows.low
        assert gain.high >= rows.high
        alone += rows.low <= 0.9 - 1 <= rows.high
    assert covered / 400 >= 0.93
    assert (alone / 400 < 0.5) == (luck == 0.3)


def test_folds_that_differ_in_nothing_leave_the_interval_of_the_rows():
    b, a = np.random.default_rng(0).gamma(2.0, size=(2, 100))
    assert relative_change(b, a, folds=([1.0, 2.0], [2.0, 4.0])) == relative_change(b, a)


@pytest.mark.parametrize(
    "folds", [([1.0], [2.0]), ([1.0, 0.0], [1.0, 1.0]), ([1.0, 2.0], [1.0, 2.0, 3.0]), ([1.0, np.nan],) * 2]
)
def test_losses_on_folds_that_tell_nothing_are_refused(folds):
    with pytest.raises(ValueError, match="at least two"):
        relative_change([1.0, 2.0], [1.0, 3.0], folds=folds)


@pytest.mark.parametrize("n_nets", [2, 4, 8])
@pytest.mark.parametrize("luck", [0.0, 0.1, 1.0])
def test_the_interval_counts_the_luck_of_the_nets_of_both_models(n_nets, luck):
    """Nets that predict a noisy target with noise of their own, and models that average them."""
    rng = np.random.default_rng(2)
    covered = alone = 0
    # What is expected of averages of so many nets: the noise of the target, and a part of the nets' own.
    n_rows, noise = 100, 1.0
    for _ in range(300):
        truth = rng.normal(size=(1, n_rows))

        def losses(predicted, truth=truth):
            return ((predicted - truth) ** 2).reshape(-1, n_rows)

        # A shift of a whole net is luck that no row evens out.
        nets = luck * rng.normal(size=(2, n_nets, 1)) + np.array([1.0, 0.5])[:, None, None]
        whole = [losses(own.mean(0)) for own in nets]
        without = [[losses(np.delete(own, k, 0).mean(0)).mean() for k in range(n_nets)] for own in nets]
        expected = [noise + shift**2 + luck**2 / n_nets for shift in (1.0, 0.5)]
        true = expected[1] / expected[0] - 1
        gain = relative_change(whole[0][0], whole[1][0], without=tuple(without))
        rows = relative_change(whole[0][0], whole[1][0])
        covered += gain.low <= true <= gain.high
        alone += rows.low <= true <= rows.high
        assert gain.low <= rows.low
        assert gain.high >= rows.high
    assert covered / 300 >= 0.93
    assert (alone / 300 < 0.9) == (luck > 0)


def test_nets_that_make_no_difference_leave_the_interval_of_the_rows():
    b, a = np.random.default_rng(0).gamma(2.0, size=(2, 100))
    assert relative_change(b, a, without=([1.0, 1.0], [2.0, 2.0])) == relative_change(b, a)


@pytest.mark.parametrize(
    "without", [([1.0], [2.0, 1.0]), ([1.0, 0.0], [1.0, 1.0]), ([1.0, 2.0], [np.nan, 1.0])]
)
def test_losses_without_nets_that_tell_nothing_are_refused(without):
    with pytest.raises(ValueError, match="at least two"):
        relative_change([1.0, 2.0], [1.0, 3.0], without=without)


def test_one_fit_is_as_lucky_as_those_of_another_model():
    losses = np.random.default_rng(0).exponential(size=(1, 500))
    fits = {"a": losses * np.array([[0.8], [1.0], [1.2]]), "b": losses}
    without, with_luck = resample_log_means(fits), resample_log_means(fits, like={"b": "a"})
    assert with_luck["b"].std() > 3 * without["b"].std()
    assert with_luck["b"].std() > 1.3 * with_luck["a"].std()


def test_what_has_no_ratio_has_no_gain():
    assert relative_change([0.0, 0.0], [1.0, 1.0]) is None
    assert relative_change([1.0, 1.0], [0.0, 0.0]) is None
    assert relative_change([1.0], [2.0]) is None
    assert relative_change([1.0, np.inf], [2.0, 1.0]) is None
    with pytest.raises(ValueError, match="one loss a row"):
        relative_change([1.0, 2.0], [1.0])


def test_clear_is_what_excludes_no_change():
    assert Gain(-0.1, -0.2, -0.01).is_clear
    assert Gain(0.1, 0.01, 0.2).is_clear
    assert not Gain(-0.1, -0.2, 0.01).is_clear


def test_the_interval_of_a_mean_is_that_of_the_normal_law_where_there_are_many_rows():
    losses = np.random.default_rng(0).exponential(size=(1, 2000))
    low, high = interval(np.exp(resample_log_means({"a": losses})["a"]), 0.95)
    error = losses.std(ddof=1) / math.sqrt(2000)
    assert low == pytest.approx(losses.mean() - 1.96 * error, abs=0.3 * error)
    assert high == pytest.approx(losses.mean() + 1.96 * error, abs=0.3 * error)


def test_models_that_differ_by_a_factor_differ_by_it_in_every_draw():
    losses = np.random.default_rng(0).exponential(size=(1, 60))
    drawn = resample_log_means({"a": losses, "b": 2 * losses})
    np.testing.assert_allclose(drawn["b"] - drawn["a"], math.log(2))


def test_luck_of_trainings_widens_the_interval():
    losses = np.random.default_rng(0).exponential(size=(1, 500))
    lucky = losses * np.array([[0.5], [1.0], [1.5]])
    drawn = resample_log_means({"one": losses, "lucky": lucky})
    assert drawn["lucky"].std() > 3 * drawn["one"].std()


def test_two_lots_of_equally_lucky_trainings_are_rarely_told_apart():
    rng = np.random.default_rng(1)
    told = 0
    for seed in range(100):
        rows = rng.exponential(size=80)
        luck = {name: rows * rng.lognormal(sigma=0.2, size=(5, 1)) for name in "ab"}
        drawn = resample_log_means(luck, n_draws=500, seed=seed)
        low, high = interval(drawn["a"] - drawn["b"], 0.95)
        told += not low <= 0 <= high
    assert told <= 8


def test_many_rows_go_in_pieces():
    losses = {"a": np.ones((2, 3_000_000))}
    np.testing.assert_allclose(resample_log_means(losses, n_draws=3)["a"], 0.0, atol=1e-12)


@pytest.mark.parametrize(
    "losses", [{"a": np.ones((1, 3)), "b": np.ones((1, 4))}, {"a": np.ones((1, 0))}, {"a": np.ones(3)}]
)
def test_losses_of_other_shapes_are_refused(losses):
    with pytest.raises(ValueError, match="n_fits, n_samples"):
        resample_log_means(losses)

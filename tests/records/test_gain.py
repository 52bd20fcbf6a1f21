"""What tuning bought, and how sure that is."""

import numpy as np
import pytest

from inna_tune.records.gain import Gain, relative_change


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

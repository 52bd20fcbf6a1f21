"""How sure a comparison of losses on the same rows is: the rows might have been others, and the trainings luckier."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

Z_95 = 1.96  # two-sided 95% of the normal law
_DRAWS = 4000
_LARGEST = 700.0  # logarithm of a ratio that a float holds
_CHUNK = 4_000_000  # row weights held at once


@dataclass(frozen=True)
class Gain:
    """How one model's loss compares with another's on the same rows.

    Attributes
    ----------
    change : float
        Relative change of the mean loss: -0.1 is a tenth less.
    low, high : float
        95% interval of the change.
    """

    change: float
    low: float
    high: float

    @classmethod
    def of_logs(cls, change: float, low: float, high: float) -> Self:
        """From logarithms of the ratio of the losses."""
        return cls(*(math.expm1(min(each, _LARGEST)) for each in (change, low, high)))

    @property
    def is_clear(self) -> bool:
        """Whether the interval excludes no change."""
        return self.low > 0 or self.high < 0


def relative_change(
    before: npt.ArrayLike,
    after: npt.ArrayLike,
    *,
    root: bool = False,
    folds: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    without: Sequence[npt.ArrayLike] | None = None,
) -> Gain | None:
    r"""Relative change of a mean loss, by the losses of the same rows under two models.

    The interval is that of the delta method for the logarithm of a ratio of means: with :math:`d_i = a_i/\bar a - b_i/\bar b`
    its standard error is that of the mean of :math:`d_i`. It holds for rows that are alike and independent, some dozens of
    them at least.

    Another training, by another seed, would have other losses on the very same rows. Losses of the same two settings on folds
    tell how much: the logarithm of their ratio on one fold is as lucky as the one that is asked for. Half an interval of that,
    by the folds' standard deviation and Student's law, is added to half the interval of the rows, in squares. As folds
    differ by their rows, too, that counts the rows' luck twice; by the degrees of freedom of Welch and Satterthwaite
    instead, 95% intervals from two or three folds covered 92%.

    Of a model that averages several nets their losses one by one would say too much: what such a mean loses without each of
    them tells how lucky it is (the jackknife, Quenouille 1956, Tukey 1958). Half an interval of each model's, by Student's law,
    is added in the same way. Of four tables, twelve seeds each, the standard error that this says of a default fit was .019,
    .016, .065 and .39, where seeds made .019, .015, .11 and .25, and single nets said .038, .033, .13 and .55.

    Parameters
    ----------
    before, after : array of shape [n_samples]
        Losses of the rows, at least 0.
    root : bool, default=False
        Whether to compare the roots of the means, as of squared errors for the RMSE.
    folds : pair of arrays of shape [n_folds], optional
        Positive mean losses on the folds, before and after, roots of them where roots are compared; two folds at least. None:
        the interval is of the rows alone.
    without : pair of arrays of shapes [n_nets], optional
        Positive mean losses on these very rows without each of the nets that a model averages, before and after, roots of them
        where roots are compared; two of each at least. In place of ``folds``.

    Returns
    -------
    Gain or None
        None where a mean is 0 or not finite, or there are fewer than two rows.

    Raises
    ------
    ValueError
        If the shapes differ, or losses on folds, or without nets, are fewer than two or not positive.

    Examples
    --------
    >>> relative_change([1.0, 2.0, 3.0], [0.5, 1.0, 1.5]).change
    -0.5
    """
    b, a = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if b.shape != a.shape or b.ndim != 1:
        raise ValueError(f"before and after have shapes {b.shape} and {a.shape}; give one loss a row of each")
    if len(b) < 2:
        return None
    mean_b, mean_a = float(b.mean()), float(a.mean())
    if not (0 < mean_b < math.inf and 0 < mean_a < math.inf):
        return None
    power = 0.5 if root else 1.0
    log_ratio = power * math.log(mean_a / mean_b)
    error = power * float((a / mean_a - b / mean_b).std(ddof=1)) / math.sqrt(len(b))
    half = Z_95 * error
    if folds is not None:
        from scipy.stats import t  # half of what is loaded to look at a study, if it were loaded at once

        half = math.hypot(half, float(t.ppf(0.975, np.size(folds[0]) - 1)) * _spread(*folds))
    if without is not None:
        from scipy.stats import t

        half = math.hypot(
            half, *(float(t.ppf(0.975, np.size(each) - 1)) * _jackknife_error(each) for each in without)
        )
    return Gain.of_logs(log_ratio, log_ratio - half, log_ratio + half)


def _spread(before: npt.ArrayLike, after: npt.ArrayLike) -> float:
    """Standard deviation, over folds, of the logarithm of the ratio of losses."""
    b, a = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if b.shape != a.shape or b.ndim != 1 or len(b) < 2 or not (np.isfinite([b, a]).all() and min(*b, *a) > 0):
        raise ValueError(
            f"folds={(before, after)!r} must be two lists of as many positive losses, at least two"
        )
    return float(np.log(a / b).std(ddof=1))


def _jackknife_error(without: npt.ArrayLike) -> float:
    """Standard error of the logarithm of a loss, by what it is without each of the nets."""
    losses = np.asarray(without, dtype=np.float64)
    if losses.ndim != 1 or len(losses) < 2 or not (np.isfinite(losses).all() and losses.min() > 0):
        raise ValueError(f"without={without!r} must be positive losses, at least two")
    return float(np.log(losses).std(ddof=1)) * (len(losses) - 1) / math.sqrt(len(losses))


def resample_log_means(
    losses: Mapping[str, Floats],
    *,
    like: Mapping[str, str] | None = None,
    n_draws: int = _DRAWS,
    seed: int = 0,
) -> dict[str, Floats]:
    """Logarithms of mean losses as they might as well have come out.

    The rows that were held out are drawn again with replacement, in each draw the same for all models (the bootstrap). To the
    logarithm of a model's mean over its fits comes the error of that mean, drawn from Student's law with n_fits - 1 degrees of
    freedom: differences between two models are then those of the Behrens-Fisher problem. Drawing again from the few fits
    would be too sure of itself; two models as good as each other, with five fits of different luck each, were told apart at
    95% in 22 of 100 cases.

    Parameters
    ----------
    losses : mapping of str to array of shape [n_fits, n_samples]
        Positive. The samples are the same for all. A model with one fit counts as one that knows no luck.
    like : mapping of str to str, optional
        Of models with one fit, those that are as lucky: their fits tell the error of that one.
    n_draws : int
    seed : int

    Returns
    -------
    dict of str to ndarray of shape [n_draws]
        Differences between two models are logarithms of ratios, whose quantiles are intervals.

    Raises
    ------
    ValueError
        If there are no losses, or the numbers of samples differ.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> drawn = resample_log_means({"a": rng.exponential(size=(3, 50)), "b": np.ones((1, 50))})
    >>> bool(drawn["a"].std() > 0.1), bool(drawn["b"].std() < 1e-9)
    (True, True)
    """
    widths = {values.shape[-1] for values in losses.values()}
    if len(widths) != 1 or not min(widths) or any(v.ndim != 2 or not len(v) for v in losses.values()):
        shapes = {name: values.shape for name, values in losses.items()}
        raise ValueError(f"losses have shapes {shapes}; give arrays [n_fits, n_samples] of the same samples")
    (n_rows,) = widths
    rng = np.random.default_rng(seed)
    stacked = np.concatenate([np.asarray(values, dtype=np.float64) for values in losses.values()])
    step = max(1, _CHUNK // n_rows)
    means = []
    for begin in range(0, n_draws, step):
        counts = rng.multinomial(n_rows, np.full(n_rows, 1 / n_rows), size=min(step, n_draws - begin))
        means.append(counts @ stacked.T / n_rows)
    of_fits = np.concatenate(means)
    found, start = {}, 0
    for name, values in losses.items():
        n_fits = len(values)
        found[name] = np.log(of_fits[:, start : start + n_fits].mean(axis=1))
        other = losses[(like or {}).get(name, name)] if n_fits == 1 else values
        if len(other) > 1:
            error = np.log(other.mean(axis=1)).std(ddof=1) / math.sqrt(n_fits)
            found[name] += error * rng.standard_t(len(other) - 1, size=n_draws)
        start += n_fits
    return found


def interval(draws: Floats, confidence: float) -> tuple[float, float]:
    """Two-sided percentile interval of draws.

    Parameters
    ----------
    draws : array of shape [n_draws]
    confidence : float
        In (0, 1).

    Examples
    --------
    >>> import numpy as np
    >>> [round(end, 6) for end in interval(np.arange(101.0), 0.9)]
    [5.0, 95.0]
    """
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)

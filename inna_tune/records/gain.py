"""What tuning bought on held-out rows, with how sure that is."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_Z = 1.96  # two-sided 95% of the normal law


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

    @property
    def is_clear(self) -> bool:
        """Whether the interval excludes no change."""
        return self.low > 0 or self.high < 0


def relative_change(before: npt.ArrayLike, after: npt.ArrayLike, *, root: bool = False) -> Gain | None:
    r"""Relative change of a mean loss, by the losses of the same rows under two models.

    The interval is that of the delta method for the logarithm of a ratio of means: with :math:`d_i = a_i/\bar a - b_i/\bar b`
    its standard error is that of the mean of :math:`d_i`. It holds for rows that are alike and independent, some dozens of
    them at least.

    Parameters
    ----------
    before, after : array of shape [n_samples]
        Losses of the rows, at least 0.
    root : bool, default=False
        Whether to compare the roots of the means, as of squared errors for the RMSE.

    Returns
    -------
    Gain or None
        None where a mean is 0 or not finite, or there are fewer than two rows.

    Raises
    ------
    ValueError
        If the shapes differ.

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
    low, middle, high = (math.expm1(log_ratio + step * error) for step in (-_Z, 0.0, _Z))
    return Gain(middle, low, high)

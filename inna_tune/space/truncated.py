"""Laws from the textbooks, conditioned on bounds: normal, log-normal and beta."""

import math
from abc import abstractmethod
from dataclasses import KW_ONLY, dataclass
from functools import cached_property

import numpy as np
from scipy import special

from inna_tune.space.laws import LOG_ROOT_TWO_PI, Array, Continuous, Real, register


class _Truncated(Continuous):
    """A law on the whole line, or half of it, conditioned on the bounds.

    The upper half of a distribution function has few digits left: where the bounds lie there, the complement is
    used instead, so that a law conditioned on its own far tail stays exact.
    """

    @abstractmethod
    def _whole(self, x: Array, *, upper: bool) -> Real:
        """Distribution function of the law before truncation, or its complement."""

    @abstractmethod
    def _whole_inverse(self, q: Array, *, upper: bool) -> Real: ...

    @abstractmethod
    def _whole_log_pdf(self, x: Array) -> Real: ...

    @cached_property
    def _cut(self) -> tuple[bool, float, float]:
        """Whether the complement is used, its value at `low`, and the signed mass between the bounds."""
        ends = np.array([self.low, self.high])
        upper = bool(self._whole(ends[:1], upper=False)[0] > 0.5)
        at_low, at_high = self._whole(ends, upper=upper)
        return upper, float(at_low), float(at_high - at_low)

    def _check_mass(self) -> None:
        # Below this the double-precision mass has lost digits to underflow.
        if not abs(self._cut[2]) > 1e-280:
            raise ValueError(
                f"{self!r} has an empty support: no weight between low and high; move the law or widen the bounds"
            )

    def _cdf(self, x: Array) -> Real:
        upper, at_low, mass = self._cut
        return (self._whole(x, upper=upper) - at_low) / mass

    def _ppf(self, q: Array) -> Real:
        upper, at_low, mass = self._cut
        return self._whole_inverse(np.clip(at_low + q * mass, 0.0, 1.0), upper=upper)

    def _log_pdf(self, x: Array) -> Real:
        return self._whole_log_pdf(x) - math.log(abs(self._cut[2]))


@dataclass(frozen=True)
class Normal(_Truncated):
    """The normal law of given mean and standard deviation, conditioned on the bounds.

    Parameters
    ----------
    mean, std : float
        Mean and standard deviation before truncation; `std` positive.
    low, high : float
        Bounds, given by name.
    """

    mean: float
    std: float
    _: KW_ONLY
    low: float
    high: float

    def __post_init__(self) -> None:
        self._number("mean")
        self._number("std", positive=True)
        self._check_bounds()
        self._check_mass()

    def _whole(self, x: Array, *, upper: bool) -> Real:
        z = (x - self.mean) / self.std
        return special.ndtr(-z if upper else z)

    def _whole_inverse(self, q: Array, *, upper: bool) -> Real:
        z = special.ndtri(q)
        return self.mean + self.std * (-z if upper else z)

    def _whole_log_pdf(self, x: Array) -> Real:
        return -0.5 * ((x - self.mean) / self.std) ** 2 - math.log(self.std) - LOG_ROOT_TWO_PI


@dataclass(frozen=True)
class LogNormal(_Truncated):
    """The law of a positive number whose logarithm is normal, conditioned on the bounds.

    Parameters
    ----------
    median : float
        Median before truncation.
    sigma : float
        Standard deviation of the natural logarithm: 0.7 is a factor of two either way.
    low, high : float
        Bounds, positive, given by name.
    """

    median: float
    sigma: float
    _: KW_ONLY
    low: float
    high: float

    def __post_init__(self) -> None:
        self._number("median", positive=True)
        self._number("sigma", positive=True)
        self._check_bounds()
        self._check_mass()

    @property
    def log(self) -> bool:
        return True

    def _standardized(self, x: Array) -> Real:
        return np.log(x / self.median) / self.sigma

    def _whole(self, x: Array, *, upper: bool) -> Real:
        z = self._standardized(x)
        return special.ndtr(-z if upper else z)

    def _whole_inverse(self, q: Array, *, upper: bool) -> Real:
        z = special.ndtri(q)
        # The clip keeps the exponential of an infinite quantile quiet; the bounds cut it off anyway.
        return self.median * np.exp(np.clip(self.sigma * (-z if upper else z), -700.0, 700.0))

    def _whole_log_pdf(self, x: Array) -> Real:
        return -0.5 * self._standardized(x) ** 2 - math.log(self.sigma) - LOG_ROOT_TWO_PI - np.log(x)


@dataclass(frozen=True)
class Beta(_Truncated):
    """The beta law, stretched from [0, 1] to the bounds.

    Parameters
    ----------
    a, b : float
        The exponents of the density plus one, both positive: the mean is ``a / (a + b)`` of the way from `low` to `high`.
    low, high : float, default=0.0 and 1.0
        Bounds, given by name.
    """

    a: float
    b: float
    _: KW_ONLY
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        self._number("a", positive=True)
        self._number("b", positive=True)
        self._check_bounds()

    def _whole(self, x: Array, *, upper: bool) -> Real:
        share = np.asarray(self.flat_cdf(x))
        return (special.betaincc if upper else special.betainc)(self.a, self.b, share)

    def _whole_inverse(self, q: Array, *, upper: bool) -> Real:
        # NOTE: scipy gives NaN for some q below 3e-105, where the answer is the bound to all digits that matter.
        share = (special.betainccinv if upper else special.betaincinv)(
            self.a, self.b, np.where(q < 1e-100, 0.0, q)
        )
        return np.asarray(self.flat_ppf(share))

    def _whole_log_pdf(self, x: Array) -> Real:
        share = np.asarray(self.flat_cdf(x))
        powers = special.xlogy(self.a - 1, share) + special.xlog1py(self.b - 1, -share)
        return powers - special.betaln(self.a, self.b) - math.log(self.high - self.low)


register(Normal, LogNormal, Beta)

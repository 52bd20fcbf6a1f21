"""What a law is: a probability law over one hyper-parameter, on bounds and with a scale; and the flat ones.

Every law of numbers lives on ``[low, high]`` and has a scale, linear or logarithmic, from which its flat
counterpart follows: uniform, or uniform in the logarithm. A law is a frozen value: compared by its fields, printed
as its constructor, written to JSON as a plain dict.
"""

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from numbers import Real as RealNumber
from typing import Any, ClassVar, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, FloatDistribution

Real: TypeAlias = Any
"""A float, or an array of floats; what goes in as a float comes out as one."""

Array: TypeAlias = NDArray[np.float64]

LOG_ROOT_TWO_PI = 0.5 * math.log(2 * math.pi)


class Law(ABC):
    """A probability law over one hyper-parameter.

    Besides its own distribution function a law gives the *mixture* ``weight · law + (1 - weight) · flat``, which is
    what `PriorSampler` samples by: `places` and `mixture_ppf` are its two halves.

    A space holds laws over natural values, and coordinates, whose laws are over pure numbers; what it asks of both has the
    same names, and here pure number and natural value are one.
    """

    depends: ClassVar[tuple[str, ...]] = ()
    """Parameters whose values must be known to tell a pure number from a natural value."""

    @property
    def pure(self) -> "Law":
        """Law of the pure number."""
        return self

    def to_natural(self, pure: Any, before: Mapping[str, Any]) -> Any:
        """The natural value of a pure number, given the parameters before it."""
        return pure

    def to_pure(self, value: Any, before: Mapping[str, Any]) -> Any:
        """The pure number of a natural value, given the parameters before it."""
        return value

    def at_curvature(self, curvature: float) -> "Law":
        """The same law on a data set of another curvature."""
        return self

    @abstractmethod
    def cdf(self, x: Any) -> Real:
        """Probability of a value at or below `x` (for a `Categorical`: of `x` and the choices before it)."""

    @abstractmethod
    def ppf(self, q: Real) -> Any:
        """Smallest value whose `cdf` is at least `q`.

        Raises
        ------
        ValueError
            If `q` is not within [0, 1].
        """

    @abstractmethod
    def log_pdf(self, x: Any) -> Real:
        """Log density at `x`, or log probability for a law of separate values; -inf outside the support."""

    @abstractmethod
    def places(self, x: Any) -> tuple[float, float]:
        """Where one value lies in (0, 1) by the law and by its flat counterpart.

        A separate value is placed within its cell, so that ``mixture_ppf`` of the places' mixture gives it back.
        """

    @abstractmethod
    def mixture_ppf(self, u: float, weight: float) -> Any:
        """Quantile `u` of the mixture ``weight · law + (1 - weight) · flat``."""

    @abstractmethod
    def log_ratio(self, x: Any) -> float:
        """Log of the law's density at `x` over that of its flat counterpart."""

    @property
    @abstractmethod
    def distribution(self) -> BaseDistribution:
        """What Optuna stores of the law: bounds, step and scale, or the choices."""

    def sample(self, rng: np.random.Generator, size: int | tuple[int, ...] | None = None) -> Any:
        """Draw from the law: one value, or an array (a list for a `Categorical`) of the given size."""
        return self.ppf(rng.random(size))

    def to_json(self) -> dict[str, Any]:
        """Write the law as a plain dict: its name under ``"law"``, and its fields."""
        names = [f.name for f in fields(self)]  # type: ignore[arg-type]  # every concrete law is a dataclass
        return {"law": type(self).__name__, **{name: _to_plain(getattr(self, name)) for name in names}}

    def __getstate__(self) -> dict[str, Any]:
        # Without what was computed on the way, so that a law that was used still has the joblib.hash of a new one.
        names = [f.name for f in fields(self)]  # type: ignore[arg-type]
        return {name: getattr(self, name) for name in names}

    @staticmethod
    def from_json(data: Any) -> "Law":
        """Read a law written by `to_json`.

        Raises
        ------
        ValueError
            If the law is unknown, a field is unknown or missing, or a value makes no law.
        """
        if not isinstance(data, dict) or not isinstance(name := data.get("law"), str):
            raise ValueError(f'a law is a JSON object with a "law" key, got {data!r}')
        if name not in LAWS:
            raise ValueError(f"unknown law {name!r}; known are {', '.join(LAWS)}")
        law: Law = read_fields(LAWS[name], data, "law")
        return law


def read_fields(kind: type[Any], data: dict[str, Any], key: str) -> Any:
    """Build a frozen value from a dict that holds exactly its fields, besides its name under `key`."""
    known, given = [f.name for f in fields(kind)], data.keys() - {key}
    if unknown := sorted(given - set(known)):
        raise ValueError(f"{kind.__name__} has no {', '.join(unknown)}; it takes {', '.join(known)}")
    if missing := [name for name in known if name not in given]:
        raise ValueError(f"{kind.__name__} lacks {', '.join(missing)}; it takes {', '.join(known)}")
    return kind(**{name: _from_plain(data[name]) for name in known})


def _to_plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_to_plain(item) for item in value]
    return value.to_json() if isinstance(value, Law) else value


def _from_plain(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_from_plain(item) for item in value)
    return Law.from_json(value) if isinstance(value, dict) else value


def lower(value: Any) -> Real:
    """An array of no dimension as a number, any other as it is."""
    if isinstance(value, float):
        return float(value)
    return value.item() if np.ndim(value) == 0 else value


def probabilities(q: Real) -> Array:
    """Checked to lie within [0, 1]."""
    array = np.asarray(q, dtype=np.float64)
    if not ((array >= 0) & (array <= 1)).all():
        raise ValueError(f"q={q!r} must lie within [0, 1]")
    return array


def quiet_log(value: Array) -> Real:
    """Logarithm that is -inf at 0 without a warning."""
    with np.errstate(divide="ignore"):
        return np.log(value)


def _clip(x: Any, low: float, high: float) -> Any:
    """`numpy.clip` for numbers in order, many times as quick on single ones."""
    if isinstance(x, float):
        return x if low <= x <= high else np.float64(low if x < low else high if x > high else x)
    return np.minimum(np.maximum(x, low), high)


def _numbers(x: Any) -> Real:
    """One number as NumPy's, which is quicker than an array of no dimension; any others as an array."""
    return np.float64(x) if isinstance(x, float) else np.asarray(x, dtype=np.float64)


def is_finite(value: Any) -> bool:
    """Whether a value is a real number that a float holds, bools excepted."""
    if isinstance(value, bool) or not isinstance(value, RealNumber):
        return False
    number: Any = value
    return bool(abs(number) <= sys.float_info.max)


class Continuous(Law):
    """A law over an interval of real numbers, ``[low, high]``."""

    low: float
    high: float

    @property
    def log(self) -> bool:
        """Whether the scale is logarithmic."""
        return False

    def _number(self, name: str, *, positive: bool = False) -> float:
        """Check a field and store it as a float."""
        value = getattr(self, name)
        if not is_finite(value):
            raise ValueError(f"{type(self).__name__}: {name}={value!r} must be a finite number")
        if positive and value <= 0:
            raise ValueError(f"{type(self).__name__}: {name}={value!r} must be positive")
        object.__setattr__(self, name, float(value))
        return float(value)

    def _check_bounds(self) -> None:
        low, high = self._number("low"), self._number("high")
        if low >= high:
            raise ValueError(
                f"{type(self).__name__}: low={low!r} must be below high={high!r}; for one fixed value leave the "
                "parameter out of the space"
            )
        if self.log and low <= 0:
            raise ValueError(f"{type(self).__name__}: low={low!r} must be positive on a logarithmic scale")

    @abstractmethod
    def _cdf(self, x: Array) -> Real: ...

    @abstractmethod
    def _ppf(self, q: Array) -> Real: ...

    @abstractmethod
    def _log_pdf(self, x: Array) -> Real: ...

    def cdf(self, x: Any) -> Real:
        inside = _clip(_numbers(x), self.low, self.high)
        return lower(_clip(self._cdf(inside), 0.0, 1.0))

    def ppf(self, q: Real) -> Any:
        return lower(_clip(self._ppf(probabilities(q)), self.low, self.high))

    def log_pdf(self, x: Any) -> Real:
        x = np.asarray(x, dtype=np.float64)
        inside = (x >= self.low) & (x <= self.high)
        return lower(np.where(inside, self._log_pdf(np.clip(x, self.low, self.high)), -np.inf))

    def flat_cdf(self, x: Real) -> Real:
        """Place of `x` between the bounds, on the law's scale: 0 at `low`, 1 at `high`."""
        start, width = self._scale
        inside = _clip(_numbers(x), self.low, self.high)
        return lower(_clip(((np.log(inside) if self.log else inside) - start) / width, 0.0, 1.0))

    def flat_ppf(self, q: Real) -> Real:
        """Value at place `q` between the bounds, on the law's scale."""
        start, width = self._scale
        t = start + width * _numbers(q)
        return lower(_clip(np.exp(t) if self.log else t, self.low, self.high))

    @cached_property
    def _scale(self) -> tuple[float, float]:
        ends = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        return ends[0], ends[1] - ends[0]

    def log_ratio(self, x: Any) -> float:
        _, width = self._scale
        flat = -math.log(width) - (math.log(x) if self.log else 0.0)
        return float(self.log_pdf(x)) - flat

    def places(self, x: Any) -> tuple[float, float]:
        return self.cdf(x), self.flat_cdf(x)

    def mixture_ppf(self, u: float, weight: float) -> Any:
        if weight == 1:
            return self.ppf(u)
        return self.flat_ppf(self._solve(u, weight))

    def _ppf_by_search(self, q: Array) -> Array:
        places = [self._solve(value, 1.0) for value in q.ravel()]
        return np.asarray(self.flat_ppf(np.reshape(places, q.shape)))

    @cached_property
    def _grid(self) -> tuple[Array, Array]:
        """Places between the bounds, and the distribution function there: between which two a quantile lies."""
        places = np.linspace(0.0, 1.0, 1025)
        return places, np.asarray(self.cdf(self.flat_ppf(places)))

    def _solve(self, u: float, weight: float) -> float:
        """Place between the bounds at which the mixture of the law and its flat counterpart reaches `u`."""
        from scipy.optimize import brentq

        # Closer to the ends than rounding can tell, the quantile is the bound itself.
        if u <= 1e-16 or u >= 1 - 1e-15:
            return 1.0 if u > 0.5 else 0.0
        places, law = self._grid
        mixed = weight * law + (1 - weight) * places
        index = int(np.searchsorted(mixed, u))
        if not 0 < index < len(places):
            return 0.0 if index == 0 else 1.0
        low, high = float(places[index - 1]), float(places[index])
        # Brent's method asks for the ends again, and to its signs rounding must not give another answer than the grid.
        ends = {low: float(mixed[index - 1]) - u, high: float(mixed[index]) - u}

        def excess(place: float) -> float:
            if place in ends:
                return ends[place]
            return float(weight * self.cdf(self.flat_ppf(place)) + (1 - weight) * place - u)

        # Close to an end, where digits of `u` are few, more than the usual hundred iterations may be needed.
        return float(brentq(excess, low, high, xtol=1e-18, rtol=4 * np.finfo(float).eps, maxiter=2000))

    def widened(self, margin: float) -> Self:
        """The same law on bounds moved outwards."""
        return replace(self, low=self.low - margin, high=self.high + margin)  # type: ignore[type-var]

    @property
    def distribution(self) -> BaseDistribution:
        return FloatDistribution(self.low, self.high, log=self.log)


class _Flat(Continuous):
    def __post_init__(self) -> None:
        self._check_bounds()

    def _cdf(self, x: Array) -> Real:
        return np.asarray(self.flat_cdf(x))

    def _ppf(self, q: Array) -> Real:
        return np.asarray(self.flat_ppf(q))

    def _log_pdf(self, x: Array) -> Real:
        return -math.log(self._scale[1]) - (np.log(x) if self.log else np.zeros_like(x))

    def mixture_ppf(self, u: float, weight: float) -> Any:
        return self.flat_ppf(u)


@dataclass(frozen=True)
class Uniform(_Flat):
    """Every value between `low` and `high` alike.

    Parameters
    ----------
    low, high : float
        Bounds, finite.
    """

    low: float
    high: float


@dataclass(frozen=True)
class LogUniform(_Flat):
    """Every order of magnitude between `low` and `high` alike.

    Parameters
    ----------
    low, high : float
        Bounds, positive and finite.
    """

    low: float
    high: float

    @property
    def log(self) -> bool:
        return True


def check_weights(law: str, weights: Sequence[Any], count: int) -> tuple[float, ...]:
    """Weights as floats, checked to be `count` finite numbers, none negative, not all zero."""
    if len(weights) != count:
        raise ValueError(f"{law}: weights={weights!r} must have one weight for each of the {count} entries")
    for weight in weights:
        if not is_finite(weight) or weight < 0:
            raise ValueError(f"{law}: weights={weights!r} must be finite numbers, none negative")
    if not 0 < sum(weights) < math.inf:
        raise ValueError(f"{law}: weights={weights!r} must have a positive, finite sum")
    return tuple(float(weight) for weight in weights)


LAWS: dict[str, type[Law]] = {}
"""Every law by the name it has in JSON."""


def register(*laws: type[Law]) -> None:
    """Let JSON name these laws."""
    LAWS.update({law.__name__: law for law in laws})


register(Uniform, LogUniform)

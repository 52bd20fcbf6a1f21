"""Laws of separate values: a continuous law rounded to a grid, and weighted choices."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from inna_tune.space.laws import (
    Array,
    Continuous,
    Law,
    Real,
    check_weights,
    is_finite,
    lower,
    probabilities,
    quiet_log,
    register,
)


class _Rounded(Law):
    """A continuous law rounded to a grid that starts at its `low`.

    Half a step is added to the bounds first, so that the outermost values get as wide a cell as the others.
    """

    continuous: Continuous
    step: float

    def _check_grid(self) -> None:
        name = type(self).__name__
        if not isinstance(self.continuous, Continuous):
            raise ValueError(f"{name}: continuous={self.continuous!r} must be a continuous law")
        if not is_finite(self.step) or self.step <= 0:
            raise ValueError(f"{name}: step={self.step!r} must be a positive number")
        steps = (self.continuous.high - self.continuous.low) / self.step
        if abs(steps - round(steps)) > 1e-9 * max(steps, 1):
            raise ValueError(
                f"{name}: from low={self.continuous.low!r} to high={self.continuous.high!r} is no multiple of "
                f"step={self.step!r}; move a bound onto the grid"
            )
        try:
            _ = self._widened
        except ValueError as error:
            raise ValueError(
                f"{name}: half a step beyond its bounds {self.continuous!r} is no law: {error}"
            ) from None

    @cached_property
    def _widened(self) -> Continuous:
        return self.continuous.widened(self.step / 2)

    @property
    def low(self) -> float:
        """Lowest value."""
        return self.continuous.low

    @property
    def high(self) -> float:
        """Highest value."""
        return self.continuous.high

    def _index(self, x: Real) -> Array:
        last = round((self.continuous.high - self.continuous.low) / self.step)
        return np.clip(np.rint((np.asarray(x, dtype=np.float64) - self.continuous.low) / self.step), 0, last)

    def _value(self, index: Array) -> Real:
        return lower(
            np.clip(self.continuous.low + self.step * index, self.continuous.low, self.continuous.high)
        )

    def cdf(self, x: Any) -> Real:
        x = np.asarray(x, dtype=np.float64)
        # The tolerance keeps values that are on the grid but for their last digits.
        below = np.floor((x - self.continuous.low) / self.step + 1e-9)
        edge = self.continuous.low + (below + 0.5) * self.step
        return lower(
            np.where(below < 0, 0.0, np.where(x >= self.continuous.high, 1.0, self._widened.cdf(edge)))
        )

    def ppf(self, q: Real) -> Any:
        return self._value(self._index(self._widened.ppf(probabilities(q))))

    def log_pdf(self, x: Any) -> Real:
        x = np.asarray(x, dtype=np.float64)
        centre = np.asarray(self._value(self._index(x)))
        on_grid = np.abs(x - centre) <= 1e-9 * self.step
        mass = np.asarray(self._widened.cdf(centre + self.step / 2)) - self._widened.cdf(
            centre - self.step / 2
        )
        return lower(np.where(on_grid, quiet_log(mass), -np.inf))

    def log_ratio(self, x: Any) -> float:
        edges = np.asarray(self._value(self._index(x))) + self.step * np.array([-0.5, 0.5])
        flat = np.diff(self._widened.flat_cdf(edges))
        return float(self.log_pdf(x)) - math.log(flat[0])

    def places(self, x: Any) -> tuple[float, float]:
        return self._widened.places(self._value(self._index(x)))

    def mixture_ppf(self, u: float, weight: float) -> Any:
        return self._value(self._index(self._widened.mixture_ppf(u, weight)))


@dataclass(frozen=True)
class Stepped(_Rounded):
    """A continuous law rounded to multiples of `step` above its `low`.

    Parameters
    ----------
    continuous : Continuous
        The law before rounding; its bounds are those of the grid.
    step : float
        Distance between neighbours of the grid, positive.
    """

    continuous: Continuous
    step: float

    def __post_init__(self) -> None:
        self._check_grid()
        object.__setattr__(self, "step", float(self.step))

    @property
    def distribution(self) -> BaseDistribution:
        return FloatDistribution(self.continuous.low, self.continuous.high, step=self.step)


@dataclass(frozen=True)
class Integer(_Rounded):
    """A continuous law rounded to integers, or to every `step`-th of them above its `low`.

    Parameters
    ----------
    continuous : Continuous
        The law before rounding; its bounds are integers, and those of the grid.
    step : int, default=1
        Distance between neighbours of the grid, positive.
    """

    continuous: Continuous
    step: int = 1

    def __post_init__(self) -> None:
        self._check_grid()
        for name, value in (("step", self.step), ("low", self.low), ("high", self.high)):
            if value != int(value):
                raise ValueError(
                    f"Integer: {name}={value!r} must be an integer; for a finer grid use Stepped"
                )
        object.__setattr__(self, "step", int(self.step))

    def _value(self, index: Array) -> Any:
        values = (self.continuous.low + self.step * index).astype(np.int64)
        return lower(values)

    @property
    def distribution(self) -> BaseDistribution:
        log = self.continuous.log and self.step == 1
        return IntDistribution(int(self.continuous.low), int(self.continuous.high), log=log, step=self.step)


@dataclass(frozen=True)
class Categorical(Law):
    """One of several choices, each with its weight.

    Parameters
    ----------
    choices : sequence of None, bool, int, float or str
        An array will do; numpy's scalars become Python's.
    weights : sequence of float, optional
        One for each choice, equal by default; they need not sum to one.
    """

    choices: tuple[Any, ...]
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        given: Any = self.choices
        given = given.tolist() if isinstance(given, np.ndarray) else given
        if not isinstance(given, list | tuple) or not given:
            raise ValueError(f"Categorical: choices={self.choices!r} must be a list of one or more choices")
        choices = tuple(choice.item() if isinstance(choice, np.generic) else choice for choice in given)
        for index, choice in enumerate(choices):
            if not isinstance(choice, bool | int | float | str | None) or choice != choice:
                raise ValueError(f"Categorical: choice {choice!r} must be None, a bool, a number or a string")
            if choice in choices[:index]:
                raise ValueError(
                    f"Categorical: choice {choice!r} is given twice (Python holds True and 1 equal)"
                )
        object.__setattr__(self, "choices", choices)
        if self.weights is not None:
            object.__setattr__(self, "weights", check_weights("Categorical", self.weights, len(choices)))

    @cached_property
    def probabilities(self) -> Real:
        """Probability of each choice, shape [n_choices]."""
        weights = np.ones(len(self.choices)) if self.weights is None else np.array(self.weights)
        return weights / weights.sum()

    def index(self, choice: Any) -> int:
        """Position of a choice."""
        if choice not in self.choices:
            raise ValueError(f"{choice!r} is not one of the choices {self.choices!r}")
        return self.choices.index(choice)

    def _pick(self, probabilities: Array, q: Array) -> Any:
        # Not past the last choice of positive probability: the sum of all may fall short of one.
        last = np.flatnonzero(probabilities)[-1]
        picked = np.minimum(np.searchsorted(np.cumsum(probabilities), q), last)
        return self.choices[int(picked)] if picked.ndim == 0 else [self.choices[i] for i in picked.ravel()]

    def cdf(self, x: Any) -> Real:
        cumulative = np.minimum(np.cumsum(self.probabilities), 1.0)
        cumulative[-1] = 1.0
        if isinstance(x, list | np.ndarray):
            return cumulative[[self.index(choice) for choice in x]]
        return float(cumulative[self.index(x)])

    def ppf(self, q: Real) -> Any:
        return self._pick(self.probabilities, probabilities(q))

    def log_pdf(self, x: Any) -> Real:
        log_p = np.append(quiet_log(self.probabilities), -np.inf)
        if isinstance(x, list | np.ndarray):
            return np.array([self.log_pdf(choice) for choice in x])
        return float(log_p[self.choices.index(x) if x in self.choices else -1])

    def log_ratio(self, x: Any) -> float:
        return float(self.log_pdf(x)) + math.log(len(self.choices))

    def places(self, x: Any) -> tuple[float, float]:
        index, probabilities = self.index(x), self.probabilities
        return float(probabilities[:index].sum() + probabilities[index] / 2), (index + 0.5) / len(
            self.choices
        )

    def mixture_ppf(self, u: float, weight: float) -> Any:
        mixture = weight * self.probabilities + (1 - weight) / len(self.choices)
        return self._pick(mixture, np.asarray(u))

    @property
    def distribution(self) -> BaseDistribution:
        return CategoricalDistribution(self.choices)


register(Stepped, Integer, Categorical)

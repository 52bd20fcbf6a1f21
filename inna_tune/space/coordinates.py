"""Laws in pure coordinates: a prior over a number that means the same on every data set, seen as a natural value.

A coordinate maps between the two given the parameters chosen before it (a conditional, or Rosenblatt, transform).
The three here are those of INNA: time rescaled by the square root of the curvature λ̂ leaves the scaled friction
α̃ = α/√λ̂, the damping ratio ζ = (α/√λ̂ + β√λ̂)/2 and the stable-step ratio r, γ = γ_max(α, β, rλ̂).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from optuna.distributions import BaseDistribution, FloatDistribution

from inna_tune.optim.dynamics import largest_stable_step, tolerated_curvature
from inna_tune.space.laws import Continuous, Real, is_finite


@dataclass(frozen=True)
class Coordinate(ABC):
    """A law over a pure number, and its map to the natural value.

    Parameters
    ----------
    law : Continuous
        Law of the pure number.
    curvature : float
        Largest Hessian eigenvalue λ̂ at the initial weights; positive and finite.
    low, high : float
        Bounds of the natural value, the same in every trial of a study; what the map gives beyond is moved to them.
    """

    law: Continuous
    curvature: float
    low: float
    high: float

    depends: ClassVar[tuple[str, ...]] = ()
    words: ClassVar[str]
    """What the pure number is."""
    power: ClassVar[float]
    """Power of the curvature by which natural values grow: time goes with its inverse root."""

    def __post_init__(self) -> None:
        name = type(self).__name__
        if not isinstance(self.law, Continuous):
            raise ValueError(f"{name}: law={self.law!r} must be a continuous law")
        if not (is_finite(self.curvature) and self.curvature > 0):
            raise ValueError(f"{name}: curvature={self.curvature!r} must be positive and finite")
        if not (is_finite(self.low) and is_finite(self.high) and 0 < self.low < self.high):
            raise ValueError(
                f"{name}: low={self.low!r} and high={self.high!r} must be positive, low below high"
            )

    @property
    def pure(self) -> Continuous:
        """Law of the pure number."""
        return self.law

    def to_natural(self, pure: float, before: Mapping[str, Any]) -> float:
        """The natural value of a pure number, given the parameters before it; beyond the bounds the bound."""
        return min(max(self._natural(float(pure), before), self.low), self.high)

    @abstractmethod
    def _natural(self, pure: float, before: Mapping[str, Any]) -> float: ...

    @abstractmethod
    def to_pure(self, value: Real, before: Mapping[str, Any]) -> Real:
        """The pure number of a natural value, or an array of them, given the parameters before it."""

    def at_curvature(self, curvature: float) -> Self:
        """The same law of the pure number on a data set of another curvature."""
        factor = (curvature / self.curvature) ** self.power
        return replace(self, curvature=curvature, low=self.low * factor, high=self.high * factor)

    @property
    def distribution(self) -> BaseDistribution:
        """What Optuna stores."""
        return FloatDistribution(self.low, self.high, log=True)


@dataclass(frozen=True)
class ScaledFriction(Coordinate):
    """Viscous friction α = α̃√λ̂ by a law over α̃.

    Parameters
    ----------
    law : Continuous
        Law of α̃.
    curvature : float
        Largest Hessian eigenvalue λ̂ at the initial weights; positive and finite.
    low, high : float
        Bounds of α, the same in every trial of a study.
    """

    words: ClassVar[str] = "scaled friction α̃ = α/√λ̂"
    power: ClassVar[float] = 0.5

    def _natural(self, pure: float, before: Mapping[str, Any]) -> float:
        return pure * math.sqrt(self.curvature)

    def to_pure(self, value: Real, before: Mapping[str, Any]) -> Real:
        return value / math.sqrt(self.curvature)


@dataclass(frozen=True)
class DampingRatio(Coordinate):
    """Newtonian damping β = (2ζ − α/√λ̂)/√λ̂ by a law over ζ, given ``alpha``.

    Parameters
    ----------
    law : Continuous
        Law of ζ.
    curvature : float
        Largest Hessian eigenvalue λ̂ at the initial weights; positive and finite.
    low, high : float
        Bounds of β, the same in every trial of a study.
    """

    words: ClassVar[str] = "damping ratio ζ"
    depends: ClassVar[tuple[str, ...]] = ("alpha",)
    power: ClassVar[float] = -0.5

    def _natural(self, pure: float, before: Mapping[str, Any]) -> float:
        root = math.sqrt(self.curvature)
        return (2 * pure - float(before["alpha"]) / root) / root

    def to_pure(self, value: Real, before: Mapping[str, Any]) -> Real:
        root = math.sqrt(self.curvature)
        return (float(before["alpha"]) / root + value * root) / 2


@dataclass(frozen=True)
class StableStep(Coordinate):
    """Step size γ, the largest stable one at curvature rλ̂, by a law over r, given ``alpha`` and ``beta``.

    γ falls as r grows: r = 1 is the edge of stability at the initial weights, below 1 lies beyond it.

    Parameters
    ----------
    law : Continuous
        Law of r.
    curvature : float
        Largest Hessian eigenvalue λ̂ at the initial weights; positive and finite.
    low, high : float
        Bounds of γ, the same in every trial of a study.
    """

    words: ClassVar[str] = "stable-step ratio r"
    depends: ClassVar[tuple[str, ...]] = ("alpha", "beta")
    power: ClassVar[float] = -0.5

    def _natural(self, pure: float, before: Mapping[str, Any]) -> float:
        alpha, beta = before["alpha"], before["beta"]
        step = float(largest_stable_step(alpha, beta, pure * self.curvature))
        return min(step, 2 / alpha) if alpha > 0 else step

    def to_pure(self, value: Real, before: Mapping[str, Any]) -> Real:
        return tolerated_curvature(before["alpha"], before["beta"], value) / self.curvature


COORDINATES: dict[str, type[Coordinate]] = {
    kind.__name__: kind for kind in (ScaledFriction, DampingRatio, StableStep)
}

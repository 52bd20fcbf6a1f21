"""Laws made of other laws: weighted mixtures, and the kernel density of observed values."""

import math
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
from scipy import special

from inna_tune.space.laws import LOG_ROOT_TWO_PI, Array, Continuous, Real, check_weights, register


@dataclass(frozen=True)
class Mixture(Continuous):
    """Several laws, each with its weight.

    Its bounds span those of the laws; its scale is logarithmic if all of theirs are.

    Parameters
    ----------
    components : sequence of (weight, law)
        Weights need not sum to one. The laws are continuous; round the mixture, not its parts.
    """

    components: tuple[tuple[float, Continuous], ...]

    def __post_init__(self) -> None:
        try:
            components = [(weight, law) for weight, law in self.components]
        except (TypeError, ValueError):
            raise ValueError(f"Mixture: components={self.components!r} must be pairs (weight, law)") from None
        for _, law in components:
            if not isinstance(law, Continuous):
                raise ValueError(
                    f"Mixture: {law!r} is not a continuous law; wrap the mixture in Integer or Stepped"
                )
        weights = check_weights("Mixture", [weight for weight, _ in components], len(components))
        object.__setattr__(
            self, "components", tuple(zip(weights, (law for _, law in components), strict=True))
        )

    @cached_property
    def low(self) -> float:  # type: ignore[override]
        """Lowest value of any component."""
        return min(law.low for _, law in self.components)

    @cached_property
    def high(self) -> float:  # type: ignore[override]
        """Highest value of any component."""
        return max(law.high for _, law in self.components)

    @cached_property
    def log(self) -> bool:
        """Whether every component's scale is logarithmic."""
        return all(law.log for _, law in self.components)

    @cached_property
    def _shares(self) -> Real:
        weights = np.array([weight for weight, _ in self.components])
        return weights / weights.sum()

    def _cdf(self, x: Array) -> Real:
        parts = np.stack([law.cdf(x) for _, law in self.components], axis=-1)
        return parts @ self._shares

    def _ppf(self, q: Array) -> Real:
        return self._ppf_by_search(q)

    def _log_pdf(self, x: Array) -> Real:
        parts = np.stack([law.log_pdf(x) for _, law in self.components], axis=-1)
        with np.errstate(divide="ignore"):
            return special.logsumexp(parts, axis=-1, b=self._shares)

    def widened(self, margin: float) -> Self:
        return replace(
            self, components=tuple((weight, law.widened(margin)) for weight, law in self.components)
        )


@dataclass(frozen=True)
class Empirical(Continuous):
    """Kernel density of observed values, such as the best settings of past studies.

    Parameters
    ----------
    values : sequence of float
        Observed values, within the bounds.
    bandwidth : float, optional
        Standard deviation of the normal kernels, of the logarithm if `log`. By default Silverman's rule of thumb,
        but no less than 2% of the width of the bounds.
    weights : sequence of float, optional
        One for each value, equal by default.
    low, high : float
        Each kernel is conditioned on them, so that no weight leaks out at the edges.
    log : bool, default False
        Whether the scale is logarithmic.

    References
    ----------
    Silverman (1986). Density Estimation for Statistics and Data Analysis, eq. 3.31.
    """

    values: tuple[float, ...]
    _: KW_ONLY
    low: float
    high: float
    bandwidth: float | None = None
    weights: tuple[float, ...] | None = None
    log: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.log, bool):
            raise ValueError(f"Empirical: log={self.log!r} must be true or false")
        self._check_bounds()
        values = np.asarray(self.values, dtype=np.float64)
        if values.ndim != 1 or not values.size or not ((values >= self.low) & (values <= self.high)).all():
            raise ValueError(
                f"Empirical: values must be one or more numbers within low={self.low!r} and high={self.high!r}, "
                f"got {self.values!r}"
            )
        object.__setattr__(self, "values", tuple(values.tolist()))
        if self.bandwidth is not None:
            self._number("bandwidth", positive=True)
        if self.weights is not None:
            object.__setattr__(self, "weights", check_weights("Empirical", self.weights, values.size))

    @cached_property
    def _shares(self) -> Real:
        weights = np.ones(len(self.values)) if self.weights is None else np.array(self.weights)
        return weights / weights.sum()

    @cached_property
    def _kernels(self) -> tuple[Array, float, Array, Array]:
        """Centres, bandwidth, and each kernel's distribution function at `low` and mass between the bounds."""
        centres = np.log(self.values) if self.log else np.array(self.values)
        start, width = self._scale
        bandwidth = self.bandwidth
        if bandwidth is None:
            spread = float(np.sqrt(np.cov(centres, aweights=self._shares))) if centres.size > 1 else 0.0
            quartiles = np.quantile(centres, [0.25, 0.75], method="inverted_cdf", weights=self._shares)
            between = float(quartiles[1] - quartiles[0]) / 1.34
            effective = 1 / float((self._shares**2).sum())
            bandwidth = max(0.9 * min(spread, between or spread) * effective**-0.2, 0.02 * width)
        at_low = special.ndtr((start - centres) / bandwidth)
        return centres, bandwidth, at_low, special.ndtr((start + width - centres) / bandwidth) - at_low

    def _standardized(self, x: Array) -> Real:
        centres, bandwidth, *_ = self._kernels
        return ((np.log(x) if self.log else x)[..., None] - centres) / bandwidth

    def _cdf(self, x: Array) -> Real:
        *_, at_low, mass = self._kernels
        return (special.ndtr(self._standardized(x)) - at_low) / mass @ self._shares

    def _ppf(self, q: Array) -> Real:
        return self._ppf_by_search(q)

    def _log_pdf(self, x: Array) -> Real:
        _, bandwidth, _, mass = self._kernels
        z = self._standardized(x)
        density = special.logsumexp(-0.5 * z**2, axis=-1, b=self._shares / mass)
        return density - math.log(bandwidth) - LOG_ROOT_TWO_PI - (np.log(x) if self.log else 0.0)


register(Mixture, Empirical)

"""Priors in the words of others: distributions of scipy, which scikit-learn's searches draw from."""

from typing import Any

import numpy as np
from scipy.stats import rv_continuous

from inna_tune.space.coordinates import Coordinate
from inna_tune.space.discrete import Categorical
from inna_tune.space.laws import Continuous, Law


class LawDistribution(rv_continuous):  # type: ignore[misc]
    """A law over numbers between bounds as a distribution of scipy.

    Parameters
    ----------
    law : Continuous
    """

    def __init__(self, law: Continuous) -> None:
        super().__init__(a=law.low, b=law.high, name=type(law).__name__)
        self.law = law

    def _updated_ctor_param(self) -> dict[str, Any]:
        # What scipy makes a copy by.
        return {"law": self.law}

    def __reduce__(self) -> Any:
        return type(self), (self.law,)

    def _cdf(self, x: Any) -> Any:
        return np.asarray(self.law.cdf(x))

    def _ppf(self, q: Any) -> Any:
        return np.asarray(self.law.ppf(q))

    def _logpdf(self, x: Any) -> Any:
        return np.asarray(self.law.log_pdf(x))

    def _pdf(self, x: Any) -> Any:
        return np.exp(self._logpdf(x))


class SeparateDistribution:
    """A law of separate numbers, as far as a search asks: it can be drawn from.

    Parameters
    ----------
    law : Law
    """

    def __init__(self, law: Law) -> None:
        self.law = law

    def rvs(self, random_state: Any = None) -> Any:
        """One value."""
        from sklearn.utils import check_random_state

        return self.law.ppf(float(check_random_state(random_state).uniform()))


def scipy_distribution(name: str, law: Law | Coordinate) -> Any:
    """A law in the words of scipy; see `inna_tune.space.SearchSpace.to_scipy`.

    Raises
    ------
    ValueError
        If it is over a pure number.
    """
    if isinstance(law, Coordinate):
        raise ValueError(
            f"{name}: its law is over {law.words}, whose values hang on each other; take SearchSpace.inna(pure=True)"
        )
    if isinstance(law, Categorical):
        return list(law.choices)
    return LawDistribution(law) if isinstance(law, Continuous) else SeparateDistribution(law)

"""Do the best trials of a study lie where the priors said they would?"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

MISLEADING = "inna_tune:misleading_priors"
"""User attribute of a study: parameters whose priors mislead, and the evidence for it."""

# Fewer trials, or winners, say nothing yet: of three winners at least one lies off by chance.
_MIN_TRIALS = 10
_MIN_WINNERS = 3


def n_winners(n_complete: int) -> int:
    """A tenth of the complete trials, three at least; none while there are fewer than ten."""
    return 0 if n_complete < _MIN_TRIALS else max(_MIN_WINNERS, math.ceil(n_complete / 10))


def median_log_ratios(ratios: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Median over the winners of log prior(x) - log flat(x), for each parameter that at least three of them have.

    Below zero, the prior said that the winners would lie elsewhere.

    Notes
    -----
    The median counts the winners as one observation, since a sampler that has found a good region goes on drawing there, and
    one winner far out, of a parameter that does not matter, accuses nobody.
    Settings drawn by the prior lie where it is high, so that the evidence speaks for the prior too often, never against it.
    """
    names = dict.fromkeys(name for own in ratios for name in own)
    found = {name: [own[name] for own in ratios if name in own] for name in names}
    return {name: float(np.median(values)) for name, values in found.items() if len(values) >= _MIN_WINNERS}


def is_misleading(evidence: float) -> bool:
    """Whether the winners are less likely than under the flat law by a factor of e².

    A parameter that does not matter has winners anywhere, at some of which a wide prior is lower than the flat law, too.
    """
    return evidence < -2.0


def misleading_text(evidence: Mapping[str, Any]) -> str:
    """The user attribute in words; empty if no prior misleads."""
    if not evidence:
        return ""
    parts = ", ".join(f"{name} ({math.exp(-float(e)):.3g} times)" for name, e in evidence.items())
    return f"The best trials are less likely under the prior than without one, so its weight was lowered: {parts}"

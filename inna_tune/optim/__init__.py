"""INNA, its relatives, decay laws and closed-form dynamics. Knows torch only."""

from inna_tune.optim.inna import INNA

__all__ = ["INNA"]

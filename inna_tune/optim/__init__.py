"""INNA, its relatives, decay laws and closed-form dynamics. Knows torch only."""

from inna_tune.optim.inna import INNA
from inna_tune.optim.innaprop import INNAprop

__all__ = ["INNA", "INNAprop"]

"""Priors and search spaces. Knows optuna, scipy and the closed forms of ``optim.dynamics``."""

from inna_tune.space.coordinates import Coordinate, DampingRatio, ScaledFriction, StableStep
from inna_tune.space.discrete import Categorical, Integer, Stepped
from inna_tune.space.laws import Law, LogUniform, Uniform
from inna_tune.space.learn import learn, portfolio
from inna_tune.space.mixtures import Empirical, Mixture
from inna_tune.space.prior import Prior, PriorFileError
from inna_tune.space.sampler import PriorSampler
from inna_tune.space.space import SearchSpace, When
from inna_tune.space.truncated import Beta, LogNormal, Normal

__all__ = [
    "Beta",
    "Categorical",
    "Coordinate",
    "DampingRatio",
    "Empirical",
    "Integer",
    "Law",
    "LogNormal",
    "LogUniform",
    "Mixture",
    "Normal",
    "Prior",
    "PriorFileError",
    "PriorSampler",
    "ScaledFriction",
    "SearchSpace",
    "StableStep",
    "Stepped",
    "Uniform",
    "When",
    "learn",
    "portfolio",
]

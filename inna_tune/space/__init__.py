"""Priors and search spaces. Knows optuna, scipy and the closed forms of ``optim.dynamics``."""

from inna_tune.space.coordinates import Coordinate, DampingRatio, ScaledFriction, StableStep
from inna_tune.space.discrete import Categorical, Integer, Stepped
from inna_tune.space.learn import Prior, PriorFileError, learn, portfolio
from inna_tune.space.mixtures import Empirical, Mixture
from inna_tune.space.priors import Law, LogUniform, Uniform
from inna_tune.space.sampler import PriorSampler
from inna_tune.space.space import SearchSpace, When
from inna_tune.space.truncated import Beta, Gamma, LogNormal, Normal

__all__ = [
    "Beta",
    "Categorical",
    "Coordinate",
    "DampingRatio",
    "Empirical",
    "Gamma",
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

"""PriorSampler: any sampler of Optuna's, seeing a study through prior laws. The code is inna-tune's."""

from inna_tune.space import (
    Beta,
    Categorical,
    Integer,
    LogNormal,
    LogUniform,
    Mixture,
    Normal,
    PriorSampler,
    SearchSpace,
    Uniform,
    When,
)

__all__ = [
    "Beta",
    "Categorical",
    "Integer",
    "LogNormal",
    "LogUniform",
    "Mixture",
    "Normal",
    "PriorSampler",
    "SearchSpace",
    "Uniform",
    "When",
]

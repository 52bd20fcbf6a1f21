"""INNA, its relatives, decay laws and closed-form dynamics. Knows torch only."""

from inna_tune.optim.continuous import Trajectory, continuous_trajectory, energy
from inna_tune.optim.criticality import stationarity
from inna_tune.optim.curvature import FALLBACK_CURVATURE, Calibration, CurvatureWarning, calibrate, curvature
from inna_tune.optim.description import describe_settings
from inna_tune.optim.dynamics import (
    PureNumbers,
    QHMSettings,
    Settings,
    SGDSettings,
    from_qhm,
    from_sgd,
    is_stable,
    largest_stable_step,
    pure_numbers,
    settings_from_curvature,
    to_qhm,
    to_sgd,
    tolerated_curvature,
)
from inna_tune.optim.inna import INNA
from inna_tune.optim.innaprop import INNAprop
from inna_tune.optim.schedules import DECAY_LAWS, LogDecay, PowerDecay, decay_factor

__all__ = [
    "DECAY_LAWS",
    "FALLBACK_CURVATURE",
    "INNA",
    "Calibration",
    "CurvatureWarning",
    "INNAprop",
    "LogDecay",
    "PowerDecay",
    "PureNumbers",
    "QHMSettings",
    "SGDSettings",
    "Settings",
    "Trajectory",
    "calibrate",
    "continuous_trajectory",
    "curvature",
    "decay_factor",
    "describe_settings",
    "energy",
    "from_qhm",
    "from_sgd",
    "is_stable",
    "largest_stable_step",
    "pure_numbers",
    "settings_from_curvature",
    "stationarity",
    "to_qhm",
    "to_sgd",
    "tolerated_curvature",
]

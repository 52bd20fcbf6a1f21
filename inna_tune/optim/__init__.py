"""INNA, its relatives, decay laws and closed-form dynamics. Knows torch only, and loads it when it computes with it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from inna_tune.optim.continuous import Trajectory, continuous_trajectory, energy
from inna_tune.optim.decay import DECAY_LAWS, decay_factor
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

if TYPE_CHECKING:
    from inna_tune.optim.calibration import (
        FALLBACK_CURVATURE,
        Calibration,
        CurvatureWarning,
        calibrate,
        curvature,
    )
    from inna_tune.optim.criticality import stationarity
    from inna_tune.optim.inna import INNA
    from inna_tune.optim.innaprop import INNAprop
    from inna_tune.optim.schedules import LogDecay, PowerDecay

# Those that need torch.
_HOMES = {
    "FALLBACK_CURVATURE": "calibration",
    "INNA": "inna",
    "Calibration": "calibration",
    "CurvatureWarning": "calibration",
    "INNAprop": "innaprop",
    "LogDecay": "schedules",
    "PowerDecay": "schedules",
    "calibrate": "calibration",
    "curvature": "calibration",
    "stationarity": "criticality",
}

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


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'inna_tune.optim' has no attribute {name!r}")
    return getattr(import_module(f"inna_tune.optim.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

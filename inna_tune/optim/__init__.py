"""INNA, its relatives, decay laws and closed-form dynamics. Knows torch only, and loads it when it computes with it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inna_tune.optim.calibration import (
        FALLBACK_CURVATURE,
        Calibration,
        CurvatureWarning,
        calibrate,
        curvature,
    )
    from inna_tune.optim.continuous import Trajectory, continuous_trajectory, energy
    from inna_tune.optim.criticality import stationarity
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
    from inna_tune.optim.factors import block_curvatures, step_factors
    from inna_tune.optim.inna import INNA
    from inna_tune.optim.innaprop import INNAprop
    from inna_tune.optim.schedules import LogDecay, PowerDecay

# Where the names are looked for, in this order: first what does without torch.
_HOMES = (
    "decay",
    "description",
    "dynamics",
    "continuous",
    "inna",
    "innaprop",
    "schedules",
    "criticality",
    "calibration",
    "factors",
)

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
    "block_curvatures",
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
    "step_factors",
    "to_qhm",
    "to_sgd",
    "tolerated_curvature",
]


def __getattr__(name: str) -> Any:
    for home in _HOMES if name in __all__ else ():
        module = import_module(f"inna_tune.optim.{home}")
        if hasattr(module, name):
            return getattr(module, name)
    raise AttributeError(f"module 'inna_tune.optim' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

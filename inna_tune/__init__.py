"""inna-tune: automated tuning of INNA, the inertial Newton algorithm.

The public names are imported on first use, so that ``inna_tune.optim`` and ``inna_tune.space`` can be used
without loading pandas or scikit-learn.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inna_tune.estimators import InnaClassifier, InnaRegressor, load
    from inna_tune.optim import INNA, INNAprop
    from inna_tune.space import PriorSampler, SearchSpace
    from inna_tune.study import InnaSearchCV, cross_validate

__version__ = "0.1.0"

_HOMES = {
    "INNA": "inna_tune.optim",
    "INNAprop": "inna_tune.optim",
    "InnaClassifier": "inna_tune.estimators",
    "InnaRegressor": "inna_tune.estimators",
    "InnaSearchCV": "inna_tune.study",
    "PriorSampler": "inna_tune.space",
    "SearchSpace": "inna_tune.space",
    "cross_validate": "inna_tune.study",
    "load": "inna_tune.estimators",
}

__all__ = [
    "INNA",
    "INNAprop",
    "InnaClassifier",
    "InnaRegressor",
    "InnaSearchCV",
    "PriorSampler",
    "SearchSpace",
    "cross_validate",
    "load",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'inna_tune' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

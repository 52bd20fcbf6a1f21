"""Search, storage, workers, resume. Knows ``estimators`` and ``space`` and below.

Names are imported on first use: a process that only opens a storage needn't load torch and scikit-learn.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inna_tune.study.bar import ProgressBar
    from inna_tune.study.fingerprint import MismatchError
    from inna_tune.study.reading import Table, read
    from inna_tune.study.search import InnaSearchCV
    from inna_tune.study.storage import StorageError, open_storage
    from inna_tune.study.tables import TableError
    from inna_tune.study.validation import cross_validate

_HOMES = {
    "InnaSearchCV": "inna_tune.study.search",
    "MismatchError": "inna_tune.study.fingerprint",
    "ProgressBar": "inna_tune.study.bar",
    "StorageError": "inna_tune.study.storage",
    "Table": "inna_tune.study.reading",
    "TableError": "inna_tune.study.tables",
    "cross_validate": "inna_tune.study.validation",
    "open_storage": "inna_tune.study.storage",
    "read": "inna_tune.study.reading",
}

__all__ = [
    "InnaSearchCV",
    "MismatchError",
    "ProgressBar",
    "StorageError",
    "Table",
    "TableError",
    "cross_validate",
    "open_storage",
    "read",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'inna_tune.study' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)

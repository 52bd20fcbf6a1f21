"""Search: folds, cohorts, the loop over trials, and scikit-learn's face of it. Knows ``records`` and ``tables`` and below.

Names are imported on first use: a process that only opens a storage needn't load torch and scikit-learn.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inna_tune.records.fingerprint import MismatchError as MismatchError
    from inna_tune.store.errors import StorageError as StorageError
    from inna_tune.store.opening import open_storage as open_storage
    from inna_tune.study.bar import ProgressBar as ProgressBar
    from inna_tune.study.search import InnaSearchCV as InnaSearchCV
    from inna_tune.study.validation import cross_validate as cross_validate
    from inna_tune.tables.problem import TableError as TableError
    from inna_tune.tables.reading import Table as Table
    from inna_tune.tables.reading import read as read

_HOMES = {
    "InnaSearchCV": "inna_tune.study.search",
    "MismatchError": "inna_tune.records.fingerprint",
    "ProgressBar": "inna_tune.study.bar",
    "StorageError": "inna_tune.store.errors",
    "Table": "inna_tune.tables.reading",
    "TableError": "inna_tune.tables.problem",
    "cross_validate": "inna_tune.study.validation",
    "open_storage": "inna_tune.store.opening",
    "read": "inna_tune.tables.reading",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'inna_tune.study' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)

"""A person's tables: reading files, understanding columns, the problem to solve. Knows ``estimators``.

Names are imported on first use: a process that only asks what can be read needn't load torch and scikit-learn.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inna_tune.tables.predicting import predict_table
    from inna_tune.tables.problem import make_problem, split_rows
    from inna_tune.tables.reading import Table, read
    from inna_tune.tables.sources import TableError

_HOMES = {
    "Table": "reading",
    "TableError": "sources",
    "make_problem": "problem",
    "predict_table": "predicting",
    "read": "reading",
    "split_rows": "problem",
}

__all__ = ["Table", "TableError", "make_problem", "predict_table", "read", "split_rows"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'inna_tune.tables' has no attribute {name!r}")
    return getattr(import_module(f"inna_tune.tables.{_HOMES[name]}"), name)

"""Studies kept: storages, opened as a `Store`, claims, workers, export and import. Knows neither torch nor an estimator."""

from inna_tune.store.store import Store

__all__ = ["Store"]

"""Studies kept: opening storages, claims, workers, export and import. Knows neither torch nor an estimator."""

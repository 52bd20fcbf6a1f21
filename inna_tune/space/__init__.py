"""Priors and search spaces. Knows optuna, scipy and the closed forms of ``optim.dynamics``."""

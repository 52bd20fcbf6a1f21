"""Loggers for a fit's epochs, each of a few lines: give one to an estimator's ``callbacks``. Knows ``estimators`` and below."""

from inna_tune.loggers.epochs import MLflowLogger, ProgressBar, TensorBoardLogger, WandbLogger
from inna_tune.loggers.mlflow_autolog import autolog
from inna_tune.loggers.mlflow_models import log_model, save_model

__all__ = [
    "MLflowLogger",
    "ProgressBar",
    "TensorBoardLogger",
    "WandbLogger",
    "autolog",
    "log_model",
    "save_model",
]

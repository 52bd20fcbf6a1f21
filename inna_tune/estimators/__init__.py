"""Table encoder, estimators, saving and loading. Knows ``engine`` and below."""

from inna_tune.estimators.base import DivergenceError
from inna_tune.estimators.classifier import InnaClassifier
from inna_tune.estimators.encoder import DroppedColumnWarning, TableEncoder
from inna_tune.estimators.regressor import InnaRegressor
from inna_tune.estimators.saving import ModelFileError, load, save
from inna_tune.estimators.schema import ColumnSchema, TableSchema, UnreadableValueWarning

__all__ = [
    "ColumnSchema",
    "DivergenceError",
    "DroppedColumnWarning",
    "InnaClassifier",
    "InnaRegressor",
    "ModelFileError",
    "TableEncoder",
    "TableSchema",
    "UnreadableValueWarning",
    "load",
    "save",
]

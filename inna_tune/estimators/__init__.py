"""Table encoder, estimators, saving and loading. Knows ``engine`` and below."""

from inna_tune.estimators.base import DivergenceError
from inna_tune.estimators.classifier import InnaClassifier
from inna_tune.estimators.dates import UnreadableDateWarning
from inna_tune.estimators.encoder import DisguisedNumbersWarning, DroppedColumnWarning, TableEncoder
from inna_tune.estimators.reading import UnreadableNumberWarning
from inna_tune.estimators.regressor import InnaRegressor
from inna_tune.estimators.saving import ModelFileError, load, save

__all__ = [
    "DisguisedNumbersWarning",
    "DivergenceError",
    "DroppedColumnWarning",
    "InnaClassifier",
    "InnaRegressor",
    "ModelFileError",
    "TableEncoder",
    "UnreadableDateWarning",
    "UnreadableNumberWarning",
    "load",
    "save",
]

"""Table encoder, estimators, saving and loading. Knows ``engine`` and below."""

from inna_tune.estimators.classifier import InnaClassifier
from inna_tune.estimators.dates import UnreadableDateWarning
from inna_tune.estimators.encoder import DisguisedNumbersWarning, DroppedColumnWarning, TableEncoder
from inna_tune.estimators.ensemble import EnsembleClassifier, EnsembleRegressor
from inna_tune.estimators.exporting import ExportedModel, exported_inputs, to_module
from inna_tune.estimators.fitted import DivergenceError
from inna_tune.estimators.floats import UnreadableNumberWarning
from inna_tune.estimators.frames import UnreadableValueWarning
from inna_tune.estimators.memory import MemoryWarning
from inna_tune.estimators.onnx_files import to_onnx, to_program
from inna_tune.estimators.regressor import InnaRegressor
from inna_tune.estimators.saving import ModelFileError, load, save
from inna_tune.estimators.schema import ColumnSchema, TableSchema
from inna_tune.estimators.skops_types import SKOPS_TYPES
from inna_tune.estimators.watching import Epoch

__all__ = [
    "SKOPS_TYPES",
    "ColumnSchema",
    "DisguisedNumbersWarning",
    "DivergenceError",
    "DroppedColumnWarning",
    "EnsembleClassifier",
    "EnsembleRegressor",
    "Epoch",
    "ExportedModel",
    "InnaClassifier",
    "InnaRegressor",
    "MemoryWarning",
    "ModelFileError",
    "TableEncoder",
    "TableSchema",
    "UnreadableDateWarning",
    "UnreadableNumberWarning",
    "UnreadableValueWarning",
    "exported_inputs",
    "load",
    "save",
    "to_module",
    "to_onnx",
    "to_program",
]

"""Pictures of a study: functions that take an Optuna study, or a fitted InnaSearchCV, and return a matplotlib figure.

Titles, axes and units are on them; ``figure.get_label()`` describes each in words. They follow the matplotlib style in force
for text and background, and colours that are told apart with every kind of colour vision.
"""

from inna_tune.plots.heldout import calibration, column_importances, confusion_matrix, residuals
from inna_tune.plots.parameters import importances, importances_of, slice_of, slices
from inna_tune.plots.plane import alpha_beta_plane
from inna_tune.plots.progress import best_so_far, learning_curves
from inna_tune.plots.style import NothingToPlotError
from inna_tune.plots.training import decay_laws, rungs_and_pruning

__all__ = [
    "NothingToPlotError",
    "alpha_beta_plane",
    "best_so_far",
    "calibration",
    "column_importances",
    "confusion_matrix",
    "decay_laws",
    "importances",
    "importances_of",
    "learning_curves",
    "residuals",
    "rungs_and_pruning",
    "slice_of",
    "slices",
]

"""Names of the attributes that inna-tune leaves in Optuna's studies and trials."""

from inna_tune.space.learn import CURVATURE as CURVATURE

FINGERPRINT = "inna_tune:fingerprint"
JOB = "inna_tune:job"  # what `inna-tune fit` asks of those who join
ALLOWED_MISMATCH = "inna_tune:allowed_mismatch"
SEED = "inna_tune:seed"
POPULATION = "inna_tune:population"
PORTFOLIO = "inna_tune:portfolio"
# Whether its trials begin on their first folds, where the pruner is for it; studies of older versions have no such word.
RACE = "inna_tune:race"
# By which rules its trials end early; studies of older versions have no such word.
RULES = "inna_tune:rules"
# What the estimator is set to, in the parameters of the space, where that is tried first.
UNTUNED = "inna_tune:untuned"
# Epochs of a training that nothing ends early, where the estimator finds them by the rows.
HORIZON = "inna_tune:horizon"
HELD_OUT = "inna_tune:held_out"
MODEL = "inna_tune:model"
COLUMNS = "inna_tune:columns"
# The ensemble that a search made last: the weights of its trials by their numbers, its value, and its scores of the folds.
ENSEMBLE = "inna_tune:ensemble"

# Of a trial. What one that time cut off had reached by then: its score, those of the folds, and epochs.
CUT = "inna_tune:cut"
REASON = "reason"
PREDICT_SECONDS = "predict_seconds"  # for the test rows of all folds, encoded
# By the name of each metric that is computed beside what the study maximises: its scores of the folds.
METRICS = "metrics"
# Where nets are scored by themselves, and not all count: the places of those whose scores are told.
NETS = "nets"

"""Batches, the training loop over a population, early stopping, histories. Knows ``nets`` and ``optim``."""

from inna_tune.engine.arrays import as_arrays, as_tensors
from inna_tune.engine.batches import TableTensors
from inna_tune.engine.forward import outputs
from inna_tune.engine.jury import output_together
from inna_tune.engine.losses import CrossEntropy, Loss, Pinball, SquaredError
from inna_tune.engine.members import Jury, Member, MemberProgress, MemberResult, MemberState, state_at_rest
from inna_tune.engine.method import Method
from inna_tune.engine.ordinary import ordinary_tensors
from inna_tune.engine.population import Population
from inna_tune.engine.predicting import predicted
from inna_tune.engine.stack import Stack
from inna_tune.engine.training import Training

__all__ = [
    "CrossEntropy",
    "Jury",
    "Loss",
    "Member",
    "MemberProgress",
    "MemberResult",
    "MemberState",
    "Method",
    "Pinball",
    "Population",
    "SquaredError",
    "Stack",
    "TableTensors",
    "Training",
    "as_arrays",
    "as_tensors",
    "ordinary_tensors",
    "output_together",
    "outputs",
    "predicted",
    "state_at_rest",
]

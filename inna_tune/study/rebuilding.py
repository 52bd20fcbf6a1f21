"""The nets that trials have left, and the model that those of one are."""

import optuna
from optuna.trial import FrozenTrial

from inna_tune.estimators.base import InnaEstimator
from inna_tune.records.attributes import SEED
from inna_tune.records.record import value_of
from inna_tune.study.checkpoints import Checkpoint
from inna_tune.study.evaluation import Cohort
from inna_tune.study.folding import FoldedTable
from inna_tune.study.kept import Kept
from inna_tune.study.training import NetEvaluation, identity_of


def nets_of(
    kept: Kept, trial: FrozenTrial, estimator: InnaEstimator, table: FoldedTable
) -> Checkpoint | None:
    """The nets that a trial with a value has left; None where there are none that can be used.

    Parameters
    ----------
    kept : Kept
    trial : FrozenTrial
    estimator : InnaEstimator
        That it trained.
    table : FoldedTable
        Encoded for it.
    """
    value = value_of(trial)
    assert value is not None
    return kept.nets(trial.number, identity_of(estimator, table), value, table.tensor_sizes(estimator))


def cohort_of(estimator: InnaEstimator, table: FoldedTable, nets: Checkpoint) -> Cohort:
    """A cohort of one trial, whose nets have ended."""
    return Cohort(table, [estimator], [nets.members], [nets.retries])


def kept_model(study: optuna.Study, evaluation: NetEvaluation, trial: FrozenTrial) -> InnaEstimator | None:
    """What a trial that is one fit on all rows has trained, as that fit leaves it; None where its nets are not there.

    Parameters
    ----------
    study : optuna.Study
    evaluation : NetEvaluation
        Of the same table and scorer as the trials.
    trial : FrozenTrial
        With a value.
    """
    estimator = evaluation.estimator_of(trial.number, trial.params, study.user_attrs[SEED])
    table = evaluation.folded.encoded_for(estimator)
    nets = nets_of(Kept(study), trial, estimator, table)
    return None if nets is None else cohort_of(estimator, table, nets).model(0, 0)

"""How many nets a model has of which a foreign framework trains many, one a fold of a bag say."""

from typing import TypeVar

from inna_tune.estimators import InnaClassifier, InnaRegressor

Estimator = TypeVar("Estimator", InnaClassifier, InnaRegressor)

# In place of a number of nets: those of a fold of a bag, and of a setting that is tried.
FEW = "few"

# The folds of a bag average out the luck of a seed themselves: five of two nets predict no worse than five of eight, in a third
# of the time, though each by itself loses a per cent (studies/results/bag_members.md).
_FEW = 2


def with_few_nets(estimator: Estimator, n_rows: int) -> Estimator:
    """An estimator whose ``n_members`` is "auto", with two nets or fewer, trained for as long as it trains by itself.

    Parameters
    ----------
    estimator : InnaClassifier or InnaRegressor
        Its ``n_members`` and ``max_epochs`` are set.
    n_rows : int
        Rows to train on.

    Returns
    -------
    InnaClassifier or InnaRegressor
        ``estimator``.
    """
    plan = estimator._plan_for(n_rows)
    estimator.set_params(n_members=min(_FEW, plan.n_members), max_epochs=plan.max_epochs)
    return estimator

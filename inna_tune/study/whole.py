"""Fits on all rows within what is left of a budget: of given settings, and of more nets where there is time for them."""

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from inna_tune import clock
from inna_tune.estimators.base import InnaEstimator
from inna_tune.estimators.fitted import DivergenceError
from inna_tune.study.budget import Budget
from inna_tune.study.foldwise import seeded
from inna_tune.study.question import Question
from inna_tune.study.tuned import fit_whole, is_ours, net_of

# What a fit has at least, whatever went before it: a share of the budget, and seconds.
_LEAST_SHARE, _LEAST = 0.05, 0.5
# A table has so many nets at most, or twice what its plan says: later ones gain less than a seed does, and each takes its time
# at every prediction.
_MOST_NETS = 8


def fit_in_time(
    estimator: Any, settings: Mapping[str, Any], seed: int | None, question: Question, budget: Budget | None
) -> Any:
    """An estimator with settings, where there are any, fitted within the time that is left.

    Parameters
    ----------
    estimator : object
        Stays as it is.
    settings : mapping
        As its ``set_params`` takes them.
    seed : int or None
        Of its net, where that has none.
    question : Question
    budget : Budget or None
    """
    model = clone(estimator).set_params(**settings)
    net: Any = net_of(model)
    weight = question.routed.weight
    if not is_ours(model):
        with seeded(seed):
            return fit_whole(model, question.X, question.target, weight)
    if net.random_state is None:
        net.random_state = seed
    own = net.max_time
    if budget is not None:
        left = max(budget.left, _LEAST_SHARE * (budget.ends - budget.begun) + _LEAST)
        net.max_time = left if own is None else min(own, left)
    with nullcontext() if budget is None else without_time_warnings("max_time="):
        # Transformers see the table as their folds did.
        fit_whole(model, question.frame if net is model else question.X, question.labels, weight)
    net.set_params(max_time=own)
    return model


def grown(model: Any, question: Question, budget: Budget) -> Any:
    """A fitted estimator with the nets of further fits of its settings, as many as surely end in time.

    They average out the luck of a seed. Where not all of a fit's nets end in time, fewer are trained, which have the same
    rows. A model of which there is but one number of nets, or that time has cut off, stays as it is.
    """
    if not isinstance(model, InnaEstimator) or model.n_members != "auto" or _is_cut(model):
        return model
    plan = model._plan_for(len(question.frame))
    n_nets, most = plan.n_members, max(2 * plan.n_members, _MOST_NETS)
    found = copy.copy(model)
    own = model.random_state
    seeds = np.random.SeedSequence(int(own) if isinstance(own, (int, np.integer)) else None)
    for seed in seeds.generate_state(most):
        n_more = min(n_nets, int(budget.fits_left * n_nets), most - len(found.members_))
        # What is no whole fit has nets of one kind, and of such as may not have been chosen.
        if n_more < 1 or (n_more < n_nets and len(model.members_) < n_nets):
            break
        settings: dict[str, Any] = {"random_state": int(seed)}
        if n_more < n_nets:
            settings |= {"n_members": n_more, "max_epochs": plan.max_epochs}
        began = clock.now()
        try:
            more = fit_in_time(model, settings, None, question, budget)
        except DivergenceError:
            break
        if _is_cut(more):
            break
        budget.note_fit((clock.now() - began) * n_nets / n_more, more.n_iter_)
        found._take_members_of(more)
    return found


def _is_cut(model: InnaEstimator) -> bool:
    return any(member["stop_reason"] == "time" for member in model.members_)


@contextmanager
def without_time_warnings(begins: str = "(max_time|timeout)=") -> Iterator[None]:
    """Keep back the warnings of fits that were cut by a time which no person gave, or of which we say more elsewhere.

    Parameters
    ----------
    begins : str
        Regular expression of how they begin.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=begins, category=ConvergenceWarning)
        yield

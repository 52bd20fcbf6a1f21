"""Fits with ``max_time`` on tables so wide that a step is long: fewer nets, each trained longer."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sklearn.exceptions import ConvergenceWarning

from inna_tune import clock
from inna_tune.engine import Member, MemberResult, TableTensors
from inna_tune.engine.width import seconds_a_step

# What is left to train when the curvature is measured, and epochs that make a net worth having.
_TRAINING_SHARE, _WORTHY_EPOCHS = 0.6, 4
# Seconds that the first epoch has though time was up before it, where encoding took all or others use the machine.
LEAST_SECONDS = 1.0
# Numbers that the embedded rows of a batch may come to, of all nets together.
_MOST_NUMBERS = 2**29


def members_in_time(
    estimator: Any, table: TableTensors, members: Sequence[Member], deadline: float | None
) -> list[Member]:
    """The members that are to be trained: of an automatic number as many as have a few epochs each and fit into
    little memory, at least one.

    Parameters
    ----------
    estimator : InnaEstimator
        Encoded, not trained.
    table : TableTensors
    members : sequence of Member
    deadline : float or None
        Value of `inna_tune.clock` by which they are to be trained.
    """
    if deadline is None or estimator.n_members != "auto" or len(members) == 1:
        return list(members)
    batch_size = int(estimator.batch_size)
    seconds = seconds_a_step(
        estimator.net_,
        table,
        members[0],
        estimator._loss,
        batch_size=batch_size,
        method=estimator._method(),
        deadline=deadline,
    )
    n_rows = len(members[0].train_rows)
    steps = -(-n_rows // batch_size)
    in_memory = _MOST_NUMBERS // (min(n_rows, batch_size) * estimator.net_.widest)
    fit_in = _TRAINING_SHARE * (deadline - clock.now()) / max(_WORTHY_EPOCHS * steps * seconds, 1e-9)
    number = max(1, int(min(fit_in, in_memory, len(members))))
    if number == len(members):
        return list(members)
    # Of fewer nets too few would be of each kind to choose by, and the loss of one is not as smooth as that of several.
    alone = {"patience": estimator._patience_for(n_rows, stops_smoothly=False)} if number == 1 else {}
    return [replace(member, linear=None, jury=members[0].jury, **alone) for member in members[:number]]


def warn_of_haste(max_time: float | None, results: Sequence[MemberResult]) -> None:
    """Warn where no member had an epoch."""
    if all(r.stop_reason == "time" and r.epochs == 1 for r in results):
        warnings.warn(
            f"max_time={max_time:.3g}: the time was up within the first epoch, of which a part was trained all the "
            "same; give more for a better model.",
            ConvergenceWarning,
            stacklevel=4,
        )

"""How many trials train side by side, where memory is scarce: what they learn does not depend on it."""

from collections.abc import Sequence

import optuna

from inna_tune.engine.width import free_bytes
from inna_tune.estimators.memory import Needed, needed_by_fit, say_if_too_large
from inna_tune.study.candidates import Candidate
from inna_tune.study.rungs import races_folds

# Of the memory that is free; the rest is for encoded tables, predictions and whoever else wants some meanwhile.
_SHARE = 0.5


def in_parts(study: optuna.Study, group: Sequence[Candidate]) -> list[list[Candidate]]:
    """Trials that stack, by so many as the free memory holds; they are pruned by earlier trials only, so in their order.

    Parameters
    ----------
    study : optuna.Study
        Its pruner may want a trial to begin on its first fold alone.
    group : sequence of Candidate
        Of one kind, whose nets take the same memory.

    Returns
    -------
    list of lists of Candidate
        One trial each at the least; where even that is more than is free, a MemoryWarning says so.
    """
    ordered = sorted(group, key=lambda candidate: candidate.trial.number)
    first = ordered[0]
    try:
        of_folds = _needed_on_folds(first)
        net = first.table.stacks(first.estimator)[0].net_for(first.estimator)
    except Exception:  # such as of a person's own module: training meets it, too, and tells the trial
        return [ordered]
    n_members = first.table.plan_for(first.estimator, 0).n_members
    held = [needed.held for needed in of_folds]
    passing = max(max(needed.measuring, needed.stepping) for needed in of_folds)
    say_if_too_large(
        sum(held) + passing,
        first.estimator,
        n_members,
        net,
        of="a trial on all its folds" if len(of_folds) > 1 else "a trial",
    )
    races = len(of_folds) > 1 and first.estimator.max_time is None and races_folds(study)
    # Of those that begin on one fold half go on at most.
    each = max(max(held), sum(held) / 2) if races else sum(held)
    free = free_bytes(first.estimator._torch_device())
    size = max(1, int(min(len(ordered), (_SHARE * free - passing) / max(each, 1))))
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def _needed_on_folds(candidate: Candidate) -> list[Needed]:
    """What the training of a trial takes on each fold."""
    table, estimator = candidate.table, candidate.estimator
    found = {}
    for stack in table.stacks(estimator):
        net, itemsize = stack.net_for(estimator), stack.tensors.x.element_size()
        for k in stack.folds:
            n_rows = len(table.folds[k].encoded.target)
            found[k] = needed_by_fit(
                estimator, net, table.plan_for(estimator, k), n_rows=n_rows, itemsize=itemsize
            )
    return [found[k] for k in sorted(found)]

"""The evidence for and against priors written out at once, for what the sampler's view keeps step by step."""

from optuna.study import StudyDirection
from optuna.trial import TrialState

from inna_tune.space.evidence import median_log_ratios, n_winners


def best_tenth(trials, direction):
    complete = [t for t in trials if t.state == TrialState.COMPLETE and t.value is not None]
    sign = -1.0 if direction == StudyDirection.MAXIMIZE else 1.0
    best = sorted(complete, key=lambda t: (sign * t.value, t.number))
    return best[: n_winners(len(complete))]


def prior_evidence(study, space):
    """Of a study of one objective; otherwise there is no best tenth, and nothing is said."""
    if len(study.directions) != 1:
        return {}
    winners = best_tenth(study.get_trials(deepcopy=False), study.direction)
    return median_log_ratios([space.log_ratios(t.params) for t in winners])

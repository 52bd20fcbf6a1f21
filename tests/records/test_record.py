"""A stored value becomes what a person reads in one place, and the best stays the best."""

import math

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from inna_tune.records.attributes import FINGERPRINT
from inna_tune.records.record import StudyRecord, epochs_of, first_start, seconds_of

KINDS = [
    ("neg_log_loss", "maximize", "log-loss", -1, "lower is better"),
    ("accuracy", "maximize", "accuracy", 1, "higher is better"),
    ("neg_own", "maximize", "own", -1, "lower is better"),
    ("neg_own", "minimize", "neg own", 1, "lower is better"),
    ("", "minimize", "score", 1, "lower is better"),
]


@pytest.mark.parametrize(("stored", "direction", "name", "sign", "better"), KINDS)
def test_a_value_is_shown_with_its_sign_and_the_best_is_optunas(stored, direction, name, sign, better):
    study = optuna.create_study(direction=direction)
    study.set_user_attr(FINGERPRINT, {"metric": stored})
    for value in (-0.3, -0.1, -0.7):
        study.add_trial(
            create_trial(
                value=value,
                user_attrs={"epochs": 3, "seconds": "?"},
                intermediate_values={1: value, 2: math.nan},
            )
        )
    study.add_trial(create_trial(state=TrialState.PRUNED))
    record = StudyRecord(study)
    metric, best = record.metric, record.best_first[0]
    assert (metric.name, metric.better) == (name, better)
    assert best.number == study.best_trial.number
    assert record.score(best) == metric.shown(best.value) == sign * best.value
    scores = [record.score(t) for t in record.best_first]
    losses = [metric.loss(score) for score in scores]
    assert losses == sorted(losses)
    assert [metric.loss(loss) for loss in losses] == scores
    assert record.at_rungs(best) == {1: sign * best.value}
    assert record.counts == {"running": 0, "complete": 3, "pruned": 1, "fail": 0, "waiting": 0}
    assert epochs_of(best) == 3.0
    assert math.isnan(seconds_of(best))
    assert first_start(record.trials) is not None
    assert first_start([]) is None

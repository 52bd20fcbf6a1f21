"""Settings and gains in words."""

import optuna
import pytest

from inna_tune.records.certainty import Gain
from inna_tune.records.heldout import HeldOut
from inna_tune.records.record import StudyRecord
from inna_tune.records.wording import describe_trial, tuning_gain
from tests.plots.studies import make_study


def test_a_trial_of_inna_in_words():
    record = StudyRecord(make_study(3, failures=False))
    words = describe_trial(record, record.best_first[0])
    for part in ("effective step", "momentum", "damping ratio", "weight decay", "dropout"):
        assert part in words
    assert "alpha" not in words


def test_what_inna_does_not_have_follows_by_name():
    study = optuna.create_study()
    study.optimize(lambda t: t.suggest_float("lr", 0.1, 0.1) + t.suggest_int("width", 8, 8), n_trials=1)
    record = StudyRecord(study)
    assert describe_trial(record, record.best_first[0]) == "lr 0.1; width 8"


def of_gain(gain, *, luck=True):
    return HeldOut("binary", 100, 0, {"tuned": {"log-loss": 0.3}}, gain, luck=luck)


@pytest.mark.parametrize(
    ("gain", "words"),
    [
        (Gain(-0.1, -0.2, -0.05), "lowered the held-out log-loss by 10.0%|(95% interval 5.0% to 20.0%)."),
        (Gain(0.1, 0.05, 0.2), "raised the held-out log-loss by 10.0%|(95% interval 5.0% to 20.0%)."),
        (
            Gain(-0.1, -0.3, 0.2),
            "by -10.0%|(95% interval -30.0% to +20.0%): 100 rows and one fit of each cannot tell",
        ),
    ],
)
def test_a_gain_comes_with_how_sure_it_is(gain, words):
    said = tuning_gain(of_gain(gain))
    assert all(part in said for part in words.split("|"))
    assert "against the untuned default" in said


def test_nothing_is_claimed_where_the_luck_of_the_seed_is_not_counted():
    said = tuning_gain(of_gain(Gain(-0.1, -0.2, -0.05), luck=False))
    assert said.startswith("Tuning changed the held-out log-loss by -10.0%")
    assert "of the rows alone): one fit of each cannot tell that from the luck of a seed." in said
    assert "lowered" not in said


def test_no_gain_no_words():
    assert tuning_gain(of_gain(None)) is None

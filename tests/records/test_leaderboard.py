"""The leaderboard says what a study holds, whoever wrote it."""

import numpy as np
import optuna
import pytest

from inna_tune.records.attributes import ENSEMBLE
from inna_tune.records.frames import leaderboard_frame
from inna_tune.records.leaderboard import EnsembleNote, leaderboard
from inna_tune.records.overview import describe_study
from inna_tune.records.record import StudyRecord
from inna_tune.report import render_report
from inna_tune.store.opening import open_storage
from tests.plots.studies import make_study

NOTE = {"weights": {"0": 0.25, "3": 0.75}, "value": -0.2, "scores": [-0.1, -0.3]}


def noted(note=NOTE, **options):
    study = make_study(8, failures=False, **options)
    study.set_user_attr(ENSEMBLE, note)
    return study


def test_trials_and_the_ensemble_come_the_best_first():
    study = noted()
    found = leaderboard(StudyRecord(study))
    assert [e.model for e in found if e.trial is None] == ["ensemble"]
    scores = [e.score for e in found]
    assert scores == sorted(scores), "a loss, as it is shown"
    weights = {e.trial: e.weight for e in found}
    assert (weights[0], weights[3], weights[None]) == (0.25, 0.75, 1.0)
    frame = leaderboard_frame(study)
    assert frame["score"].tolist() == [-s for s in scores]
    ensemble = frame[frame["trial"].isna()].iloc[0]
    assert ensemble["score"] == NOTE["value"]
    assert ensemble["score_error"] == pytest.approx(0.1)
    assert ensemble["fit_seconds"] == pytest.approx(3.0), "of two trials"
    assert np.isnan(ensemble["predict_seconds"]), "which these trials do not say"


def test_an_empty_study_has_an_empty_board():
    frame = leaderboard_frame(optuna.create_study())
    assert frame.shape == (0, 8)
    assert str(frame["trial"].dtype) == "Int64"


@pytest.mark.parametrize(
    "note",
    [
        None,
        "text",
        [],
        {},
        NOTE | {"weights": {}},
        NOTE | {"weights": {"99": 1.0}},
        NOTE | {"weights": {"0": -1.0}},
        NOTE | {"weights": {"0": float("nan")}},
        NOTE | {"weights": [1.0]},
        NOTE | {"weights": {"<b>": 1.0}},
        NOTE | {"value": "much"},
        NOTE | {"value": float("inf")},
        NOTE | {"scores": None},
        NOTE | {"on_all_rows": "no"},
    ],
)
def test_a_note_that_makes_no_sense_counts_as_none(note):
    study = noted(note)
    assert EnsembleNote.of(StudyRecord(study)) is None
    assert all(e.weight == 0 for e in leaderboard(StudyRecord(study)))


def test_show_and_the_report_have_it(tmp_path):
    url = f"sqlite:///{tmp_path}/s.db"
    study = noted(storage=open_storage(url))
    found = describe_study(url, study.study_name, n_best=20)
    assert found.ensemble.score == 0.2
    assert {row.number: row.weight for row in found.best if row.weight} == {0: 0.25, 3: 0.75}
    page = render_report(study)
    assert "weight in the ensemble" in page
    assert '<td class="number">ensemble</td><td class="number">0.2</td>' in page


def test_words():
    assert EnsembleNote({3: 0.75, 0: 0.25}, -0.2, []).words == (
        "the nets of the folds of trials 3 (0.75), 0 (0.25)"
    )
    assert EnsembleNote({3: 1.0}, -0.2, [], on_all_rows=True).words == (
        "the settings of trial 3 (1.00), fitted on all rows"
    )

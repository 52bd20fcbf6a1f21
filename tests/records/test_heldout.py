"""Predictions on held-out rows, summed up: what is counted, and what the study gives back."""

import json
from dataclasses import replace

import numpy as np
import optuna
import pandas as pd
import pytest
from sklearn.metrics import confusion_matrix

from inna_tune.records.certainty import Gain
from inna_tune.records.heldout import HeldOut, record_held_out, summarize_held_out
from inna_tune.records.importance import ColumnImportance, Importances
from inna_tune.records.record import StudyRecord
from tests.plots.studies import Predicted, held_out_of


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_a_study_gives_back_what_was_recorded(task):
    found = held_out_of(task)
    study = optuna.create_study()
    record_held_out(study, found)
    assert StudyRecord(study).held_out == found
    assert HeldOut.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_counts_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    labels = np.array(["a", "b", "c"])
    probabilities = rng.dirichlet(np.ones(3), 200)
    truth = rng.choice(labels, 200)
    found = summarize_held_out(Predicted(labels), probabilities, truth)
    expected = confusion_matrix(truth, labels[probabilities.argmax(1)], labels=labels)
    assert found.classes == ("a", "b", "c")
    assert np.array_equal(found.confusion, expected)
    assert sum(b.rows for b in found.calibration) == 200
    # Over all bins the mean is the share that was right.
    hits = sum(b.observed * b.rows for b in found.calibration) / 200
    assert hits == pytest.approx(np.trace(expected) / 200)


def test_rare_ones_of_many_classes_are_counted_together():
    labels = np.array([f"c{i:02d}" for i in range(30)])
    truth = np.repeat(labels, np.arange(1, 31))
    probabilities = (truth[:, None] == labels[None, :]).astype(float)
    found = summarize_held_out(Predicted(labels), probabilities, truth)
    assert len(found.classes) == 20
    assert found.classes[-1] == "all others"
    assert np.sum(found.confusion) == len(truth)
    assert found.confusion[-1][-1] == sum(range(1, 12))


def test_residuals_of_many_rows_are_taken_evenly():
    predicted = np.linspace(0, 1, 10_000)
    found = summarize_held_out(Predicted(), predicted, predicted + 1)
    assert len(found.predicted) == 500
    assert (found.predicted[0], found.predicted[-1]) == (0.0, 1.0)
    assert found.residual == pytest.approx([1.0] * 500)
    assert len(json.dumps(found.to_json())) < 40_000


def test_a_class_that_training_never_saw_is_counted():
    labels = np.array([0, 1])
    found = summarize_held_out(Predicted(labels), np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([7, 1]))
    assert found.classes == ("0", "1", "7")
    assert found.confusion[2] == (1, 0, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"task": "clustering"},
        {"rows": "many"},
        {"confusion": [[1, 2]]},
        {"confusion": [[-1, 0], [0, 1]]},
        {"calibration": [{"rows": 1}]},
        {"predicted": [float("inf")], "residual": [0.0]},
        {"gain": {"change": 1.0}},
        {"gain": {"change": float("nan"), "low": 0.0, "high": 0.0}},
        {"scores": [1]},
    ],
    ids=str,
)
def test_what_is_broken_counts_as_missing(change):
    assert HeldOut.from_json(held_out_of("binary").to_json() | change) is None
    assert HeldOut.from_json(None) is None


def test_no_rows_are_refused():
    with pytest.raises(ValueError, match="at least one row"):
        summarize_held_out(Predicted(), np.zeros(0), pd.Series([], dtype=float))


def test_the_gain_is_kept():
    gain = Gain(-0.1, -0.2, -0.05)
    found = summarize_held_out(Predicted(), np.arange(20.0), np.arange(20.0), gain=gain, luck=True)
    assert HeldOut.from_json(found.to_json()).gain == gain
    assert HeldOut.from_json(found.to_json()).luck
    of_before = {name: value for name, value in found.to_json().items() if name != "luck"}
    assert not HeldOut.from_json(of_before).luck  # it counted the rows' alone
    assert HeldOut.from_json(of_before).gain == gain


def test_a_later_summary_of_the_same_settings_keeps_what_it_did_not_measure():
    worth = Importances("log-loss", 50, 1, 1, (ColumnImportance("x", 0.1, 0.01),))
    first = HeldOut("binary", 50, 3, {"tuned": {"log-loss": 0.3}, "untuned default": {"log-loss": 0.4}})
    first = replace(first, gain=Gain(-0.2, -0.3, -0.1), luck=True, importances=worth)
    later = HeldOut("binary", 50, 3, {"tuned": {"log-loss": 0.31}, "constant": {"log-loss": 0.7}})
    found = later.beside(first)
    assert (found.gain, found.luck, found.importances) == (first.gain, True, worth)
    assert found.scores == first.scores | later.scores
    own = replace(later, gain=Gain(0.1, -0.1, 0.3))
    assert (own.beside(first).gain, own.beside(first).luck) == (own.gain, False)
    for other in (None, replace(first, trial=4), replace(first, rows=51)):
        assert later.beside(other) == later

"""A study's trials as a table that is ready to plot."""

import numpy as np
import optuna
import pandas as pd
from optuna.trial import TrialState

from inna_tune.records.frames import trials_frame
from tests.plots.studies import make_study


def test_one_row_a_trial_in_numbers_and_words():
    study = make_study(40, running=2)
    frame = trials_frame(study)
    assert frame["number"].tolist() == list(range(42))
    assert set(frame["state"]) == {"complete", "pruned", "fail", "running"}
    complete = [t for t in study.trials if t.state == TrialState.COMPLETE]
    assert frame["score"].dropna().tolist() == [t.value for t in complete]
    np.testing.assert_allclose(frame["score_std"].dropna(), 0.01)
    for name in ("score", "score_std", "epochs", "seconds", "alpha", "beta", "lr", "dropout"):
        assert pd.api.types.is_float_dtype(frame[name]), name
    assert pd.api.types.is_datetime64_any_dtype(frame["begun"])
    assert frame.loc[frame["decay"] != "power", "decay_power"].isna().all()
    assert frame.loc[frame["state"] == "fail", "reason"].str.startswith("ValueError").all()


def test_a_parameter_of_a_taken_name_gets_another():
    study = optuna.create_study()
    study.optimize(lambda t: t.suggest_float("seconds", 0, 1), n_trials=2)
    frame = trials_frame(study)
    assert frame["params_seconds"].between(0, 1).all()
    assert frame["seconds"].isna().all()


def test_a_study_without_trials_is_an_empty_table():
    assert trials_frame(optuna.create_study()).shape == (0, 8)

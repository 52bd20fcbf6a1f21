"""A storage that fails for a moment ends what runs on it, and no trial of it fails."""

import optuna
import pytest

from inna_tune.jobs.baselines import tune_baseline
from inna_tune.study import StorageError
from tests.study.test_own import X, Y, tune


class BrokenStorage(optuna.storages.InMemoryStorage):
    """Like a database that is locked for a moment: one write fails."""

    failing = ""

    def _fail(self, name):
        if type(self).failing == name:
            type(self).failing = ""
            raise optuna.exceptions.StorageInternalError("database is locked")

    def set_trial_param(self, *arguments):
        self._fail("param")
        super().set_trial_param(*arguments)

    def set_trial_intermediate_value(self, *arguments):
        self._fail("report")
        super().set_trial_intermediate_value(*arguments)


@pytest.mark.parametrize("failing", ["param", "report"])
def test_a_storage_that_fails_is_no_trial_that_fails(failing, monkeypatch):
    storage = BrokenStorage()
    monkeypatch.setattr(BrokenStorage, "failing", failing)
    net = {"max_epochs": 4}
    with pytest.raises(StorageError, match="locked"):
        tune(storage, net=net)
    study = tune(storage, net=net)
    assert [t.state for t in study.trials] == [optuna.trial.TrialState.COMPLETE]


def test_a_storage_that_fails_is_no_baseline_that_fails(monkeypatch):
    storage = BrokenStorage()
    monkeypatch.setattr(BrokenStorage, "failing", "param")
    # The first trial's settings wait for it, so that it draws none.
    monkeypatch.setattr("inna_tune.study.run.try_first", lambda study, settings: None)

    def run():
        return tune_baseline(
            "linear", X, Y, task="binary", n_trials=1, storage=storage, study_name="s", cv=2, resume=True
        )

    with pytest.raises(StorageError, match="locked"):
        run()
    assert [t.state for t in run().trials] == [optuna.trial.TrialState.COMPLETE]

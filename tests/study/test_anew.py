"""A study of which all trials failed does not keep its name; one with any other trial does."""

import logging

import optuna
import pytest
from optuna.trial import TrialState

from inna_tune.records.attributes import FINGERPRINT
from inna_tune.store.errors import StorageError
from inna_tune.store.opening import open_storage
from inna_tune.store.store import OWNER
from inna_tune.store.workers import Worker
from tests.study.test_run import Square, run


@pytest.fixture(params=["memory", "file"])
def storage(request, tmp_path):
    return open_storage(None if request.param == "memory" else f"sqlite:///{tmp_path}/s.db")


def failed(storage, **options):
    return run(Square(failing=set(range(9))), storage, n_trials=2, **options).study


def states(storage):
    return [t.state for t in optuna.load_study(study_name="s", storage=storage).trials]


def test_a_study_of_which_all_failed_is_begun_anew(storage, caplog):
    failed(storage)
    with caplog.at_level(logging.WARNING, "inna_tune"):
        found = run(Square(), storage, resume=False, n_trials=2)
    assert states(storage) == [TrialState.COMPLETE] * 2
    assert found.resumed.finished == 0
    assert (
        "study s is begun anew, since all of its trials failed, 2 of them; the first: ValueError: not 0"
        in caplog.text
    )


def test_one_that_is_resumed_goes_on(storage):
    failed(storage)
    run(Square(), storage, resume=True, n_trials=3)
    assert states(storage) == [TrialState.FAIL] * 2 + [TrialState.COMPLETE]


@pytest.mark.parametrize("state", [s for s in TrialState if s != TrialState.FAIL])
def test_one_with_any_other_trial_keeps_its_name(storage, state):
    study = failed(storage)
    owner = {OWNER: Worker(storage).record}
    values = {"value": 1.0} if state == TrialState.COMPLETE else {}
    study.add_trial(optuna.trial.create_trial(state=state, system_attrs=owner, **values))
    before = states(storage)
    with pytest.raises(StorageError, match="already in"):
        run(Square(), storage, resume=False)
    assert states(storage) == before


def test_one_that_waits_to_begin_keeps_its_name(storage):
    optuna.create_study(study_name="s", storage=storage, direction="maximize").enqueue_trial({"x": 0.5})
    with pytest.raises(StorageError, match="already in"):
        run(Square(), storage, resume=False)


def test_one_that_somebody_works_on_keeps_its_name(storage):
    study = failed(storage)
    with Worker(storage) as worker:
        study.add_trial(optuna.trial.create_trial(state=TrialState.FAIL, system_attrs={OWNER: worker.record}))
        with pytest.raises(StorageError, match="already in"):
            run(Square(), storage, resume=False)
    run(Square(), storage, resume=False, n_trials=1)
    assert states(storage) == [TrialState.COMPLETE]


def test_one_of_another_table_or_another_program_keeps_its_name(storage):
    study = failed(storage)
    with pytest.raises(StorageError, match="already in"):
        run(Square(), storage, resume=False, rows=5)
    study.set_user_attr(FINGERPRINT, "what nobody knows")
    with pytest.raises(StorageError, match="already in"):
        run(Square(), storage, resume=False)


def test_one_that_another_begins_anew_in_this_moment_is_the_others(storage, monkeypatch):
    study = failed(storage)

    def meanwhile(*args, **options):
        storage.delete_study(study._study_id)
        optuna.create_study(study_name="s", storage=storage, direction="maximize")
        monkeypatch.undo()
        return made(*args, **options)

    made = run.__globals__["fingerprint"]
    monkeypatch.setitem(run.__globals__, "fingerprint", meanwhile)
    with pytest.raises(StorageError, match="already in"):
        run(Square(), storage, resume=False)
    assert states(storage) == []

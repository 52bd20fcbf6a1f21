"""Settings that several workers queue in one moment are tried once."""

import threading

import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from inna_tune.store.opening import open_storage, store_of

SETTINGS = [
    {"lr": 0.1, "decay": "cosine"},
    {"lr": 0.2, "decay": "cosine"},
    {"lr": 0.100000001, "decay": "cosine"},
]


def key(setting):
    return tuple((n, f"{v:.5g}" if isinstance(v, float) else v) for n, v in sorted(setting.items()))


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_what_all_queue_at_once_is_queued_once_and_in_order(kind, tmp_path):
    url = f"sqlite:///{tmp_path}/s.db"
    shared = InMemoryStorage() if kind == "memory" else open_storage(url)
    optuna.create_study(storage=shared, study_name="s")
    # Of a file each has a storage of its own, as processes do.
    storages = [shared if kind == "memory" else open_storage(url) for _ in range(6)]
    studies = [optuna.load_study(study_name="s", storage=storage) for storage in storages]
    together, failed = threading.Barrier(len(studies)), []

    def work(study):
        try:
            together.wait(60)
            store_of(study).queue_once(study._study_id, SETTINGS, key)
        except Exception as error:  # else the thread would keep it to itself
            failed.append(error)

    threads = [threading.Thread(target=work, args=(study,)) for study in studies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    for study in studies:
        trials = study.get_trials()
        assert [t.number for t in trials] == [0, 1]
        assert [t.system_attrs["fixed_params"] for t in trials] == SETTINGS[:2]
        assert {t.state for t in trials} == {TrialState.WAITING}
    trial = studies[0].ask()
    assert trial.suggest_float("lr", 0.01, 1.0) == 0.1

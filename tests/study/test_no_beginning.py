"""A search that fails before its first trial leaves nothing behind."""

import optuna
import pytest
from sklearn.datasets import load_iris

from inna_tune import InnaClassifier, InnaSearchCV
from inna_tune.store.errors import StorageError


def test_a_name_is_free_again_where_nothing_has_begun(tmp_path, monkeypatch):
    """An error before the first trial, such as of settings to try first that can't be, leaves no study behind."""
    net = InnaClassifier(hidden_layer_sizes=(4,), n_members=1, max_epochs=2)
    url = f"sqlite:///{tmp_path}/s.db"
    common = {"n_trials": 1, "cv": 2, "storage": url, "study_name": "one", "random_state": 0}
    X, y = load_iris(return_X_y=True)
    with monkeypatch.context() as patch:
        patch.setattr("inna_tune.study.run.try_first", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            InnaSearchCV(net, **common).fit(X, y)
    assert optuna.get_all_study_names(url) == []
    InnaSearchCV(net, **common).fit(X, y)
    # What has a trial stays, and what is resumed is not this search's alone.
    with pytest.raises(StorageError, match="already"):
        InnaSearchCV(net, **common).fit(X, y)
    optuna.create_study(storage=url, study_name="two", direction="maximize")
    with monkeypatch.context() as patch:
        patch.setattr("inna_tune.study.run.try_first", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            InnaSearchCV(net, **common | {"study_name": "two", "resume": True}).fit(X, y)
    assert sorted(optuna.get_all_study_names(url)) == ["one", "two"]

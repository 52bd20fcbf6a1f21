"""A model that finds no place where it is to be saved is kept beside its study, and saved by a resume without a fit."""

import errno
import os

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from inna_tune import InnaClassifier, load
from inna_tune import files as files_module
from inna_tune.study.unsaved import Unsaved
from tests.cli.test_outputs import run
from tests.test_cli import SMALL


@pytest.fixture
def fit(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=60), "b": rng.normal(size=60)})
    frame["y"] = np.where(frame["a"] > 0, "yes", "no")
    frame.to_csv(tmp_path / "t.csv", index=False)
    (tmp_path / "full").mkdir()

    def fit(*words):
        usual = ["--target", "y", "--trials", "2", "--study", "s", "--storage", "sqlite:///s.db", *SMALL]
        return run(tmp_path, "fit", "t.csv", *usual, *words)

    return fit


@pytest.fixture
def full_disk(monkeypatch):
    sync = files_module._sync

    def full(path, how):
        if path.parent.name == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(path, how)

    monkeypatch.setattr(files_module, "_sync", full)


@pytest.fixture
def fits(monkeypatch):
    found, fit = [], InnaClassifier.fit

    def noted(self, *args, **kwargs):
        found.append(self)
        return fit(self, *args, **kwargs)

    monkeypatch.setattr(InnaClassifier, "fit", noted)
    return found


@pytest.mark.parametrize("kind", [("--no-ensemble",), ()])
def test_a_model_for_which_the_disk_is_full_is_saved_by_a_resume_at_once(
    fit, full_disk, fits, tmp_path, kind
):
    done = fit("--out", "full/m.inna", *kind)
    assert done.exit_code == 2, done.output
    assert "No space left on device" in done.stderr
    assert f"kept in {tmp_path}/s.db.trained" in " ".join(done.stderr.split())
    assert "--resume" in done.stderr
    assert not list((tmp_path / "full").iterdir())
    kept = sorted((tmp_path / "s.db.trained").glob("*.inna"))
    assert len(kept) == 2
    tuned = load(next(path for path in kept if path.stem.endswith("-tuned"))).weights_
    fits.clear()
    again = fit("--resume", "--out", "m.inna", *kind)
    assert again.exit_code == 0, again.output
    assert not fits
    assert (load(tmp_path / "m.inna").weights_ == tuned).all()
    assert not list((tmp_path / "s.db.trained").glob("*.inna"))


def test_what_was_kept_is_not_taken_where_trials_came_since(fit, full_disk, fits, tmp_path):
    assert fit("--out", "full/m.inna", "--no-ensemble").exit_code == 2
    fits.clear()
    again = fit("--resume", "--out", "m.inna", "--trials", "3", "--no-ensemble")
    assert again.exit_code == 0, again.output
    assert len(fits) == 2, "the untuned default and the best settings"


def test_a_study_elsewhere_keeps_its_models_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    studies = [
        optuna.create_study(storage=JournalStorage(JournalFileBackend(str(tmp_path / "j"))), study_name=name)
        for name in "ab"
    ]
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 2))
    net = InnaClassifier(hidden_layer_sizes=(4,), n_members=1, max_epochs=2, random_state=0)
    net.fit(X, X[:, 0] > 0)
    mine, others = (Unsaved(study, refit=True) for study in studies)
    folder = mine.keep({"tuned": net})
    assert folder == tmp_path / "cache" / "inna-tune" / "trained"
    np.testing.assert_array_equal(mine.find("tuned").predict_proba(X), net.predict_proba(X))
    assert mine.find("untuned") is None
    assert others.find("tuned") is None
    assert Unsaved(studies[0], refit="ensemble").find("tuned") is None
    studies[0].add_trial(optuna.create_trial(value=1.0))
    assert mine.find("tuned") is None
    next(folder.glob("*.inna")).write_bytes(b"something else")
    assert mine.find("tuned") is None
    mine.remove()
    assert not folder.exists()

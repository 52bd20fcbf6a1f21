"""A small study that processes work on, for the studies of what it survives: what they run, and what is counted."""

import multiprocessing
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from sklearn.metrics import get_scorer

from inna_tune import InnaClassifier, InnaSearchCV
from inna_tune.store.opening import open_storage
from inna_tune.store.store import OWNER

CONTEXT: Any = multiprocessing.get_context("fork")  # a worker need not load torch again


def search(url, name, n_trials):
    """What every worker runs."""
    net = InnaClassifier(hidden_layer_sizes=(8,), n_members=1, max_epochs=32, early_stopping=False)
    return InnaSearchCV(
        net,
        n_trials=n_trials,
        cv=2,
        storage=url,
        study_name=name,
        resume=True,
        population=2,
        refit=False,
        random_state=0,
    )


def score(estimator, X, y, lr=None, end=None, folder=None):
    """Negative log-loss, and the end of the process where the step is that of a deadly trial.

    Parameters
    ----------
    estimator, X, y
        As for any scorer.
    lr : float or None
        The step of the trial; whoever scores it hears of no number.
    end : {"dies", "waits"}
        By SIGKILL, or by whoever finds the file ``is-held``, unless there is one named ``goes-on``.
    folder : str
        Of these files.
    """
    if lr is not None and estimator.lr == lr:
        if end == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if not (Path(folder) / "goes-on").exists():
            (Path(folder) / "is-held").touch()
            time.sleep(3600)
    return get_scorer("neg_log_loss")(estimator, X, y)


@dataclass
class Count:
    """What was found."""

    kills: int = 0
    trials: int = 0
    lost: int = 0
    running: int = 0
    inexact: int = 0
    duplicates: int = 0
    taken_up: int = 0
    seconds: float = 0.0
    finished: dict[int, Any] = field(default_factory=dict)

    def look(self, url, name):
        """Note what has finished, and what of that was there before and is so no more."""
        try:
            study = load(url, name)
        except KeyError:
            return
        now = {t.number: (t.value, t.params) for t in study.get_trials() if t.state.is_finished()}
        self.lost += sum(now.get(number) != known for number, known in self.finished.items())
        self.finished = now

    def end(self, url, name, n_trials):
        """Count the whole study at its end."""
        self.look(url, name)
        self.finished = {}
        trials = load(url, name).get_trials()
        self.trials += len(trials)
        self.running += sum(not t.state.is_finished() for t in trials)
        self.inexact += len(trials) != n_trials
        numbers, settings = (
            [t.number for t in trials],
            [tuple(sorted(map(str, t.params.items()))) for t in trials],
        )
        self.duplicates += len(numbers) - len(set(numbers)) + len(settings) - len(set(settings))
        owners = [t.system_attrs.get(OWNER, {}) for t in trials]
        self.taken_up += sum(owner.get("attempt", 1) > 1 for owner in owners)


def load(url, name):
    """A copy in memory of the study as anybody sees it."""
    storage = open_storage(url)
    try:
        copy = optuna.storages.InMemoryStorage()
        optuna.copy_study(from_study_name=name, from_storage=storage, to_storage=copy)
        return optuna.load_study(study_name=name, storage=copy)
    finally:
        storage._backend.engine.dispose()


def done(url, name, n_trials):
    """Whether a study has its trials, all of them finished."""
    try:
        trials = load(url, name).get_trials()
    except KeyError:
        return False
    return sum(t.state.is_finished() for t in trials) >= n_trials


def seconds_idle(process: int, began: float) -> float:
    """Seconds since ``began``, by the monotonic clock, in which a process neither ran nor waited for a processor.

    On a machine with much to do a process that is well may take minutes; one that waits for what never comes does nothing.
    """
    elapsed = time.monotonic() - began
    try:
        ran, queued, _ = map(int, Path(f"/proc/{process}/schedstat").read_text().split())
    except (OSError, ValueError):
        return elapsed
    return elapsed - (ran + queued) / 1e9

"""Studies of any size, made in no time: what a search leaves in a study, without the training."""

import math
from datetime import datetime, timedelta

import numpy as np
import optuna
from optuna.trial import TrialState, create_trial

from inna_tune.optim import pure_numbers
from inna_tune.records.attributes import CURVATURE, FINGERPRINT, MODEL, POPULATION, SEED
from inna_tune.records.heldout import record_held_out, summarize_held_out
from inna_tune.records.importance import ColumnImportance, Importances
from inna_tune.space import SearchSpace
from inna_tune.study.rungs import rungs

LAMBDA = 25.0
MAX_EPOCHS = 100
LABELS = np.array(["no", "yes"])


class Predicted:
    """A fitted model whose predictions are its rows: a classifier's probabilities, or a regressor's values."""

    def __init__(self, classes=None):
        self.classes_ = classes

    def __getattribute__(self, name):
        if name == "predict_proba" and object.__getattribute__(self, "classes_") is None:
            raise AttributeError(name)
        return object.__getattribute__(self, name)

    def predict_proba(self, X):
        return np.asarray(X)

    def predict(self, X):
        return np.asarray(X)


def make_study(
    n_trials, *, task="binary", seed=0, name="study", running=0, failures=True, held_out=True, storage=None
):
    """A study of the shipped space; its scores prefer critical damping and steps near the edge of stability."""
    rng = np.random.default_rng(seed)
    space = SearchSpace.inna(curvature=LAMBDA)
    study = optuna.create_study(direction="maximize", study_name=name, storage=storage)
    begun = datetime(2026, 1, 2, 3, 4, 5)
    trials = []
    for number in range(n_trials + running):
        config = space.sample(rng)
        distributions = {n: space.distribution(n) for n in config}
        pure = pure_numbers(config["lr"], config["alpha"], config["beta"], LAMBDA)
        loss = (
            0.3 + 0.02 * math.log(pure.stable_step_ratio / 2) ** 2 + 0.02 * abs(math.log(pure.damping_ratio))
        )
        loss += 0.1 * config["dropout"] ** 2 + 0.01 * abs(rng.normal()) + 0.3 * (rng.random() < 0.02)
        notes = {"seed": int(rng.integers(1e9)), "epochs": MAX_EPOCHS, "best_epoch": [80, 90], "seconds": 1.5}
        values = {k: -loss - 0.5 / k * (1 + 0.2 * rng.random()) for k in rungs(MAX_EPOCHS)}
        state, value = TrialState.COMPLETE, -loss
        luck = rng.random()
        if number >= n_trials:
            state, value, values, notes = TrialState.RUNNING, None, {}, {}
        elif luck < 0.25 and number > 0:
            last = rungs(MAX_EPOCHS)[int(rng.integers(len(rungs(MAX_EPOCHS))))]
            values = {k: v for k, v in values.items() if k <= last}
            state, value, notes["reason"], notes["epochs"] = (
                TrialState.PRUNED,
                None,
                f"pruned at epoch {last}",
                last,
            )
        elif luck < 0.30 and failures and number > 0:
            state, value, values = TrialState.FAIL, None, {}
            notes = {"reason": "ValueError: the solver said <no> & stopped"}
        else:
            notes["scores"] = [value - 0.01, value + 0.01]
        trials.append(
            create_trial(
                state=state,
                value=value,
                params=config,
                distributions=distributions,
                user_attrs=notes,
                intermediate_values=values,
            )
        )
        trials[-1].datetime_start = begun + timedelta(seconds=number)
        trials[-1].datetime_complete = (
            None if state == TrialState.RUNNING else begun + timedelta(seconds=number + 2)
        )
    study.add_trials(trials)
    study.set_user_attr(
        FINGERPRINT,
        {
            "columns": [["age", "float64", "0" * 32], ["job", "str", "1" * 32]],
            "rows": 1000,
            "content": "2" * 32,
            "target": "label",
            "target_content": "3" * 32,
            "task": task,
            "space": space.to_json(),
            "cv": "StratifiedKFold(n_splits=5, random_state=0, shuffle=True)",
            "metric": "neg_root_mean_squared_error" if task == "regression" else "neg_log_loss",
            "estimator": {
                "class": "InnaClassifier",
                "parameters": {"max_epochs": MAX_EPOCHS, "batch_size": 256},
            },
            "versions": {"inna-tune": "0.1.0", "optuna": "5.0.0", "torch": "2.13.0", "scikit-learn": "1.9.1"},
        },
    )
    study.set_user_attr(SEED, 1234)
    study.set_user_attr(CURVATURE, LAMBDA)
    study.set_user_attr(POPULATION, 8)
    study.set_user_attr(MODEL, "model.inna")
    if held_out:
        record_held_out(study, held_out_of(task, rng=rng))
    return study


def held_out_of(task, *, rows=300, n_classes=4, rng=None):
    """A summary of made predictions."""
    import pandas as pd

    rng = np.random.default_rng(0) if rng is None else rng
    scores = pd.DataFrame({"log-loss": [0.69, 0.41, 0.35], "accuracy": [0.5, 0.8, 0.85]})
    scores.index = ["baseline", "untuned default", "tuned"]
    best = tuple(ColumnImportance(f"column {i}", 2.0**-i, 0.1) for i in range(20))
    importances = Importances("RMSE" if task == "regression" else "log-loss", rows, 30, 40, best)
    kept = {"scores": scores, "trial": 0, "importances": importances}
    if task == "regression":
        predicted = rng.normal(100, 20, rows)
        return summarize_held_out(Predicted(), predicted, predicted + rng.normal(0, 8, rows), **kept)
    labels = LABELS if task == "binary" else np.array([f"class {i}" for i in range(n_classes)])
    raw = rng.gamma(0.6, size=(rows, len(labels)))
    probabilities = raw / raw.sum(axis=1, keepdims=True)
    truth = labels[[rng.choice(len(labels), p=p) for p in probabilities]]
    return summarize_held_out(Predicted(labels), probabilities, truth, **kept)

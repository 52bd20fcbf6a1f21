"""The live view on a terminal, and the lines elsewhere."""

import io

import optuna
import pytest
from optuna.trial import TrialState, create_trial
from rich.console import Console
from sklearn.datasets import load_iris

from inna_tune import InnaClassifier, InnaSearchCV
from inna_tune.cli.progress import Progress, sparkline
from inna_tune.records.attributes import FINGERPRINT
from inna_tune.records.text import duration
from inna_tune.study.job import Training


def console(*, terminal, encoding="utf-8"):
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    return Console(file=file, force_terminal=terminal, width=80, _environ={})


def shown(view):
    """The live view as text."""
    plain = Console(file=io.StringIO(), width=80, _environ={})
    plain.print(view.view())
    return plain.file.getvalue()


def feed(view, states, n_before=0, metric="neg_log_loss"):
    study = optuna.create_study(direction="maximize")
    study.set_user_attr(FINGERPRINT, {"metric": metric})
    for _ in range(n_before):
        study.add_trial(create_trial(state=TrialState.PRUNED))
    view.on_training(study, Training((n_before, n_before + 1), 10, 0, 6, 100))
    for i, state in enumerate(states):
        value = -1.0 / (i + 1) if state == TrialState.COMPLETE else None
        study.add_trial(create_trial(state=state, value=value))
        view(study, study.trials[-1])
    return study


def test_the_view_tells_all_that_a_person_waits_for():
    view = Progress(8, "churn [red]", console(terminal=True))
    with view:
        feed(
            view,
            [
                TrialState.COMPLETE,
                TrialState.COMPLETE,
                TrialState.PRUNED,
                TrialState.COMPLETE,
                TrialState.FAIL,
            ],
        )
    text = shown(view)
    for part in (
        "Tuning churn [red]",
        "5 of 8 trials",
        "3 left",
        "1 pruned",
        "1 failed",
        "to go",
        "best log-loss 0.25 (trial 3)",
        "█▃▁",
        "10 members of 2 trials train: epoch 0 to the rung at 6, of 100",
    ):
        assert part in text, part
    assert all(len(line) <= 80 for line in text.splitlines())


def test_the_view_of_a_study_that_has_nothing_yet():
    view = Progress(8, "y" * 200, console(terminal=True))
    assert "0 of 8 trials" in shown(view)
    assert "best" not in shown(view)


def test_elsewhere_about_ten_plain_lines():
    seen = console(terminal=False)
    view = Progress(40, "y", seen)
    with view:
        feed(view, [TrialState.COMPLETE] * 40, metric="neg_root_mean_squared_error")
    seen.file.flush()
    lines = seen.file.buffer.getvalue().decode().splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("trial 4/40, best RMSE 0.25 (trial 3), ")
    assert not any("\x1b" in line for line in lines)


def test_time_left_counts_what_was_done_here(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("inna_tune.cli.progress.time.monotonic", lambda: now[0])
    view = Progress(20, "y", console(terminal=True))
    study = feed(view, [], n_before=10)
    for _ in range(5):
        study.add_trial(create_trial(state=TrialState.COMPLETE, value=-1.0))
        now[0] += 2.0
        view(study, study.trials[-1])
    assert "10 s to go" in shown(view)


def test_a_search_tells_what_trains():
    X, y = load_iris(return_X_y=True)
    heard = []

    class Callback:
        def __call__(self, study, trial):
            heard.append(trial.number)

        def on_training(self, study, training):
            heard.append(training)

    net = InnaClassifier(hidden_layer_sizes=(8,), max_epochs=16, n_members=1)
    InnaSearchCV(net, n_trials=4, cv=3, population=2, random_state=0, callbacks=[Callback()]).fit(X, y)
    training = [h for h in heard if isinstance(h, Training)]
    # The first trial on three folds, the second one on its first.
    assert training[0] == Training((0, 1), 4, 0, 2, 16)
    assert all(t.epoch < t.until <= t.epochs and 0 < t.members <= 3 * len(t.trials) for t in training)
    assert heard.index(training[0]) < heard.index(0)
    assert sorted(h for h in heard if not isinstance(h, Training)) == [0, 1, 2, 3]


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (3725, "1 h 02 min")])
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_sparklines():
    assert sparkline([1.0, 2.0, 3.0]) == "▁▅█"
    assert sparkline([2.0, 2.0]) == "▁▁"
    assert sparkline([1.0, 3.0], ascii_only=True) == "_#"
    view = Progress(8, "y", console(terminal=True, encoding="ascii"))
    feed(view, [TrialState.COMPLETE] * 3)
    assert "#" in shown(view)

"""How far a study is, while it runs."""

import time
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from inna_tune.cli.console import err


class ProgressLine:
    """One line: trials, best score, time left; rewritten on a terminal, printed now and then elsewhere."""

    def __init__(self, n_trials: int, task: str) -> None:
        self.n_trials = n_trials
        self.label = "RMSE" if task == "regression" else "log-loss"
        self.began = time.monotonic()
        self.first: int | None = None
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} trials"),
            TextColumn("{task.fields[best]}"),
            TimeRemainingColumn(compact=True),
            console=err,
            transient=True,
            disable=not err.is_terminal,
        )
        self.task = self.bar.add_task("Tuning", total=n_trials, best="")

    def __enter__(self) -> "ProgressLine":
        self.bar.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.bar.__exit__(*error)

    def __call__(self, study: Any, trial: Any) -> None:
        done = sum(t.state.is_finished() for t in study.get_trials(deepcopy=False))
        if self.first is None:
            self.first = done - 1
        best = _best(study)
        text = "" if best is None else f"best {self.label} {-best.value:.5g} (trial {best.number})"
        self.bar.update(self.task, completed=done, best=text)
        every = max(1, self.n_trials // 10)
        if not err.is_terminal and (done % every == 0 or done == self.n_trials):
            elapsed = time.monotonic() - self.began
            left = elapsed / (done - self.first) * (self.n_trials - done)
            err.print(f"trial {done}/{self.n_trials}, {text}, {left:.0f} s left", markup=False)


def _best(study: Any) -> Any:
    try:
        return study.best_trial
    except ValueError:
        return None

"""How far a study is, while it runs: a live view on a terminal, plain lines elsewhere."""

import time
from collections import deque
from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from inna_tune.cli.console import err, say
from inna_tune.records.record import StudyRecord
from inna_tune.records.text import duration
from inna_tune.visible import visible

if TYPE_CHECKING:
    from inna_tune.study.job import Training

_WIDTH = 32
_BLOCKS, _ASCII = "▁▂▃▄▅▆▇█", "_.-:=+*#"
_LINES = 10  # about so many plain lines a study


def sparkline(values: list[float], *, ascii_only: bool = False) -> str:
    """Values as a row of blocks, the lowest as the lowest block."""
    blocks = _ASCII if ascii_only else _BLOCKS
    low, high = min(values), max(values)
    width = high - low or 1.0
    return "".join(blocks[round((v - low) / width * (len(blocks) - 1))] for v in values)


class Progress:
    """A callback of the search that shows what it hears of.

    Parameters
    ----------
    n_trials : int
        Of the study in all.
    name : str
        Of the study.
    console : rich.console.Console
        A terminal gets the live view, anything else plain lines.
    prefix : str
        What plain lines begin with, where there are several studies.
    """

    def __init__(self, n_trials: int, name: str, console: Console = err, *, prefix: str = "") -> None:
        self.prefix = prefix
        self.n_trials, self.name, self.console = n_trials, name, console
        self.began = time.monotonic()
        self.counts = dict.fromkeys((TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL), 0)
        self.before: int | None = None  # trials that were done when this process began
        self.metric = "score"
        self.best: tuple[float, int] | None = None
        self.bests: deque[float] = deque(maxlen=_WIDTH)
        self.training: Training | None = None
        self._live: Live | None = None
        if console.is_terminal:
            # A terminal that can move its cursor shows one view, redrawn in place; it is gone at the end.
            self._live = Live(console=console, get_renderable=self.view, refresh_per_second=4, transient=True)

    def __enter__(self) -> "Progress":
        if self._live is not None:
            self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._live is not None:
            self._live.__exit__(*error)

    # ------------------------------------------------------------------ what the search tells

    def on_training(self, study: Any, training: "Training") -> None:
        """Hear what trains now."""
        if self.before is None:
            self._count(study)
            self.before = self.done
        self.training = training

    def __call__(self, study: Any, trial: Any) -> None:
        """Hear that a trial is done."""
        self._count(study)
        if self.before is None:
            self.before = self.done - 1
        if trial.state == TrialState.COMPLETE and self.best is not None:
            self.bests.append(self.best[0])
        every = max(1, self.n_trials // _LINES)
        if self._live is None and (self.done % every == 0 or self.done == self.n_trials):
            parts = [f"trial {self.done}/{self.n_trials}", self._best_text(), self._left_text()]
            say(self.prefix + ", ".join(filter(None, parts)), self.console)

    def _count(self, study: Any) -> None:
        record = StudyRecord(study)
        states = [t.state for t in record.trials]
        self.counts = {state: states.count(state) for state in self.counts}
        best = next((t for t in record.best_first if t.state.is_finished()), None)
        if best is not None:
            self.metric, self.best = record.metric.name, (record.score(best), best.number)

    # ------------------------------------------------------------------ what is shown

    @property
    def done(self) -> int:
        """Finished trials of the study."""
        return sum(self.counts.values())

    def _best_text(self) -> str:
        return "" if self.best is None else f"best {self.metric} {self.best[0]:.5g} (trial {self.best[1]})"

    def _left_text(self) -> str:
        here = self.done - (self.before or 0)
        if here < 1:
            return ""
        left = (time.monotonic() - self.began) / here * max(0, self.n_trials - self.done)
        return f"{duration(left)} left"

    def view(self) -> RenderableType:
        """The live view as it should look now."""
        pruned, failed = self.counts[TrialState.PRUNED], self.counts[TrialState.FAIL]
        head = Table.grid(padding=(0, 1))
        head.add_row(
            Text(visible(f"Tuning {self.name}"), style="bold", overflow="ellipsis", no_wrap=True),
            ProgressBar(total=self.n_trials, completed=self.done, width=24),
            Text(f"{self.done} of {self.n_trials} trials", no_wrap=True),
        )
        rows: list[RenderableType] = [head]
        details = [f"{max(0, self.n_trials - self.done)} left", f"{pruned} pruned", f"{failed} failed"]
        details += [
            f"{duration(time.monotonic() - self.began)} so far",
            self._left_text().replace(" left", " to go"),
        ]
        rows.append(Text("  " + " · ".join(filter(None, details)), style="dim"))
        if self.best is not None:
            line = Text(visible("  " + self._best_text()))
            if len(self.bests) > 1:
                spark = sparkline(list(self.bests), ascii_only=self.console.options.ascii_only)
                line.append(f"  {spark}", style="cyan")
            rows.append(line)
        if self.done >= self.n_trials:
            rows.append(Text("  making the model, and the untuned default beside it", style="dim"))
        elif self.training is not None:
            rows.append(Text(visible(f"  {self.training}"), style="dim"))
        return Group(*rows)

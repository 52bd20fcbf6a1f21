"""A progress bar for notebooks and scripts."""

from contextlib import suppress
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from tqdm.auto import tqdm


class ProgressBar:
    """A callback of `InnaSearchCV` that drives a bar of tqdm: a widget in a notebook, a line on a terminal.

    It shows the trials of the study that are done, the best value so far as the study stores it, and what trains now. The
    search itself says as much by the logging module, under "inna_tune" at INFO, with ``verbose=1``.

    Parameters
    ----------
    n_trials : int, optional
        Of the study in all, as given to the search; None counts without an end.
    **options
        For tqdm, such as ``leave=False``.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from inna_tune import InnaClassifier, InnaSearchCV
    >>> from inna_tune.study import ProgressBar
    >>> X, y = load_iris(return_X_y=True, as_frame=True)
    >>> net = InnaClassifier(hidden_layer_sizes=(8,), max_epochs=4)
    >>> bar = ProgressBar(2, disable=True)
    >>> search = InnaSearchCV(net, n_trials=2, cv=2, callbacks=[bar]).fit(X, y)
    """

    def __init__(self, n_trials: int | None = None, **options: Any) -> None:
        self.n_trials, self.options = n_trials, options
        self._bar: Any = None

    def __getstate__(self) -> dict[str, Any]:
        # A copy, such as the one in a pickled search, begins a bar of its own.
        return self.__dict__ | {"_bar": None}

    def __call__(self, study: Any, trial: FrozenTrial) -> None:
        """Hear that a trial is done."""
        done = sum(t.state.is_finished() for t in study.get_trials(deepcopy=False))
        with suppress(OSError):  # a search does not end since nobody can see how far it is
            bar = self._opened(study)
            if study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
                bar.set_postfix_str(
                    f"best {study.best_value:.5g} (trial {study.best_trial.number})", refresh=False
                )
            bar.update(done - bar.n)
        if self.n_trials is not None and done >= self.n_trials:
            self.close()

    def on_training(self, study: Any, training: Any) -> None:
        """Hear what trains now, an `inna_tune.study.job.Training`."""
        with suppress(OSError):
            bar = self._opened(study)
            bar.set_description(f"epoch {training.epoch}-{training.until} of {training.epochs}")

    def close(self) -> None:
        """Leave the bar as it is; a further trial begins another."""
        if self._bar is not None:
            with suppress(OSError):
                self._bar.close()
            self._bar = None

    def _opened(self, study: Any) -> Any:
        if self._bar is None:
            done = sum(t.state.is_finished() for t in study.get_trials(deepcopy=False))
            # A resumed study's earlier trials are done, but took no time here.
            self._bar = tqdm(total=self.n_trials, initial=done, unit="trial", **self.options)
        return self._bar

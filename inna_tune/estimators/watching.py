"""Those who watch a fit, epoch by epoch: plain functions, and callbacks by scikit-learn's protocol where it has one."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from inna_tune.engine import Training

try:
    from sklearn.callback import CallbackSupportMixin as CallbackSupportMixin
except ImportError:  # scikit-learn before 1.9

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Nothing: there is no protocol."""


if TYPE_CHECKING:
    from inna_tune.estimators.base import InnaEstimator

_SKLEARN = "_skl_callbacks"


@dataclass(frozen=True)
class Epoch:
    """What an epoch of a fit came to; of several nets the means over those that trained in it.

    Attributes
    ----------
    number : int
        From 1 on.
    n_epochs : int
        That the fit does at most.
    train_loss, validation_loss, lr : float
        As in ``history_``; the validation loss is NaN where there is none.
    seconds : float
        Of training so far.
    n_members : int
        Nets that trained.
    """

    number: int
    n_epochs: int
    train_loss: float
    validation_loss: float
    lr: float
    seconds: float
    n_members: int = 1

    @property
    def losses(self) -> dict[str, float]:
        """What loggers log, by name; a validation loss only where there is one."""
        found = {"train_loss": self.train_loss, "validation_loss": self.validation_loss, "lr": self.lr}
        return {name: value for name, value in found.items() if not math.isnan(value)}


EpochCallback = Callable[[Epoch], object]


class Watch:
    """Tells of every epoch of a fit, and whether somebody wants it to end.

    Parameters
    ----------
    estimator : InnaEstimator
    n_epochs : int
        At most.
    context : object or None
        Of scikit-learn's protocol, of the whole fit; None where nobody watches by that.
    data : mapping
        The rows and their target, for that protocol.
    """

    def __init__(
        self, estimator: "InnaEstimator", n_epochs: int, context: Any, data: Mapping[str, Any]
    ) -> None:
        self._estimator, self._n_epochs = estimator, n_epochs
        self._context, self._data = context, data
        self._callbacks = list(estimator.callbacks or ())
        self._told = self._n_contexts = 0
        self._within: Any = None
        self.is_stopped = False

    def of(self, training: Training) -> Callable[[], bool] | None:
        """What a training asks before every epoch, and is to be asked after the last; None where nobody watches."""
        if not self._callbacks and self._context is None:
            return None
        self._told, self.is_stopped, self._within = 0, False, None

        def ask() -> bool:
            if training.epoch > self._told:
                self._told = training.epoch
                self.is_stopped = self._end(training)
            if not self.is_stopped and training.active and training.epoch < training.max_epochs:
                self._begin()
            return self.is_stopped

        return ask

    def _begin(self) -> None:
        # A fit that begins anew with a shorter step has no epochs left to announce at the end.
        if self._context is None or self._within is not None or self._n_contexts >= self._n_epochs:
            return
        self._within = self._context.subcontext(task_name="epoch")
        self._n_contexts += 1
        self._within.call_on_fit_task_begin(estimator=self._estimator, **self._data)

    def _end(self, training: Training) -> bool:
        epoch, wants_end = _epoch_of(training, self._n_epochs), False
        for callback in self._callbacks:
            wants_end |= callback(epoch) is True
        if self._within is not None:
            wants_end |= bool(
                self._within.call_on_fit_task_end(
                    estimator=self._estimator,
                    reconstruction_attributes=lambda: _fitted_by(training),
                    **self._data,
                )
            )
            self._within = None
        return wants_end


def _epoch_of(training: Training, n_epochs: int) -> Epoch:
    histories = [r.history for r in training.results if r.history["epoch"][-1:] == [training.epoch]]

    def mean(name: str) -> float:
        return sum(float(history[name][-1]) for history in histories) / len(histories)

    return Epoch(
        training.epoch,
        n_epochs,
        mean("train_loss"),
        mean("validation_loss"),
        mean("lr"),
        max(float(history["seconds"][-1]) for history in histories),
        len(histories),
    )


def _fitted_by(training: Training) -> dict[str, Any] | None:
    """What an estimator needs to predict as if training ended now; None where no net has weights."""
    places = range(len(training.members))
    weights = [own for place in places if (own := training.best_weights(place)) is not None]
    return {"weights_": torch.stack(weights)} if weights else None


@contextmanager
def watching(estimator: "InnaEstimator", n_epochs: int, X: Any, y: Any) -> Iterator[Watch]:
    """Watch a fit, as its callbacks want; they are let go of at the end, however it comes."""
    if not getattr(estimator, _SKLEARN, None) and not hasattr(estimator, "_parent_callback_ctx"):
        yield Watch(estimator, n_epochs, None, {})
        return
    data = {"X": X, "y": y}
    context = estimator._init_callback_context(max_subtasks=n_epochs)
    try:
        context.call_on_fit_task_begin(estimator=estimator, **data)
        yield Watch(estimator, n_epochs, context, data)
        context.call_on_fit_task_end(
            estimator=estimator, reconstruction_attributes=lambda: {"weights_": estimator.weights_}, **data
        )
    finally:
        # NOTE: what sklearn.callback.with_callbacks does, which would stand between our warnings and the person's line.
        for callback in estimator.__dict__.pop("_skl_callbacks_to_teardown", ()):
            callback.teardown(estimator=estimator, context=context)
        estimator.__dict__.pop("_callback_fit_ctx", None)


def check_callbacks(callbacks: Any) -> None:
    """Raise a TypeError unless these are functions, or None."""
    if callbacks is None:
        return
    if not isinstance(callbacks, Sequence) or isinstance(callbacks, str) or not all(map(callable, callbacks)):
        raise TypeError(f"callbacks={callbacks!r} must be functions of an epoch")


def without_callbacks(estimator: Any) -> Any:
    """Take the callbacks off an estimator, which is returned."""
    estimator.set_params(callbacks=None)
    estimator.__dict__.pop(_SKLEARN, None)
    return estimator

"""Checkpoints of running trials: a file each beside the study.

A trial that is taken up again goes on from its checkpoint, on a CPU by one thread bit for bit as if there had been no break.
A file that is damaged or of something else costs what it would have saved, nothing more.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, get_args

import optuna
import torch
from safetensors import SafetensorError
from torch import Tensor

from inna_tune.engine import MemberProgress, MemberResult, MemberState
from inna_tune.engine.members import HISTORY, SCORE, StopReason
from inna_tune.estimators.saving import Tensors
from inna_tune.store.opening import store_of
from inna_tune.study.beside import FilesBeside
from inna_tune.visible import get_logger

logger = get_logger(__name__)

FORMAT = "inna-tune checkpoint 2"

_NUMBERS = ("best_epoch", "best_loss", "epochs", "lr", "alpha", "beta")
_TENSOR = "tensor of the file"


@dataclass(frozen=True)
class Checkpoint:
    """Where a trial stands between two epochs.

    Attributes
    ----------
    identity : str
        Of all that determines the training; a checkpoint of another identity is not used.
    epoch : int
    seconds : float
        Spent on the trial so far.
    reports : dict of int to float
        Its scores by rung.
    notes : dict of str to Any
        What a pruner has noted of the trial, its system attributes.
    members : list of MemberProgress
        Fold by fold, of those that the trial has begun on.
    retries : list of int
        How often it began anew, on each of them.
    """

    identity: str
    epoch: int
    seconds: float
    reports: dict[int, float]
    notes: dict[str, Any] = field(default_factory=dict)
    members: list[MemberProgress] = field(default_factory=list)
    retries: list[int] = field(default_factory=list)

    @property
    def n_begun(self) -> int:
        """Folds that the trial has begun on."""
        return len(self.retries)


class Checkpoints:
    """The checkpoints of one study's trials.

    Parameters
    ----------
    study : optuna.Study
    """

    def __init__(self, study: optuna.Study) -> None:
        self._files = FilesBeside(study, store_of(study).checkpoints, FORMAT, save_time_only=True)

    @property
    def are_kept(self) -> bool:
        """Whether there is a place for them."""
        return self._files.folder is not None

    def save(self, number: int, checkpoint: Checkpoint) -> bool:
        """Write a trial's checkpoint in place of its last one, by one move; say whether that went well."""
        if self._files.place(number) is None:
            return False
        try:
            self._files.write(number, *to_plain(checkpoint))
        except (OSError, SafetensorError, ValueError, TypeError) as error:
            # A study does not end for want of a checkpoint.
            logger.warning("trial %d has no checkpoint: %s: %s", number, type(error).__name__, error)
            return False
        return True

    def load(
        self, number: int, identity: str, sizes: Sequence[Sequence[int]], *, n_first: int | None = None
    ) -> Checkpoint | None:
        """Read a trial's checkpoint.

        Parameters
        ----------
        number : int
        identity : str
            That the checkpoint must have.
        sizes : sequence of sequences of int
            Numbers in each tensor of the net, of each member of the trial.
        n_first : int, optional
            Members on the first fold, where a checkpoint may be of these alone.

        Returns
        -------
        Checkpoint or None
            None where there is none that can be used; one that can't be is removed.
        """
        try:
            written = self._files.read(number)
            if written is None:
                return None
            content, tensors = written
            if content["identity"] != identity:
                raise ValueError("it is of other data or settings")
            own = sizes[:n_first] if len(content["members"]) == n_first else sizes
            found = from_plain(content, tensors, own)
        except Exception as error:  # whatever is in the file
            logger.warning("trial %d begins anew, its checkpoint is of no use: %s", number, error)
            self.remove(number)
            return None
        return found

    def remove(self, number: int) -> None:
        """Delete a trial's checkpoint, and what a killed worker left of one half written."""
        self._files.remove(number)

    def clean(self, finished: Iterable[int]) -> None:
        """Delete what killed workers left of finished trials, and the folder if it is empty."""
        numbers = set(finished)
        for number, _ in self._files.there():
            if number in numbers:
                self._files.remove(number)
        self._files.sweep()


# ---------------------------------------------------------------------- plain data and back


def to_plain(checkpoint: Checkpoint) -> tuple[dict[str, Any], Tensors]:
    """A checkpoint as JSON-able data, and the tensors that these name."""
    # Where a member's training ended is told by its state; a result that says it, too, says it twice.
    members = [replace(m, result=replace(m.result, state=None)) for m in checkpoint.members]
    tensors: Tensors = {}
    content: dict[str, Any] = _pack(replace(checkpoint, members=members), "checkpoint", tensors)
    return content, tensors


def _pack(value: Any, name: str, tensors: Tensors) -> Any:
    """A value as JSON knows it; tensors are put aside by their names."""
    if isinstance(value, Tensor):
        # A clone: safetensors refuses tensors that share their memory, as views of a stack do.
        tensors[name] = value.detach().cpu().clone().contiguous()
        return {_TENSOR: name}
    if is_dataclass(value):
        value = {f.name: getattr(value, f.name) for f in fields(value)}
    if isinstance(value, dict):
        return {str(key): _pack(each, f"{name}.{key}", tensors) for key, each in value.items()}
    if isinstance(value, list):
        return [_pack(each, f"{name}.{k}", tensors) for k, each in enumerate(value)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{name} is a {type(value).__name__}, which a checkpoint can't hold")


def _unpack(value: Any, tensors: Tensors) -> Any:
    if isinstance(value, dict):
        if set(value) == {_TENSOR}:
            return tensors[value[_TENSOR]]
        return {key: _unpack(each, tensors) for key, each in value.items()}
    return [_unpack(each, tensors) for each in value] if isinstance(value, list) else value


def from_plain(content: dict[str, Any], tensors: Tensors, sizes: Sequence[Sequence[int]]) -> Checkpoint:
    """What `to_plain` gave, checked; an error says that it makes no sense. ``sizes`` as for `Checkpoints.load`."""
    found = Checkpoint(**_unpack(content, tensors))
    if len(found.members) != len(sizes):
        raise ValueError(f"it has {len(found.members)} members, not {len(sizes)}")
    if not isinstance(found.notes, dict) or any(name.startswith("inna_tune:") for name in found.notes):
        raise ValueError("its notes are none of a pruner's")
    plain: list[Any] = found.members
    members = [_member(own, of_net) for own, of_net in zip(plain, sizes, strict=True)]
    if any(m.state is not None and m.state.epochs != found.epoch for m in members):
        raise ValueError("its members are at different epochs")
    return replace(
        found,
        epoch=int(found.epoch),
        seconds=float(found.seconds),
        reports={int(rung): float(score) for rung, score in found.reports.items()},
        members=members,
        retries=[int(count) for count in found.retries],
    )


def _member(plain: dict[str, Any], sizes: Sequence[int]) -> MemberProgress:
    result = MemberResult(**plain["result"])
    if result.stop_reason not in get_args(StopReason):
        raise ValueError(f"a member stopped for {result.stop_reason!r}")
    if tuple(result.history) not in (HISTORY, (*HISTORY, SCORE)):
        raise ValueError("a history has other columns")
    numbers = [[getattr(result, name) for name in _NUMBERS], *result.history.values()]
    if any(type(value) not in (int, float) for values in numbers for value in values):
        raise ValueError("a result is no number")
    _check_size(result.weights, sum(sizes))
    if plain["state"] is None:
        return MemberProgress(result, None)
    state = MemberState(**plain["state"])
    _check_size(state.weights, sum(sizes))
    if len(state.streams) != 2 or any(s.dtype != torch.uint8 for s in state.streams):
        raise ValueError("its random streams are none")
    if any(t.numel() not in set(sizes) for t in state.averages) or state.count.shape != (1, 1):
        raise ValueError("its averages do not fit the net")
    return MemberProgress(result, state)


def _check_size(weights: Tensor | None, size: int) -> None:
    if weights is not None and weights.shape != (size,):
        raise ValueError(f"weights of shape {list(weights.shape)} do not fit a net of {size} parameters")

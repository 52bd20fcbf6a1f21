"""Checkpoints of running trials: a file each beside the study, tensors by safetensors, the rest as JSON in its header.

A trial that is taken up again goes on from its checkpoint, on a CPU by one thread bit for bit as if there had been no break.
Reading runs no code, and a file that is damaged or of something else costs what it would have saved, nothing more.
"""

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import optuna
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor

from inna_tune.engine import MemberProgress, MemberResult, MemberState
from inna_tune.engine.members import StopReason
from inna_tune.estimators.saving import Tensors, digest
from inna_tune.files import replacing
from inna_tune.store.opening import store_of

logger = logging.getLogger(__name__)

FORMAT = "inna-tune checkpoint 1"

_HISTORY = ("epoch", "train_loss", "validation_loss", "lr", "seconds")
_SETTINGS = ("lr", "alpha", "beta", "curvature")
_HALF_WRITTEN = ".tmp"
_NAME = re.compile(r"[0-9a-f]{32}-(0|[1-9][0-9]{0,17})\.(?:safetensors|[0-9a-z_]+\.tmp)")


@dataclass(frozen=True)
class Checkpoint:
    """Where a trial stands between two epochs.

    Attributes
    ----------
    identity : str
        Of all that determines the training; see `TrialRunner`. A checkpoint of another identity is not used.
    epoch : int
    seconds : float
        Spent on the trial so far.
    reports : dict of int to float
        Its scores by rung.
    notes : dict of str to Any
        What a pruner has noted of the trial, its system attributes.
    members : list of MemberProgress
        Fold by fold.
    """

    identity: str
    epoch: int
    seconds: float
    reports: dict[int, float]
    notes: dict[str, Any] = field(default_factory=dict)
    members: list[MemberProgress] = field(default_factory=list)
    retries: list[int] = field(default_factory=list)


class Checkpoints:
    """The checkpoints of one study's trials.

    Parameters
    ----------
    study : optuna.Study
    """

    def __init__(self, study: optuna.Study) -> None:
        store = store_of(study)
        self._folder = store.checkpoints
        # A file may be moved, and its checkpoints with it.
        name = study.study_name if store.path is not None else f"{store.words}\n{study.study_name}"
        self._prefix = hashlib.blake2b(name.encode(), digest_size=16).hexdigest()

    @property
    def are_kept(self) -> bool:
        """Whether there is a place for them."""
        return self._folder is not None

    def _path(self, number: int) -> Path | None:
        if self._folder is None:
            return None
        name = f"{self._prefix}-{int(number)}.safetensors"
        if not _NAME.fullmatch(name):
            raise ValueError(f"number={number!r}: no trial has such a number")
        return self._folder / name

    def save(self, number: int, checkpoint: Checkpoint) -> bool:
        """Write a trial's checkpoint in place of its last one, by one move; say whether that went well."""
        path = self._path(number)
        if path is None:
            return False
        try:
            content, tensors = _to_plain(checkpoint)
            plain = json.dumps(content)
            metadata = {"format": FORMAT, "content": plain, "digest": digest(plain, tensors)}
            with replacing(path, prefix=f"{path.stem}.", suffix=_HALF_WRITTEN, make_folder=True) as written:
                written.write_bytes(serialize(tensors, metadata=metadata))
        except (OSError, SafetensorError, ValueError, TypeError) as error:
            # A study does not end for want of a checkpoint.
            logger.warning("trial %d has no checkpoint: %s: %s", number, type(error).__name__, error)
            return False
        return True

    def load(self, number: int, identity: str, sizes: Sequence[Sequence[int]]) -> Checkpoint | None:
        """Read a trial's checkpoint.

        Parameters
        ----------
        number : int
        identity : str
            That the checkpoint must have.
        sizes : sequence of sequences of int
            Numbers in each tensor of the net, of each member of the trial.

        Returns
        -------
        Checkpoint or None
            None where there is none that can be used; one that can't be is removed.
        """
        path = self._path(number)
        if path is None or not path.is_file():
            return None
        try:
            with safe_open(str(path), framework="pt") as file:
                metadata = file.metadata() or {}
                tensors: Tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if metadata.get("format") != FORMAT or metadata["digest"] != digest(metadata["content"], tensors):
                raise ValueError("it is damaged, or of another version")
            content = json.loads(metadata["content"])
            if content["identity"] != identity:
                raise ValueError("it is of other data or settings")
            found = _from_plain(content, tensors, sizes)
        except Exception as error:  # whatever is in the file
            logger.warning("trial %d begins anew, its checkpoint is of no use: %s", number, error)
            self.remove(number)
            return None
        return found

    def remove(self, number: int) -> None:
        """Delete a trial's checkpoint, and what a killed worker left of one half written."""
        path = self._path(number)
        if path is not None:
            with suppress(OSError):
                path.unlink(missing_ok=True)
                for half_written in path.parent.glob(f"{path.stem}.*{_HALF_WRITTEN}"):
                    half_written.unlink(missing_ok=True)

    def clean(self, finished: Iterable[int]) -> None:
        """Delete what killed workers left of finished trials, and the folder if it is empty."""
        if self._folder is None or not self._folder.is_dir():
            return
        numbers = set(finished)
        with suppress(OSError):
            for path in self._folder.glob(f"{self._prefix}-*"):
                match = _NAME.fullmatch(path.name)
                if match is not None and int(match[1]) in numbers:
                    path.unlink(missing_ok=True)
            self._folder.rmdir()


# ---------------------------------------------------------------------- plain data and back


def _to_plain(checkpoint: Checkpoint) -> tuple[dict[str, Any], Tensors]:
    tensors: Tensors = {}
    members = []
    for i, member in enumerate(checkpoint.members):
        result, state = member.result, member.state
        own: dict[str, Tensor] = {
            # As tensors, which know infinities and NaN, to the last bit.
            "numbers": _numbers([result.best_loss, result.lr, result.alpha, result.beta]),
            "history": _numbers([result.history[name] for name in _HISTORY]),
        }
        if result.curvature is not None:
            own["curvature"] = _numbers([result.curvature])
        if result.weights is not None:
            own["best"] = result.weights
        plain: dict[str, Any] = {
            "best_epoch": result.best_epoch,
            "epochs": result.epochs,
            "stop_reason": result.stop_reason,
        }
        if state is not None:
            own |= {"weights": state.weights, "count": state.count}
            own["settings"] = _numbers([state.settings[name] for name in _SETTINGS])
            own |= {f"averages.{k}": tensor for k, tensor in enumerate(state.averages)}
            own |= {f"streams.{k}": tensor for k, tensor in enumerate(state.streams)}
            own |= {
                f"updates.{k}.{name}": value
                for k, row in enumerate(state.updates)
                for name, value in row.items()
                if isinstance(value, Tensor)
            }
            plain["updates"] = [
                {name: _scalar(value) for name, value in row.items() if not isinstance(value, Tensor)}
                for row in state.updates
            ]
            plain["epoch"] = state.epochs
        members.append(plain)
        # Clones: safetensors refuses tensors that share their memory, as views of a stack do.
        tensors |= {f"{i}.{name}": t.detach().cpu().clone().contiguous() for name, t in own.items()}
    content = {
        "identity": checkpoint.identity,
        "epoch": checkpoint.epoch,
        "seconds": checkpoint.seconds,
        "reports": [[rung, score] for rung, score in checkpoint.reports.items()],
        "notes": checkpoint.notes,
        "members": members,
        "retries": checkpoint.retries,
    }
    return content, tensors


def _numbers(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _scalar(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    raise TypeError(f"the optimizer keeps a {type(value).__name__}, which a checkpoint can't hold")


def _from_plain(content: dict[str, Any], tensors: Tensors, sizes: Sequence[Sequence[int]]) -> Checkpoint:
    if len(content["members"]) != len(sizes):
        raise ValueError(f"it has {len(content['members'])} members, not {len(sizes)}")
    members = [
        _member(
            plain, {n.split(".", 1)[1]: t for n, t in tensors.items() if n.split(".", 1)[0] == str(i)}, own
        )
        for i, (plain, own) in enumerate(zip(content["members"], sizes, strict=True))
    ]
    notes = content["notes"]
    if not isinstance(notes, dict) or any(name.startswith("inna_tune:") for name in notes):
        raise ValueError("its notes are none of a pruner's")
    epoch = int(content["epoch"])
    if any(m.state is not None and m.state.epochs != epoch for m in members):
        raise ValueError("its members are at different epochs")
    return Checkpoint(
        identity=str(content["identity"]),
        epoch=epoch,
        seconds=float(content["seconds"]),
        reports={int(rung): float(score) for rung, score in content["reports"]},
        notes=notes,
        members=members,
        # Those of earlier versions do not tell.
        retries=[int(count) for count in content.get("retries", ())],
    )


def _member(plain: dict[str, Any], own: Tensors, sizes: Sequence[int]) -> MemberProgress:
    if plain["stop_reason"] not in get_args(StopReason):
        raise ValueError(f"a member stopped for {plain['stop_reason']!r}")
    history = own["history"]
    if history.shape[0] != len(_HISTORY):
        raise ValueError("a history has other columns")
    best_loss, lr, alpha, beta = own["numbers"].tolist()
    result = MemberResult(
        weights=_sized(own.get("best"), sum(sizes)),
        best_epoch=int(plain["best_epoch"]),
        best_loss=best_loss,
        epochs=int(plain["epochs"]),
        stop_reason=plain["stop_reason"],
        lr=lr,
        alpha=alpha,
        beta=beta,
        curvature=float(own["curvature"]) if "curvature" in own else None,
        history={
            name: [int(v) for v in row] if name == "epoch" else row
            for name, row in zip(_HISTORY, history.tolist(), strict=True)
        },
    )
    if "epoch" not in plain:
        return MemberProgress(result, None)
    updates = [dict(row) for row in plain["updates"]]
    for name, tensor in own.items():
        if name.startswith("updates."):
            _, k, key = name.split(".", 2)
            updates[int(k)][key] = tensor
    state = MemberState(
        weights=own["weights"],
        updates=updates,
        averages=_listed(own, "averages"),
        count=own["count"],
        epochs=int(plain["epoch"]),
        settings=dict(zip(_SETTINGS, own["settings"].tolist(), strict=True)),
        streams=_listed(own, "streams"),
    )
    _sized(state.weights, sum(sizes))
    if len(state.streams) != 2 or any(s.dtype != torch.uint8 for s in state.streams):
        raise ValueError("its random streams are none")
    known = set(sizes)
    if any(tensor.numel() not in known for tensor in state.averages) or state.count.shape != (1, 1):
        raise ValueError("its averages do not fit the net")
    return MemberProgress(result, state)


def _sized(weights: Tensor | None, size: int) -> Tensor | None:
    if weights is not None and weights.shape != (size,):
        raise ValueError(f"weights of shape {list(weights.shape)} do not fit a net of {size} parameters")
    return weights


def _listed(own: Tensors, kind: str) -> list[Tensor]:
    return [own[f"{kind}.{k}"] for k in range(sum(name.startswith(f"{kind}.") for name in own))]

"""Files that the trials of a study have beside it: tensors by safetensors, the rest as JSON in the header of each.

They appear whole or not at all, and reading them runs no code. What a worker that was killed left half written goes with
its trial, or once it is old.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
from safetensors import safe_open
from safetensors.torch import save as serialize

from inna_tune.estimators.saving import Tensors, digest
from inna_tune.files import replacing, sweep
from inna_tune.store.opening import store_of
from inna_tune.strangers_json import loads

_SUFFIX, _HALF_WRITTEN = ".safetensors", ".tmp"
# No file takes so long to write, and no two clocks are so far apart.
_OLD = 24 * 3600.0
# A month: what lies in a folder for all servers, whose study nobody went on with here, and may be gone.
_ABANDONED = 30 * 24 * 3600.0
_ANY_NAME = re.compile(r"[0-9a-f]{32}-\d{1,18}(-[a-z]+)?\.(safetensors|[0-9a-z_]+\.tmp)")


class FilesBeside:
    """The files of one form that a study's trials have in a folder.

    Parameters
    ----------
    study : optuna.Study
    folder : Path or None
        None: there is no place for any, nothing is written and nothing found.
    form : str
        What the files say that they are; others are not read.
    kinds : sequence of str, default=("",)
        Those that a trial may have. "" is that of whoever has one only, and stands in no name.
    save_time_only : bool, default=False
        Whether they may be lost: then they are not waited for to be on the disk, and go where nobody came back for them.
    """

    def __init__(
        self,
        study: optuna.Study,
        folder: Path | None,
        form: str,
        kinds: Sequence[str] = ("",),
        *,
        save_time_only: bool = False,
    ) -> None:
        self.folder = folder
        self._form, self._save_time_only = form, save_time_only
        store = store_of(study)
        self._is_for_servers = store.path is None
        # A file may be moved, and its folder with it.
        name = study.study_name if store.path is not None else f"{store.words}\n{study.study_name}"
        self._prefix = hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
        self._endings = {kind: f"-{kind}" if kind else "" for kind in kinds}
        endings = "|".join(map(re.escape, self._endings.values()))
        self._name = re.compile(
            rf"{self._prefix}-(0|[1-9][0-9]{{0,17}})({endings})(?:{re.escape(_SUFFIX)}|\.[0-9a-z_]+{re.escape(_HALF_WRITTEN)})"
        )

    def place(self, number: int, kind: str = "") -> Path | None:
        """Where the file of a trial is, or would be.

        Raises
        ------
        ValueError, TypeError
            If no trial has such a number.
        """
        if self.folder is None:
            return None
        name = f"{self._prefix}-{int(number)}{self._endings[kind]}{_SUFFIX}"
        if not self._name.fullmatch(name):
            raise ValueError(f"number={number!r}: no trial has such a number")
        return self.folder / name

    def write(self, number: int, content: dict[str, Any], tensors: Tensors, *, kind: str = "") -> None:
        """Write JSON-able content and tensors in place of a trial's last ones, by one move; nothing where no place is.

        The folder is made where it is missing.

        Raises
        ------
        OSError, SafetensorError, ValueError, TypeError
            If they can't be written.
        """
        path = self.place(number, kind)
        if path is None:
            return
        plain = json.dumps(content)
        metadata = {"format": self._form, "content": plain, "digest": digest(plain, tensors)}
        with replacing(
            path, prefix=f"{path.stem}.", make_folder=True, sync=not self._save_time_only
        ) as written:
            written.write_bytes(serialize(tensors, metadata=metadata))

    def read(self, number: int, *, kind: str = "") -> tuple[dict[str, Any], Tensors] | None:
        """Read what a trial has; None where it has nothing.

        Raises
        ------
        ValueError, KeyError, OSError, SafetensorError
            If the file is damaged or something else.
        """
        path = self.place(number, kind)
        if path is None or not path.is_file():
            return None
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors: Tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if metadata.get("format") != self._form or metadata["digest"] != digest(metadata["content"], tensors):
            raise ValueError("it is damaged, or of another version")
        return loads(metadata["content"]), tensors

    def remove(self, number: int, *, kind: str = "") -> None:
        """Delete what a trial has, and what a killed worker left of it half written."""
        path = self.place(number, kind)
        if path is not None:
            with suppress(OSError):
                path.unlink(missing_ok=True)
                for half_written in path.parent.glob(f"{path.stem}.*{_HALF_WRITTEN}"):
                    half_written.unlink(missing_ok=True)

    def there(self) -> list[tuple[int, str]]:
        """Trials' numbers, and the kind of what each has, whole or half written."""
        return sorted({(number, kind) for _, number, kind in self._files()})

    def _files(self) -> Iterator[tuple[Path, int, str]]:
        if self.folder is None or not self.folder.is_dir():
            return
        kinds = {ending: kind for kind, ending in self._endings.items()}
        for path in self.folder.glob(f"{self._prefix}-*"):
            match = self._name.fullmatch(path.name)
            if match is not None:
                yield path, int(match[1]), kinds[match[2]]

    def sweep(self) -> None:
        """Delete what was left half written long ago, what nobody came back for, and an empty folder.

        What others' studies have in the same folder is swept, too, since theirs may never be opened again.
        """
        if self.folder is None:
            return
        sweep(self.folder, ours=True)
        now = time.time()
        with suppress(OSError):
            for path in self.folder.iterdir():
                if not _ANY_NAME.fullmatch(path.name):
                    continue
                found = path.lstat()
                if hasattr(os, "geteuid") and found.st_uid != os.geteuid():
                    continue
                forgotten = (
                    self._save_time_only and self._is_for_servers and found.st_mtime < now - _ABANDONED
                )
                if forgotten or (path.suffix == _HALF_WRITTEN and found.st_mtime < now - _OLD):
                    path.unlink(missing_ok=True)
            self.folder.rmdir()

"""Whether a command may write to the path that it is given: one function decides for all commands.

What a command reads, a database, a folder, a device and a file of another kind of ours are refused; an older output of the
same kind is known by its content, and replaced; whatever else is there goes only by ``--force``.
"""

import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from inna_tune.files import SQLITE_MARK, sweep

Force = Annotated[bool, typer.Option("--force", help="Replace a file that is there, whatever it holds.")]

# What pictures say that they were made by.
PICTURE_MARK = "inna-tune, of a prior"
# What exported models say that they were made by.
PROGRAM_MARK = "inna-tune"
_PICTURE_KEYS = {
    ".png": "Software",
    ".svg": "Creator",
    ".pdf": "Creator",
    ".ps": "Creator",
    ".eps": "Creator",
}
_STREAMS = re.compile(r"/dev/(stdin|stdout|stderr|fd/.*)|/proc/.*")
_MOST_HEADER = 100_000_000  # bytes, as safetensors has it
_MOST_PICTURE = 10_000_000
_MOST_NOTES = 10_000_000


class OutputError(ValueError):
    """A path can't be written to, or must not; the one-line message names the argument, the path and the remedy."""


@dataclass(frozen=True)
class Kind:
    """What a file of ours is.

    Attributes
    ----------
    words : str
    is_one : callable
        Tells it by a file's content, from its path and its first bytes.
    """

    words: str
    is_one: Callable[[Path, bytes], bool]


def _safetensors_format(path: Path, head: bytes) -> str | None:
    """What the header of a file of tensors says that it is; None where it is none."""
    size = int.from_bytes(head[:8], "little")
    if head[8:9] != b"{" or size > _MOST_HEADER:
        return None
    with path.open("rb") as file:
        file.seek(8)
        header = json.loads(file.read(size))
    return str(header.get("__metadata__", {}).get("format"))


def _is_checkpoint(path: Path, head: bytes) -> bool:
    said = _safetensors_format(path, head)
    return said is not None and said.startswith("inna-tune ")


def _is_prediction(path: Path, head: bytes) -> bool:
    import pandas as pd  # as the file was written, packed by its suffix

    names = [str(name) for name in pd.read_csv(path, nrows=0).columns]
    return names[:1] != [] and all(
        name == "prediction" or name.startswith("prediction_" if k == 0 else ("prediction_", "probability_"))
        for k, name in enumerate(names)
    )


def _is_picture(path: Path, head: bytes) -> bool:
    if not head.startswith((b"\x89PNG", b"<?xml", b"%PDF", b"%!PS")):
        return False
    with path.open("rb") as file:
        return PICTURE_MARK.encode() in file.read(_MOST_PICTURE)


def _is_program(path: Path, head: bytes) -> bool:
    if not head.startswith((b"\x08", b"PK\x03\x04")):
        return False
    with path.open("rb") as file:  # both formats have at their end who made them
        file.seek(max(0, path.stat().st_size - _MOST_NOTES))
        return PROGRAM_MARK.encode() in file.read()


DATABASE = Kind("a database", lambda path, head: head.startswith((SQLITE_MARK, b'{"op_code"')))
MODEL = Kind("a model", lambda path, head: _safetensors_format(path, head) == "inna-tune")
CHECKPOINT = Kind("a checkpoint of a study", _is_checkpoint)
REPORT = Kind("a report", lambda path, head: b'<meta name="generator" content="inna-tune' in head)
PRIOR = Kind("a prior", lambda path, head: head.lstrip().startswith(b"{") and b'"inna_tune_prior"' in head)
PICTURE = Kind("a picture of a prior", _is_picture)
PREDICTIONS = Kind("a table of predictions", _is_prediction)
PROGRAM = Kind("a model for other runtimes", _is_program)
# Those that are told at once come first; nothing else of ours is written by a command.
KINDS = (DATABASE, MODEL, CHECKPOINT, REPORT, PRIOR, PICTURE, PROGRAM, PREDICTIONS)


def kind_of(path: Path) -> Kind | None:
    """Which of our kinds a file is by its content; None for all else."""
    with path.open("rb") as file:
        head = file.read(1 << 13)
    for kind in KINDS:
        with suppress(Exception):  # whatever is in the file
            if kind.is_one(path, head):
                return kind
    return None


def check_output(
    given: str,
    kind: Kind,
    argument: str,
    *,
    reads: Mapping[str, str | None] | None = None,
    storage: str | None = None,
    force: bool = False,
    study: str | None = None,
) -> Path:
    """Decide whether a command may write to a path, before its work begins.

    What killed processes left unfinished in the folder is swept by the way.

    Parameters
    ----------
    given : str
        The path.
    kind : Kind
        What is to be written.
    argument : str
        What a person calls the path, such as ``--out``.
    reads : mapping of str to str or None, optional
        What the same command reads, by what a person calls it: paths, "-" for standard input, or what is no path.
    storage : str, optional
        URL of the database that the command uses.
    force : bool, default=False
        Whether what is there may be replaced although it is no older output of this kind.
    study : str, optional
        Of an export: a database that holds no other study may be replaced, by ``force``.

    Returns
    -------
    Path

    Raises
    ------
    OutputError
        If it may not.
    """

    def refused(why: str, remedy: str = "name another file") -> OutputError:
        return OutputError(f"{argument} {given}: {why}; {remedy}")

    path = Path(given)
    if given == "-":
        raise refused(f"{kind.words} is written to a file, not to standard output", "name a file")
    if not given or "\0" in given:
        raise OutputError(f"{argument} {given!r}: no file has such a name; name another one")
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        found = None
    except OSError as error:  # a name that is too long, links in a circle
        raise refused(f"no file can be there ({error.strerror})") from None
    if _STREAMS.fullmatch(os.path.abspath(path)) and not path.is_dir():
        raise refused("that is no ordinary file", "name one to write to")
    for name, read in (reads or {}).items():
        if read is not None and _is_same(path, read):
            raise refused(f"that is the {name} which is read")
    _check_database(path, storage, refused)
    if path.is_dir():
        raise refused("that is a folder", "name a file in it")
    if found is not None and not path.is_file():
        raise refused("that is no ordinary file", "name one to write to")
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise refused(f"there is no folder {target.parent} to write {target.name} into", "make it first")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise refused(f"the folder {target.parent} cannot be written to")
    if found is not None and found.st_size:
        _check_content(target, kind, refused, force=force, study=study)
    sweep(target.parent)
    return path


def default_file(name: str, suffix: str) -> str:
    """The file in this folder that a study's output has where none is named.

    Parameters
    ----------
    name : str
        Of the study: of anything, and of any length.
    suffix : str
    """
    plain = re.sub(r"[/\\\x00-\x1f\x7f\ud800-\udfff]", "_", name)
    while len(os.fsencode(plain + suffix)) > 240:
        plain = plain[:-1]
    return plain + suffix


def picture_metadata(path: Path) -> dict[str, Any] | None:
    """What a picture's file says of itself, as far as its format can, so that it is known again."""
    key = _PICTURE_KEYS.get(path.suffix.lower() or ".png")
    return None if key is None else {key: PICTURE_MARK}


Refused = Callable[..., OutputError]


def _is_same(path: Path, read: str) -> bool:
    """Whether a path is a file that is read: the same name or not, through links of either sort or a pipe's end."""
    with suppress(OSError, ValueError):
        if read == "-":
            return os.path.samestat(path.stat(), os.fstat(sys.stdin.fileno()))
        return path.samefile(read)
    return False


def _check_database(path: Path, storage: str | None, refused: Refused) -> None:
    """Refuse the file of the database, there or not, and what it has beside it."""
    if storage is None:
        return
    from inna_tune.store.errors import StorageError
    from inna_tune.store.sqlite import file_of

    try:
        database = file_of(storage)
    except StorageError:  # opening it will say so
        return
    if database is None:
        return
    names = {os.path.realpath(f"{database}{suffix}") for suffix in ("", "-wal", "-shm", "-journal")}
    if os.path.realpath(path) in names or _is_same(path, str(database)):
        raise refused("that is the database of the studies (--storage)")
    folders = {f"{os.path.realpath(database)}.{what}" for what in ("locks", "checkpoints", "trained")}
    if folders.intersection(map(str, Path(os.path.realpath(path)).parents)):
        raise refused("that is in a folder of the database (--storage)", "name a file elsewhere")


def _check_content(target: Path, kind: Kind, refused: Refused, *, force: bool, study: str | None) -> None:
    """Refuse a file that holds something else, or asks for ``--force``."""
    if not os.access(target, os.W_OK):
        raise refused("that file is read-only", "make it writable, or name another file")
    try:
        found = kind_of(target)
    except OSError as error:
        raise refused(f"what is there cannot be read ({error.strerror})") from None
    if found is DATABASE and kind is DATABASE:
        _check_export(target, refused, force=force, study=study)
    elif found is not None and found is not kind:
        raise refused(f"that is {found.words}, not {kind.words}")
    elif found is None and not force:
        raise refused(
            f"that is there already, and is not {kind.words} of inna-tune",
            "name another file, or replace it with --force",
        )


def _check_export(target: Path, refused: Refused, *, force: bool, study: str | None) -> None:
    """Refuse a database with more than the study; one study alone, which may have grown since, asks for ``--force``."""
    import sqlite3

    try:
        with closing(sqlite3.connect(target, timeout=1.0)) as connection:
            names = {name for (name,) in connection.execute("SELECT study_name FROM studies")}
    except sqlite3.Error:
        raise refused("that is a database of something else, or in use") from None
    if others := sorted(names - {study}):
        raise refused(f"that is a database with other studies, {', '.join(map(repr, others[:3]))} among them")
    if not force:
        raise refused("that is there already", "name another file, or replace it with --force")
    if any(os.path.exists(f"{target}{suffix}") for suffix in ("-wal", "-journal")):
        raise refused("that database is in use", "end what uses it, or name another file")

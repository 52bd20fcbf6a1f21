"""Files that appear complete or not at all and stay, with the mode that the umask says or that they had."""

import errno
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

# What every database of SQLite begins with.
SQLITE_MARK = b"SQLite format 3\0"

_PREFIX, _UNFINISHED = ".inna-tune-", ".tmp"
# What has no lock, since its process is about to take it or its file system knows none, is left for so many seconds.
_OLD = 3600.0
# Files, as those of today are called, and as those of older versions were.
_LEFT_FILE = re.compile(r"\.inna-tune-[0-9a-f]{16}(\.\w{1,16})*|\..+\.inna\.\w+\.tmp")
_FOLDER_ALONE = re.compile(r"\.?inna-tune-[a-z0-9_]{8}")  # no file was ever called so
_LEFT_FOLDER = re.compile(rf"\.inna-tune-[0-9a-f]{{16}}\.tmp|{_FOLDER_ALONE.pattern}")
_LEFT_BY_SAFETENSORS = re.compile(r"\.tmp\w{6}")
# All that a folder may hold that goes as a whole: a name alone could be a person's own.
_SCRATCH = re.compile(r"stud(y|ies)\.db(\W.*)?")
_LONGEST_SUFFIX = 16  # that says of which format a file is


@contextmanager
def replacing(
    path: str | os.PathLike[str],
    *,
    prefix: str = _PREFIX,
    suffix: str = "",
    make_folder: bool = False,
    sync: bool = True,
) -> Iterator[Path]:
    """A new file that takes the place of another once the block has ended without an error.

    It lies beside that one. Where the block raises it is removed, and what was there stays. What is there and no regular
    file, a pipe or a device, is written to as it is. Where ``path`` is a link, the file that it points to is replaced. A file
    that is replaced keeps its mode and, where the system lets us, its owner; a new one has the mode that the umask says.

    Parameters
    ----------
    path : path
        Where the file is to be.
    prefix, suffix : str
        Of the file's name in the meantime; a suffix that is too long to be one is left out.
    make_folder : bool, default=False
        Make the folder where there is none, whoever else removes it meanwhile.
    sync : bool, default=True
        Whether the content is on the disk before it has its name, and the name before this returns.

    Yields
    ------
    Path
        To be written.

    Raises
    ------
    OSError
        If no file can be there, or a database is; it names ``path``.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if target.exists() and not target.is_file():
        yield target
        return
    if _is_database(target):
        raise FileExistsError(
            f"{path} is a database, which nothing else takes the place of; name another file"
        )
    suffix = _UNFINISHED + (suffix if len(suffix) <= _LONGEST_SUFFIX else "")
    while True:
        if make_folder:
            target.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary, held = _new_file(target.parent, prefix, suffix, like=target)
        except OSError as error:
            if make_folder and isinstance(error, FileNotFoundError):
                continue
            raise OSError(error.errno, error.strerror, str(path)) from None
        break
    try:
        yield temporary
        publish(temporary, target, sync=sync)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(held)


def publish(written: Path, target: Path, *, replace: bool = True, sync: bool = True) -> None:
    """Give a complete file the name of another one in the same folder, or below it, in one move.

    Parameters
    ----------
    written, target : Path
    replace : bool, default=True
        Whether ``target`` may be there already; if not, ``written`` may stay beside it under its own name, too.
    sync : bool, default=True
        As for `replacing`.

    Raises
    ------
    FileExistsError
        If ``target`` is there and may not be.
    OSError
        If the disk is full, or fails; ``target`` is as it was.
    """
    if replace and target.exists():
        _take_mode(written, target.stat())
    if sync:
        _sync(written, os.O_RDWR)
    if replace or not _linked(written, target):
        os.replace(written, target)
    if sync:
        # Some systems cannot, and what has its name already must not be told as a failure.
        with suppress(OSError):
            _sync(target.parent, os.O_RDONLY)


@contextmanager
def scratch_folder(parent: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder for what is not to last, within another; who is killed leaves it to the next one's `sweep`.

    Parameters
    ----------
    parent : path
        It is swept first.

    Yields
    ------
    Path
        Only this user can look into it.
    """
    sweep(parent)
    folder = Path(parent) / f"{_PREFIX}{secrets.token_hex(8)}{_UNFINISHED}"
    folder.mkdir(mode=0o700)
    held = _held(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if held is not None:
            os.close(held)


def sweep(folder: str | os.PathLike[str], *, ours: bool = False) -> None:
    """Delete what killed processes of this user left unfinished in a folder.

    What a living process works at is locked by it, or is younger than an hour; neither is touched. Nothing is raised: what
    can't be deleted stays.

    Parameters
    ----------
    folder : path
    ours : bool, default=False
        Whether nobody else writes into it, so that what others may call theirs elsewhere is known to be ours.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if is_left(entry.name, ours=ours):
                with suppress(OSError):
                    _remove_left(entry)


def is_left(name: str, *, ours: bool = False) -> bool:
    """Whether a file or folder of this name is one that is unfinished, or was left so; ``ours`` as for `sweep`."""
    patterns = (_LEFT_FILE, _LEFT_FOLDER, *([_LEFT_BY_SAFETENSORS] if ours else []))
    return any(pattern.fullmatch(name) for pattern in patterns)


def _remove_left(entry: os.DirEntry[str]) -> None:
    found = entry.stat(follow_symlinks=False)
    if hasattr(os, "geteuid") and found.st_uid != os.geteuid():
        return
    if found.st_mtime > time.time() - _OLD:
        return
    if stat.S_ISDIR(found.st_mode):
        if not _LEFT_FOLDER.fullmatch(entry.name) or not all(map(_SCRATCH.fullmatch, os.listdir(entry.path))):
            return
        remove: Callable[[str], None] = shutil.rmtree
    elif stat.S_ISREG(found.st_mode) and not _FOLDER_ALONE.fullmatch(entry.name):
        remove = os.unlink
    else:
        return
    held = _held(Path(entry.path), wait=False)
    if held is not None:
        try:
            remove(entry.path)
        finally:
            os.close(held)


def _held(path: Path, *, wait: bool = True) -> int | None:
    """A descriptor by which this process holds a file or a folder, until it closes it or ends.

    None where another one does and ``wait`` is False, or where there are no locks and ``wait`` is True.
    """
    if fcntl is None:
        return None if wait else os.open(path, os.O_RDONLY)
    held = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # What lies where there are no locks is known by its age alone.
        if wait or isinstance(error, BlockingIOError):
            os.close(held)
            return None
    return held


def _new_file(folder: Path, prefix: str, suffix: str, *, like: Path) -> tuple[Path, int]:
    """A new file in a folder, to become ``like``, and a descriptor that holds it.

    Not by tempfile, whose files only their owner can read; what the umask says cannot be asked for without changing it for
    the other threads.
    """
    while True:
        path = folder / f"{prefix}{secrets.token_hex(8)}{suffix}"
        try:
            # What takes the place of another gets its mode at the end, and until then nobody else can read it.
            mode = 0o600 if like.exists() else 0o666
            held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
        except FileExistsError:
            continue
        break
    if fcntl is not None:
        with suppress(OSError):
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return path, held


def _take_mode(path: Path, old: os.stat_result) -> None:
    """Give a file the owner, as far as the system lets us, and the mode of the one that it is to replace."""
    new = path.stat()
    with suppress(OSError):
        if (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid):
            os.chown(path, old.st_uid, old.st_gid)
    with suppress(OSError):
        path.chmod(stat.S_IMODE(old.st_mode) & 0o777)


def _is_database(path: Path) -> bool:
    """Whether a file is one of SQLite's."""
    # NOTE: one that is open has its log beside it, and to open and close it here would drop this process's locks on it.
    if any(os.path.exists(f"{path}{suffix}") for suffix in ("-wal", "-journal")):
        return True
    with suppress(OSError), path.open("rb") as file:
        return file.read(len(SQLITE_MARK)) == SQLITE_MARK
    return False


def _linked(written: Path, target: Path) -> bool:
    """Give a file a second name, which unlike a renaming replaces nothing; False where a file system has no links."""
    try:
        os.link(written, target)
    except FileExistsError:
        raise
    except OSError as error:
        if target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from error
        return False
    return True


def _sync(path: Path, how: int) -> None:
    descriptor = os.open(path, how)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

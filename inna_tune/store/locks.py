"""Locks of the operating system on files: they end with the process that holds them, however it ends."""

import getpass
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from inna_tune.store.errors import StorageError


def take_lock(path: Path) -> FileLock:
    """Take the lock on the file `path`, made with its folder."""
    lock = FileLock(path, thread_local=False)
    while not lock.is_locked:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        with suppress(FileNotFoundError):  # its last user removed the folder between the two lines
            lock.acquire()
    return lock


def remove_lock(lock: FileLock) -> None:
    """Remove the file of a held `lock`, then release it; its folder goes with its last file."""
    # NOTE: unlinking before releasing keeps mutual exclusion: filelock retries on an unlinked file.
    with suppress(OSError):
        os.unlink(lock.lock_file)
    lock.release()
    with suppress(OSError):
        os.rmdir(os.path.dirname(lock.lock_file))


@contextmanager
def temporary_lock(path: Path) -> Iterator[None]:
    """Hold the lock on the file `path`, made with its folder and removed afterwards."""
    lock = take_lock(path)
    try:
        yield
    finally:
        remove_lock(lock)


def is_held(path: Path) -> bool:
    """Say whether a living process holds the lock file `path`; remove the file of a dead one."""
    if not path.exists():
        return False
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except FileNotFoundError:  # the folder went meanwhile, and its holder before it
        return False
    except OSError:  # a folder that is only to be read: who holds it can't be asked
        return True
    remove_lock(lock)
    return False


def host_folder() -> Path:
    """Return this user's folder of lock files on this host, made if need be."""
    user = str(os.getuid()) if hasattr(os, "getuid") else getpass.getuser()
    folder = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / f"inna-tune-{user}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or (hasattr(os, "getuid") and folder.stat().st_uid != os.getuid()):
        raise StorageError(f"{folder} belongs to somebody else; set XDG_RUNTIME_DIR to a folder of your own")
    return folder


def place_of(folder: Path) -> str:
    """Return the random name of a lock folder: workers that read the same name share the folder."""
    # NOTE: host names do for neither: containers share them, and one host's containers share no folder.
    path = folder / "place"
    with temporary_lock(folder / "opening"):
        if not path.exists():
            path.write_text(uuid.uuid4().hex, encoding="ascii")
        return path.read_text(encoding="ascii")

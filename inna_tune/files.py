"""Files that appear complete or not at all, with the mode that the umask says."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(
    path: str | os.PathLike[str],
    *,
    prefix: str = ".inna-tune-",
    suffix: str = ".tmp",
    make_folder: bool = False,
) -> Iterator[Path]:
    """A new file that takes the place of another once the block has ended without an error.

    It lies beside that one. Where the block raises it is removed, and what was there stays. What is there and no regular
    file, a pipe or a device, is written to as it is. Where ``path`` is a link, the file that it points to is replaced.

    Parameters
    ----------
    path : path
        Where the file is to be.
    prefix, suffix : str
        Of the file's name in the meantime.
    make_folder : bool, default=False
        Make the folder where there is none, whoever else removes it meanwhile.

    Yields
    ------
    Path
        To be written.

    Raises
    ------
    OSError
        If no file can be there; it names ``path``.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if target.exists() and not target.is_file():
        yield target
        return
    while True:
        if make_folder:
            target.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary = _new_file(target.parent, prefix, suffix)
        except OSError as error:
            if make_folder and isinstance(error, FileNotFoundError):
                continue
            raise OSError(error.errno, error.strerror, str(path)) from None
        break
    try:
        yield temporary
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _new_file(folder: Path, prefix: str, suffix: str) -> Path:
    # NOTE: not by tempfile, whose files only their owner can read; what the umask says cannot be asked for without
    # changing it for the other threads.
    while True:
        path = folder / f"{prefix}{secrets.token_hex(8)}{suffix}"
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            continue
        return path

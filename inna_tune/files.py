"""Files that appear complete or not at all, with the mode that the umask says."""

import errno
import os
import secrets
from collections.abc import Iterator, Sequence
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


def check_output(path: str | os.PathLike[str], *, inputs: Sequence[str] = ()) -> Path:
    """A file that can be written, checked before work begins.

    Parameters
    ----------
    path : path
    inputs : sequence of str
        What the same command reads: paths, or what is none.

    Raises
    ------
    ValueError
        If its folder does not exist, or it is itself a folder, a device, or one of the inputs.
    """
    path = Path(path)
    for given in inputs:
        if path.exists() and os.path.exists(given) and os.path.samefile(path, given):
            raise ValueError(f"{path} is what is read; name another file to write to.")
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ValueError(f"{path} is no ordinary file; name one to write to.")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name a file in it.")
    if not path.parent.is_dir():
        raise ValueError(f"There is no folder {path.parent} to write {path.name} into; make it first.")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"The folder {path.parent} cannot be written to.")
    return path


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

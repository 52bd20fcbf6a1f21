"""What the cells of a database hold, as data: strangers write such files, and a fault is one of the storage."""

from collections.abc import Iterator
from contextlib import contextmanager

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import SQLAlchemyError

_DEEPEST = (
    100  # whoever copies, compares or prints what is nested needs the stack's depth for it several times
)


@contextmanager
def decoding(what: str, *, missing: type[Exception] | tuple[()] = ()) -> Iterator[None]:
    """Turn what reading a cell raises, a state that is none or JSON that is none, into an error of the storage.

    Parameters
    ----------
    what : str
        Whose cells they are, for the message.
    missing : exception class, optional
        What says that there is no such thing, and is let through.

    Raises
    ------
    StorageInternalError
        As for all other faults of a database.
    """
    try:
        yield
    except (StorageInternalError, SQLAlchemyError):
        raise
    except missing:
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        raise StorageInternalError(
            f"{what} holds what no version writes ({type(error).__name__}: {said}); restore a copy"
        ) from None

"""What the cells of a database hold, as data: strangers write such files, and a fault is one of the storage."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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


def decode(text: str) -> Any:
    """The value of an attribute.

    Raises
    ------
    ValueError
        If it is no JSON, or nested without sense.
    """
    if text.count("[") + text.count("{") > _DEEPEST and _depth(text) > _DEEPEST:
        raise ValueError(f"an attribute is nested over {_DEEPEST} deep")
    return json.loads(text)


def _depth(text: str) -> int:
    """How deep JSON is nested at most, found without recursion."""
    depth = deepest = 0
    in_text = escaped = False
    for c in text:
        if in_text:
            in_text = escaped or c != '"'
            escaped = c == "\\" and not escaped
        elif c == '"':
            in_text = True
        elif c in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif c in "]}":
            depth -= 1
    return deepest

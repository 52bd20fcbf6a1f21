"""Functions with a gradient of their own, called as fast as they can be."""

import inspect
from typing import Any, TypeVar

_F = TypeVar("_F")


def signed(forward: _F) -> _F:
    """Read the signature of an autograd function's ``forward`` once.

    Torch asks for it at every call, which is an eighth of a small fit.
    """
    function: Any = forward
    function.__signature__ = inspect.signature(function)
    return forward

"""Functions with a gradient of their own, called as fast as they can be."""

import inspect
from typing import Any, TypeVar

import torch

_F = TypeVar("_F")


def signed(forward: _F) -> _F:
    """Read the signature of an autograd function's ``forward`` once.

    Torch asks for it at every call, which is an eighth of a small fit.
    """
    function: Any = forward
    function.__signature__ = inspect.signature(function)
    return forward


def applied(function: type[torch.autograd.Function], *arguments: Any) -> Any:
    """What ``function.apply`` gives; where nothing asks for a gradient, without what torch does to be ready for one.

    That is as long as the product of two small matrices, and a net looks at its rows more often than it learns from them.
    """
    if torch.is_grad_enabled() or torch._C._are_functorch_transforms_active():
        return function.apply(*arguments)  # type: ignore[no-untyped-call]
    return function.forward(*arguments)

"""Functions with a gradient of their own keep their signature, for which torch asks at every call."""

import inspect

import pytest
import torch

from inna_tune.nets import numeric, products

FUNCTIONS = [
    thing
    for module in (numeric, products)
    for thing in vars(module).values()
    if isinstance(thing, type) and issubclass(thing, torch.autograd.Function)
]


def test_they_are_found():
    assert len(FUNCTIONS) >= 2


@pytest.mark.parametrize("function", FUNCTIONS)
def test_its_signature_is_read_once_and_right(function):
    kept = vars(function.forward).get("__signature__")
    assert kept is not None, "torch reads it anew at every call"
    assert inspect.signature(function.forward) is kept
    names = function.forward.__code__.co_varnames[: function.forward.__code__.co_argcount]
    assert tuple(kept.parameters) == names

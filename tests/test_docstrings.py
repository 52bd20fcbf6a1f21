"""Docstrings of the public names describe every parameter, and none that is not there."""

import importlib
import inspect
import pkgutil
import re

import pytest

import inna_tune

ROOMS = [
    inna_tune.__name__,
    *(f"inna_tune.{m.name}" for m in pkgutil.iter_modules(inna_tune.__path__) if m.ispkg),
]


def public_callables():
    """Every public class and function, once, by the room that gives it."""
    found = {}
    for room in map(importlib.import_module, ROOMS):
        for name in getattr(room, "__all__", ()):
            thing = getattr(room, name)
            if inspect.isclass(thing) or inspect.isfunction(thing):
                found.setdefault(thing, f"{room.__name__}.{name}")
    return found


# How an exception is made is Python's to document; named tuples are described where they are returned.
PUBLIC = {
    name: thing
    for thing, name in public_callables().items()
    if not (inspect.isclass(thing) and issubclass(thing, Exception | tuple))
}


def described(docstring, titles=("Parameters", "Other Parameters", "Attributes")):
    """The names that sections of a numpydoc docstring describe."""
    sections = re.split(r"^(\w[\w ]*)\n-{3,}\n", inspect.cleandoc(docstring or ""), flags=re.MULTILINE)
    bodies = dict(zip(sections[1::2], sections[2::2], strict=True))
    found = []
    for title in titles:
        for line in re.findall(r"^\*{0,2}(\w[\w, *]*?)(?: :.*)?$", bodies.get(title, ""), re.MULTILINE):
            found.extend(part.strip(" *") for part in line.split(","))
    return found


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_parameter_is_described(name):
    thing = PUBLIC[name]
    assert thing.__doc__, f"{name} has no docstring"
    names = set(inspect.signature(thing).parameters) - {"args", "kwargs"}
    lacking = names - set(described(thing.__doc__))
    assert not lacking, f"{name} does not describe {sorted(lacking)}"


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_no_parameter_is_described_that_is_not_there(name):
    thing = PUBLIC[name]
    names = set(described(thing.__doc__, ("Parameters", "Other Parameters")))
    assert names <= set(inspect.signature(thing).parameters)

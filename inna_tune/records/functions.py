"""What a function does, from its compiled code: the same in every process of one version of Python, wherever it stands."""

import dataclasses
import dis
import sys
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from inna_tune.records.hashing import DIGEST, digest

_LIBRARIES = frozenset({"site-packages", "dist-packages"})
# Methods that change what they belong to.
_CHANGING = frozenset(
    {"add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop"}
    | {"popitem", "popleft", "remove", "reverse", "setdefault", "sort", "update"}
)
# Instructions that differ by how a call is compiled rather than by what it does.
_SILENT = frozenset({"CACHE", "EXTENDED_ARG", "NOP", "PRECALL", "PUSH_NULL", "RESUME"})
_ABSENT = object()


def is_of_library(thing: Any) -> bool:
    """Whether a class or function is Python's, of a package that was installed, or inna-tune's own."""
    name = (
        thing.__name__ if isinstance(thing, ModuleType) else getattr(thing, "__module__", None) or "builtins"
    )
    if name == "__main__":
        return False
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names or top in ("inna_tune", "builtins"):
        return True
    file = getattr(sys.modules.get(name), "__file__", None)
    return file is not None and not _LIBRARIES.isdisjoint(Path(file).parts)


def public_name(thing: Any) -> str:
    """Package and name, without the modules between, which libraries move."""
    top = str(thing.__module__ or "builtins").partition(".")[0]
    return thing.__qualname__ if top == "builtins" else f"{top}.{thing.__qualname__}"


def values_around(thing: FunctionType, use: "Use") -> dict[str, Any]:
    """Values that a function takes from around it and doesn't set itself, by name; of own modules what it takes of them."""
    found: dict[str, Any] = {}
    for name in use.read:
        value = thing.__globals__.get(name, _ABSENT)
        if isinstance(value, ModuleType):
            if not is_of_library(value):
                parts = {n: getattr(value, n) for n in use.taken if hasattr(value, n)}
                found |= {
                    f"{name}.{n}": part for n, part in parts.items() if not isinstance(part, ModuleType)
                }
        elif value is not _ABSENT and not name.startswith("__"):
            found[name] = value
    for name, cell in zip(thing.__code__.co_freevars, thing.__closure__ or (), strict=True):
        with suppress(ValueError):  # nothing is in it yet
            found[name] = cell.cell_contents
    return {name: value for name, value in found.items() if name not in use.written}


@dataclasses.dataclass(frozen=True)
class Use:
    """What a function does with things around it.

    Attributes
    ----------
    read, written : frozenset of str
        Names of the module that it reads, and names around it that it sets.
    taken, attributes : frozenset of str
        Attributes that it reads, and that it sets, whatever they belong to.
    changes : bool
        Whether it fills containers.
    """

    read: frozenset[str]
    written: frozenset[str]
    taken: frozenset[str]
    attributes: frozenset[str]
    changes: bool

    @classmethod
    def of(cls, code: CodeType) -> "Use":
        steps = [step for each in _nested(code) for step in dis.get_instructions(each)]

        def named(*kinds: str) -> frozenset[str]:
            return frozenset(str(step.argval) for step in steps if step.opname in kinds)

        taken = named("LOAD_ATTR", "LOAD_METHOD")
        return cls(
            read=named("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"),
            taken=taken,
            written=named("STORE_GLOBAL", "DELETE_GLOBAL", "STORE_DEREF", "DELETE_DEREF")
            - frozenset(code.co_cellvars),
            attributes=named("STORE_ATTR", "DELETE_ATTR"),
            changes=any(step.opname in ("STORE_SUBSCR", "DELETE_SUBSCR") for step in steps)
            or bool(_CHANGING & taken),
        )


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


def code_digests(code: CodeType) -> dict[str, str]:
    """A digest of compiled code, under the version of Python, whose codes are its own."""
    version = f"{sys.implementation.name} {sys.version_info.major}.{sys.version_info.minor}"
    return {version: DIGEST + _digest(code)}


def _digest(code: CodeType) -> str:
    arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount)
    steps = [f"{name} {argument}" for name, argument in _steps(code)]
    return digest(repr((arguments, counts)).encode(), "\n".join(steps).encode("utf-8", "replace"))


def _steps(code: CodeType) -> Iterator[tuple[str, Any]]:
    """Instructions with names and constants for their numbers, without those that differ by where a module is imported."""
    # NOTE: what the compilation unit itself imports is called as a function, else as a method.
    steps = [step for step in dis.get_instructions(code) if step.opname not in _SILENT]
    offsets = [step.offset for step in steps]
    for step in steps:
        argument: Any = step.arg
        if step.opcode in dis.hasconst:
            argument = _constant(step.argval, code)
        elif step.opcode in dis.hasname or step.opcode in dis.hasfree:
            argument = step.argval
        elif step.opcode in dis.hasjrel or step.opcode in dis.hasjabs:
            argument = bisect_left(offsets, step.argval)
        yield step.opname.replace("LOAD_METHOD", "LOAD_ATTR"), argument


def _constant(value: Any, code: CodeType) -> str:
    if isinstance(value, CodeType):
        return _digest(value)
    if type(value) is int and value == code.co_firstlineno and "__firstlineno__" in code.co_names:
        return "first line"  # of a class; where it stands does not count
    if isinstance(value, frozenset):
        return repr(sorted(map(repr, value)))
    if isinstance(value, tuple):
        return repr([_constant(each, code) for each in value])
    return f"{type(value).__name__} {value!r}"

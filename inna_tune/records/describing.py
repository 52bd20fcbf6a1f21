"""What can be known of a scorer, a module, an estimator or a splitter: plain data, the same in every process.

Things of a library are known by their names. Things of a person's own are known by what they do: of a function the compiled
code, the defaults, and the values that it takes from around it; of a class its functions; of an object its class and state.
Where it stands does not count: neither file, nor line, nor address.
"""

import dataclasses
import enum
import functools
import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline

from inna_tune.records.functions import Use, code_digests, is_of_library, public_name, values_around
from inna_tune.records.hashing import DIGEST, content, digest

# Of an estimator what training does not see: where it computes, and what a search, which fits clones only, has no use for.
UNSEEN = frozenset({"device", "n_jobs", "warm_start"})
_WATCHING = "callbacks"  # of an estimator, whose training they see and do not change

_DEPTH = 12  # of things within things
_SHORT = 120  # letters of a text, or numbers of an array, that are kept as they are
_ABSENT = object()
_CODE = "compiled code"
_OWN = frozenset({"__dict__", "__weakref__", "__doc__", "__module__", "__qualname__", "__annotations__"}) | {
    "__firstlineno__",
    "__static_attributes__",
    "__annotate__",
    "__annotate_func__",
    "__annotations_cache__",
    "__slotnames__",  # which copying an instance leaves in its class
    "__parameters__",
    "__orig_bases__",
    "__abstractmethods__",
    "_abc_impl",
}


def describe(thing: Any) -> Any:
    """Describe anything as JSON; see `changes`.

    Parameters
    ----------
    thing : object
        What nothing can be known of is named by its type.
    """
    return _Describer().tree(thing)


def describe_settings(estimator: BaseEstimator, tuned: Collection[str] = ()) -> dict[str, Any]:
    """Class and settings of an estimator, without those that a space tunes.

    Parameters
    ----------
    estimator : estimator
    tuned : collection of str
        Names as `set_params` takes them, such as ``"lr"`` or ``"optimizer__momentum"``.

    Returns
    -------
    dict
        ``class``, its name; ``parameters``, name -> description; and where the class is no library's, ``code``.
    """
    if isinstance(estimator, Pipeline) and len(estimator.steps) > 1:
        return _of_pipeline(estimator, tuned)
    described = describe(type(estimator))
    parameters = {}
    for name, value in estimator.get_params(deep=False).items():
        if name in tuned or name == _WATCHING:
            continue
        if name == "hidden_layer_sizes" and hasattr(estimator, "_layer_sizes"):
            value = list(estimator._layer_sizes())
        elif isinstance(value, np.random.RandomState | np.random.Generator):
            stream = value if isinstance(value, np.random.Generator) else np.random.default_rng(value)
            value = DIGEST + digest(json.dumps(describe(stream.bit_generator.state)).encode())
        elif name == "encoder" and hasattr(estimator, "_new_encoder"):
            value = estimator._new_encoder()
        prefix = "optimizer__" if name == "optimizer_params" else f"{name}__"
        parameters[name] = _without(describe(value), prefix, tuned)
        if name == "optimizer_params" and parameters[name] == {}:
            parameters[name] = None
    found = {"class": type(estimator).__name__, "parameters": parameters}
    return found if isinstance(described, str) else {**found, "code": described}


def _of_pipeline(pipeline: Pipeline, tuned: Collection[str]) -> dict[str, Any]:
    """The settings of the last step, which is what reports speak of, and each transformer as a setting of its own."""
    *before, (name, last) = pipeline.steps
    prefix = f"{name}__"
    found = describe_settings(last, {*tuned, *(each.removeprefix(prefix) for each in tuned)})
    steps = {
        f"step {own}": _without(describe(step), f"{own}__", tuned)
        for own, step in before
        if step not in (None, "passthrough")
    }
    words = [
        *(type(step).__name__ for _, step in before if step not in (None, "passthrough")),
        found["class"],
    ]
    return {**found, "class": ", ".join(words), "parameters": found["parameters"] | steps}


def changes(before: Any, after: Any, name: str) -> list[str]:
    """Name in sentences what differs between two descriptions.

    Parameters
    ----------
    before, after : object
        From `describe`, perhaps by way of JSON.
    name : str
        What they describe, with its article.
    """
    return [
        f"{_place(path)} was {short_text(old)}, now it is {short_text(new)}"
        if _is_short(old) and _is_short(new)
        else f"{_place(path)} differs"
        for path, old, new in _differences(before, after, (name,))
    ]


def setting_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Name in sentences what training sees of two estimators, from `describe_settings`, and differs.

    What only one of them has is tuned by the other's space, or unknown to its version of inna-tune.
    """
    if before["class"] != after["class"]:
        return [f"the estimator was {before['class']}, now it is {after['class']}"]
    found = changes(before.get("code"), after.get("code"), f"the code of {after['class']}")
    old, new = before["parameters"], after["parameters"]
    for name in new:
        if name in old and name not in UNSEEN:
            found += changes(old[name], new[name], f"the estimator's {name}")
    return found


def short_text(described: Any) -> str:
    """A description as a person reads it."""
    if isinstance(described, dict):
        for kind in ("function", "class", "partial of", "object", "method"):
            if kind in described:
                return _named(described, kind)
        return "{" + ", ".join(f"{key}: {short_text(value)}" for key, value in described.items()) + "}"
    if isinstance(described, list):
        return "[" + ", ".join(map(short_text, described)) + "]"
    return repr(described) if isinstance(described, str) and not described.startswith("<") else str(described)


# ---------------------------------------------------------------------- describing


class _Describer:
    """One walk through a thing and all that it holds."""

    def __init__(self) -> None:
        self._above: list[int] = []
        self._known: set[int] = set()  # functions and classes, which stand in the description already

    def tree(self, thing: Any, unknown: Collection[str] = (), *, changing: bool = False) -> Any:
        """Describe a thing.

        ``unknown`` names attributes that somebody sets, and ``changing`` says that somebody fills containers, while it is used.
        """
        plain = _plain(thing)
        if plain is not _ABSENT:
            return plain
        if id(thing) in self._known:
            return f"<{thing.__name__}>"
        if id(thing) in self._above or len(self._above) > _DEPTH:
            return f"<{type(thing).__qualname__}>"
        if isinstance(thing, FunctionType | type):
            self._known.add(id(thing))
        self._above.append(id(thing))
        try:
            return self._of_kind(thing, unknown, changing)
        finally:
            self._above.pop()

    def _of_kind(self, thing: Any, unknown: Collection[str], changing: bool) -> Any:
        if isinstance(thing, pd.DataFrame | pd.Series | pd.Index | np.ndarray) or sparse.issparse(thing):
            return _values(thing)
        if isinstance(thing, torch.Tensor):
            return _values(thing.detach().cpu().numpy()) if thing.device.type != "meta" else "<Tensor>"
        if isinstance(thing, tuple):
            return self._container(list(thing))
        if isinstance(thing, list | set | frozenset | Mapping):
            return f"<{type(thing).__qualname__}>" if changing else self._container(thing)
        if isinstance(thing, functools.partial):
            return {
                "partial of": self.tree(thing.func),
                "arguments": [self.tree(each) for each in thing.args],
                "keywords": self._container(thing.keywords),
            }
        if isinstance(thing, MethodType):
            return {"method": thing.__name__, "of": self.tree(thing.__self__)}
        if isinstance(thing, FunctionType):
            return self._function(thing)
        if isinstance(thing, type):
            return self._class(thing)
        if isinstance(thing, BuiltinFunctionType | np.ufunc | ModuleType):
            return getattr(thing, "__qualname__", None) or thing.__name__
        if isinstance(wrapped := getattr(thing, "__wrapped__", None), FunctionType):
            return self.tree(wrapped)
        return self._object(thing, unknown)

    def _container(self, thing: Any) -> Any:
        if isinstance(thing, Mapping):
            keys = {key if isinstance(key, str) else repr(_bare(key)): value for key, value in thing.items()}
            return {key: self.tree(keys[key]) for key in sorted(keys)}
        found = [self.tree(each) for each in thing]
        found = found if isinstance(thing, list) else sorted(found, key=json.dumps)
        return found if len(found) <= _SHORT else DIGEST + digest(json.dumps(found).encode())

    def _function(self, thing: FunctionType) -> Any:
        if is_of_library(thing) and "<" not in thing.__qualname__:
            return public_name(thing)
        use = Use.of(thing.__code__)
        around = dict(sorted(values_around(thing, use).items()))
        found = {
            "function": thing.__name__,
            _CODE: code_digests(thing.__code__),
            "defaults": self.tree(thing.__defaults__ or ()),
            "keyword defaults": self._container(thing.__kwdefaults__ or {}),
            "around it": {n: self.tree(v, use.attributes, changing=use.changes) for n, v in around.items()},
        }
        return {name: each for name, each in found.items() if each}

    def _class(self, thing: type) -> Any:
        if is_of_library(thing) and "<" not in thing.__qualname__:
            return public_name(thing)
        members = {}
        for name, value in sorted(vars(thing).items()):
            if name in _OWN:
                continue
            function = value.__func__ if isinstance(value, staticmethod | classmethod) else value
            function = function.fget if isinstance(function, property) else function
            function = function.func if isinstance(function, functools.cached_property) else function
            members[name] = self.tree(function)
        bases = [self.tree(base) for base in thing.__bases__ if base is not object]
        return {"class": thing.__name__, "members": members} | ({"bases": bases} if bases else {})

    def _object(self, thing: Any, unknown: Collection[str]) -> Any:
        kind = type(thing)
        if isinstance(thing, BaseEstimator):
            settings = {n: self.tree(v) for n, v in sorted(thing.get_params(deep=False).items())}
            return {"object": self.tree(kind), "settings": settings}
        if is_of_library(kind) and not callable(thing) and not dataclasses.is_dataclass(thing):
            text = repr(thing)
            # What is no expression tells how the thing is at the moment; and files stand elsewhere on another machine.
            known = len(text) <= _SHORT and "<" not in text and " at 0x" not in text
            return text if known and not isinstance(thing, PurePath) else f"<{kind.__qualname__}>"
        uses = [Use.of(f.__code__) for f in _own_functions(kind)]
        written = {name for use in uses for name in use.attributes}.union(unknown)
        changing = any(use.changes for use in uses)
        state = {
            name: self.tree(value, changing=changing)
            for name, value in sorted(_state(thing))
            if name not in written
        }
        return {"object": self.tree(kind)} | ({"state": state} if state else {})


def _own_functions(kind: type) -> Iterator[FunctionType]:
    """Functions of a class and of its bases, as far as they are no library's, but those that make an object."""
    for each in kind.__mro__:
        if not is_of_library(each):
            for name, value in vars(each).items():
                if isinstance(value, FunctionType) and name not in (
                    "__init__",
                    "__setstate__",
                    "__post_init__",
                ):
                    yield value


def _state(thing: Any) -> Iterable[tuple[str, Any]]:
    slots = [
        n for kind in type(thing).__mro__ for n in np.atleast_1d(getattr(kind, "__slots__", ())).tolist()
    ]
    found = {
        name: getattr(thing, name) for name in slots if not name.startswith("__") and hasattr(thing, name)
    }
    return (found | getattr(thing, "__dict__", {})).items()


def _bare(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _plain(thing: Any) -> Any:
    """What JSON holds as it is."""
    if isinstance(thing, enum.Enum):
        return f"{type(thing).__qualname__}.{thing.name}"
    thing = _bare(thing)
    if thing is None or isinstance(thing, bool | int):
        return thing
    if isinstance(thing, float):
        return thing if math.isfinite(thing) else repr(thing)
    if isinstance(thing, str):
        return thing if len(thing) <= _SHORT else DIGEST + digest(thing.encode("utf-8", "replace"))
    if isinstance(thing, bytes):
        return DIGEST + digest(thing)
    return repr(thing) if isinstance(thing, complex) else _ABSENT


def _values(thing: Any) -> Any:
    array = None if sparse.issparse(thing) else np.asarray(thing)
    if array is not None and array.ndim == 1 and array.size <= _SHORT // 8 and array.dtype.kind in "biufUO":
        found = [_plain(each) for each in array.tolist()]
        if _ABSENT not in found:
            return found
    return DIGEST + content(thing)


def _without(described: Any, prefix: str, tuned: Collection[str]) -> Any:
    """Leave out of a nested description what a space tunes."""
    own = {each.removeprefix(prefix) for each in tuned if each.startswith(prefix)}
    if not own or not isinstance(described, dict):
        return described
    if "settings" in described:
        return {**described, "settings": {k: v for k, v in described["settings"].items() if k not in own}}
    return {k: v for k, v in described.items() if k not in own}


# ---------------------------------------------------------------------- comparing


def _differences(
    before: Any, after: Any, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    if isinstance(before, dict) and isinstance(after, dict):
        if path[-1] == _CODE:
            # Of another version of Python: nothing is known of whether it does the same.
            if any(before[version] != after[version] for version in before.keys() & after.keys()):
                yield path, before, after
            return
        names = before.keys() | after.keys()
        if path[-1] == "settings":  # what only one has is tuned by a space, or unknown to another version
            names = before.keys() & after.keys()
        for name in sorted(names):
            yield from _differences(before.get(name), after.get(name), (*path, name))
    elif before != after:
        yield path, before, after


def _is_short(described: Any) -> bool:
    text = short_text(described)
    return len(text) <= _SHORT and DIGEST not in text


def _named(described: Mapping[str, Any], kind: str) -> str:
    own = short_text(described[kind]).strip("'")
    settings = described.get("settings") or described.get("keywords")
    items = settings.items() if isinstance(settings, Mapping) else ()
    given = ", ".join(f"{name}={short_text(value)}" for name, value in items)
    return (f"partial of {own}" if kind == "partial of" else own) + (f"({given})" if given else "")


def _place(path: tuple[str, ...]) -> str:
    """Where a difference lies, as a person says it."""
    name, *rest = path
    while rest[:1] == ["settings"] and len(rest) > 1:  # as set_params names it
        name, rest = f"{name}__{rest[1]}", rest[2:]
    rest = [step for step in rest if step not in ("members", "state")]
    return f"{name} ({': '.join(rest)})" if rest else name

"""Changes at random of bytes, of what JSON holds, and of tensors, as studies/fuzz.py makes them."""

import contextlib
import copy
import json
import math
import random
import sys
from typing import Any

import torch

DEEP = {f"deep {n}": "[" * n + "]" * n for n in (100, 3_000, 200_000)}
DEEP |= {f"deep object {n}": '{"a":' * n + "1" + "}" * n for n in (900, 200_000)}
VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 7, 2**31, 2**63, 2**64, 10**400, -(10**400), 10**5000),
    *(0.5, 1e308, -1e308, 1e-320, math.nan, math.inf, -math.inf),
    *("", "x", "nan", "1e999", "[/red]\x1b[31m\u202e", "\ud800", "x" * 100_000),
    *([], {}, [[]], [None], {"a": None}, [0] * 20_000, list(range(9)), *DEEP),
]


def change_bytes(rng: random.Random, data: bytes) -> bytes:
    """Flip, cut, repeat and insert bytes."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        at, kind = rng.randrange(len(changed) + 1), rng.randrange(6)
        until = min(len(changed), at + rng.choice([1, 2, 8, 200]))
        if kind == 0:
            del changed[at:]
        elif kind == 1:
            changed[at:at] = rng.randbytes(rng.choice([1, 8, 300]))
        elif kind == 2:
            changed[at:until] = bytes([rng.choice([0, 255, 34, 10])]) * (until - at)
        elif kind == 3:
            del changed[at:until]
        elif kind == 4:
            changed[at:at] = changed[at:until] * rng.choice([1, 50])
        elif at < len(changed):
            changed[at] ^= 1 << rng.randrange(8)
    return bytes(changed)


def places(tree: Any, most: int = 3000) -> list[tuple[Any, Any]]:
    """Containers with the key of each thing in them."""
    found, left = [], [tree]
    while left and len(found) < most:
        thing = left.pop()
        keys = (
            thing.keys() if isinstance(thing, dict) else range(len(thing)) if isinstance(thing, list) else ()
        )
        for key in list(keys):
            found.append((thing, key))
            left.append(thing[key])
    return found


def change_tree(rng: random.Random, tree: Any) -> Any:
    """Replace, take away and swap parts of what JSON held."""
    holder = [copy.deepcopy(tree)]
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        container, key = rng.choice(places(holder))
        kind, value = rng.randrange(8), container[key]
        if kind == 0 and isinstance(container, dict):
            del container[key]
        elif kind == 1:
            container[key] = copy.deepcopy(rng.choice([c[k] for c, k in places(holder)]))
        elif kind == 2 and isinstance(value, list) and value:
            container[key] = value * rng.choice([2, 300])
        elif kind == 3 and isinstance(container, dict):
            container[rng.choice(["new", "", "class", "law", "lr"])] = container.pop(key)
        elif kind == 4 and isinstance(value, int | float) and not isinstance(value, bool):
            container[key] = rng.choice([-value, value * 10**20, value + 1, float(value), str(value)])
        else:
            # A copy: what is changed next may lie in it, and a case depends on none before it.
            container[key] = copy.deepcopy(rng.choice(VALUES))
        if not holder:
            return None
    return holder[0]


def change_json(rng: random.Random, text: str) -> str:
    """A JSON text, changed as a tree or as a text."""
    if rng.random() < 0.15:
        return change_bytes(rng, text.encode()).decode("utf-8", "replace")
    sys.set_int_max_str_digits(0)
    changed = json.dumps(change_tree(rng, json.loads(text)))
    sys.set_int_max_str_digits(4300)
    for marker, deep in DEEP.items():
        changed = changed.replace(json.dumps(marker), deep)
    return changed


def change_tensor(rng: random.Random, tensor: torch.Tensor) -> torch.Tensor:
    """Other numbers, shapes and types."""
    kind = rng.randrange(5)
    changed = tensor.clone()
    if kind == 0 and changed.numel():
        at = rng.randrange(changed.numel())
        with contextlib.suppress(RuntimeError, OverflowError):
            changed.view(-1)[at] = rng.choice([math.nan, math.inf, -math.inf, 1e38, -1e38, 0.0])
    elif kind == 1:
        changed = changed.reshape(-1)[: rng.randrange(changed.numel() + 1)]
    elif kind == 2:
        changed = changed.to(rng.choice([torch.float64, torch.int64, torch.uint8, torch.bool, torch.float16]))
    elif kind == 3:
        changed = changed[None]
    else:
        changed = torch.cat([changed, changed])
    return changed.contiguous()

"""JSON that strangers may have written: it becomes data, or an error that says what is wrong. Loads nothing of ours."""

import json
from typing import Any

_DEEPEST = (
    100  # whoever copies, compares or prints what is nested needs the stack's depth for it several times
)
_DIGITS = 308  # of a whole number that a float holds


def loads(text: str) -> Any:
    """What a JSON text says.

    Raises
    ------
    ValueError
        If it is no JSON, is nested over 100 deep, or has a whole number that no float holds.
    """
    if text.count("[") + text.count("{") > _DEEPEST and _depth(text) > _DEEPEST:
        raise ValueError(f"it is nested over {_DEEPEST} deep")
    return json.loads(text, parse_int=_whole)


def _whole(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise ValueError(f"the number {digits[:20]}… is too large")
    return int(digits)


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

"""Plans of columns as plain data and back; what comes back is checked, since files may be damaged."""

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_type_hints

import numpy as np
import numpy.typing as npt

from inna_tune.estimators.columns import ColumnPlan, DroppedPlan
from inna_tune.estimators.dates import DatePlan
from inna_tune.estimators.levels import CodedPlan, OneHotPlan
from inna_tune.estimators.numbers import NumericPlan
from inna_tune.estimators.text import TextPlan

_KINDS: dict[str, type[ColumnPlan]] = {
    plan.kind: plan for plan in (NumericPlan, DatePlan, OneHotPlan, CodedPlan, TextPlan, DroppedPlan)
}

_HINTS = {name: get_type_hints(plan) for name, plan in _KINDS.items()}


def plan_to_plain(plan: ColumnPlan) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """A plan's fields as JSON-able data, and those that are arrays."""
    values = {f.name: getattr(plan, f.name) for f in fields(plan)}
    arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
    return {"kind": plan.kind} | {n: v for n, v in values.items() if n not in arrays}, arrays


def plan_from_plain(content: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> ColumnPlan:
    """The plan that ``plan_to_plain`` described.

    Raises
    ------
    ValueError, TypeError, KeyError
        If a field is missing, unknown or of the wrong type, a number is not finite, or fields contradict each other.
    """
    content = dict(content)
    kind = _KINDS[content.pop("kind")]
    hints = _HINTS[kind.kind]
    names = {f.name for f in fields(kind)}
    if (content.keys() | arrays.keys()) != names:
        raise ValueError(
            f"column {content.get('name')!r} has the fields {sorted(content.keys() | arrays.keys())}"
        )
    for name, value in content.items():
        if not _is(value, hints[name]):
            raise ValueError(f"column {content['name']!r}: its {name} is {str(value)[:80]}")
    for name, array in arrays.items():
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise ValueError(f"column {content['name']!r}: its {name} holds no numbers")
    return kind(**(content | dict(arrays)))


def _is(value: Any, hint: Any) -> bool:
    """Whether a value that JSON can hold is of a type."""
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if hint == float | None:
        return value is None or _is(value, float)
    if hint == str | None:
        return value is None or isinstance(value, str)
    if hint == list[str] | None:
        return value is None or _is(value, list[str])
    if hint == list[str]:
        return isinstance(value, list) and all(isinstance(v, str) for v in value)
    if hint == list[str | None]:
        return isinstance(value, list) and all(v is None or isinstance(v, str) for v in value)
    if hint == list[float]:
        return isinstance(value, list) and all(_is(v, float) for v in value)
    if hint is str:
        return isinstance(value, str)
    # Arrays are no part of the JSON; a field that may be one is None here.
    return value is None

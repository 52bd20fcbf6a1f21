"""What is done with a column: a plan of each kind, which plain data give back, checked, since files may be damaged."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import NoneType
from typing import Any, ClassVar, get_args, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt
import pandas as pd

from inna_tune.estimators.columns import Matrix


@dataclass(frozen=True)
class ColumnPlan:
    """What is done with one column; every kind of column has its own kind of plan.

    Attributes
    ----------
    name : str
        The column's name, as text.
    """

    name: str
    kind: ClassVar[str]

    _kinds: ClassVar[dict[str, type["ColumnPlan"]]] = {}

    def __init_subclass__(cls) -> None:
        ColumnPlan._kinds[cls.kind] = cls

    @property
    def numbers(self) -> list[str]:
        """Names of the outputs in the section of scaled numbers."""
        return []

    @property
    def floats(self) -> list[str]:
        """Names of the outputs in the section of other floats."""
        return []

    @property
    def n_codes(self) -> int:
        """Number of codes of the output in the section of codes; 0 if there is none."""
        return 0

    def encode(self, column: pd.Series, numbers: Matrix, floats: Matrix, codes: Matrix) -> None:
        """Write the column's outputs into its places in the three sections, [n_samples, width] each."""

    def to_plain(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        """The fields as JSON-able data, and those that are arrays."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
        return {"kind": self.kind} | {n: v for n, v in values.items() if n not in arrays}, arrays

    @staticmethod
    def from_plain(content: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> "ColumnPlan":
        """The plan that ``to_plain`` described.

        Raises
        ------
        ValueError, TypeError, KeyError
            If a field is missing, unknown or of the wrong type, a number is not finite, or fields contradict each other.
        """
        content = dict(content)
        kind = ColumnPlan._kinds[content.pop("kind")]
        hints = get_type_hints(kind)
        given = content.keys() | arrays.keys()
        if given != {f.name for f in fields(kind)}:
            raise ValueError(f"column {content.get('name')!r} has the fields {sorted(given)}")
        for name, value in content.items():
            if not _is(value, hints[name]):
                raise ValueError(f"column {content['name']!r}: its {name} is {str(value)[:80]}")
        for name, array in arrays.items():
            if array.dtype.kind != "f" or not np.isfinite(array).all():
                raise ValueError(f"column {content['name']!r}: its {name} holds no numbers")
        return kind(**({n: _with_floats(v, hints[n]) for n, v in content.items()} | dict(arrays)))


@dataclass(frozen=True)
class DroppedPlan(ColumnPlan):
    """A column that is left out.

    Attributes
    ----------
    reason : str
        ``"constant"``, ``"empty"``, or ``"rare"`` where no level occurs often enough to learn from.
    """

    kind = "dropped"
    reason: str = "constant"


def _is(value: Any, hint: Any) -> bool:
    """Whether a value that JSON can hold is of a type; arrays, which are no part of it, are none."""
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if hint is str or hint is NoneType:
        return isinstance(value, hint)
    if get_origin(hint) is list:
        return isinstance(value, list) and all(_is(each, *get_args(hint)) for each in value)
    return any(_is(value, each) for each in get_args(hint))


def _with_floats(value: Any, hint: Any) -> Any:
    """The same, a whole number as the float it stands for: of one beyond 64 bits numpy makes an object."""
    if isinstance(value, list):
        return [_with_floats(each, get_args(hint)[0]) for each in value]
    return float(value) if hint is float or (isinstance(value, int) and float in get_args(hint)) else value

"""What a parameter may be, declared as in scikit-learn; a refusal names the parameter, its value and the remedy."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval, Options, StrOptions, make_constraint


class Number(Interval):  # type: ignore[misc]
    """A number of Python's or numpy's in an interval; truth values, which Python counts among them, are none."""

    def is_satisfied_by(self, val: Any) -> bool:
        """Whether it is one."""
        is_number = isinstance(val, (int, float, np.number)) and not isinstance(val, bool)
        return is_number and bool(super().is_satisfied_by(val))


class Where(Options):  # type: ignore[misc]
    """What a function takes: it neither raises an error nor says False.

    Of `Options` because scikit-learn knows the constraints of its own classes only.

    Parameters
    ----------
    takes : callable
    words : str
        What that is.
    """

    def __init__(self, takes: Callable[[Any], Any], words: str) -> None:
        super().__init__(object, set())
        self._takes, self._words = takes, words

    def is_satisfied_by(self, val: Any) -> bool:
        """Whether the function takes it."""
        try:
            return self._takes(val) is not False
        except (ValueError, TypeError, RuntimeError):
            return False

    def __str__(self) -> str:
        return self._words


def one_of(*names: str) -> StrOptions:
    """Names of which it is one; messages list them in this order, where those of a set have another in every process."""
    return named_in(dict.fromkeys(names))


def named_in(table: Mapping[str, Any]) -> StrOptions:
    """A name in a table, as the table is when it is asked: who adds to it is taken from then on."""
    return StrOptions(table.keys())


def check_parameters(estimator: BaseEstimator) -> None:
    """Check all parameters of an estimator against its ``_parameter_constraints``.

    Raises
    ------
    ValueError
        If one meets none of its constraints.
    """
    for name, value in estimator.get_params(deep=False).items():
        declared = estimator._parameter_constraints.get(name, "no_validation")
        if declared == "no_validation":
            continue
        if not any(make_constraint(each).is_satisfied_by(value) for each in declared):
            words = [
                "True or False" if each == "boolean" else str(make_constraint(each)) for each in declared
            ]
            raise ValueError(f"{name}={value!r}: must be {', or '.join(words)}.")


def layer_sizes(sizes: Any) -> tuple[int, ...]:
    """``hidden_layer_sizes`` as a tuple of whole numbers, whichever way it was written.

    Raises
    ------
    ValueError
        If it is none.
    """
    found: list[Any] = [None]
    if isinstance(sizes, str):
        found = [int(size) if size.isdecimal() else None for size in sizes.split("-")]
    elif isinstance(sizes, (int, np.integer)):
        found = [sizes]
    elif isinstance(sizes, (Sequence, np.ndarray)) and not isinstance(sizes, bytes):
        found = list(sizes)
    # No more than torch counts.
    if all(
        isinstance(s, (int, np.integer)) and not isinstance(s, bool) and 1 <= s < 2**31 for s in found
    ) and (found or not isinstance(sizes, (str, int))):
        return tuple(int(size) for size in found)
    raise ValueError(
        f"hidden_layer_sizes={sizes!r}: must be whole numbers from 1 to 2147483647, such as (256, 256) or '256-256'."
    )


def check_class_weights(weights: Any) -> None:
    """Check a dict of weights of classes.

    Raises
    ------
    ValueError, TypeError
        If it is none, or one weight is negative or not finite.
    """
    if not isinstance(weights, dict):
        raise TypeError(f"{weights!r} is no dict")
    values = np.array(list(weights.values()), dtype=np.float64)
    if not np.isfinite(values).all() or (values < 0).any():
        raise ValueError(f"{weights!r} holds negative weights, or such as are not finite")


def check_device(estimator: Any) -> None:
    """Check that the device an estimator is to train on is there.

    Raises
    ------
    ValueError
        If torch cannot compute on it.
    """
    if reason := _why_unusable(estimator._torch_device()):
        raise ValueError(
            f"device={estimator.device!r}: torch cannot compute on it here ({reason}); set device='auto' or 'cpu'."
        )


def _why_unusable(device: torch.device) -> str:
    """What keeps torch from computing on a device; empty if nothing does."""
    if device.type == "meta":
        return "it holds no numbers"
    if device.type == "cuda" and not torch.backends.cuda.is_built():  # type: ignore[no-untyped-call]
        return f"torch {torch.__version__} is built without CUDA"
    try:
        if device.type == "cuda" and 0 < torch.cuda.device_count() <= (device.index or 0):
            return f"the CUDA devices here are cuda:0 to cuda:{torch.cuda.device_count() - 1}"
        torch.ones(1, device=device).sum().item()
    except Exception as error:  # each kind of device has its own
        lines = str(error).strip().splitlines()
        return lines[0] if lines else type(error).__name__
    return ""

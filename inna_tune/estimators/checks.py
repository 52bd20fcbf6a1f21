"""What the estimators refuse, each time with the parameter, its value and the remedy."""

from collections.abc import Collection, Sequence
from typing import Any, NoReturn

import numpy as np
import torch

from inna_tune.estimators.encoder import TableEncoder
from inna_tune.nets.layers import ACTIVATIONS
from inna_tune.nets.numeric import NUMERIC_EMBEDDINGS
from inna_tune.optim.decay import DECAY_LAWS

_FLAGS = ("early_stopping", "warm_start")
_COUNTS = ("batch_size", "max_epochs", "patience", "n_members")
_CHOICES: dict[str, Collection[str]] = {
    "decay": DECAY_LAWS,
    "numeric_embedding": tuple(NUMERIC_EMBEDDINGS),
    "block": ("plain", "residual"),
    "activation": tuple(ACTIVATIONS),
}


def layer_sizes(sizes: Any) -> tuple[int, ...]:
    """``hidden_layer_sizes`` as a tuple of whole numbers, whichever way it was written.

    Raises
    ------
    ValueError
        If it is none.
    """
    found: list[Any] = []
    if isinstance(sizes, str):
        found = [int(size) if size.isdecimal() else None for size in sizes.split("-")]
    elif isinstance(sizes, (int, np.integer)):
        found = [sizes]
    elif isinstance(sizes, (Sequence, np.ndarray)):
        found = list(sizes)
    if all(isinstance(s, (int, np.integer)) and not isinstance(s, bool) and s >= 1 for s in found) and (
        found or not isinstance(sizes, (str, int))
    ):
        return tuple(int(size) for size in found)
    raise ValueError(
        f"hidden_layer_sizes={sizes!r}: must be whole numbers of at least 1, such as (256, 256) or '256-256'."
    )


def check_parameters(estimator: Any) -> None:
    """Check the parameters of an InnaClassifier or InnaRegressor.

    Raises
    ------
    ValueError
        If one makes no sense.
    """

    def refuse(name: str, remedy: str) -> NoReturn:
        raise ValueError(f"{name}={getattr(estimator, name)!r}: {remedy}")

    def number(
        name: str, low: float, high: float = np.inf, *, open_low: bool = False, open_high: bool = False
    ) -> None:
        value = getattr(estimator, name)
        if isinstance(value, (bool, str)) or not isinstance(value, (int, float, np.integer, np.floating)):
            refuse(name, "must be a number.")
        inside = (low < value if open_low else low <= value) and (
            value < high if open_high else value <= high
        )
        if not (inside and np.isfinite(value)):
            refuse(name, f"must lie in {'(' if open_low else '['}{low}, {high}{')' if open_high else ']'}.")

    for name in ("lr", "alpha", "beta"):
        value = getattr(estimator, name)
        if isinstance(value, str):
            if value != "auto":
                refuse(name, "must be a number or 'auto' (from the curvature of the loss).")
        else:
            number(name, 0.0, open_low=name != "alpha")
    for name, choices in _CHOICES.items():
        if getattr(estimator, name) not in list(choices):
            refuse(name, f"must be one of {', '.join(choices)}.")
    for name in _FLAGS:
        if not isinstance(getattr(estimator, name), (bool, np.bool_)):
            refuse(name, "must be True or False.")
    for name in _COUNTS:
        value = getattr(estimator, name)
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            refuse(name, "must be a whole number of at least 1.")
        number(name, 1)
    for name in ("decay_power", "max_time"):
        if getattr(estimator, name) is not None:
            number(name, 0.0, open_low=True)
    number("weight_decay", 0.0)
    number("dropout", 0.0, 1.0, open_high=True)
    if hasattr(estimator, "label_smoothing"):
        number("label_smoothing", 0.0, 1.0, open_high=True)
    number("validation_fraction", 0.0, 1.0, open_low=True, open_high=True)
    estimator._layer_sizes()
    estimator._method()
    if estimator.random_state is not None and not isinstance(
        estimator.random_state, (int, np.integer, np.random.RandomState, np.random.Generator)
    ):
        refuse("random_state", "must be None, a whole number or a numpy random generator.")
    if estimator.encoder is not None and not isinstance(estimator.encoder, TableEncoder):
        refuse("encoder", "must be a TableEncoder, or None.")
    if estimator.module is not None and not callable(estimator.module):
        refuse("module", "must be a function of (in_features, out_features) that builds a torch.nn.Module.")
    try:
        estimator._torch_device()
    except (RuntimeError, TypeError):
        refuse("device", "must be 'auto', 'cpu', 'cuda' or another torch device.")


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
    try:
        torch.ones(1, device=device).sum().item()
    except Exception as error:  # each kind of device has its own
        lines = str(error).strip().splitlines()
        return lines[0] if lines else type(error).__name__
    return ""

"""What a person may set: the parameters that both estimators have, their defaults, and what each may be."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from numbers import Integral, Real
from typing import Any, ClassVar, Self, get_args

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval

from inna_tune.engine.method import Precision
from inna_tune.estimators.checks import Number, Where, layer_sizes, named_in, one_of
from inna_tune.estimators.encoder import TableEncoder
from inna_tune.estimators.metrics import is_metric
from inna_tune.estimators.watching import Epoch, check_callbacks
from inna_tune.nets.activations import ACTIVATIONS
from inna_tune.nets.numeric import NUMERIC_EMBEDDINGS
from inna_tune.optim.decay import DECAY_LAWS

_PREFIX = "optimizer__"

_POSITIVE = Number(Real, 0, None, closed="neither")
_FROM_ZERO = Number(Real, 0, None, closed="left")
# What torch counts by.
_COUNT = Number(Integral, 1, 2**31 - 1, closed="both")
# Each net is an object of its own beside its weights.
_NETS = Number(Integral, 1, 100_000, closed="both")
_AUTO = one_of("auto")


@dataclass(kw_only=True, eq=False, repr=False)
class Parameters(BaseEstimator):  # type: ignore[misc]
    """The parameters of InnaClassifier and InnaRegressor, which say what each means and have defaults of their own.

    A dataclass, so that each is listed once; it is none in what it does: it is compared and shown as estimators are.
    """

    lr: float | str = "auto"
    alpha: float | str = "auto"
    beta: float | str = "auto"
    step_ratio: float | None = None
    friction: float | None = None
    damping: float | None = None
    decay: str = "cosine"
    decay_power: float | None = None
    weight_decay: float = 0.0
    hidden_layer_sizes: Sequence[int] | int | str = (256, 256)
    block: str = "plain"
    activation: str = "mish"
    numeric_embedding: str = "piecewise"
    linear_path: bool = True
    dropout: float = 0.05
    optimizer: Any = "inna"
    optimizer_params: Mapping[str, Any] | None = None
    scale_tensors: bool = True
    longest_step: float | None = 0.1
    gradient_clip: float | None = None
    averaging: float | None = 0.99
    batch_size: int = 128
    max_epochs: int | str = "auto"
    max_time: float | None = None
    early_stopping: bool = True
    eval_metric: Any = None
    patience: int | str = "auto"
    validation_fraction: float = 0.1
    n_members: int | str = "auto"
    warm_start: bool = False
    encoder: TableEncoder | None = None
    module: Callable[[int, int], torch.nn.Module] | None = None
    precision: str = "float32"
    device: str = "auto"
    n_jobs: int | None = None
    callbacks: Sequence[Callable[[Epoch], object]] | None = None
    random_state: Any = None

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "lr": [_POSITIVE, _AUTO],
        "alpha": [_FROM_ZERO, _AUTO],
        "beta": [_POSITIVE, _AUTO],
        "step_ratio": [_POSITIVE, None],
        "friction": [_POSITIVE, None],
        "damping": [_POSITIVE, None],
        "decay": [named_in(DECAY_LAWS)],
        "decay_power": [_POSITIVE, None],
        "weight_decay": [_FROM_ZERO],
        "hidden_layer_sizes": [
            Where(layer_sizes, "whole numbers from 1 to 2147483647, such as (256, 256) or '256-256'")
        ],
        "block": [one_of("plain", "residual")],
        "activation": [named_in(ACTIVATIONS)],
        "numeric_embedding": [named_in(NUMERIC_EMBEDDINGS)],
        "linear_path": ["boolean"],
        "dropout": [Number(Real, 0, 1, closed="left")],
        # The table of optimizers knows which there are, and which options each takes: `Method` asks it.
        "optimizer": "no_validation",
        "optimizer_params": [Mapping, None],
        "scale_tensors": ["boolean"],
        "longest_step": [Interval(Real, 0, None, closed="neither"), None],
        "gradient_clip": [Interval(Real, 0, None, closed="neither"), None],
        "averaging": [Interval(Real, 0, 1, closed="left"), None],
        "batch_size": [_COUNT],
        "max_epochs": [_COUNT, _AUTO],
        "max_time": [_POSITIVE, None],
        "early_stopping": ["boolean"],
        "eval_metric": [
            Where(is_metric, "the name of a scorer of scikit-learn's, a function of (estimator, X, y)"),
            None,
        ],
        "patience": [_COUNT, _AUTO],
        "validation_fraction": [Number(Real, 0, 1, closed="neither")],
        "n_members": [_NETS, _AUTO],
        "warm_start": ["boolean"],
        "encoder": [TableEncoder, None],
        "module": [
            Where(callable, "a function of (in_features, out_features) that builds a torch.nn.Module"),
            None,
        ],
        "precision": [one_of(*get_args(Precision))],
        "device": [_AUTO, Where(torch.device, "'cpu', 'cuda' or another torch device")],
        "callbacks": [Where(check_callbacks, "functions of an epoch, in a list"), None],
        "n_jobs": [_COUNT, Number(Integral, None, -1, closed="right"), None],
        "random_state": [
            Number(Integral, 0, None, closed="left"),
            np.random.RandomState,
            np.random.Generator,
            None,
        ],
    }

    @classmethod
    def _get_param_names(cls) -> list[str]:
        # scikit-learn reads the signature of thirty parameters at each question, which a search asks hundreds of times.
        kind: Any = cls
        return list(_names_of(kind, kind.__init__))

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """As in scikit-learn; what ``optimizer_params`` holds comes under the names ``optimizer__NAME``, too."""
        params: dict[str, Any] = super().get_params(deep)
        if deep and isinstance(self.optimizer_params, Mapping):
            params |= {f"{_PREFIX}{name}": value for name, value in self.optimizer_params.items()}
        return params

    def set_params(self, **params: Any) -> Self:
        """As in scikit-learn; ``optimizer__NAME`` sets one of ``optimizer_params``, so that it can be searched over."""
        own = {name: params.pop(name) for name in list(params) if name.startswith(_PREFIX)}
        super().set_params(**params)
        if own:
            fresh = {name.removeprefix(_PREFIX): value for name, value in own.items()}
            self.optimizer_params = {**(self.optimizer_params or {}), **fresh}
        return self


@lru_cache(maxsize=64)
def _names_of(kind: Any, init: Callable[..., None]) -> tuple[str, ...]:
    """Parameters of an estimator's class as long as this is its constructor."""
    return tuple(BaseEstimator._get_param_names.__func__(kind))

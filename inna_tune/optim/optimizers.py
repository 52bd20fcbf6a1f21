"""The one table of optimizers that step stacked members. Does without torch until one is built."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

Kind: TypeAlias = "str | type[Optimizer]"
DEFAULT = "inna"


class Matrix(Protocol):
    """The weights of a hidden layer, as an optimizer of matrices sees them."""

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and columns."""
        ...

    @property
    def input_axis(self) -> int:
        """Of the layer's inputs: 1 as torch has them, or 0."""
        ...

    @property
    def is_padded(self) -> bool:
        """Whether some of the inputs may be padding, which a member has not."""
        ...


Build: TypeAlias = "Callable[[Sequence[Tensor], dict[str, Any], Mapping[int, Matrix]], Optimizer]"


@dataclass(frozen=True)
class OptimizerRecord:
    """What is to be known of an optimizer.

    Attributes
    ----------
    build : callable or None
        Makes the optimizer of a stack: from rows, each a tensor [P, n] of torch with a row a member; from settings by name,
        those of `usual` and ``weight_decay``, each a number or a tensor [P, 1], and all options; and from the `Matrix` of
        the rows, by number, that are weights of hidden layers. Where a member's ``lr`` is zero it stands still, state and
        all. None: a class of torch, of which each member has its own.
    usual : dict of str to float or None
        Those of ``lr``, ``alpha`` and ``beta`` that it takes, as they are if left open; None: from the curvature.
    options : dict
        Further arguments, shared by all members, as they are if left open.
    space : dict of str to dict, optional
        The prior of each setting that is its own, as `inna_tune.space.Law.from_json` reads it; options under
        ``optimizer__NAME``. None: the shipped priors of INNA.
    step_at : callable, optional
        The step at a curvature, from that and all options. None: `inna_tune.optim.settings_from_curvature` has all three.
    describe : callable, optional
        lr, alpha, beta and curvature (or None) to a clause that says what these mean.
    is_elementwise : bool
        Whether it steps every weight by itself, so that columns of zeros change nothing.
    is_capturable : bool
        Whether a CUDA graph can hold its step; it has an option ``capturable`` then, which is set where it is to.
    """

    build: Build | None
    usual: Mapping[str, float | None]
    options: Mapping[str, Any] = field(default_factory=dict)
    space: Mapping[str, Mapping[str, Any]] | None = None
    step_at: Callable[[Tensor, Mapping[str, Any]], Tensor] | None = None
    describe: Callable[[float, float, float, float | None], str] | None = None
    is_elementwise: bool = True
    is_capturable: bool = False

    @property
    def is_calibrated(self) -> bool:
        """Whether the curvature sets its scale."""
        return None in self.usual.values()


def _inna(rows: Sequence[Tensor], settings: dict[str, Any], _: Mapping[int, Matrix]) -> Optimizer:
    from inna_tune.optim.inna import INNA

    return INNA(rows, **settings)


def _describe_inna(lr: float, alpha: float, beta: float, curvature: float | None) -> str:
    from inna_tune.optim.description import describe_settings

    return describe_settings(lr, alpha, beta, curvature)


def _innaprop(rows: Sequence[Tensor], settings: dict[str, Any], _: Mapping[int, Matrix]) -> Optimizer:
    from inna_tune.optim.innaprop import INNAprop

    return INNAprop(rows, **settings)


def _adamw(rows: Sequence[Tensor], settings: dict[str, Any], _: Mapping[int, Matrix]) -> Optimizer:
    from inna_tune.optim._stacked import StackedAdamW

    return StackedAdamW(rows, settings)


def _muon(rows: Sequence[Tensor], settings: dict[str, Any], matrices: Mapping[int, Matrix]) -> Optimizer:
    from inna_tune.optim._muon import StackedMuon

    return StackedMuon(rows, settings, matrices)


def _sgd(rows: Sequence[Tensor], settings: dict[str, Any], _: Mapping[int, Matrix]) -> Optimizer:
    from inna_tune.optim._stacked import StackedSGD

    return StackedSGD(rows, settings)


def _around(median: float) -> dict[str, Any]:
    """A law around what is usual, wide enough for a factor of ten to either side."""
    return {"law": "LogNormal", "median": median, "sigma": 1.4, "low": median / 100, "high": 100 * median}


# The usual steps are those of the papers, and what is best of Muon's on small tables.
OPTIMIZERS: dict[str, OptimizerRecord] = {
    "inna": OptimizerRecord(
        _inna,
        usual={"lr": None, "alpha": None, "beta": None},
        options={"decoupled_weight_decay": False},
        describe=_describe_inna,
        is_capturable=True,
    ),
    "innaprop": OptimizerRecord(
        _innaprop,
        usual={"lr": 1e-3, "alpha": 0.1, "beta": 0.9},
        options={"sigma": 0.999, "eps": 1e-8},
        space={
            "alpha": {"law": "LogNormal", "median": 0.5, "sigma": 1.2, "low": 0.01, "high": 10.0},
            "beta": {"law": "LogNormal", "median": 1.0, "sigma": 0.7, "low": 0.05, "high": 5.0},
            "lr": _around(2e-3),
        },
        is_capturable=True,
    ),
    "adamw": OptimizerRecord(
        _adamw,
        usual={"lr": 1e-3},
        options={"betas": (0.9, 0.999), "eps": 1e-8},
        space={"lr": _around(1e-3)},
    ),
    "muon": OptimizerRecord(
        _muon,
        usual={"lr": 3e-3},
        options={
            "momentum": 0.95,
            "nesterov": True,
            "ns_coefficients": (3.4445, -4.7750, 2.0315),
            "ns_steps": 5,
            "eps": 1e-7,
            "adjust_lr_fn": "match_rms_adamw",
            "betas": (0.9, 0.999),
        },
        space={"lr": _around(3e-3)},
        is_elementwise=False,
    ),
    "sgd": OptimizerRecord(
        _sgd,
        usual={"lr": None},
        options={"momentum": 0.9, "nesterov": False},
        space={
            "optimizer__momentum": {"law": "Beta", "a": 5.0, "b": 1.0, "low": 0.0, "high": 0.995},
            "lr": _around(1e-2),
        },
        # Half of the largest stable step of heavy ball, 2(1 + μ)/λ: as far from the edge as INNA's r = 2.
        step_at=lambda curvature, options: (1.0 + options["momentum"]) / curvature,
    ),
}


def record_of(kind: Kind) -> OptimizerRecord:
    """What is to be known of an optimizer: of a name, the table has it; of a class of torch, its signature.

    Raises
    ------
    KeyError
        If there is no such name.
    """
    if isinstance(kind, str):
        return OPTIMIZERS[kind]
    import torch

    if kind is torch.optim.Muon:
        # Torch's own takes matrices alone, and a net has other tensors.
        return OPTIMIZERS["muon"]
    arguments = inspect.signature(kind).parameters
    own = arguments["lr"].default if "lr" in arguments else None
    return OptimizerRecord(
        build=None,
        usual={"lr": own if isinstance(own, float) else 1e-3},
        options={
            name: each.default
            for name, each in arguments.items()
            if name not in {"params", "lr", "weight_decay", "maximize"}
        },
        is_elementwise=False,
    )

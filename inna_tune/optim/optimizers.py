"""The one table of optimizers that step stacked members. Does without torch until one is built."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

Kind: TypeAlias = "str | type[Optimizer]"
DEFAULT = "inna"

NEXT_STEPS = 16.0
"""What runs away does so in fewer steps."""

PURE = {"step_ratio": "lr", "friction": "alpha", "damping": "beta"}
"""The pure numbers r, α̃ and ζ, each with the natural setting that it stands for at a curvature."""


@dataclass(frozen=True)
class OptimizerRecord:
    """What is to be known of an optimizer.

    Attributes
    ----------
    build : callable or None
        ``build(rows, **settings)`` makes the optimizer of a stack. Rows are parameters [P, n], a row a member. Settings are
        those of `usual` and ``weight_decay``, each a number or a tensor [P, 1], and all options. A member whose ``lr`` is
        zero stands still, state and all. None: a class of torch, of which each member has its own.
    usual : dict of str to float or None
        Those of ``lr``, ``alpha`` and ``beta`` that it takes, as they are if left open; None: from the curvature.
    options : dict
        Further arguments, shared by all members, as they are if left open.
    space : dict of str to dict, optional
        The prior of each setting that is its own, as `inna_tune.space.Law.from_json` reads it; options under
        ``optimizer__NAME``. None: the shipped priors of INNA.
    step_at : callable, optional
        The step at a curvature, from that, all options and the stable-step ratio. None:
        `inna_tune.optim.settings_from_curvature` has all three.
    reach : callable, optional
        How far a gradient of length 1 carries the weights at most within the next `NEXT_STEPS`, at a step of 1: from the
        settings and all options. None: what its gradients' lengths do not say.
    decay : callable, optional
        How long a gradient is beside which weights of length 1 stay as they are, for their decay.
    pure : tuple of str
        Of `PURE` those that it knows.
    describe : callable, optional
        lr, alpha, beta and curvature (or None) to a clause that says what these mean.
    steps_matrices : bool
        Whether it steps the weights of a hidden layer as a whole. It is told, as ``matrices``, which of the rows these are:
        a mapping of their numbers to `inna_tune.nets.protocol.Matrix`.
    is_capturable : bool
        Whether a CUDA graph can hold its step; as ``capturable`` it is told to expect one.
    """

    build: Callable[..., Optimizer] | None
    usual: Mapping[str, float | None]
    options: Mapping[str, Any] = field(default_factory=dict)
    space: Mapping[str, Mapping[str, Any]] | None = None
    step_at: Callable[[Tensor, Mapping[str, Any], Tensor], Tensor] | None = None
    reach: Callable[[Mapping[str, Tensor], Mapping[str, Any]], Tensor] | None = None
    decay: Callable[[Mapping[str, Tensor]], Tensor] | None = None
    pure: tuple[str, ...] = ()
    describe: Callable[[float, float, float, float | None], str] | None = None
    steps_matrices: bool = False
    is_capturable: bool = False

    @property
    def is_calibrated(self) -> bool:
        """Whether the curvature sets its scale."""
        return None in self.usual.values()

    @property
    def is_elementwise(self) -> bool:
        """Whether it steps every weight by itself, so that columns of zeros change nothing."""
        return self.build is not None and not self.steps_matrices


def _later(home: str, name: str) -> Callable[..., Any]:
    """What a module of this room has under a name; it is imported when it is called, since most of them load torch."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return getattr(import_module(f"inna_tune.optim.{home}"), name)(*args, **kwargs)

    return call


def _around(median: float) -> dict[str, Any]:
    """A law around what is usual, wide enough for a factor of ten to either side."""
    return {"law": "LogNormal", "median": median, "sigma": 1.4, "low": median / 100, "high": 100 * median}


def _reach_of_momentum(momentum: float) -> float:
    """Sum of the first powers of a momentum, at its largest."""
    if momentum <= 0.0:
        return 1.0
    return min(1.0 / (1.0 - momentum), NEXT_STEPS) if momentum < 1.0 else NEXT_STEPS


# The usual steps are those of the papers, and what is best of Muon's on small tables.
OPTIMIZERS: dict[str, OptimizerRecord] = {
    "inna": OptimizerRecord(
        _later("inna", "INNA"),
        usual={"lr": None, "alpha": None, "beta": None},
        options={"decoupled_weight_decay": False},
        describe=_later("description", "describe_settings"),
        # In the end γ/α, which with little friction takes long: docs/mathematics.md, "The longest step".
        reach=lambda settings, options: (
            settings["alpha"]
            .reciprocal()
            .maximum(settings["beta"])
            .minimum(settings["beta"] + NEXT_STEPS * settings["lr"])
        ),
        decay=lambda settings: settings["weight_decay"] / settings["beta"],
        is_capturable=True,
        pure=tuple(PURE),
    ),
    "innaprop": OptimizerRecord(
        _later("innaprop", "INNAprop"),
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
        _later("_stacked", "StackedAdamW"),
        usual={"lr": 1e-3},
        options={"betas": (0.9, 0.999), "eps": 1e-8},
        space={"lr": _around(1e-3)},
    ),
    "muon": OptimizerRecord(
        _later("_muon", "StackedMuon"),
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
        steps_matrices=True,
    ),
    "sgd": OptimizerRecord(
        _later("_stacked", "StackedSGD"),
        usual={"lr": None},
        options={"momentum": 0.9, "nesterov": False},
        space={
            "optimizer__momentum": {"law": "Beta", "a": 5.0, "b": 1.0, "low": 0.0, "high": 0.995},
            "lr": _around(1e-2),
        },
        # The largest step of heavy ball that is stable at curvature rλ: 2(1 + μ)/(rλ).
        step_at=lambda curvature, options, ratio: 2.0 * (1.0 + options["momentum"]) / (ratio * curvature),
        reach=lambda settings, options: settings["lr"].new_full(
            settings["lr"].shape, _reach_of_momentum(options["momentum"])
        ),
        decay=lambda settings: settings["weight_decay"],
        pure=("step_ratio",),
    ),
}


def named(kind: Kind) -> Kind:
    """The name of what has one here, for a class of torch that takes matrices alone: a net has other tensors."""
    if isinstance(kind, str):
        return kind
    import torch

    return "muon" if kind is torch.optim.Muon else kind


def record_of(kind: Kind) -> OptimizerRecord:
    """What is to be known of an optimizer: of a name, the table has it; of a class of torch, its signature.

    Raises
    ------
    KeyError
        If there is no such name.
    """
    kind = named(kind)
    if isinstance(kind, str):
        return OPTIMIZERS[kind]
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
    )

"""Layers that carry the member axis, the tabular net built of them, and nets of a user's own. Knows torch only."""

from inna_tune.nets.explicit import ExplicitGradient
from inna_tune.nets.explicit_inputs import ExplicitInputs
from inna_tune.nets.explicit_lean import LeanInputs
from inna_tune.nets.layers import MemberLinear
from inna_tune.nets.linear import LinearPath, LinearStart
from inna_tune.nets.module import ModuleNet
from inna_tune.nets.protocol import Net
from inna_tune.nets.tabular import TabularNet

__all__ = [
    "ExplicitGradient",
    "ExplicitInputs",
    "LeanInputs",
    "LinearPath",
    "LinearStart",
    "MemberLinear",
    "ModuleNet",
    "Net",
    "TabularNet",
]

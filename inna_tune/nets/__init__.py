"""Layers that carry the member axis, and the tabular net built of them. Knows torch only."""

from inna_tune.nets.layers import MemberLinear
from inna_tune.nets.protocol import Net
from inna_tune.nets.tabular import TabularNet

__all__ = ["MemberLinear", "Net", "TabularNet"]

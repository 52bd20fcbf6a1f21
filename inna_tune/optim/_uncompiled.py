"""Torch's base of optimizers, made without loading its compiler."""

import sys
from typing import Any

from torch.optim.optimizer import Optimizer


class UncompiledOptimizer(Optimizer):
    """Base of all optimizers of this package."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        add = super().add_param_group
        # To keep itself out, torch's compiler is loaded here with all of sympy, which takes longer than a small fit. Where
        # nobody has loaded it yet, nothing is being compiled.
        plain = None if "torch._dynamo" in sys.modules else getattr(add, "__wrapped__", None)
        if plain is None:
            add(param_group)
        else:
            plain(self, param_group)

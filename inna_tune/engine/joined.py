"""All trained tensors of a population as one matrix, for devices on which each operation is a launch."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

# Numbers of float32 in 64 bytes: every tensor begins at such a multiple, as quick kernels for products want it.
_WHOLE = 16


class Joined:
    """A matrix [P, N], a row a member, of which the tensors are views.

    Parameters
    ----------
    tensors : mapping of str to Tensor, each [P, *shape]
        On a device; their numbers are copied.

    Attributes
    ----------
    matrix : Tensor of shape [P, N]
        Zero in the gaps between the tensors.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._shapes = {name: tuple(tensor.shape[1:]) for name, tensor in tensors.items()}
        self._stretches: list[slice] = []
        end = 0
        for shape in self._shapes.values():
            size = torch.Size(shape).numel()
            self._stretches.append(slice(end, end + size))
            end += -(-size // _WHOLE) * _WHOLE
        self._width = end
        first = next(iter(tensors.values()))
        self.matrix = first.new_zeros(len(first), end)
        for name, view in self.views(self.matrix).items():
            view.copy_(tensors[name])

    def parts(self, matrix: Tensor) -> list[Tensor]:
        """What of a matrix [P, N] belongs to each tensor, views [P, n]."""
        return [matrix[:, stretch] for stretch in self._stretches]

    def views(self, matrix: Tensor) -> dict[str, Tensor]:
        """The same by name, each [P, *shape]."""
        parts = zip(self._shapes.items(), self.parts(matrix), strict=True)
        return {name: part.view(len(matrix), *shape) for (name, shape), part in parts}

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """A matrix of what `parts` gave, zero in the gaps."""
        matrix = parts[0].new_zeros(len(parts[0]), self._width)
        for place, part in zip(self.parts(matrix), parts, strict=True):
            place.copy_(part)
        return matrix

    def spread(self, factors: Mapping[str, Tensor]) -> Tensor:
        """Factors of some tensors, by name, each broadcasting against [P, *shape], as factors of every number, [P, N]."""
        matrix = torch.ones_like(self.matrix)
        for name, view in self.views(matrix).items():
            if name in factors:
                view.copy_(factors[name].expand_as(view))
        return matrix

    def apart(self, state: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What an optimizer remembers of one member's matrix, as if each tensor had been stepped by itself."""
        return [
            {name: self._part(value, stretch) for name, value in state.items()} for stretch in self._stretches
        ]

    def _part(self, value: Any, stretch: slice) -> Any:
        return value[:, stretch].clone() if self._is_matrix(value) else value

    def together(self, states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The opposite of `apart`."""
        first = states[0]
        found: dict[str, Any] = dict(first)
        for name in first:
            values = [state[name] for state in states]
            if self._are_parts(values):
                if name == "momentum" and "scale" in first:
                    # INNA's velocity is -scale · momentum, and what is one matrix has one scale.
                    values = [v * (s["scale"] / first["scale"]) for v, s in zip(values, states, strict=True)]
                found[name] = self.joined(values)
        return found

    def _are_parts(self, values: Sequence[Any]) -> bool:
        """Whether values are numbers of each tensor, not of each member alone."""
        widths = [(stretch.stop - stretch.start,) for stretch in self._stretches]
        return all(isinstance(v, Tensor) for v in values) and [tuple(v.shape[1:]) for v in values] == widths

    def _is_matrix(self, value: Any) -> bool:
        return isinstance(value, Tensor) and tuple(value.shape[1:]) == (self._width,)

"""`ExplicitInputs` for devices on which a small operation costs the launch of its kernel, and nothing else."""

from collections.abc import Mapping

import torch
from torch import Tensor

from inna_tune.nets.categorical import CATEGORIES
from inna_tune.nets.explicit_inputs import BIAS, WEIGHT, ExplicitInputs
from inna_tune.nets.tabular import TabularNet


class LeanInputs(ExplicitInputs):
    """The same in fewer operations: nothing has a place of its own but the gradients.

    Parameters
    ----------
    net, parameters
        As for `ExplicitInputs`.
    places : mapping of str to Tensor
        Where the gradients are to lie, by name of the parameter.
    """

    def __init__(
        self, net: TabularNet, parameters: Mapping[str, Tensor], places: Mapping[str, Tensor]
    ) -> None:
        super().__init__(net, parameters)
        self.gradients = {name: places[name] for name in self._parameters}
        self._features = self._index = torch.empty(0, device="cpu")
        if self._numeric is not None:
            first, slope = self._pieces
            self._offset = -first * slope
        if CATEGORIES in self._parameters:
            # Of each column's each number the place in the table of its first code.
            self._base = (self._starts[:, :, None] * len(self._entries) + self._entries).long()

    def forward(self, x: Tensor) -> Tensor:
        if self.is_plain:
            return x
        n_members, n_rows = x.shape[:2]
        parts: list[Tensor] = []
        if self._numeric is not None:
            numbers = x[:, :, : self._plain_from].transpose(1, 2)[:, :, None]
            # A place of its own, since torch would lay it out as the numbers are.
            shares = x.new_empty(n_members, self._plain_from, self._numeric.n_features, n_rows)
            torch.addcmul(self._offset, numbers, self._pieces[1], out=shares).clamp_(0.0, 1.0)
            self._features = shares.flatten(0, 1)
            weight = self._parameters[WEIGHT].reshape(-1, *self._parameters[WEIGHT].shape[2:])
            bias = self._parameters[BIAS].reshape(-1, self._numeric.dim, 1)
            embedded = torch.baddbmm(bias, weight.transpose(1, 2), self._features)
            parts.append(embedded.view(n_members, self._plain_at, n_rows))
        if self._codes_from > self._plain_from:
            parts.append(x[:, :, self._plain_from : self._codes_from].transpose(1, 2))
        if CATEGORIES in self._parameters:
            codes = x[:, :, self._codes_from :].transpose(1, 2).long()[:, :, None]
            self._index = torch.add(self._base, codes, alpha=len(self._entries)).view(n_members, -1)
            vectors = self._parameters[CATEGORIES].view(n_members, -1).gather(1, self._index)
            parts.append(vectors.view(n_members, -1, n_rows))
        inputs = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
        return inputs.transpose(1, 2)

    def backward(self, slope: Tensor) -> None:
        slope = slope.transpose(1, 2)
        n_members, _, n_rows = slope.shape
        if self._numeric is not None:
            own = slope[:, : self._plain_at]
            weight, bias = self.gradients[WEIGHT], self.gradients[BIAS]
            torch.sum(own.view(n_members, -1, self._numeric.dim, n_rows), 3, out=bias)
            turned = own.reshape(-1, self._numeric.dim, n_rows).transpose(1, 2)
            weight.copy_(torch.bmm(self._features, turned).view(weight.shape))
        if CATEGORIES in self._parameters:
            vectors = slope[:, self._codes_at :].reshape(n_members, -1)
            self.gradients[CATEGORIES].zero_().view(n_members, -1).scatter_add_(1, self._index, vectors)

"""What the first layer of a tabular net reads, and the gradients of its embeddings, written out.

The trunk's passes are in `inna_tune.nets.explicit`. Here rows lie innermost, [P, width, B]: so embedded numbers come out of
their products, so the first layer can read them, and so it hands back their slopes, without a copy.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from inna_tune.nets.categorical import CATEGORIES
from inna_tune.nets.numeric import PREFIX, PiecewiseEmbedding
from inna_tune.nets.products import affine, product, spaced
from inna_tune.nets.tabular import TabularNet

WEIGHT, BIAS = f"{PREFIX}.weight", f"{PREFIX}.bias"

# Numbers of features that are there at once; of more the columns go through in parts, and backward anew.
_MOST_FEATURES = 2**24


@dataclass(frozen=True)
class _Places:
    """For batches of one length."""

    table: Tensor
    inputs: Tensor
    features: Tensor | None
    parts: tuple[tuple[slice, slice], ...] = ()


class ExplicitInputs:
    """Embeddings of a stacked `TabularNet` and the gradients of them, in buffers that each pass overwrites.

    Parameters
    ----------
    net : TabularNet
        Its numeric columns must be read as they are or through `PiecewiseEmbedding`; see `is_possible`.
    parameters : mapping of str to Tensor
        As for `ExplicitGradient`.

    Attributes
    ----------
    gradients : dict of str to Tensor
        By name, of the shapes of the embeddings' parameters; empty where there is no embedding.

    Notes
    -----
    A member's gradients are the same bits in any company, as those of `ExplicitGradient` are.
    """

    def __init__(self, net: TabularNet, parameters: Mapping[str, Tensor]) -> None:
        self._net = net
        self._parameters = {
            name: parameters[name].detach() for name in (WEIGHT, BIAS, CATEGORIES) if name in parameters
        }
        self.gradients = {name: spaced(own.shape, own) for name, own in self._parameters.items()}
        numeric = net.numeric
        self._numeric = numeric if isinstance(numeric, PiecewiseEmbedding) else None
        like = next(iter(parameters.values()))
        if self._numeric is not None:
            self._pieces = self._numeric.pieces(like)
        if net.categorical is not None:
            self._starts = net.categorical.starts(like)[:, None]
            self._entries = torch.arange(net.categorical.dim, device=like.device)[:, None]
        # Parts of what the first layer reads: embedded numbers, columns as they are, embedded codes.
        self._plain_from = 0 if self._numeric is None else net.n_numeric
        self._plain_at = 0 if self._numeric is None else self._numeric.width
        self._codes_from = net.n_numeric + net.n_others
        self._codes_at = self._plain_at + self._codes_from - self._plain_from
        self._places: dict[int, _Places] = {}

    @staticmethod
    def is_possible(net: TabularNet) -> bool:
        """Whether the passes of a net's embeddings are written here."""
        return net.numeric is None or isinstance(net.numeric, PiecewiseEmbedding)

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing to embed."""
        return not self._parameters

    def _rows(self, x: Tensor) -> _Places:
        n_members, n_rows, n_columns = x.shape
        if n_rows not in self._places:
            if len(self._places) > 1:
                self._places.clear()
            features: Tensor | None = None
            parts: tuple[tuple[slice, slice], ...] = ()
            if (numeric := self._numeric) is not None:
                most = _MOST_FEATURES // (numeric.n_features * n_rows)
                parts = tuple(_parts(n_members, numeric.n_columns, most))
                first, columns = parts[0]
                features = x.new_empty(
                    (first.stop - first.start) * (columns.stop - columns.start), numeric.n_features, n_rows
                )
            width = self._net.layers[0].in_features
            self._places[n_rows] = _Places(
                x.new_empty(n_members, n_columns, n_rows),
                x.new_empty(n_members, width, n_rows),
                features,
                parts,
            )
        return self._places[n_rows]

    def forward(self, x: Tensor) -> Tensor:
        """What the first layer reads, [P, B, width], of rows [P, B, in_features]; good until the next pass."""
        if self.is_plain:
            return x
        places = self._rows(x)
        n_members, n_rows = x.shape[:2]
        table, inputs = places.table.copy_(x.transpose(1, 2)), places.inputs
        if self._numeric is not None:
            dim = self._numeric.dim
            embedded = inputs[:, : self._plain_at].view(n_members, -1, dim, n_rows)
            for members, columns in places.parts:
                features = self._shares(places, members, columns)
                weight, bias = (self._parameters[name][members, columns] for name in (WEIGHT, BIAS))
                own = affine(bias.reshape(-1, dim, 1), weight.flatten(0, 1).transpose(1, 2), features)
                place = embedded[members, columns]
                place.copy_(own.view(place.shape))
        inputs[:, self._plain_at : self._codes_at] = table[:, self._plain_from : self._codes_from]
        if CATEGORIES in self._parameters:
            codes = table[:, self._codes_from :].long().add_(self._starts)
            self._index = (codes[:, :, None] * len(self._entries) + self._entries).view(n_members, -1)
            vectors = self._parameters[CATEGORIES].view(n_members, -1).gather(1, self._index)
            inputs[:, self._codes_at :] = vectors.view(n_members, -1, n_rows)
        return inputs.transpose(1, 2)

    def _shares(self, places: _Places, members: slice, columns: slice) -> Tensor:
        """Features [p f, k, B] of some members' columns of the batch; good until the next ones."""
        assert self._numeric is not None
        assert places.features is not None
        numbers = places.table[members, columns].reshape(-1, places.table.shape[2])
        return self._numeric.shares(numbers, *self._pieces, out=places.features[: len(numbers)])

    def backward(self, slope: Tensor) -> None:
        """Write the gradients of the loss into ``gradients``, after `forward`, of its slope [P, B, width]."""
        slope = slope.transpose(1, 2)
        n_members, _, n_rows = slope.shape
        if self._numeric is not None:
            places = self._places[n_rows]
            embedded = slope[:, : self._plain_at].view(n_members, -1, self._numeric.dim, n_rows)
            for members, columns in places.parts:
                own = embedded[members, columns].reshape(-1, self._numeric.dim, n_rows)
                features = places.features
                if len(places.parts) > 1 or features is None:
                    features = self._shares(places, members, columns)
                weight, bias = (self.gradients[name][members, columns] for name in (WEIGHT, BIAS))
                weight.copy_(product(features, own.transpose(1, 2)).view(weight.shape))
                bias.copy_(own.sum(2).view(bias.shape))
        if CATEGORIES in self._parameters:
            vectors = slope[:, self._codes_at :].reshape(n_members, -1)
            self.gradients[CATEGORIES].zero_().view(n_members, -1).scatter_add_(1, self._index, vectors)


def _parts(n_members: int, n_columns: int, most: int) -> Iterator[tuple[slice, slice]]:
    """Members and columns in parts of at most so many columns, the first the largest: whole members, or of one each."""
    each = min(n_columns, max(1, most))
    together = max(1, min(n_members, most // n_columns))
    for member in range(0, n_members, together):
        for column in range(0, n_columns, each):
            yield (
                slice(member, min(member + together, n_members)),
                slice(column, min(column + each, n_columns)),
            )

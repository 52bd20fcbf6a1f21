"""Forward and backward passes of the plain trunk of a tabular net, written out.

What autograd does for a small net is mostly to allocate: a step of one member takes 2.5 times as long with it, of 32
members half again as long (studies/population_speed.py). Here activations and gradients have their places once and for
all, and activations work in place.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from inna_tune.nets import onednn
from inna_tune.nets.activations import Passes, passes
from inna_tune.nets.products import alone, spaced
from inna_tune.nets.tabular import TabularNet


def _members(matrices: Tensor, number: int) -> Tensor:
    """The first so many of a batch, or its only one so many times over."""
    if len(matrices) == number:
        return matrices
    return matrices[:number] if len(matrices) > number else matrices.expand(number, -1, -1)


class _Layer:
    """One affine map, with the place of its gradients.

    Parameters
    ----------
    weight : Tensor of shape [P, in, out]
    bias : Tensor of shape [P, 1, out]
    places : tuple of two Tensors, optional
        Of the gradients, of the same shapes. Not where a product is made twice.
    """

    def __init__(self, weight: Tensor, bias: Tensor, places: tuple[Tensor, Tensor] | None = None) -> None:
        self._n_members = len(weight)
        # A product that must not be alone is made twice; other devices have one kernel for all.
        self._number = 2 if weight.is_cpu and alone(*weight.shape) else len(weight)
        self._weight, self._bias = (_members(t, self._number) for t in (weight, bias))
        self._turned = self._weight.transpose(1, 2)
        if places is None:
            places = spaced(self._weight.shape, weight), torch.empty_like(bias)
        self._doubled_gradient, self.bias_gradient = places
        self.weight_gradient = self._doubled_gradient[: self._n_members]

    def output(self, n_rows: int) -> Tensor:
        """A place for the outputs of so many rows, [P, B, out]."""
        return self._weight.new_empty(self._number, n_rows, self._weight.shape[2])

    def below(self, n_rows: int) -> Tensor:
        """A place for the slopes of what so many rows give it to read, [P, B, in]."""
        return self._weight.new_empty(self._number, n_rows, self._weight.shape[1])

    def own(self, matrices: Tensor) -> Tensor:
        """Those of the members, where a product is made twice."""
        return _members(matrices, self._n_members)

    def _is_large(self, n_rows: int) -> bool:
        """Whether the products of so many rows are oneDNN's."""
        return onednn.is_quicker(self._weight, n_rows, *self._weight.shape[1:])

    def forward(self, x: Tensor, out: Tensor) -> Tensor:
        """Outputs [P, B, out] of x [P, B, in]."""
        if self._is_large(x.shape[1]):
            return onednn.multiply(x, self._weight, out, self._bias)
        return self.own(torch.baddbmm(self._bias, _members(x, self._number), self._weight, out=out))

    def gradients(self, x: Tensor, slope: Tensor) -> None:
        """Write the gradients of weight and bias."""
        torch.sum(slope, 1, keepdim=True, out=self.bias_gradient)
        if self._is_large(x.shape[1]):
            onednn.multiply(x.transpose(1, 2), slope, self.weight_gradient)
            return
        x, slope = (_members(t, self._number) for t in (x, slope))
        torch.bmm(x.transpose(1, 2), slope, out=self._doubled_gradient)

    def backward(self, slope: Tensor, out: Tensor) -> Tensor:
        """Derivative [P, B, in] with respect to what it read."""
        if self._is_large(slope.shape[1]):
            return onednn.multiply(slope, self._turned, out)
        return self.own(torch.bmm(_members(slope, self._number), self._turned, out=out))

    def slope_of_inputs(self, slope: Tensor) -> Tensor:
        """The same, [P, B, in] with the rows innermost in memory."""
        if self._is_large(slope.shape[1]):
            found = slope.new_empty(self._n_members, self._weight.shape[1], slope.shape[1])
            return onednn.multiply(self._weight, slope.transpose(1, 2), found).transpose(1, 2)
        turned = torch.bmm(self._weight, _members(slope, self._number).transpose(1, 2))
        return self.own(turned).transpose(1, 2)


class _Head(_Layer):
    """A map to few outputs: with the rows innermost its products take a fifth of the time."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__(weight, bias)
        self._turned_weight = spaced((self._number, *weight.shape[:0:-1]), weight)
        self._turned_gradient = spaced(self._turned_weight.shape, weight)

    def output(self, n_rows: int) -> Tensor:
        return self._weight.new_empty(self._number, self._weight.shape[2], n_rows)

    def forward(self, x: Tensor, out: Tensor) -> Tensor:
        self._turned_weight.copy_(self._turned)
        x = _members(x, self._number).transpose(1, 2)
        torch.baddbmm(self._bias.transpose(1, 2), self._turned_weight, x, out=out)
        return self.own(out).transpose(1, 2)

    def gradients(self, x: Tensor, slope: Tensor) -> None:
        turned = slope.transpose(1, 2).contiguous()
        torch.sum(turned.transpose(1, 2), 1, keepdim=True, out=self.bias_gradient)
        x, turned = (_members(t, self._number) for t in (x, turned))
        torch.bmm(turned, x, out=self._turned_gradient)
        self._doubled_gradient.copy_(self._turned_gradient.transpose(1, 2))

    def backward(self, slope: Tensor, out: Tensor) -> Tensor:
        # In one layout, whatever the loss has made of it.
        slope = _members(slope.transpose(1, 2).contiguous(), self._number)
        return self.own(torch.bmm(slope.transpose(1, 2), self._turned_weight, out=out))


class _SingleOutput(_Layer):
    """A map to one output, without products of matrices: those with a vector take ten times as long."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__(weight, bias)
        self._number = self._n_members
        self._row, self._bias = weight.transpose(1, 2), bias
        self._scratch: Tensor | None = None

    def _product(self, a: Tensor, b: Tensor) -> Tensor:
        if self._scratch is None or self._scratch.shape != a.shape:
            self._scratch = torch.empty_like(a, memory_format=torch.contiguous_format)
        return torch.mul(a, b, out=self._scratch)

    def forward(self, x: Tensor, out: Tensor) -> Tensor:
        return torch.sum(self._product(x, self._row), 2, keepdim=True, out=out).add_(self._bias)

    def gradients(self, x: Tensor, slope: Tensor) -> None:
        torch.sum(slope, 1, keepdim=True, out=self.bias_gradient)
        torch.sum(self._product(x, slope), 1, keepdim=True, out=self.weight_gradient.transpose(1, 2))

    def backward(self, slope: Tensor, out: Tensor) -> Tensor:
        return torch.mul(slope, self._row, out=out)

    def slope_of_inputs(self, slope: Tensor) -> Tensor:
        return slope * self._row


def _layer(weight: Tensor, bias: Tensor, places: tuple[Tensor, Tensor] | None, *, is_head: bool) -> _Layer:
    # What a CPU is slow at is nothing that an accelerator minds, to which every operation more is a launch more.
    if not is_head or not weight.is_cpu:
        return _Layer(weight, bias, None if weight.is_cpu else places)
    return _SingleOutput(weight, bias) if weight.shape[2] == 1 else _Head(weight, bias)


@dataclass(frozen=True)
class _Places:
    """For batches of one length: each layer's outputs and slopes of what it reads, and the activations between them."""

    outputs: list[Tensor]
    slopes: list[Tensor]
    activations: list[Passes]


class ExplicitGradient:
    """Gradients of the layers of a stacked `TabularNet`, in buffers that each pass overwrites.

    What lies before the layers, embeddings, is the caller's; see `ExplicitInputs`.

    Parameters
    ----------
    net : TabularNet
        Its architecture; its trunk must be plain.
    parameters : mapping of str to Tensor
        Stacked parameters, each ``[P, *net.parameter_shapes[name]]``, a member's own contiguous; changed in place between
        the passes.
    places : mapping of str to Tensor, optional
        Where the gradients are to lie, on other devices than a CPU.

    Attributes
    ----------
    gradients : dict of str to Tensor
        By name, of the shapes of the layers' parameters.

    Notes
    -----
    On a CPU, by one thread, a member's gradients are the same bits in any company, if its weights and rows are
    `products.in_place` and the number of rows is a multiple of 32.
    """

    def __init__(
        self,
        net: TabularNet,
        parameters: Mapping[str, Tensor],
        places: Mapping[str, Tensor] | None = None,
    ) -> None:
        self._activation, self._hidden = net.activation, list(net.hidden_layer_sizes)
        self._layers = [
            _layer(
                parameters[f"{layer.name}.weight"].detach(),
                parameters[f"{layer.name}.bias"].detach(),
                None if places is None else (places[f"{layer.name}.weight"], places[f"{layer.name}.bias"]),
                is_head=layer is net.layers[-1],
            )
            for layer in net.layers
        ]
        self.gradients: dict[str, Tensor] = {}
        for layer, own in zip(net.layers, self._layers, strict=True):
            self.gradients |= {
                f"{layer.name}.weight": own.weight_gradient,
                f"{layer.name}.bias": own.bias_gradient,
            }
        # One set of places for the batches of each length; an epoch has two, whole ones and the last.
        self._places: dict[int, _Places] = {}
        self._inputs: list[Tensor] = []
        self._masks: list[Tensor | None] = []
        self._whole_mask: Tensor | None = None

    def _rows(self, n_rows: int) -> _Places:
        if n_rows not in self._places:
            if len(self._places) > 1:
                self._places.clear()
            outputs = [layer.output(n_rows) for layer in self._layers]
            slopes = [layer.below(n_rows) for layer in self._layers[1:]]
            activations = [
                passes(self._activation, layer.own(output))
                for layer, output in zip(self._layers[:-1], outputs, strict=False)
            ]
            self._places[n_rows] = _Places(outputs, slopes, activations)
        return self._places[n_rows]

    def forward(self, x: Tensor, dropout_mask: Tensor | None = None) -> Tensor:
        """Outputs [P, B, out] of rows [P, B, in]; good until the next pass.

        Parameters
        ----------
        x : Tensor of shape [P, B, width]
            What the first layer reads; either order in memory will do.
        dropout_mask : Tensor of shape [P, B, dropout_width], optional
            As for `TabularNet`.
        """
        places = self._rows(x.shape[1])
        self._inputs = [x]
        self._split(dropout_mask)
        for layer, output, activation, mask in zip(
            self._layers, places.outputs, places.activations, self._masks, strict=False
        ):
            z = layer.forward(self._inputs[-1], output)
            self._inputs.append(activation.forward(z, mask))
        return self._layers[-1].forward(self._inputs[-1], places.outputs[-1])

    def _split(self, mask: Tensor | None) -> None:
        """The mask layer by layer; that of the step before comes again, written anew."""
        if mask is None:
            self._masks = [None] * (len(self._layers) - 1)
        elif mask is not self._whole_mask:
            self._masks = list(mask.split(self._hidden, -1))  # type: ignore[no-untyped-call]
        self._whole_mask = mask

    def backward(self, slope: Tensor, *, through: bool = False) -> Tensor | None:
        """Write the gradients of the loss into ``gradients``, after `forward`.

        Parameters
        ----------
        slope : Tensor of shape [P, B, out_features]
            Derivative of the loss with respect to the outputs.
        through : bool, default=False
            Whether to go on to the derivative with respect to ``x``.

        Returns
        -------
        Tensor of shape [P, B, width], with the rows innermost in memory, or None
        """
        places = self._rows(slope.shape[1])
        inputs, masks = self._inputs, self._masks
        # The batch is a view of many others, which are let go with it.
        self._inputs = []
        for i in range(len(self._layers) - 1, 0, -1):
            self._layers[i].gradients(inputs[i], slope)
            below = self._layers[i].backward(slope, places.slopes[i - 1])
            slope = places.activations[i - 1].backward(below, masks[i - 1])
        self._layers[0].gradients(inputs[0], slope)
        return self._layers[0].slope_of_inputs(slope) if through else None

"""Forward and backward passes of a multi-layer perceptron, written out.

What autograd does for a small net is mostly to allocate: a step of one member takes 2.5 times as long with it, of 32
members half again as long (studies/population_speed.py). Here activations and gradients have their places once and for
all, and ReLU works in place.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from inna_tune.nets.tabular import TabularNet


class ExplicitGradient:
    """Gradients of a stacked `TabularNet`, in buffers that each pass overwrites.

    Parameters
    ----------
    net : TabularNet
        Its architecture.
    parameters : mapping of str to Tensor
        Stacked parameters, each ``[P, *net.parameter_shapes[name]]``, contiguous; changed in place between the passes.

    Attributes
    ----------
    gradients : list of Tensor
        In the order of ``net.parameter_shapes``, of the same shapes.
    """

    def __init__(self, net: TabularNet, parameters: Mapping[str, Tensor]) -> None:
        self._layers = net.layers
        self._weights = [parameters[f"{layer.name}.weight"].detach() for layer in net.layers]
        self._biases = [parameters[f"{layer.name}.bias"].detach() for layer in net.layers]
        self._weight_gradients = [torch.empty_like(weight) for weight in self._weights]
        self._bias_gradients = [torch.empty_like(bias) for bias in self._biases]
        named = {
            f"{layer.name}.weight": g for layer, g in zip(net.layers, self._weight_gradients, strict=True)
        }
        named |= {f"{layer.name}.bias": g for layer, g in zip(net.layers, self._bias_gradients, strict=True)}
        self.gradients = [named[name] for name in net.parameter_shapes]
        # One set of places for the batches of each length; an epoch has two, whole ones and the last.
        self._places: dict[int, tuple[list[Tensor], list[Tensor]]] = {}
        self._inputs: list[Tensor] = []
        self._masks: list[Tensor | None] = []

    def _rows(self, n_rows: int) -> tuple[list[Tensor], list[Tensor]]:
        if n_rows not in self._places:
            if len(self._places) > 1:
                self._places.clear()
            shapes = [(len(w), n_rows, w.shape[2]) for w in self._weights]
            outputs, slopes = (
                [w.new_empty(s) for w, s in zip(self._weights, shapes, strict=True)] for _ in "ab"
            )
            self._places[n_rows] = outputs, slopes
        return self._places[n_rows]

    @torch.no_grad()
    def forward(self, x: Tensor, dropout_mask: Tensor | None = None) -> Tensor:
        """Outputs [P, B, out] of rows [P, B, in]; good until the next pass.

        Parameters
        ----------
        x : Tensor of shape [P, B, in_features]
        dropout_mask : Tensor of shape [P, B, dropout_width], optional
            As for `TabularNet`.
        """
        outputs, _ = self._rows(x.shape[1])
        self._inputs, self._masks = [x], []
        start = 0
        for i, (weight, bias, output) in enumerate(zip(self._weights, self._biases, outputs, strict=True)):
            torch.baddbmm(bias, self._inputs[-1], weight, out=output)
            if i < len(outputs) - 1:
                output.relu_()
                mask = None
                if dropout_mask is not None:
                    mask = dropout_mask[..., start : start + output.shape[2]]
                    output.mul_(mask)
                    start += output.shape[2]
                self._masks.append(mask)
            self._inputs.append(output)
        return outputs[-1]

    @torch.no_grad()
    def backward(self, slope: Tensor) -> list[Tensor]:
        """Gradients of the loss, after `forward`.

        Parameters
        ----------
        slope : Tensor of shape [P, B, out_features]
            Derivative of the loss with respect to the outputs.

        Returns
        -------
        list of Tensor
            ``gradients``, good until the next pass.
        """
        _, slopes = self._rows(slope.shape[1])
        for i in reversed(range(len(self._weights))):
            torch.bmm(self._inputs[i].transpose(1, 2), slope, out=self._weight_gradients[i])
            torch.sum(slope, 1, keepdim=True, out=self._bias_gradients[i])
            if i == 0:
                break
            below = slopes[i - 1]
            torch.bmm(slope, self._weights[i].transpose(1, 2), out=below)
            if (mask := self._masks[i - 1]) is not None:
                below.mul_(mask)
            # Where a unit was dropped or negative its activation is zero, and so is its derivative.
            torch.ops.aten.threshold_backward.grad_input(below, self._inputs[i], 0, grad_input=below)
            slope = below
        return self.gradients

"""Forward and backward passes of the plain trunk of a tabular net, written out.

What autograd does for a small net is mostly to allocate: a step of one member takes 2.5 times as long with it, of 32
members half again as long (studies/population_speed.py). Here activations and gradients have their places once and for
all, and ReLU works in place.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from inna_tune.nets.layers import ACTIVATIONS
from inna_tune.nets.products import alone, spaced
from inna_tune.nets.tabular import TabularNet


def _members(matrices: Tensor, number: int) -> Tensor:
    """The first so many of a batch, or its only one so many times over."""
    if len(matrices) == number:
        return matrices
    return matrices[:number] if len(matrices) > number else matrices.expand(number, -1, -1)


def _selu_backward(slope: Tensor, z: Tensor) -> Tensor:
    scale, alpha = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717
    backward: Tensor = torch.ops.aten.elu_backward(slope, alpha, scale, 1.0, False, z)
    return backward


# The kernels that autograd would call.
_SLOPES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "gelu": torch.ops.aten.gelu_backward,
    "silu": torch.ops.aten.silu_backward,
    "mish": torch.ops.aten.mish_backward,
    "selu": _selu_backward,
}


class ExplicitGradient:
    """Gradients of the layers of a stacked `TabularNet`, in buffers that each pass overwrites.

    What lies before the layers, embeddings, is the caller's.

    Parameters
    ----------
    net : TabularNet
        Its architecture; its trunk must be plain.
    parameters : mapping of str to Tensor
        Stacked parameters, each ``[P, *net.parameter_shapes[name]]``, a member's own contiguous; changed in place between
        the passes.

    Attributes
    ----------
    gradients : dict of str to Tensor
        By name, of the shapes of the layers' parameters.

    Notes
    -----
    On a CPU, by one thread, a member's gradients are the same bits in any company, if its weights and rows are
    `products.in_place` and the number of rows is a multiple of 32.
    """

    def __init__(self, net: TabularNet, parameters: Mapping[str, Tensor]) -> None:
        self._activation = net.activation
        weights = [parameters[f"{layer.name}.weight"].detach() for layer in net.layers]
        biases = [parameters[f"{layer.name}.bias"].detach() for layer in net.layers]
        self._n_members = len(weights[0])
        # A product that must not be alone is made twice.
        self._numbers = [2 if alone(*weight.shape) else len(weight) for weight in weights]
        self._weights = [_members(w, n) for w, n in zip(weights, self._numbers, strict=True)]
        self._biases = [_members(b, n) for b, n in zip(biases, self._numbers, strict=True)]
        self._transposed_weights = [weight.transpose(1, 2) for weight in self._weights]
        self._weight_gradients = [spaced(weight.shape, weight) for weight in self._weights]
        self._bias_gradients = [torch.empty_like(bias) for bias in biases]
        self.gradients: dict[str, Tensor] = {}
        for layer, weight, bias in zip(net.layers, self._weight_gradients, self._bias_gradients, strict=True):
            self.gradients |= {f"{layer.name}.weight": weight[: self._n_members], f"{layer.name}.bias": bias}
        # One set of places for the batches of each length; an epoch has two, whole ones and the last.
        self._places: dict[int, tuple[list[Tensor], list[Tensor], list[Tensor]]] = {}
        self._inputs: list[Tensor] = []
        self._masks: list[Tensor | None] = []
        # What activations were applied to; ReLU needs but its result.
        self._before: list[Tensor] = []

    def _rows(self, n_rows: int) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """For batches of this length: the layers' outputs, the same transposed, and the slopes of what they read."""
        if n_rows not in self._places:
            if len(self._places) > 1:
                self._places.clear()
            outputs = [w.new_empty(len(w), n_rows, w.shape[2]) for w in self._weights]
            slopes = [w.new_empty(len(w), n_rows, w.shape[1]) for w in self._weights[1:]]
            self._places[n_rows] = outputs, [self._own(output).transpose(1, 2) for output in outputs], slopes
        return self._places[n_rows]

    def _own(self, matrices: Tensor) -> Tensor:
        return _members(matrices, self._n_members)

    def forward(self, x: Tensor, dropout_mask: Tensor | None = None) -> Tensor:
        """Outputs [P, B, out] of rows [P, B, in]; good until the next pass.

        Parameters
        ----------
        x : Tensor of shape [P, B, width]
            What the first layer reads.
        dropout_mask : Tensor of shape [P, B, dropout_width], optional
            As for `TabularNet`.
        """
        outputs, _, _ = self._rows(x.shape[1])
        self._inputs, self._masks, self._before = [x], [], []
        start = 0
        for i, (weight, bias, output) in enumerate(zip(self._weights, self._biases, outputs, strict=True)):
            torch.baddbmm(bias, _members(self._inputs[-1], len(weight)), weight, out=output)
            output = self._own(output)
            if i < len(outputs) - 1:
                if self._activation == "relu":
                    output.relu_()
                else:
                    self._before.append(output)
                    output = ACTIVATIONS[self._activation].function(output)
                mask = None
                if dropout_mask is not None:
                    mask = dropout_mask[..., start : start + output.shape[2]]
                    output.mul_(mask)
                    start += output.shape[2]
                self._masks.append(mask)
            self._inputs.append(output)
        return self._own(outputs[-1])

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
        Tensor of shape [P, B, width], or None
        """
        _, transposed, slopes = self._rows(slope.shape[1])
        inputs, masks, before = self._inputs, self._masks, self._before
        # The batch is a view of many others, which are let go with it.
        self._inputs, self._masks, self._before = [], [], []
        if before:
            transposed = [output.transpose(1, 2) for output in inputs[1:]]
        for i in reversed(range(len(self._weights))):
            number = self._numbers[i]
            input_ = transposed[i - 1] if i > 0 else inputs[0].transpose(1, 2)
            torch.sum(slope, 1, keepdim=True, out=self._bias_gradients[i])
            slope = _members(slope, number)
            torch.bmm(_members(input_, number), slope, out=self._weight_gradients[i])
            if i == 0:
                return self._own(torch.bmm(slope, self._transposed_weights[0])) if through else None
            below = slopes[i - 1]
            torch.bmm(slope, self._transposed_weights[i], out=below)
            below = self._own(below)
            if (mask := masks[i - 1]) is not None:
                below.mul_(mask)
            if before:
                slope = _SLOPES[self._activation](below, before[i - 1])
            else:
                # Where a unit was dropped or negative its activation is zero, and so is its derivative.
                torch.ops.aten.threshold_backward.grad_input(below, inputs[i], 0, grad_input=below)
                slope = below
        return None

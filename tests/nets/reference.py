"""The net of one member in plain torch and numpy, column by column, from the published definitions."""

import math

import numpy as np
import torch
from scipy.stats import truncnorm
from torch.nn import functional as F

ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu, "silu": F.silu, "mish": F.mish, "selu": F.selu}


def _knot(share, evenness):
    """Where a mixture of a normal and an even law between −3 and 3 reaches a share, by bisection."""
    low, high = -3.0, 3.0
    for _ in range(60):
        middle = (low + high) / 2
        below = (1 - evenness) * truncnorm.cdf(middle, -3, 3) + evenness * (middle + 3) / 6
        low, high = (middle, high) if below < share else (low, middle)
    return round((low + high) / 2, 9) if evenness else (low + high) / 2


def embed_column(net, p, x, j):
    """Outputs [B, d] of numeric column ``j``, holding ``x`` [B]."""
    weight, bias = p["numeric.weight"][j], p["numeric.bias"][j]
    if net.numeric_embedding == "piecewise":
        n = net.n_frequencies
        knots = [_knot(i / n, net.evenness) for i in range(n + 1)]
        values = np.r_[bias[None].numpy(), weight.numpy()].cumsum(0)
        return torch.from_numpy(np.stack([np.interp(x.numpy(), knots, v) for v in values.T], 1))
    c = net.frequency_scale * p["numeric.frequency"][j]
    angle = 2 * math.pi * x[:, None] * c[None, :]
    if net.numeric_embedding == "periodic":
        return F.relu(torch.cat([angle.sin(), angle.cos()], 1) @ weight + bias)
    phase = min(1.0, 2 * math.pi * net.frequency_scale) * p["numeric.phase"][j]
    return torch.cos(angle + phase) @ weight + bias


def forward(net, p, x, mask=None):
    """Outputs [B, out] of one member's rows [B, in_features]."""
    n, first_code = net.n_numeric, net.in_features - len(net.categories)
    parts = []
    if net.numeric_embedding != "none":
        parts += [embed_column(net, p, x[:, j], j) for j in range(n)]
    if net.numeric_embedding in ("none", "pbld"):
        parts.append(x[:, :n])
    parts.append(x[:, n:first_code])
    start = 0
    for j, n_codes in enumerate(net.categories):
        table = p["categories.weight"][start : start + n_codes]
        parts.append(table[x[:, first_code + j].long()])
        start += n_codes
    h = torch.cat(parts, 1)

    def layer(i, h):
        return h @ p[f"layers.{i}.weight"] + p[f"layers.{i}.bias"]

    def activate(k, h):
        h = ACTIVATIONS[net.activation](h)
        if mask is None:
            return h
        start = sum(net.hidden_layer_sizes[:k])
        return h * mask[:, start : start + net.hidden_layer_sizes[k]]

    depth = len(net.hidden_layer_sizes)
    if net.block == "plain" or depth == 0:
        for k in range(depth):
            h = activate(k, layer(k, h))
        return layer(depth, h)
    h = layer(0, h)
    for k in range(1, depth):
        h = h + layer(2 * k, activate(k, layer(2 * k - 1, h)))
    return layer(2 * depth - 1, activate(0, h))


def stack(net, seeds, **kwargs):
    """Stacked parameters of members drawn from these seeds."""
    drawn = [net.initialize(torch.Generator().manual_seed(s), **kwargs) for s in seeds]
    return {name: torch.stack([d[name] for d in drawn]) for name in net.parameter_shapes}


def jiggle(parameters, seed=0):
    """The same with noise on every tensor, so that none is zero (biases and the ends of residual blocks start there)."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: value + 0.3 * torch.randn(value.shape, generator=generator, dtype=value.dtype)
        for name, value in parameters.items()
    }


def rows(net, n_members, n_rows, seed=9):
    """Rows [P, B, in_features], codes included."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n_members, n_rows, net.in_features, generator=generator, dtype=torch.float64)
    for j, n_codes in enumerate(net.categories, net.in_features - len(net.categories)):
        x[..., j] = torch.randint(n_codes, (n_members, n_rows), generator=generator)
    return x

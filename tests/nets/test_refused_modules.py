"""Factories that a net cannot be made of, and what is said of them."""

import pytest
import torch
from torch import nn

from inna_tune.nets import ModuleNet
from tests.nets.modules import IN, OUT, mlp


def module_of(forward, **buffers):
    """A factory of modules with one linear layer and this forward."""

    class Custom(nn.Module):
        def __init__(self, in_features, out_features):
            super().__init__()
            self.linear = nn.Linear(in_features, out_features)
            for name, value in buffers.items():
                self.register_buffer(name, value.clone())

    Custom.forward = forward
    return Custom


def with_state(change):
    """A factory that changes something of the whole process."""

    def factory(in_features, out_features):
        change()
        return nn.Linear(in_features, out_features)

    return factory


def shared_layer():
    layer = nn.Linear(IN, IN)
    return lambda a, b: nn.Sequential(layer, nn.Linear(a, b))


def shared_buffer():
    mean = torch.zeros(IN)

    def factory(a, b):
        module = nn.Linear(a, b)
        module.register_buffer("mean", mean)
        return module

    return factory


def same_module():
    module = nn.Linear(IN, OUT)
    return lambda a, b: module


def growing():
    calls = []

    def factory(a, b):
        calls.append(None)
        return nn.Sequential(nn.Linear(a, len(calls)), nn.Linear(len(calls), b))

    return factory


def own_stream():
    generator = torch.Generator()

    def factory(a, b):
        module = nn.Linear(a, b)
        nn.init.normal_(module.weight, generator=generator)
        return module

    return factory


def views():
    def factory(a, b):
        module = nn.Linear(a, b)
        module.mirror = nn.Parameter(module.weight.detach())
        return module

    return factory


class Unregistered(nn.Linear):
    def __init__(self, in_features, out_features):
        super().__init__(in_features, out_features)
        self.frequencies = torch.randn(in_features)

    def forward(self, x):
        return super().forward(x * self.frequencies)


class Counting(nn.Linear):
    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x) / self.calls


BAD = {
    "not callable": (None, TypeError, "factory=None is not callable"),
    "a module": (nn.Linear(IN, OUT), TypeError, "factory is a module, Linear"),
    "no module": (lambda a, b: torch.relu, TypeError, "must return a torch.nn.Module"),
    "other arguments": (lambda: nn.Linear(IN, OUT), ValueError, r"factory\(4, 3\) failed with TypeError"),
    "the same module": (same_module(), ValueError, "the same module twice"),
    "a shared layer": (shared_layer(), ValueError, "share the memory of '0"),
    "a shared buffer": (shared_buffer(), ValueError, "share the memory of 'mean'"),
    "a counter": (growing(), ValueError, "two calls gave modules that differ in the shape"),
    "a stream of its own": (own_stream(), ValueError, "same seed gave different values of 'weight'"),
    "drawn, not registered": (Unregistered, ValueError, "register_buffer"),
    "overlapping tensors": (views(), ValueError, "tie weights by assigning the same nn.Parameter"),
    "nothing to train": (
        lambda a, b: nn.Linear(a, b).requires_grad_(False),
        ValueError,
        "nothing to train",
    ),
    "lazy": (lambda a, b: nn.LazyLinear(b), ValueError, "'weight' is not initialized"),
    "complex": (lambda a, b: nn.Linear(a, b, dtype=torch.complex64), ValueError, "complex64, but members"),
    "on no device": (lambda a, b: nn.Linear(a, b, device="meta"), ValueError, "on the CPU"),
    "sparse gradients": (
        lambda a, b: nn.Sequential(_Long(), nn.Embedding(3, b, sparse=True), nn.Flatten(1), nn.Linear(a * b, b)),
        ValueError,
        "sparse=False",
    ),
    "written parameters": (
        lambda a, b: nn.Sequential(_Long(), nn.Embedding(3, b, max_norm=0.1), nn.Flatten(1), nn.Linear(a * b, b)),
        ValueError,
        "writes its parameter '1.weight'",
    ),
    "reseeding": (with_state(lambda: torch.manual_seed(1)), ValueError, "torch's global seed"),
    "default dtype": (
        with_state(lambda: torch.set_default_dtype(torch.float64)),
        ValueError,
        "torch's default dtype",
    ),
    "gradient mode": (with_state(lambda: torch.set_grad_enabled(False)), ValueError, "gradient mode"),
    "fails on rows": (
        lambda a, b: nn.Linear(a + 1, b),
        ValueError,
        r"fails on rows of shape \(2, 4\) with RuntimeError",
    ),
    "too many outputs": (lambda a, b: nn.Linear(a, b + 1), ValueError, "a layer of out_features=3 outputs"),
    "outputs of another shape": (
        module_of(lambda self, x: self.linear(x)[None]),
        ValueError,
        r"shape \(1, 2, 3\) .* is \(2, 3\); return output.reshape\(-1, 3\)",
    ),
    "one row squeezed": (
        module_of(lambda self, x: self.linear(x).squeeze()),
        ValueError,
        r"shape \(3,\) .* for rows of shape \(1, 4\)",
    ),
    "two outputs": (module_of(lambda self, x: (self.linear(x), x)), ValueError, "returns tuple, not a tensor"),
    "classes": (module_of(lambda self, x: self.linear(x).long()), ValueError, "class scores, not classes"),
    "no gradient": (module_of(lambda self, x: self.linear(x).detach()), ValueError, "has no gradient"),
    "a memory": (Counting, ValueError, "gives other outputs when called again"),
    "rows that mix": (
        module_of(lambda self, x: self.linear(x - x.mean(0))),
        ValueError,
        "depends on the rows beside it",
    ),
    "batch statistics": (
        lambda a, b: nn.Sequential(nn.Linear(a, b), nn.BatchNorm1d(b, track_running_stats=False)),
        ValueError,
        r"in eval\(\) mode the module fails on rows of shape \(1, 4\)",
    ),
}  # fmt: skip


class _Long(nn.Module):
    def forward(self, x):
        return x.long()


@pytest.mark.parametrize("why", BAD)
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_a_bad_factory_is_refused_at_construction(why):
    factory, kind, message = BAD[why]
    before = torch.get_rng_state()
    with pytest.raises(kind, match=message):
        ModuleNet(factory, IN, OUT)
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_factory_that_changes_later_is_refused_at_initialization():
    widths = [5]
    net = ModuleNet(lambda a, b: nn.Sequential(nn.Linear(a, widths[0]), nn.Linear(widths[0], b)), IN, OUT)
    widths[0] = 6
    with pytest.raises(ValueError, match="differ in the shape"):
        net.initialize(torch.Generator())


def test_construction_does_not_need_gradients_to_be_on():
    with torch.no_grad():
        net = ModuleNet(mlp, IN, OUT)
    assert net.stacked[True]

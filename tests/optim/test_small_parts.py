"""What the optimizers ask in their own way, since torch's loads sympy for it: held to torch's answer."""

import inspect

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inna_tune.optim import INNA, INNAprop, _inertial, innaprop
from inna_tune.optim._checks import _broadcasts_to
from inna_tune.optim._hessian import pulled_back

shapes = st.lists(st.integers(0, 3), max_size=4).map(tuple)


@given(shapes, shapes)
def test_what_broadcasts_to_a_shape_is_what_torch_broadcasts(shape, other):
    try:
        expected = torch.broadcast_shapes(shape, other) == other
    except RuntimeError:
        expected = False
    assert _broadcasts_to(shape, other) == expected


@given(st.integers(0, 2**32 - 1))
def test_vectors_are_pulled_back_to_the_same_bits(seed):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    params = [draw(2, 3).requires_grad_(), draw(3).requires_grad_(), draw(4).requires_grad_()]
    outputs = [(params[0] @ params[1]).tanh(), params[1].exp() * params[0][0]]
    vectors = [draw(2), draw(3)]
    expected = torch.autograd.grad(outputs, params, vectors, retain_graph=True, allow_unused=True)
    for _ in range(2):  # and the graph is kept
        found = pulled_back(outputs, params, vectors)
        assert found[2] is None
        assert expected[2] is None
        assert all(torch.equal(one, other) for one, other in zip(found[:2], expected[:2], strict=True))


@pytest.mark.parametrize("kind", [INNA, INNAprop])
def test_what_all_of_torchs_optimizers_can_be_told_is_known_or_refused_in_words(kind):
    known = [
        set(inspect.signature(each).parameters)
        for each in (torch.optim.AdamW, torch.optim.SGD, torch.optim.NAdam)
    ]
    shared = set.intersection(*known, {"maximize", "foreach", "capturable", "differentiable", "fused"})
    assert {"maximize", "foreach", "differentiable"} <= shared
    params = [torch.nn.Parameter(torch.ones(2))]
    for name in [*shared, "capturable", "fused"]:
        default = inspect.signature(kind).parameters[name].default
        assert not default
        assert kind(params, **{name: default}).param_groups[0][name] is default
    with pytest.raises(ValueError, match=f"differentiable=True: {kind.__name__} changes weights in place"):
        kind(params, differentiable=True)
    with pytest.raises(ValueError, match="differentiable=True"):
        kind([{"params": params, "differentiable": True}])
    with pytest.raises(ValueError, match="foreach=True and fused=True exclude each other"):
        kind(params, foreach=True, fused=True)


@pytest.mark.parametrize("kind", [INNA, INNAprop])
@pytest.mark.parametrize(("fused", "is_by_kernel"), [(None, True), (True, True), (False, False)])
def test_fused_says_whether_the_kernel_steps(kind, fused, is_by_kernel, monkeypatch):
    asked = []
    for module in (_inertial, innaprop):
        for name in ("fused_step", "_directions_by_kernel"):
            if (kernel := getattr(module, name, None)) is not None:
                monkeypatch.setattr(
                    module, name, lambda *a, kernel=kernel, **k: (asked.append(kernel), kernel(*a, **k))[1]
                )
    param = torch.nn.Parameter(torch.ones(4))
    param.grad = torch.ones(4)
    kind([param], 0.05, 0.5, 0.1, fused=fused).step()
    assert bool(asked) == is_by_kernel

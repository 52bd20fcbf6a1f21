"""What the optimizers ask in their own way, since torch's loads sympy for it: held to torch's answer."""

import torch
from hypothesis import given
from hypothesis import strategies as st

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

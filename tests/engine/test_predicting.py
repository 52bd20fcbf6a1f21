"""What a row is told does not depend on the rows told with it, to the last bit, nor on threads and members."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inna_tune.engine import outputs, predicted
from inna_tune.engine.predicting import rounds_rows_alike
from inna_tune.engine.threads import torch_threads
from inna_tune.nets import TabularNet

# More than two blocks.
N_ROWS = 300

NETS = st.builds(
    TabularNet,
    st.just(7),
    st.lists(st.sampled_from([5, 16, 32, 48, 256]), max_size=3).map(tuple),
    st.sampled_from([1, 2, 3, 5, 7, 10, 17, 33]),
    n_numeric=st.sampled_from([0, 1, 4]),
    categories=st.sampled_from([(), (3, 9)]),
    numeric_embedding=st.sampled_from(["none", "piecewise", "piecewise", "pbld"]),
    n_frequencies=st.sampled_from([3, 48]),
    block=st.sampled_from(["plain", "plain", "residual"]),
    activation=st.sampled_from(["mish", "relu", "gelu", "silu", "selu"]),
)


def setting(net, n_members=3, dtype=torch.float32):
    stream = torch.Generator().manual_seed(0)
    drawn = [net.initialize(stream, dtype=dtype) for _ in range(n_members)]
    weights = torch.stack([torch.cat([value.reshape(-1) for value in own.values()]) for own in drawn])
    weights += 0.05 * torch.randn(weights.shape, generator=stream, dtype=dtype)
    floats = torch.randn(N_ROWS, 7 - len(net.categories), generator=stream, dtype=dtype)
    codes = [torch.randint(n, (N_ROWS, 1), generator=stream) for n in net.categories]
    return weights, torch.cat([floats, *codes], 1)


@settings(max_examples=15, deadline=None)
@given(net=NETS, dtype=st.sampled_from([torch.float32, torch.float32, torch.float64]), data=st.data())
def test_rows_are_told_alike_in_any_company(net, dtype, data):
    weights, x = setting(net, dtype=dtype)
    told = predicted(net, weights, x)
    exact = outputs(net, weights.double(), x.double())
    torch.testing.assert_close(told, exact, rtol=1e-4, atol=1e-4)
    chosen = data.draw(st.lists(st.integers(0, N_ROWS - 1), min_size=1, max_size=N_ROWS))
    assert torch.equal(predicted(net, weights, x[chosen]), told[:, chosen])
    everywhere = predicted(net, weights, x[chosen[:1]].repeat(N_ROWS, 1))
    assert torch.equal(everywhere, told[:, chosen[:1]].expand_as(everywhere))
    assert torch.equal(predicted(net, weights[1:2], x), told[1:2])
    with torch_threads(2):
        assert torch.equal(predicted(net, weights, x), told)


@pytest.mark.parametrize(
    ("changes", "alike"),
    [
        ({}, True),
        ({"hidden_layer_sizes": (256, 7)}, False),
        ({"block": "residual"}, False),
        ({"numeric_embedding": "periodic"}, False),
    ],
)
def test_the_usual_nets_are_told_in_float32(changes, alike):
    given_ = {"hidden_layer_sizes": (256, 256), "numeric_embedding": "piecewise"} | changes
    assert rounds_rows_alike(TabularNet(7, out_features=2, n_numeric=7, **given_)) is alike


@pytest.mark.parametrize("n_members", [1, 9])
def test_more_members_than_go_together_and_no_rows(n_members):
    net = TabularNet(7, (16,), 2, n_numeric=7, numeric_embedding="piecewise")
    weights, x = setting(net, n_members)
    told = predicted(net, weights, x)
    assert torch.equal(told[-1:], predicted(net, weights[-1:], x))
    assert predicted(net, weights, x[:0]).shape == (n_members, 0, 2)


def test_threads_and_gradients_are_as_they_were():
    net = TabularNet(7, (16,), 2)
    weights, x = setting(net)
    with torch_threads(2), torch.enable_grad():
        assert not predicted(net, weights, x).requires_grad
        assert torch.is_grad_enabled()
        assert torch.get_num_threads() == 2

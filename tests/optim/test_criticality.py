import hypothesis
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st

from inna_tune.optim import dynamics, stationarity


def net_and_rows(seed, activation=torch.nn.Tanh):
    torch.manual_seed(seed)
    net = torch.nn.Sequential(torch.nn.Linear(3, 5), activation(), torch.nn.Linear(5, 1)).double()
    return net, torch.randn(24, 3).double(), torch.randn(24, 1).double()


def losses(net, x, y, size):
    for rows in torch.arange(len(x)).split(size):
        yield torch.nn.functional.mse_loss(net(x[rows]), y[rows], reduction="sum")


@settings(deadline=None, max_examples=20)
@hypothesis.given(seed=st.integers(0, 2**31), size=st.integers(1, 24))
def test_it_is_the_gradient_norm_of_the_whole_loss_whatever_the_batches_where_that_is_smooth(seed, size):
    net, x, y = net_and_rows(seed)
    torch.nn.functional.mse_loss(net(x), y, reduction="sum").backward()
    expected = torch.cat([p.grad.flatten() for p in net.parameters()]).norm().item()
    before = [p.grad.clone() for p in net.parameters()]
    assert stationarity(losses(net, x, y, size), net.parameters()) == pytest.approx(expected, rel=1e-10)
    assert all(torch.equal(p.grad, b) for p, b in zip(net.parameters(), before, strict=True))


def test_it_vanishes_at_a_spurious_point_where_the_slope_is_one():
    point = torch.zeros(1, requires_grad=True)
    batches = [point.relu().sum(), -(-point).relu().sum()]
    assert stationarity(batches, [point]) == 0.0
    near = torch.full((1,), 1e-30, requires_grad=True)
    assert stationarity([near.relu().sum(), -(-near).relu().sum()], [near]) == 1.0


def test_it_does_not_become_small_next_to_a_kink():
    near = torch.full((1,), 1e-30, requires_grad=True)
    assert stationarity([near.abs().sum()], [near]) == 1.0
    at = torch.zeros(1, requires_grad=True)
    assert stationarity([at.abs().sum()], [at]) == 0.0


def test_members_have_a_value_each():
    points = torch.tensor([[0.0], [1.0], [-2.0]], requires_grad=True)
    offset = torch.zeros(3, 2, requires_grad=True)
    found = stationarity([(points**2).sum(), (points + offset).sum()], [points, offset], member_axis=True)
    expected = torch.stack([2 * points.detach()[:, 0] + 2, torch.ones(3), torch.ones(3)]).norm(dim=0)
    torch.testing.assert_close(found, expected)


def test_a_generator_works_within_no_grad_and_frozen_parameters_are_left_out():
    net, x, y = net_and_rows(0, torch.nn.ReLU)
    net[0].requires_grad_(False)
    with torch.no_grad():
        found = stationarity(losses(net, x, y, 7), net.parameters())
    assert found == pytest.approx(stationarity(losses(net, x, y, 24), net[2].parameters()), rel=1e-12)


def test_sums_of_half_precision_are_taken_in_single():
    point = torch.zeros(1, dtype=torch.float16, requires_grad=True)
    batches = [(point * c).sum() for c in (2048.0, 1.0, -2048.0)]
    assert stationarity(batches, [point]) == 1.0


def test_what_is_not_finite_shows():
    point = torch.zeros(1, requires_grad=True)
    assert stationarity([point.sqrt().sum(), point.sum()], [point]) == float("inf")


@pytest.mark.parametrize(
    ("batches", "params", "message"),
    [
        (lambda p: [p.sum()], lambda p: [p.detach()], "params: none"),
        (lambda p: [], lambda p: [p], "no batch"),
        (lambda p: [p.sum(), p], lambda p: [p], "loss 1 must be a scalar"),
        (lambda p: [p.sum().detach()], lambda p: [p], "loss 0 carries no gradient"),
    ],
)
def test_bad_arguments_are_named(batches, params, message):
    p = torch.ones(2, requires_grad=True)
    with pytest.raises(ValueError, match=message):
        stationarity(batches(p), params(p))


def test_members_must_agree_in_number():
    params = [torch.ones(2, 3, requires_grad=True), torch.ones(3, requires_grad=True)]
    with pytest.raises(ValueError, match="one leading axis"):
        stationarity([sum(p.sum() for p in params)], params, member_axis=True)


def test_it_is_asked_for_beside_the_dynamics_too():
    assert dynamics.stationarity is stationarity

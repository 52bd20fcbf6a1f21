import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from inna_tune.nets.products import aligned
from inna_tune.optim import (
    CurvatureWarning,
    block_curvatures,
    calibrate,
    curvature,
    settings_from_curvature,
    step_factors,
)
from tests.optim.test_curvature import OnceDifferentiableSquare, population

SHAPES = st.lists(st.lists(st.integers(1, 3), max_size=3).map(tuple), min_size=1, max_size=4)


def quadratic(shapes, seed, dtype=torch.float64):
    """A loss with a dense Hessian over tensors of these shapes, and that Hessian."""
    generator = torch.Generator().manual_seed(seed)
    params = [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]
    size = sum(p.numel() for p in params)
    root = torch.randn(size, size, generator=generator, dtype=dtype)
    hessian = root @ root.T + 0.1 * torch.eye(size, dtype=dtype)

    def loss_fn():
        point = torch.cat([p.flatten() for p in params])
        return 0.5 * point @ hessian @ point + point.sum()

    return loss_fn, params, hessian


def blocks_of(hessian, params):
    sizes = [p.numel() for p in params]
    return [row.split(sizes, 1)[i] for i, row in enumerate(hessian.split(sizes))]


def largest(matrix):
    return float(torch.linalg.eigvalsh(matrix)[-1])


@settings(max_examples=40, deadline=None)
@given(shapes=SHAPES, seed=st.integers(0, 2**31))
def test_blocks_have_the_curvature_of_the_dense_hessian_s_diagonal_blocks(shapes, seed):
    loss_fn, params, hessian = quadratic(shapes, seed)
    found = block_curvatures(loss_fn, params, n_iterations=30)
    assert found == pytest.approx([largest(block) for block in blocks_of(hessian, params)], rel=1e-6)


def test_blocks_of_a_net_are_those_of_the_dense_hessian():
    net = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    inputs, labels = torch.randn(30, 3, dtype=torch.float64), torch.arange(30) % 2
    weights = tuple(net.parameters())

    def loss_of(*values):
        named = dict(zip(dict(net.named_parameters()), values, strict=True))
        return nn.functional.cross_entropy(torch.func.functional_call(net, named, inputs), labels)

    dense = torch.autograd.functional.hessian(loss_of, weights)
    expected = [largest(dense[i][i].reshape(p.numel(), p.numel())) for i, p in enumerate(weights)]
    found = block_curvatures(lambda: loss_of(*weights), weights, n_iterations=25)
    assert found == pytest.approx(expected, rel=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    shapes=SHAPES,
    seed=st.integers(0, 2**31),
    power=st.sampled_from([0.0, 0.5, 1.0, 1.7]),
    vectors=st.sampled_from(["one", "follow", "measure"]),
    lowest=st.sampled_from([1e-3, 0.4, 1.0]),
)
def test_factors_are_the_powers_of_quotients_of_curvatures(shapes, seed, power, vectors, lowest):
    loss_fn, params, _ = quadratic(shapes, seed)
    curvatures = block_curvatures(loss_fn, params)
    matrices = [i for i, shape in enumerate(shapes) if len(shape) >= 2]
    first = matrices[0] if matrices else 0
    expected, last = [], 1.0
    for i, shape in enumerate(shapes):
        own = max(min(1.0, curvatures[first] / curvatures[i]) ** power, lowest)
        if len(shape) >= 2:
            last = own
        expected.append(own if len(shape) >= 2 else {"one": 1.0, "follow": last, "measure": own}[vectors])
    found = step_factors(loss_fn, params, power=power, vectors=vectors, lowest=lowest, first="random")
    # Which tensors are measured beside it changes no curvature, since each block is by itself.
    assert found == pytest.approx(expected, rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(shapes=SHAPES, seed=st.integers(0, 2**31), data=st.data())
def test_a_calibration_with_factors_is_that_in_the_stretched_coordinates(shapes, seed, data):
    loss_fn, params, hessian = quadratic(shapes, seed)
    factors = [data.draw(st.floats(1e-3, 4.0)) for _ in params]
    roots = torch.cat([torch.full((p.numel(),), math.sqrt(f)) for f, p in zip(factors, params, strict=True)])
    expected = largest(roots.double()[:, None] * hessian * roots.double())
    found = calibrate(loss_fn, params, step_factors=factors, n_iterations=40)
    assert found.curvature == pytest.approx(expected, rel=1e-5)
    assert found[1:] == pytest.approx(settings_from_curvature(found.curvature))
    # The same by a change of variables, θ = √f φ.
    phis = [(p.detach() / math.sqrt(f)).requires_grad_() for f, p in zip(factors, params, strict=True)]

    def stretched():
        point = torch.cat([(phi * math.sqrt(f)).flatten() for f, phi in zip(factors, phis, strict=True)])
        return 0.5 * point @ hessian @ point + point.sum()

    assert found.curvature == pytest.approx(curvature(stretched, phis, n_iterations=40), rel=1e-5)


def test_factors_of_one_change_no_bit_of_a_calibration():
    loss_fn, params = population([1, 2, 3])
    plain = calibrate(loss_fn, params, member_axis=True)
    ones = calibrate(
        loss_fn, params, member_axis=True, step_factors=[torch.ones(3), 1.0, 1, torch.tensor(1.0)]
    )
    assert all(torch.equal(a, b) for a, b in zip(plain, ones, strict=True))


def test_a_factor_of_zero_leaves_a_tensor_out():
    loss_fn, params, hessian = quadratic([(2, 2), (3,)], 0)
    left = curvature(loss_fn, params, step_factors=[1.0, 0.0], n_iterations=20)
    assert left == pytest.approx(largest(hessian[:4, :4]), rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(
    seeds=st.lists(st.integers(0, 100), min_size=2, max_size=7),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    power=st.sampled_from([0.3, 0.5, 1.0]),
    width=st.integers(1, 40),
)
def test_a_member_s_factors_are_the_same_bits_in_any_company(seeds, dtype, power, width):
    def measured(chosen):
        # Elementwise but for the loss, so that no product of matrices rounds by the size of the stack.
        def drawn(k, *shape):
            return torch.stack(
                [torch.randn(shape, generator=torch.Generator().manual_seed(k + 1000 * s)) for s in chosen]
            ).to(dtype)

        params = [aligned(drawn(k, width, k)).requires_grad_() for k in (1, 2, 5)]
        scales = [drawn(k + 7, 1, 1).abs() + 0.1 for k in (1, 2, 5)]

        def loss_fn():
            each = [(scale * p**2 + p**4).flatten(1).sum(1) for scale, p in zip(scales, params, strict=True)]
            return sum(each).sum()

        factors = step_factors(loss_fn, params, member_axis=True, seed=chosen, power=power)
        found = calibrate(loss_fn, params, member_axis=True, seed=chosen, step_factors=factors)
        return [*factors, found.curvature]

    together = measured(seeds)
    for i, seed in enumerate(seeds):
        assert all(torch.equal(a[i : i + 1], b) for a, b in zip(together, measured([seed]), strict=True)), (
            seeds
        )


def test_members_equal_their_own_separate_nets():
    loss_fn, params = population([3, 1, 2])
    together = step_factors(loss_fn, params, member_axis=True, seed=[7, 8, 9])
    assert [f.shape for f in together] == [(3,)] * 4
    for i, (net, seed) in enumerate([(3, 7), (1, 8), (2, 9)]):
        loss_fn, params = population([net])
        alone = step_factors(loss_fn, params, member_axis=True, seed=seed)
        assert [f[i].item() for f in together] == pytest.approx([f.item() for f in alone], rel=1e-9)
        # Without a members' axis the biases [1, n] of this net are matrices just the same.
        assert step_factors(loss_fn, params, seed=seed) == pytest.approx([f.item() for f in alone], rel=1e-9)


def test_a_broken_member_has_factors_of_one_and_does_not_touch_the_others():
    loss_fn, params = population([1, 2, 3])
    expected = step_factors(loss_fn, params, member_axis=True)
    with torch.no_grad():
        params[0][1] = torch.inf
    for found, whole in zip(step_factors(loss_fn, params, member_axis=True), expected, strict=True):
        assert found[1] == 1
        assert found[[0, 2]].tolist() == pytest.approx(whole[[0, 2]].tolist(), rel=1e-9)


@pytest.mark.parametrize("n_iterations", [1, 4, 6])
def test_costs_one_loss_and_no_more_products_than_asked(n_iterations):
    weight, head = torch.ones(6, 10, requires_grad=True), torch.ones(10, 3, requires_grad=True)
    bias = torch.zeros(3, requires_grad=True)
    losses, calls = [], {"weight": 0, "head": 0, "bias": 0}
    for name, param in (("weight", weight), ("head", head), ("bias", bias)):
        param.register_hook(lambda _, name=name: calls.update({name: calls[name] + 1}))

    def loss_fn():
        losses.append(1)
        return ((torch.tanh(torch.eye(6) @ weight) @ head + bias) ** 4).sum()

    step_factors(loss_fn, [weight, head, bias], n_iterations=n_iterations)
    # One pass for the gradient, which the bias is left out of, as it has no factor.
    assert len(losses) == 1
    assert calls == {"weight": 1 + n_iterations, "head": 1 + n_iterations, "bias": 0}


def test_nothing_is_computed_where_nothing_is_measured():
    vector = torch.ones(3, requires_grad=True)

    def loss_fn():
        raise AssertionError

    assert step_factors(loss_fn, [vector, torch.ones(2, 2)]) == [1.0, 1.0]


@pytest.mark.parametrize(
    "loss_of",
    [
        lambda weight: -(weight**2).sum(),
        lambda weight: weight.sum(),
        lambda weight: (weight * torch.inf).sum() ** 2,
        lambda weight: OnceDifferentiableSquare.apply(weight).sum() ** 2,
    ],
    ids=["concave", "linear", "infinite", "once differentiable"],
)
@pytest.mark.parametrize("is_first", [True, False])
def test_a_tensor_without_a_usable_curvature_has_a_factor_of_one(loss_of, is_first):
    odd, steep, flat = (torch.ones(2, 2, requires_grad=True) for _ in range(3))
    params = [odd, steep, flat] if is_first else [flat, steep, odd]

    def loss_fn():
        return loss_of(odd) + 8 * (steep**2).sum() + 2 * (flat**2).sum()

    factors = step_factors(loss_fn, params)
    # Nothing can be measured by a first tensor that has no curvature.
    assert factors == pytest.approx([1.0, 1.0, 1.0] if is_first else [1.0, 0.25, 1.0])
    assert all(math.isfinite(f) for f in factors)


def test_frozen_parameters_keep_their_place():
    steep, frozen = torch.ones(2, 2, requires_grad=True), torch.ones(2, 2)
    flat = torch.ones(2, 2, requires_grad=True)

    def loss_fn():
        return 8 * (steep**2).sum() + 2 * (flat**2).sum() + frozen.sum()

    for params in ([frozen, flat, steep], [flat, steep, frozen]):
        expected = [0.25 if p is steep else 1 for p in params]
        assert step_factors(loss_fn, params, vectors="follow") == pytest.approx(expected)
    assert math.isnan(block_curvatures(loss_fn, [frozen, flat, steep])[0])
    factors = step_factors(loss_fn, [flat, frozen, steep])
    assert calibrate(loss_fn, [flat, frozen, steep], step_factors=factors).curvature == pytest.approx(4)


def test_gradients_random_state_and_grad_mode_do_not_matter():
    loss_fn, params, _ = quadratic([(2, 3), (3, 2)], 1)
    loss_fn().backward()
    before = [p.grad.clone() for p in params]
    state = torch.random.get_rng_state()
    first = step_factors(loss_fn, params)
    with torch.no_grad():
        assert step_factors(loss_fn, params) == first
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(p.grad, b) for p, b in zip(params, before, strict=True))


@pytest.mark.parametrize(
    ("function", "options", "named"),
    [
        (step_factors, {"power": -1.0}, "power"),
        (step_factors, {"power": math.nan}, "power"),
        (step_factors, {"lowest": 0.0}, "lowest=0.0"),
        (step_factors, {"lowest": 2.0}, "lowest=2.0"),
        (step_factors, {"vectors": "none"}, "'follow'"),
        (step_factors, {"n_iterations": 0}, "n_iterations=0"),
        (step_factors, {"seed": [1, 2]}, "2 seeds for 1 members"),
        (block_curvatures, {"n_iterations": 0}, "n_iterations=0"),
        (calibrate, {"step_factors": [1.0]}, "1 factors for 2 parameters"),
        (calibrate, {"step_factors": [1.0, -1.0]}, r"step_factors\[1\]=-1.0"),
        (calibrate, {"step_factors": [math.nan, 1.0]}, r"step_factors\[0\]=nan"),
        (calibrate, {"step_factors": [torch.ones(2), 1.0]}, r"step_factors\[0\] of shape \(2,\)"),
        (calibrate, {"step_factors": [torch.ones(3, 1), 1.0]}, r"step_factors\[0\] of shape \(3, 1\)"),
    ],
)
def test_bad_arguments_are_named(function, options, named):
    loss_fn, params, _ = quadratic([(2, 2), (2, 2)], 0)
    with pytest.raises(ValueError, match=named):
        function(loss_fn, params, **options)


def test_calibrate_tells_of_a_loss_without_second_derivatives():
    weight = torch.ones(2, 2, requires_grad=True)

    def loss_fn():
        return OnceDifferentiableSquare.apply(weight).sum() ** 2

    factors = step_factors(loss_fn, [weight])
    with pytest.warns(CurvatureWarning, match="no second derivatives"):
        calibrate(loss_fn, [weight], step_factors=factors)

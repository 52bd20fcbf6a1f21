import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd.function import once_differentiable

from inna_tune.optim.calibration import (
    FALLBACK_CURVATURE,
    Calibration,
    CurvatureWarning,
    calibrate,
    curvature,
)
from inna_tune.optim.dynamics import largest_stable_step, settings_from_curvature
from inna_tune.optim.factors import block_curvatures, step_factors


def quadratic(spectrum, seed=0):
    """A loss of known Hessian spectrum over two parameters of odd shapes."""
    generator = torch.Generator().manual_seed(seed)
    size = len(spectrum)
    basis, _ = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    hessian = basis @ torch.diag(torch.as_tensor(spectrum, dtype=torch.float64)) @ basis.T
    matrix = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    vector = torch.ones(size - 4, dtype=torch.float64, requires_grad=True)

    def loss_fn():
        point = torch.cat([matrix.flatten(), vector])
        return 0.5 * point @ hessian @ point + point.sum()

    return loss_fn, [matrix, vector]


def draw(generator, *shape):
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def small_net(seed):
    generator = torch.Generator().manual_seed(seed)
    return [0.7 * draw(generator, *shape) for shape in [(3, 5), (1, 5), (5, 2), (1, 2)]]


def population(seeds, dtype=torch.float64):
    """Stacked nets [P, in, out], and the sum over members of their mean losses."""
    params = [
        torch.stack(slices).to(dtype).requires_grad_() for slices in zip(*map(small_net, seeds), strict=True)
    ]
    generator = torch.Generator().manual_seed(99)
    inputs, targets = draw(generator, 20, 3).to(dtype), draw(generator, 20, 2).to(dtype)

    def loss_fn():
        first, first_bias, second, second_bias = params
        hidden = torch.tanh(torch.baddbmm(first_bias, inputs.expand(len(seeds), -1, -1), first))
        outputs = torch.baddbmm(second_bias, hidden, second)
        return ((outputs - targets) ** 2).mean(dim=(1, 2)).sum()

    return loss_fn, params


class OnceDifferentiableSquare(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value):
        ctx.save_for_backward(value)
        return value**2

    @staticmethod
    @once_differentiable
    def backward(ctx, slope):
        return 2 * ctx.saved_tensors[0] * slope


@pytest.mark.parametrize(
    "spectrum",
    [
        [1, 2, 3, 4, 5, 6, 7, 50],
        [1, 1, 1, 1, 1, 1, 1, 1.5],
        [-100, -50, 0, 0, 0, 1, 2, 3],
        [-3, -2, -1, -1, -1, -1, -1, -0.5],
        [0, 0, 0, 0, 0, 0, 0, 7],
    ],
)
def test_known_spectra(spectrum):
    loss_fn, params = quadratic(spectrum)
    assert curvature(loss_fn, params) == pytest.approx(max(spectrum), rel=1e-9)


def test_many_close_eigenvalues_within_a_percent():
    loss_fn, params = quadratic(torch.linspace(0, 10, 300).tolist())
    assert curvature(loss_fn, params) == pytest.approx(10, rel=0.015)


def test_dominating_negative_eigenvalue_in_a_large_spectrum():
    loss_fn, params = quadratic([-1000.0, *torch.linspace(-5, 1, 200).tolist(), 4.0])
    assert curvature(loss_fn, params) == pytest.approx(4, rel=0.01)


@pytest.mark.parametrize("n_iterations", [1, 4, 15, 40])
def test_costs_no_more_products_than_asked(n_iterations):
    weight = torch.ones(60, requires_grad=True)
    calls = []
    weight.register_hook(lambda slope: calls.append(1))
    curvature(lambda: (weight**4).sum(), [weight], n_iterations=n_iterations)
    assert len(calls) <= 1 + n_iterations


@pytest.mark.parametrize(("share_of_edge", "converges"), [(0.98, True), (1.02, False)])
def test_steps_just_inside_and_just_outside_the_largest(share_of_edge, converges):
    loss_fn, params = quadratic([0.1, 0.2, 1, 2, 3, 5, 8, 13])
    alpha, beta = 0.5, 0.2
    lr = share_of_edge * largest_stable_step(alpha, beta, curvature(loss_fn, params))
    velocities = [torch.zeros_like(param) for param in params]
    sizes = []
    for _ in range(2000):
        slopes = torch.autograd.grad(loss_fn(), params)
        with torch.no_grad():
            for param, velocity, slope in zip(params, velocities, slopes, strict=True):
                param += lr * (velocity - beta * slope)
                velocity.mul_(1 - alpha * lr).sub_(slope, alpha=lr * (1 - alpha * beta))
        sizes.append(float(sum(velocity.square().sum() for velocity in velocities)))
    assert sizes[-1] < 1e-12 if converges else sizes[-1] > 1e6 * sizes[0]


def test_agrees_with_the_dense_hessian_of_a_net():
    net = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    inputs, labels = torch.randn(30, 3, dtype=torch.float64), torch.arange(30) % 2

    def loss_of(*weights):
        names = [name for name, _ in net.named_parameters()]
        outputs = torch.func.functional_call(net, dict(zip(names, weights, strict=True)), inputs)
        return nn.functional.cross_entropy(outputs, labels)

    weights = tuple(net.parameters())
    blocks = torch.autograd.functional.hessian(loss_of, weights)
    dense = torch.cat(
        [
            torch.cat([block.reshape(p.numel(), q.numel()) for q, block in zip(weights, row, strict=True)], 1)
            for p, row in zip(weights, blocks, strict=True)
        ]
    )
    measured = curvature(lambda: loss_of(*weights), net.parameters(), n_iterations=25)
    assert measured == pytest.approx(float(torch.linalg.eigvalsh(dense)[-1]), rel=1e-6)


def test_leaves_gradients_and_random_state_alone_and_repeats_itself():
    loss_fn, params = quadratic(range(1, 41))
    loss_fn().backward()
    before = [param.grad.clone() for param in params]
    state = torch.random.get_rng_state()
    first = curvature(loss_fn, params, n_iterations=3, seed=4)
    torch.manual_seed(1)
    again = curvature(loss_fn, params, n_iterations=3, seed=4)
    other = curvature(loss_fn, params, n_iterations=3, seed=5)
    assert first == again != other
    assert all(torch.equal(param.grad, grad) for param, grad in zip(params, before, strict=True))
    torch.manual_seed(1)
    torch.random.set_rng_state(state)
    curvature(loss_fn, params)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_works_under_no_grad():
    loss_fn, params = quadratic([1, 2, 3, 4, 5])
    with torch.no_grad():
        assert curvature(loss_fn, params) == pytest.approx(5)


def test_members_equal_their_own_separate_nets():
    seeds = [3, 1, 2, 1]
    stacked = curvature(*population(seeds), seed=[7, 8, 9, 8], member_axis=True)
    alone = [
        curvature(*population([net]), seed=[start], member_axis=True).item()
        for net, start in zip(seeds, [7, 8, 9, 8], strict=True)
    ]
    assert stacked.shape == (4,)
    assert stacked.tolist() == pytest.approx(alone, rel=1e-10)
    assert stacked[1] == pytest.approx(stacked[3].item(), rel=1e-12)
    loss_fn, params = population([3])
    assert curvature(loss_fn, params, seed=7) == pytest.approx(alone[0], rel=1e-10)


def test_one_seed_serves_all_members():
    shared = curvature(*population([1, 2]), seed=5, member_axis=True, n_iterations=2)
    each = curvature(*population([1, 2]), seed=[5, 5], member_axis=True, n_iterations=2)
    assert torch.equal(shared, each)


def test_a_broken_member_does_not_touch_the_others():
    loss_fn, params = population([1, 2, 3])
    expected = curvature(loss_fn, params, member_axis=True)
    with torch.no_grad():
        params[0][1] = torch.inf
    measured = curvature(loss_fn, params, member_axis=True)
    assert measured[[0, 2]].tolist() == pytest.approx(expected[[0, 2]].tolist(), rel=1e-9)
    assert measured[1].isnan()
    with pytest.warns(CurvatureWarning, match="1 of 3"):
        calibration = calibrate(loss_fn, params, member_axis=True)
    assert calibration.curvature[1] == FALLBACK_CURVATURE
    assert calibration.curvature[[0, 2]].tolist() == pytest.approx(expected[[0, 2]].tolist(), rel=1e-9)
    assert all(value.shape == (3,) and value.isfinite().all() for value in calibration)


def test_single_precision_is_close_to_double():
    double = curvature(*population([1, 2]), member_axis=True)
    single = curvature(*population([1, 2], torch.float32), member_axis=True)
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=0)


def test_frozen_and_unused_parameters_are_left_out():
    loss_fn, params = quadratic([1, 2, 3, 4, 9])
    frozen = torch.ones(3)
    unused = torch.ones(2, requires_grad=True)
    assert curvature(loss_fn, [*params, frozen, unused]) == pytest.approx(9)


def test_parameters_in_which_the_loss_is_linear():
    weight = torch.ones(3, requires_grad=True)
    shift = torch.zeros((), requires_grad=True)
    assert curvature(lambda: (weight**2).sum() + shift, [weight, shift]) == pytest.approx(2, rel=1e-5)


def test_calibration_is_the_default_settings_at_the_curvature():
    loss_fn, params = quadratic([1, 2, 3, 4, 64])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calibration = calibrate(loss_fn, params)
    assert isinstance(calibration, Calibration)
    assert calibration.curvature == pytest.approx(64)
    assert calibration[1:] == pytest.approx(settings_from_curvature(64.0))


@pytest.mark.parametrize(
    "loss_of",
    [
        lambda weight: -(weight**2).sum(),
        lambda weight: weight.sum(),
        lambda weight: (weight - 1).abs().sum(),
        lambda weight: (weight * torch.inf).sum() ** 2,
        lambda weight: OnceDifferentiableSquare.apply(weight).sum() ** 2,
    ],
    ids=["concave", "linear", "piecewise linear", "infinite", "once differentiable"],
)
def test_falls_back_to_small_steps_with_a_warning(loss_of):
    weight = torch.zeros(3, requires_grad=True)
    with pytest.warns(CurvatureWarning, match="Pass lr, alpha and beta"):
        calibration = calibrate(lambda: loss_of(weight), [weight])
    assert calibration[1:] == settings_from_curvature(FALLBACK_CURVATURE)
    assert calibration.lr < 0.1
    assert calibration.curvature == FALLBACK_CURVATURE


@pytest.mark.parametrize("outer_power", [1, 2])
def test_missing_second_derivatives_are_said(outer_power):
    weight = torch.ones(3, requires_grad=True)
    with pytest.warns(CurvatureWarning, match="no second derivatives"):
        measured = curvature(lambda: OnceDifferentiableSquare.apply(weight).sum() ** outer_power, [weight])
    assert math.isnan(measured)


def test_an_error_of_the_loss_itself_is_not_swallowed():
    weight = torch.ones(3, requires_grad=True)
    with pytest.raises(RuntimeError, match="size"):
        calibrate(lambda: (weight @ torch.ones(4)) ** 2, [weight])


@pytest.mark.parametrize(
    ("loss_of", "options", "named"),
    [
        (lambda weight: weight**2, {}, "scalar"),
        (lambda weight: (weight**2).sum(), {"n_iterations": 0}, "n_iterations=0"),
        (lambda weight: (weight**2).sum(), {"seed": [1, 2], "member_axis": True}, "2 seeds for 3 members"),
    ],
)
def test_bad_arguments_are_named(loss_of, options, named):
    weight = torch.ones(3, requires_grad=True)
    with pytest.raises(ValueError, match=named):
        curvature(lambda: loss_of(weight), [weight], **options)


def test_params_must_require_gradients_and_share_their_members():
    with pytest.raises(ValueError, match="none of the parameters"):
        curvature(lambda: torch.ones(()), [torch.ones(2)])
    params = [torch.ones(2, 3, requires_grad=True), torch.ones(3, requires_grad=True)]
    with pytest.raises(ValueError, match="leading axis"):
        curvature(lambda: sum(p.sum() for p in params), params, member_axis=True)


@pytest.mark.parametrize("n_products", [3, 5])
def test_measuring_that_is_cut_short_errs_on_the_side_of_small_steps(n_products):
    spectrum = [1.0, 2.0, 3.0, 4.0, 9.0, 30.0, 31.0, 64.0]
    loss_fn, params = quadratic(spectrum)
    asked = []

    def stop():
        asked.append(True)
        return len(asked) == n_products

    found = calibrate(loss_fn, params, stop=stop)
    assert len(asked) == n_products, "no further product"
    assert found.curvature >= 64
    assert found.curvature < 2 * 64


def test_too_few_products_leave_the_fallback_without_a_warning():
    loss_fn, params = quadratic([1, 2, 3, 4, 64])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert calibrate(loss_fn, params, stop=lambda: True).curvature == FALLBACK_CURVATURE


def test_measuring_that_is_never_stopped_is_the_same_to_the_last_bit():
    loss_fn, params = quadratic([1, 2, 3, 4, 64])
    assert calibrate(loss_fn, params, stop=lambda: False) == calibrate(loss_fn, params)


def test_attention_has_a_curvature_too():
    """torch's quick kernels of it have no second derivatives, so that every transformer fell back."""
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
    rows = torch.randn(6, 3, 4)
    chosen = torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.mem_efficient_sdp_enabled()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = curvature(lambda: layer(rows).square().sum(), layer.parameters())
        blocks = block_curvatures(lambda: layer(rows).square().sum(), layer.parameters())
    assert (
        torch.backends.cuda.flash_sdp_enabled(),
        torch.backends.cuda.mem_efficient_sdp_enabled(),
    ) == chosen
    assert found > 0
    assert np.isfinite(blocks).all()
    assert found >= max(blocks) * (1 - 1e-3)


@pytest.mark.parametrize("measure", [curvature, calibrate, block_curvatures, step_factors])
@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (lambda loss: loss.item(), TypeError, r"got 4\.0; give the loss itself, not loss\.item\(\)"),
        (lambda loss: None, TypeError, "got None; give the loss itself"),
        (lambda loss: loss.detach(), ValueError, "carries no gradient"),
        (lambda loss: loss.expand(2), ValueError, "must be a scalar"),
    ],
)
def test_a_loss_without_a_gradient_is_refused_with_the_remedy(measure, change, kind, message):
    weights = [torch.ones(2, 2, requires_grad=True), torch.ones(2, 2, requires_grad=True)]
    with pytest.raises(kind, match=message):
        measure(lambda: change((weights[0] * weights[1]).sum()), weights)

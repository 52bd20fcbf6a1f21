"""float16 and bfloat16 weights, and GradScaler, on the CPU and, marked gpu, on CUDA."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inna_tune.optim import INNA, INNAprop
from inna_tune.optim._inertial import rest
from inna_tune.optim._low_precision import narrow, widen
from inna_tune.optim._step import Batch, kernel_scale

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device(request.param)


def small_net(device, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) / 3)
    return net.to(device=device, dtype=dtype)


@pytest.mark.parametrize("device", DEVICES, indirect=True)
@pytest.mark.parametrize("lr", [0.05, 0.1, 0.15], ids=["gamma < beta", "gamma = beta", "gamma > beta"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weight_decay": 0.1},
        {"weight_decay": 0.1, "decoupled_weight_decay": True},
        {"decay_power": 0.5},
        {"decay_power": 0.5, "capturable": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("unscale_first", [False, True])
def test_grad_scaler_on_the_fused_path_is_the_ordinary_one(device, lr, options, unscale_first):
    """Steps with infinite gradients leave no trace, whoever skips them; the step size changes along the way."""
    fused, ordinary = small_net(device), small_net(device)
    optimizers = (
        INNA(fused.parameters(), lr, fused=True, **options),
        INNA(ordinary.parameters(), lr, **options),
    )
    assert optimizers[0]._step_supports_amp_scaling
    assert not optimizers[1]._step_supports_amp_scaling
    scalers = [torch.amp.GradScaler(device.type, init_scale=1024.0, growth_interval=3) for _ in optimizers]
    for step in range(14):
        inputs = torch.randn(16, 5, generator=torch.Generator().manual_seed(step)).to(device)
        for net, optimizer, scaler in zip((fused, ordinary), optimizers, scalers, strict=True):
            optimizer.zero_grad()
            loss = net(inputs).square().mean() * (torch.inf if step in (0, 4, 9) else 1.0)
            scaler.scale(loss).backward()
            if unscale_first:
                scaler.unscale_(optimizer)
            optimizer.param_groups[0]["lr"] = lr * (0.97**step if step > 6 else 1.0)
            scaler.step(optimizer)
            scaler.update()
    for p, q in zip(fused.parameters(), ordinary.parameters(), strict=True):
        assert p.isfinite().all()
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)
    if "decay_power" in options:
        assert float(optimizers[0].param_groups[0]["step"]) == 11.0


@pytest.mark.parametrize("device", DEVICES, indirect=True)
@pytest.mark.parametrize("make", [INNA, INNAprop])
def test_grad_scaler_with_an_ordinary_optimizer(device, make):
    net = small_net(device)
    optimizer, scaler = make(net.parameters(), lr=0.05), torch.amp.GradScaler(device.type)
    before = copy.deepcopy(net.state_dict())
    scaler.scale(net(torch.ones(2, 5, device=device)).sum() * torch.inf).backward()
    scaler.step(optimizer)
    scaler.update()
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize("device", DEVICES, indirect=True)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("make", [INNA, INNAprop])
def test_low_precision_weights_follow_the_float64_ones(device, dtype, make):
    """Steps far below half a unit in the last place add up instead of being lost."""
    weight = torch.nn.Parameter(torch.full((100,), 1.0, dtype=dtype, device=device))
    exact = torch.nn.Parameter(torch.full((100,), 1.0, dtype=torch.float64, device=device))
    options = {"weight_decay": 0.0, "alpha": 1.0, "beta": 0.1, "lr": 1e-5}
    optimizer, reference = make([weight], **options), make([exact], **options)
    for _ in range(1000):
        weight.grad, exact.grad = torch.ones_like(weight), torch.ones_like(exact)
        optimizer.step()
        reference.step()
    assert (1 - exact).min() > 1e-3, "the reference has moved"
    assert (weight.double() - exact).abs().max() <= 0.51 * torch.finfo(dtype).eps
    assert optimizer.state[weight]["momentum"].dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("make", [INNA, INNAprop])
def test_low_precision_weights_are_the_float32_ones_rounded(dtype, make):
    """On the same gradients: nothing is lost between steps but the last bit of ties."""
    start = torch.randn(2000, generator=torch.Generator().manual_seed(0)).to(dtype)
    weight, wide = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.float())
    options = {"lr": 1e-3, "weight_decay": 0.01}
    optimizer, reference = make([weight], **options), make([wide], **options)
    for step in range(300):
        weight.grad = torch.randn(2000, generator=torch.Generator().manual_seed(step)).to(dtype)
        wide.grad = weight.grad.float()
        optimizer.step()
        reference.step()
    ulp = torch.finfo(dtype).eps
    assert (weight != start).float().mean() > 0.5
    torch.testing.assert_close(weight.float(), wide, rtol=0.51 * ulp, atol=1e-7)
    assert (weight == wide.to(dtype)).float().mean() > 0.995


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@given(st.lists(st.floats(width=32), min_size=1))
def test_narrow_keeps_what_it_cuts_off(dtype, values):
    wide = torch.tensor(values, dtype=torch.float32)
    weight, remainder = torch.empty_like(wide, dtype=dtype), torch.empty_like(wide, dtype=torch.int16)
    narrow(wide, weight, remainder)
    assert torch.equal(weight.nan_to_num(), wide.to(dtype).nan_to_num())
    back = widen(weight, remainder)
    assert torch.equal(back.isnan(), wide.isnan())
    # Ties lose one unit in the last place; float16 holds nothing above 65504 and less below 1e-5.
    held = wide.isfinite() & weight.isfinite() & ((wide.abs() > 1e-5) | (dtype == torch.bfloat16))
    torch.testing.assert_close(back[held], wide[held], rtol=1.2e-7, atol=2e-45)
    again, rest = torch.empty_like(weight), torch.empty_like(remainder)
    narrow(back, again, rest)
    assert torch.equal(again.nan_to_num(), weight.nan_to_num())
    assert torch.equal(rest[held], remainder[held])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("make", [INNA, INNAprop])
def test_low_precision_state_survives_saving(dtype, make):
    """torch casts a loaded state to the parameter's dtype, which would cut the float32 velocity."""
    first, second = small_net("cpu", dtype), small_net("cpu", dtype)
    optimizer, resumed = make(first.parameters(), lr=0.03), make(second.parameters(), lr=0.03)

    def advance(net, stepper):
        stepper.zero_grad()
        net(torch.ones(3, 5, dtype=dtype)).square().sum().backward()
        stepper.step()

    for _ in range(5):
        advance(first, optimizer)
    second.load_state_dict(first.state_dict())
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for _ in range(5):
        advance(first, optimizer)
        advance(second, resumed)
    for p, q in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(p, q)
        for key, value in optimizer.state[p].items():
            if torch.is_tensor(value):
                assert value.dtype == resumed.state[q][key].dtype
                assert torch.equal(value, resumed.state[q][key])


def test_groups_of_mixed_dtypes_step_together():
    generator = torch.Generator().manual_seed(0)
    dtypes = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
    start = torch.randn(6, generator=generator, dtype=torch.float64)
    for options in ({}, {"foreach": True}, {"foreach": False}, {"fused": True}):
        params = [torch.nn.Parameter(start.to(dtype)) for dtype in dtypes]
        optimizer = INNA(params, 0.05, weight_decay=0.1, **options)
        for _ in range(20):
            for p in params:
                p.grad = p.detach().cos()
            optimizer.step()
        for p, tolerance in zip(params, (0.0, 1e-6, 2e-2, 2e-3), strict=True):
            assert p.dtype == p.grad.dtype
            torch.testing.assert_close(
                p.double(), params[0], rtol=tolerance, atol=tolerance, check_dtype=False
            )


def test_a_step_that_may_be_skipped_is_made_at_the_scale_that_stands_still():
    """What the device may skip without a word must not move the scale, which the host keeps."""
    weight, momentum = (
        torch.zeros(3, dtype=torch.float64),
        torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64),
    )
    batch = Batch([weight], [weight], [weight], [momentum.clone()], scale=0.3)
    assert not rest(batch, lr=0.2, alpha=0.5, beta=0.1, factor=1.0)
    assert (batch.scale, batch.momenta[0].tolist()) == (0.3, momentum.tolist())
    assert rest(batch, lr=0.05, alpha=0.5, beta=0.1, factor=1.0)
    assert kernel_scale(batch.scale, 0.05, 0.5, 0.1) == batch.scale != 0.3
    torch.testing.assert_close(batch.momenta[0] * batch.scale, momentum * 0.3)

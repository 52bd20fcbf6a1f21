"""torch.compile of the step on any machine; marked gpu: CUDA graphs, several ways of stepping, host syncs."""

import pytest
import torch

from inna_tune.optim import INNA, INNAprop

CASES = {
    "numbers": {"lr": 0.05},
    "capturable": {"lr": 0.05, "capturable": True},
    "tensor lr": {"lr": "tensor", "capturable": True},
    "population": {"lr": "column"},
}
OPTIONS = {
    INNA: {"decay_power": 0.5, "weight_decay": 0.1, "step_factor": 0.3},
    INNAprop: {"weight_decay": 0.1},
}


def build(make, case, device="cpu"):
    generator = torch.Generator().manual_seed(0)
    params = [
        torch.nn.Parameter(torch.randn(3, 4, generator=generator, dtype=torch.float64).to(device))
        for _ in range(3)
    ]
    options = dict(CASES[case])
    if options["lr"] == "tensor":
        options["lr"] = torch.tensor(0.05, dtype=torch.float64, device=device)
    elif options["lr"] == "column":
        options["lr"] = torch.tensor([[0.05], [0.1], [0.0]], dtype=torch.float64, device=device)
    return params, make(params, beta=0.1, **options, **OPTIONS[make])


def fill_gradients(params, step):
    """In place, as a graph that is replayed needs it."""
    generator = torch.Generator().manual_seed(step)
    for p in params:
        grad = torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.device)
        if p.grad is None:
            p.grad = grad
        else:
            p.grad.copy_(grad)


def check_compiled(make, case, backend, device="cpu"):
    ours, optimizer = build(make, case, device)
    theirs, reference = build(make, case, device)
    try:
        compiled = torch.compile(optimizer.step, backend=backend)
        for step in range(4):
            for params, stepper in ((ours, compiled), (theirs, reference.step)):
                fill_gradients(params, step)
                stepper()
    finally:
        torch._dynamo.reset()
    # Counts of capturable optimizers are float32, whose powers a compiler may round otherwise.
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("make", [INNA, INNAprop])
def test_compiled_step_is_the_step(make, case):
    check_compiled(make, case, "eager")


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("make", [INNA, INNAprop])
def test_inductor_compiles_the_step(make, case):
    check_compiled(make, case, "inductor")


def cuda():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device("cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("make", [INNA, INNAprop])
def test_inductor_compiles_the_step_on_cuda(make, case):
    check_compiled(make, case, "inductor", cuda())


@pytest.mark.gpu
@pytest.mark.parametrize("case", ["capturable", "tensor lr"])
@pytest.mark.parametrize("make", [INNA, INNAprop])
def test_step_in_a_cuda_graph(make, case):
    device = cuda()
    ours, optimizer = build(make, case, device)
    theirs, reference = build(make, case, device)
    fill_gradients(ours, 0)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        optimizer.step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        optimizer.step()
    for step in range(1, 6):
        fill_gradients(ours, step)
        if case == "tensor lr" and step == 3:
            optimizer.param_groups[0]["lr"].fill_(0.02)
        graph.replay()
    for step in range(6):
        fill_gradients(theirs, step)
        if case == "tensor lr" and step == 3:
            reference.param_groups[0]["lr"].fill_(0.02)
        reference.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)


@pytest.mark.gpu
@pytest.mark.parametrize("make", [INNA, INNAprop])
def test_capture_without_capturable_is_refused(make):
    params, optimizer = build(make, "numbers", cuda())
    fill_gradients(params, 0)
    optimizer.step()
    with (
        pytest.raises(RuntimeError, match="build it with capturable=True"),
        torch.cuda.graph(torch.cuda.CUDAGraph()),
    ):
        optimizer.step()


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("make", [INNA, INNAprop])
def test_step_does_not_wait_for_the_device(make, case):
    params, optimizer = build(make, case, cuda())
    fill_gradients(params, 0)
    optimizer.step()
    fill_gradients(params, 1)
    torch.cuda.set_sync_debug_mode("error")
    try:
        optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.parametrize("lr", [0.05, 0.1, 0.15])
@pytest.mark.parametrize("options", [{"fused": True}, {"foreach": True}, {"foreach": False}, {}], ids=str)
def test_cuda_steps_as_the_cpu_does(lr, options):
    device = cuda()
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=generator) for shape in ((300, 70), (129,), ())]
    trajectories = []
    for place, chosen in (("cpu", {"foreach": False}), (device, options)):
        params = [torch.nn.Parameter(tensor.to(place, copy=True)) for tensor in start]
        optimizer = INNA(params, lr, weight_decay=0.01, **chosen)
        for step in range(50):
            for i, p in enumerate(params):
                grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(100 * step + i))
                p.grad = grad.to(place)
            optimizer.step()
        trajectories.append([p.detach().cpu() for p in params])
    for p, q in zip(*trajectories, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
def test_one_group_on_two_devices():
    device = cuda()
    params = [torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3, device=device))]
    for options in ({}, {"fused": True}, {"foreach": True}, {"foreach": False}):
        optimizer = INNA(params, 0.05, **options)
        for p in params:
            p.grad = torch.ones_like(p)
        optimizer.step()
        torch.testing.assert_close(params[0].detach(), params[1].detach().cpu())

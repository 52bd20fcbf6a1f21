"""Two processes under DistributedDataParallel train as one that sees both halves of the batch."""

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from inna_tune.optim import INNA, INNAprop
from tests.warm import Program

pytestmark = pytest.mark.skipif(
    not dist.is_available() or not dist.is_gloo_available(), reason="torch was built without gloo"
)


def net():
    generator = torch.Generator().manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 1)).double()
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64))
    return module


def train(module, optimizer, rows):
    for step in range(5):
        inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(step), dtype=torch.float64)[rows]
        optimizer.zero_grad()
        module(inputs).square().mean().backward()
        optimizer.step()
    return [p.detach().clone() for p in module.parameters()]


def worker(rank, folder):
    store = dist.FileStore(f"{folder}/store", 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    try:
        results = []
        for make in (INNA, INNAprop):
            module = DistributedDataParallel(net())
            rows = slice(4 * rank, 4 * rank + 4)
            results.append(train(module, make(module.parameters(), lr=0.05), rows))
        torch.save(results, f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


def test_two_processes_train_as_one(tmp_path):
    code = "import sys; from tests.optim.test_inna_distributed import worker; worker(int(sys.argv[1]), sys.argv[2])"
    programs = [Program(code, rank, tmp_path) for rank in range(2)]
    try:
        for program in programs:
            _, said = program.communicate()
            assert program.returncode == 0, said
    finally:
        for program in programs:
            program.kill()
    results = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for i, make in enumerate((INNA, INNAprop)):
        module = net()
        expected = train(module, make(module.parameters(), lr=0.05), slice(None))
        for parameters in (results[0][i], results[1][i]):
            for p, q in zip(parameters, expected, strict=True):
                torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)

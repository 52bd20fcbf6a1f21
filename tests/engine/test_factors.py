"""Steps of weights that read small columns, against INNA on columns that are stretched by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inna_tune.engine import Member, Method, Population, SquaredError, TableTensors, Training
from inna_tune.engine.factors import column_factors
from inna_tune.nets import TabularNet
from inna_tune.optim import INNA, calibrate

N_ROWS, N_TARGETS = 60, 3
SCALES = (0.05, 0.3, 0.7, 2.0)
N_NUMERIC, N_OTHERS = 2, len(SCALES)
SCALED = Method(scale_tensors=True)


def make_net(hidden=(6,), embedding="none"):
    return TabularNet(
        N_NUMERIC + N_OTHERS, hidden, N_TARGETS, n_numeric=N_NUMERIC, numeric_embedding=embedding
    )


def make_table(*, weighted=False):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(N_ROWS, N_NUMERIC + N_OTHERS, generator=generator, dtype=torch.float64)
    x[:, N_NUMERIC:] *= torch.tensor(SCALES, dtype=torch.float64)
    target = torch.randn(N_ROWS, N_TARGETS, generator=generator, dtype=torch.float64)
    weight = torch.randint(1, 4, (N_ROWS,), generator=generator).double() if weighted else None
    return TableTensors(x, target, weight)


def make_member(seed=0, **options):
    order = np.random.default_rng(seed).permutation(N_ROWS)
    return Member(order[:45], order[45:], seed, **{"lr": None, "alpha": 0.5, "beta": 0.2, **options})


@pytest.mark.parametrize("hidden", [(), (6,), (6, 5)])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_step_a_column_is_inna_on_columns_that_are_stretched(hidden, weighted):
    """Weights start where they did; what reads a stretched column is as much smaller as the column is larger."""
    net, table = make_net(hidden), make_table(weighted=weighted)
    member = Member(np.arange(N_ROWS), np.arange(0), 0, lr=None, alpha=0.5, beta=0.2)
    population = Population(net, table, [member], SquaredError(), batch_size=N_ROWS, horizon=5, method=SCALED)
    start = {name: tensor.detach().clone() for name, tensor in population.tensors.items()}
    for epoch in range(4):
        population.train_epoch(population.learning_rates(epoch))

    weight = torch.ones(N_ROWS).double() if table.weight is None else table.weight
    moments = (weight[:, None] * table.x**2).sum(0) / weight.sum()
    roots = (1 / moments).sqrt().clamp(1, 5)
    roots[:N_NUMERIC] = 1
    assert len(roots.unique()) >= 4, "otherwise the test shows nothing"
    tensors = {name: factor**0.5 for name, factor in population.factors_of(0).items()}
    stretches = {name: tensors.get(name, 1.0) * torch.ones(1, 1).double() for name in start}
    stretches["layers.0.weight"] = stretches["layers.0.weight"] * roots[:, None]
    free = {n: (start[n] / stretches[n].squeeze(0)).requires_grad_() for n in start}
    if "layers.0.bias" in start:
        assert free["layers.0.bias"].shape == start["layers.0.bias"].shape

    def loss():
        output = net({n: free[n] * stretches[n].squeeze(0) for n in start}, table.x[None])
        losses = SquaredError().per_row(output, table.target[None])[0]
        return (weight * losses).sum() / weight.sum()

    found = calibrate(loss, list(free.values()), n_iterations=200)
    assert float(population.settings["curvature"]) == pytest.approx(found.curvature, rel=1e-3)
    optimizer = INNA(free.values(), lr=float(population.settings["lr"]), alpha=0.5, beta=0.2)
    for _ in range(4):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    for name, tensor in population.tensors.items():
        expected = free[name].detach() * stretches[name].squeeze(0)
        torch.testing.assert_close(tensor.detach(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("embedding", ["none", "pbld", "piecewise"])
def test_the_rows_of_weights_are_those_that_read_the_columns(embedding):
    """What such a row of weights is does not matter where its column is zero, and what no other row is does."""
    net, table = make_net(embedding=embedding), make_table()
    plain = net.plain_columns
    weights = {
        name: tensor[None]
        for name, tensor in net.initialize(torch.Generator().manual_seed(0), dtype=torch.float64).items()
    }
    changed = {name: tensor.clone() for name, tensor in weights.items()}
    changed[plain.name][:, plain.inputs] = 7.0
    assert not torch.equal(net(weights, table.x[None]), net(changed, table.x[None]))
    x = table.x.clone()
    x[:, plain.columns] = 0.0
    torch.testing.assert_close(net(weights, x[None]), net(changed, x[None]), rtol=0, atol=0)
    others = [
        i
        for i in range(weights[plain.name].shape[1])
        if i not in range(plain.inputs.start, plain.inputs.stop)
    ]
    assert len(others) + N_OTHERS == weights[plain.name].shape[1]
    assert plain.inputs.stop - plain.inputs.start == plain.columns.stop - plain.columns.start == N_OTHERS


@settings(max_examples=30, deadline=None)
@given(scale=st.floats(1e-3, 10.0), counts=st.lists(st.integers(0, 3), min_size=N_ROWS, max_size=N_ROWS))
def test_a_row_of_weight_two_is_two_rows_and_no_step_is_shorter_or_much_longer(scale, counts):
    counts[0] = 1
    net, table = make_net(), make_table()
    x = torch.cat([table.x[:, :N_NUMERIC], scale * table.x[:, N_NUMERIC:]], 1)
    x[:, -1] = 0.0
    repeated = torch.repeat_interleave(torch.arange(N_ROWS), torch.tensor(counts))
    everything = torch.arange(N_ROWS)
    weighted = column_factors(
        net, TableTensors(x, table.target, torch.tensor(counts).double()), [everything], 25.0
    )
    plain = column_factors(net, TableTensors(x, table.target), [repeated, everything], 25.0)
    (name,) = weighted
    torch.testing.assert_close(weighted[name][0], plain[name][0], rtol=1e-6, atol=0)
    assert 1 <= float(plain[name].min()) <= float(plain[name].max()) <= 25
    assert torch.equal(plain[name][:, :N_NUMERIC], torch.ones(2, N_NUMERIC, 1).double())
    assert float(plain[name][0, -1]) == 25


def test_nets_without_such_columns_and_other_optimizers_have_none():
    numbers = TabularNet(N_NUMERIC, (4,), N_TARGETS, n_numeric=N_NUMERIC)
    assert column_factors(numbers, make_table(), [torch.arange(3)], 25.0) == {}
    assert column_factors(make_net(), make_table(), [torch.arange(3)], 1.0) == {}
    for method in (Method("adamw", scale_tensors=True), Method()):
        population = Population(
            make_net(),
            make_table(),
            [make_member(lr=0.1)],
            SquaredError(),
            batch_size=8,
            horizon=5,
            method=method,
        )
        assert population.all_factors == {}


def test_a_member_goes_on_with_the_factors_of_its_rows():
    """Neither a break nor a member that leaves changes one bit."""

    def training(members, **more):
        return Training(
            make_net(),
            make_table(),
            members,
            SquaredError(),
            batch_size=16,
            max_epochs=6,
            method=SCALED,
            **more,
        )

    members = [make_member(seed) for seed in range(3)]
    whole = training(members)
    whole.run()
    broken = training(members)
    broken.run(3)
    broken.drop([1])
    known = [broken.progress(0), broken.progress(2)]
    again = training([members[0], members[2]], progress=known)
    again.run()
    for place, own in ((0, 0), (1, 2)):
        assert torch.equal(again.best_weights(place), whole.best_weights(own))

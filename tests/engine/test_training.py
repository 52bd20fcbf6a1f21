"""The population engine against plain torch, and members against themselves in other company."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inna_tune.engine import (
    CrossEntropy,
    Member,
    Method,
    Population,
    SquaredError,
    Training,
    outputs,
)
from inna_tune.engine.batches import FULL_VECTORS, iterate_batches
from inna_tune.nets import TabularNet
from inna_tune.optim.calibration import calibrate
from inna_tune.optim.decay import decay_factor
from inna_tune.optim.factors import step_factors
from inna_tune.optim.inna import INNA
from inna_tune.optim.optimizers import OPTIMIZERS
from tests.engine import tables

N_ROWS, N_COLUMNS, N_CLASSES = 60, 5, 3


def make_table(dtype=torch.float64, **options):
    return tables.make_table(N_ROWS, N_COLUMNS, n_outputs=N_CLASSES, dtype=dtype, **options)


def make_member(seed, *, n_train=40, n_validation=15, **settings):
    order = np.random.default_rng(seed).permutation(N_ROWS)
    own = {"lr": 0.1, "alpha": 0.5, "beta": 0.2} | settings
    return Member(order[:n_train], order[n_train : n_train + n_validation], seed, **own)


def train(members, table, *, epochs=6, hidden=(8, 6), loss=None, batch_size=16, patience=None, until=None):
    net = TabularNet(N_COLUMNS, hidden, N_CLASSES)
    training = Training(
        net,
        table,
        [replace(m, patience=patience) for m in members],
        loss or CrossEntropy(),
        batch_size=batch_size,
        max_epochs=epochs,
    )
    training.run(until)
    return training


VARIED = [
    make_member(1),
    make_member(2, lr=0.05, beta=0.4, decay="power", decay_power=0.5, dropout=0.3),
    make_member(3, n_train=33, alpha=0.0, weight_decay=0.01, decay="cosine"),
    make_member(4, n_train=17, n_validation=9, decay="log", label_smoothing=0.1),
    make_member(5, lr=None, alpha=None, beta=None, dropout=0.1, used_features=3),
]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 2, 0], [3, 1]])
def test_a_member_does_not_depend_on_its_company(dtype, tolerance, weighted, order):
    table = make_table(dtype, weighted=weighted)
    together = train([VARIED[i] for i in order], table)
    for place, i in enumerate(order):
        alone = train([VARIED[i]], table)
        torch.testing.assert_close(
            together.results[place].weights, alone.results[0].weights, rtol=tolerance, atol=tolerance
        )
        assert together.results[place].best_epoch == alone.results[0].best_epoch
        np.testing.assert_allclose(
            together.results[place].history["train_loss"],
            alone.results[0].history["train_loss"],
            rtol=10 * tolerance,
        )


def test_company_that_leaves_early_changes_nothing():
    table = make_table()
    members = [make_member(1), make_member(2, lr=0.5), make_member(3)]
    together = train(members, table, epochs=30, patience=2)
    stops = {r.epochs for r in together.results}
    assert len(stops) > 1, "the example must have members that stop at different epochs"
    for member, result in zip(members, together.results, strict=True):
        alone = train([member], table, epochs=30, patience=2).results[0]
        assert (result.epochs, result.best_epoch, result.stop_reason) == (
            alone.epochs,
            alone.best_epoch,
            alone.stop_reason,
        )
        torch.testing.assert_close(result.weights, alone.weights, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("regression", [False, True])
def test_one_member_is_a_plain_torch_loop(regression):
    """Written out with autograd, torch losses and one INNA per net; batches as the engine draws them."""
    table = make_table(weighted=True, regression=regression)
    member = make_member(7, decay="power", decay_power=0.25, weight_decay=0.003)
    epochs, batch_size = 4, 16
    training = train(
        [member],
        table,
        epochs=epochs,
        loss=SquaredError() if regression else CrossEntropy(),
        batch_size=batch_size,
    )
    net = training.net
    seeds = [int(s >> np.uint64(1)) for s in np.random.SeedSequence(7).generate_state(4, np.uint64)]
    initial = net.initialize(torch.Generator().manual_seed(seeds[0]), dtype=torch.float64)
    weights = [initial[f"layers.{i}.weight"].clone().requires_grad_() for i in range(3)]
    biases = [initial[f"layers.{i}.bias"].clone().requires_grad_() for i in range(3)]
    optimizer = INNA([*weights, *biases], lr=0.1, alpha=0.5, beta=0.2, weight_decay=0.003)
    stream = torch.Generator().manual_seed(seeds[1])
    rows = torch.from_numpy(member.train_rows)
    step, best = 0, (np.inf, None)

    def forward(x):
        for w, b in zip(weights[:-1], biases[:-1], strict=True):
            x = torch.relu(x @ w + b)
        return x @ weights[-1] + biases[-1]

    def loss_of(batch, weight):
        if regression:
            per_row = (forward(table.x[batch]) - table.target[batch]).pow(2).mean(1)
        else:
            per_row = torch.nn.functional.cross_entropy(
                forward(table.x[batch]), table.target[batch], reduction="none"
            )
        return (per_row * weight).sum()

    for _ in range(epochs):
        order = rows[torch.randperm(len(rows), generator=stream)]
        for batch in order.split(batch_size):
            optimizer.param_groups[0]["lr"] = 0.1 * (1 + step / 3) ** -0.25
            optimizer.zero_grad()
            loss_of(batch, table.weight[batch] / table.weight[rows].mean() / len(batch)).backward()
            optimizer.step()
            step += 1
        held = torch.from_numpy(member.validation_rows)
        validation = loss_of(held, table.weight[held] / table.weight[held].sum()).item()
        if validation < best[0]:
            best = (
                validation,
                torch.cat(
                    [p.detach().reshape(-1) for pair in zip(weights, biases, strict=True) for p in pair]
                ),
            )
    assert training.results[0].best_loss == pytest.approx(best[0], rel=1e-12)
    torch.testing.assert_close(training.results[0].weights, best[1], rtol=1e-11, atol=1e-12)


def test_a_diverging_member_leaves_and_touches_no_other():
    table = make_table()
    wild = make_member(2, lr=1e8, beta=1e8)
    together = train([make_member(1), wild, make_member(3)], table)
    assert together.results[1].stop_reason == "diverged"
    assert together.results[1].epochs == 1
    assert together.results[1].weights is None
    for place, seed in ((0, 1), (2, 3)):
        alone = train([make_member(seed)], table).results[0]
        torch.testing.assert_close(together.results[place].weights, alone.weights, rtol=1e-12, atol=1e-12)


def test_halting_at_rungs_is_training_straight_through():
    table = make_table()
    members = [make_member(1, dropout=0.2), make_member(2)]
    straight = train(members, table, epochs=7)
    halted = train(members, table, epochs=7, until=2)
    assert halted.epoch == 2
    halted.run(3)
    halted.run()
    for a, b in zip(straight.results, halted.results, strict=True):
        assert torch.equal(a.weights, b.weights)


def test_dropped_members_leave_with_their_best_weights():
    table = make_table()
    training = train([make_member(1), make_member(2), make_member(3)], table, until=3)
    best = training.best_weights(1).clone()
    training.drop([1])
    assert training.active == [0, 2]
    training.run()
    assert training.results[1].stop_reason == "dropped"
    assert training.results[1].epochs == 3
    assert torch.equal(training.results[1].weights, best)


def test_early_stopping_restores_the_best_epoch():
    table = make_table()
    training = train([make_member(1, lr=0.4)], table, epochs=60, patience=3)
    result = training.results[0]
    losses = result.history["validation_loss"]
    assert result.stop_reason == "early_stopping"
    assert result.best_epoch == int(np.argmin(losses)) + 1
    assert result.epochs == result.best_epoch + 3
    member = make_member(1)
    output = outputs(training.net, result.weights[None], table.x, [torch.from_numpy(member.validation_rows)])
    again = (
        CrossEntropy().per_row(output, table.target[torch.from_numpy(member.validation_rows)][None]).mean()
    )
    assert again.item() == pytest.approx(min(losses), rel=1e-12)


def test_without_validation_rows_the_last_weights_are_kept():
    training = train([make_member(1, n_validation=0)], make_table(), epochs=5, patience=2)
    result = training.results[0]
    assert (result.best_epoch, result.epochs, result.stop_reason) == (5, 5, "max_epochs")
    assert np.isnan(result.history["validation_loss"]).all()
    assert torch.equal(result.weights, training.results[0].weights)


def test_a_deadline_ends_training_inside_an_epoch():
    table = make_table()
    net = TabularNet(N_COLUMNS, (4,), N_CLASSES)
    training = Training(net, table, [make_member(1)], CrossEntropy(), batch_size=4, max_epochs=100)
    training.run(deadline=0.0)
    assert training.results[0].stop_reason == "time"
    assert training.results[0].epochs == 1
    assert training.active == []


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(1, 23), min_size=1, max_size=5),
    batch_size=st.integers(1, 9),
    weighted=st.booleans(),
    full_vectors=st.booleans(),
)
def test_every_member_sees_each_of_its_rows_exactly_once(counts, batch_size, weighted, full_vectors):
    table = make_table(weighted=weighted)
    rows = [torch.randperm(N_ROWS)[:count] for count in counts]
    mean = None if not weighted else torch.stack([table.weight[r].mean() for r in rows])[:, None]
    seen = [[] for _ in counts]
    for batch in iterate_batches(table, rows, mean, batch_size, full_vectors=full_vectors):
        assert batch.x.shape[1] % FULL_VECTORS == 0 or not full_vectors
        for member, own in enumerate(batch.counts):
            assert (batch.coefficient[member, own:] == 0).all(), "rows that are filled up count nothing"
            if own:
                done = len(seen[member])
                here = rows[member][done : done + own]
                torch.testing.assert_close(batch.x[member, :own], table.x[here])
                assert torch.equal(batch.target[member, :own], table.target[here])
                weight = (
                    torch.ones(own, dtype=torch.float64)
                    if not weighted
                    else table.weight[here] / mean[member]
                )
                torch.testing.assert_close(batch.coefficient[member, :own], weight / own)
                seen[member] += here.tolist()
    assert [sorted(s) for s in seen] == [sorted(r.tolist()) for r in rows]


def test_open_settings_come_from_the_curvature_of_the_members_own_loss():
    table = make_table()
    member = make_member(5, lr=None, alpha=None, beta=0.7)
    training = train([member], table, epochs=1)
    result = training.results[0]
    seeds = [int(s >> np.uint64(1)) for s in np.random.SeedSequence(5).generate_state(4, np.uint64)]
    initial = training.net.initialize(torch.Generator().manual_seed(seeds[0]), dtype=torch.float64)
    parameters = {name: v[None].requires_grad_() for name, v in initial.items()}
    rows = torch.from_numpy(member.train_rows)

    def loss_fn():
        output = training.net(parameters, table.x[rows][None])[0]
        return torch.nn.functional.cross_entropy(output, table.target[rows])

    found = calibrate(loss_fn, list(parameters.values()), seed=5)
    assert result.curvature == pytest.approx(float(found.curvature), rel=1e-3)
    assert result.lr == pytest.approx(float(found.lr), rel=1e-2)
    assert result.beta == 0.7, "what the member says stays"


def test_step_sizes_follow_the_law_in_epochs_whatever_the_batch_size():
    member = make_member(1, decay="power", decay_power=0.5)
    for batch_size in (4, 16):
        net = TabularNet(N_COLUMNS, (4,), N_CLASSES)
        population = Population(net, make_table(), [member], CrossEntropy(), batch_size=batch_size, horizon=5)
        rates = population.learning_rates(2)[:, 0, 0]
        expected = [0.1 * decay_factor("power", 2 + s / len(rates), power=0.5) for s in range(len(rates))]
        np.testing.assert_allclose(rates, expected, rtol=1e-12)


def test_a_scale_a_tensor_is_inna_on_stretched_parameters():
    net = TabularNet(N_COLUMNS, (6,), N_CLASSES, n_numeric=N_COLUMNS)
    table, member = make_table(), make_member(3, n_train=N_ROWS, n_validation=0, lr=None)
    method = Method(scale_tensors=True)
    population = Population(net, table, [member], CrossEntropy(), batch_size=N_ROWS, horizon=5, method=method)
    factors = population.factors_of(0)
    start = {name: tensor.detach().clone() for name, tensor in population.tensors.items()}
    for epoch in range(5):
        population.train_epoch(population.learning_rates(epoch))

    rows = torch.from_numpy(member.train_rows)

    def loss_at(values):
        return CrossEntropy().per_row(net(values, table.x[rows][None]), table.target[rows][None]).mean()

    weights = {n: start[n].clone().requires_grad_() for n in ("layers.0.weight", "layers.1.weight")}
    expected = step_factors(lambda: loss_at(start | weights), list(weights.values()), n_iterations=50)
    assert expected[1] < 1, "the head is steeper, or the test shows nothing"
    assert factors == pytest.approx(dict(zip(weights, expected, strict=True)), rel=1e-3)

    roots = {name: factors.get(name, 1.0) ** 0.5 for name in start}
    free = {n: (start[n] / root).requires_grad_() for n, root in roots.items()}

    def loss():
        return loss_at({n: free[n] * roots[n] for n in start})

    settings = calibrate(loss, list(free.values()), seed=member.seed, n_iterations=200)
    assert float(population.settings["curvature"]) == pytest.approx(settings.curvature, rel=1e-3)
    optimizer = INNA(free.values(), lr=float(population.settings["lr"]), alpha=member.alpha, beta=member.beta)
    for _ in range(5):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    for name, tensor in population.tensors.items():
        torch.testing.assert_close(tensor.detach(), free[name].detach() * roots[name], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("optimizer", ["adamw", "innaprop", "muon"])
def test_optimizers_that_no_curvature_sets_know_no_scales(optimizer):
    net = TabularNet(N_COLUMNS, (6,), N_CLASSES)
    method = Method(optimizer=optimizer, scale_tensors=True)
    population = Population(
        net, make_table(), [make_member(3)], CrossEntropy(), batch_size=8, horizon=5, method=method
    )
    assert population.factors == {}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch_size", [7, 16, 20, 32, 50])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_stacked_member_has_the_same_bits_in_any_company(batch_size, dtype, optimizer):
    """Also beside members of more or fewer rows, whatever the size of a batch."""
    members = [make_member(seed, n_train=n, dropout=0.2) for seed, n in enumerate((17, 32, 33, 40, 45))]

    def trained(width):
        training = Training(
            TabularNet(N_COLUMNS, (8, 6), N_CLASSES),
            make_table(dtype, weighted=True),
            members,
            CrossEntropy(),
            batch_size=batch_size,
            max_epochs=3,
            method=Method(optimizer, gradient_clip=0.5, averaging=0.9),
            width=width,
            stacked=True,
        )
        training.run()
        return torch.stack([result.weights for result in training.results])

    alone = trained(1)
    for width in (2, 3, 5):
        assert torch.equal(trained(width), alone)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("embedding", ["periodic", "pbld", "piecewise"])
@pytest.mark.parametrize("n_numeric", [1, 3])
def test_an_embedded_column_has_the_same_bits_in_any_company(embedding, n_numeric, dtype):
    net = TabularNet(N_COLUMNS, (32,), N_CLASSES, n_numeric=n_numeric, numeric_embedding=embedding)
    members = [make_member(seed, n_train=57, n_validation=0, dropout=0.2) for seed in range(5)]

    def trained(chosen):
        population = Population(
            net, make_table(dtype), chosen, CrossEntropy(), batch_size=64, horizon=4, stacked=True
        )
        for epoch in range(4):
            population.train_epoch(population.learning_rates(epoch))
        return population.flat[0]

    assert torch.equal(trained(members[:1]), trained(members))
    assert torch.equal(trained(members[:1]), trained(members[:2]))

"""What training holds, and lets go as soon as it is of no more use: of a wide table's nets each copy counts."""

import gc
import weakref

import pytest
import torch

from inna_tune.engine import CrossEntropy, Population, Training, calibrating
from inna_tune.nets import TabularNet
from tests.engine.test_progress import METHODS
from tests.engine.test_training import N_CLASSES, N_COLUMNS, make_member, make_table

MEMBERS = [make_member(1, lr=0.05), make_member(2, lr=0.02, dropout=0.2)]


@pytest.fixture
def uncollected():
    """References alone keep things: nobody looks for circles."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def training(method, *, keep_states=True):
    net = TabularNet(N_COLUMNS, (8,), N_CLASSES, n_numeric=2, numeric_embedding="piecewise")
    return Training(
        net,
        make_table(torch.float32),
        MEMBERS,
        CrossEntropy(),
        batch_size=16,
        max_epochs=2,
        method=METHODS[method],
        width=2,
        keep_states=keep_states,
    )


def test_a_populations_tensors_go_with_it(uncollected):
    net = TabularNet(N_COLUMNS, (8,), N_CLASSES, n_numeric=2, numeric_embedding="piecewise")
    open_ones = [make_member(seed, lr=None, alpha=None, beta=None) for seed in range(2)]
    population = Population(net, make_table(), open_ones, CrossEntropy(), batch_size=16, horizon=2)
    population.train_epoch(population.learning_rates(0))
    held = [weakref.ref(tensor) for tensor in population.tensors.values()]
    del population
    assert [ref() for ref in held] == [None] * len(held)


@pytest.mark.parametrize("keep_states", [True, False])
def test_what_has_ended_holds_nothing_but_its_results(keep_states, uncollected):
    ended = training("inna, averaged and clipped", keep_states=keep_states)
    (stack,) = ended._stacks
    held = [weakref.ref(tensor) for tensor in stack.population.tensors.values()]
    held += [weakref.ref(rows) for rows in stack.population.stepping.rows]
    ended.run()
    assert [ref() for ref in held] == [None] * len(held)
    assert len(stack._best) == 0
    assert all(result.weights is not None for result in ended.results)
    assert all((result.state is not None) == keep_states for result in ended.results)


@pytest.mark.parametrize("method", METHODS)
def test_states_of_those_that_leave_last_are_those_of_each_alone(method, monkeypatch):
    one_by_one = Population.state

    def end(population, epochs, *, keep_states):
        return [one_by_one(population, i, epochs) for i in range(len(population))]

    given = training(method)
    given.run()
    monkeypatch.setattr(Population, "end", end)
    taken = training(method)
    taken.run()
    for own, other in zip(given.results, taken.results, strict=True):
        assert torch.equal(own.state.weights, other.state.weights)
        assert torch.equal(own.state.count, other.state.count)
        assert own.state.epochs == other.state.epochs
        assert own.state.settings == pytest.approx(other.state.settings, rel=0, abs=0, nan_ok=True)
        assert len(own.state.averages) == len(other.state.averages)
        assert all(map(torch.equal, own.state.averages, other.state.averages))
        assert [set(state) for state in own.state.updates] == [set(state) for state in other.state.updates]
        for here, there in zip(own.state.updates, other.state.updates, strict=True):
            for name, value in here.items():
                if isinstance(value, torch.Tensor):
                    assert torch.equal(value, there[name])
                else:
                    assert value == there[name]


@pytest.mark.parametrize("embedding", ["piecewise", "none"])
def test_members_that_are_measured_one_after_the_other_have_the_same_settings(embedding, monkeypatch):
    net = TabularNet(N_COLUMNS, (8,), N_CLASSES, n_numeric=2, numeric_embedding=embedding)
    open_ones = [make_member(seed, lr=None, alpha=None, beta=None) for seed in range(5)]
    at_once, together = [], calibrating.calibrate

    def noting(loss_fn, params, **more):
        at_once.append(len(more["seed"]))
        return together(loss_fn, params, **more)

    def measured():
        population = Population(
            net,
            make_table(torch.float32),
            open_ones,
            CrossEntropy(),
            batch_size=16,
            horizon=2,
            method=METHODS["inna"],
        )
        return population.settings | population.factors

    monkeypatch.setattr(calibrating, "calibrate", noting)
    expected = measured()
    monkeypatch.setattr(calibrating, "measured_at_once", lambda widest, n_rows: 2)
    found = measured()
    assert at_once == [5, 2, 2, 1]
    assert {name: value.tolist() for name, value in found.items()} == {
        n: v.tolist() for n, v in expected.items()
    }

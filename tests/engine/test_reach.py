"""No gradient carries a net far, however the curvature rises."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from inna_tune import InnaClassifier, InnaRegressor
from inna_tune.engine import CrossEntropy, Member, Method, Population, Training
from inna_tune.engine.reach import StepLimit
from inna_tune.nets import TabularNet
from inna_tune.optim import INNA
from inna_tune.optim.optimizers import NEXT_STEPS, OPTIMIZERS, record_of
from tests.engine.tables import make_table

POSITIVE = st.floats(0.05, 20.0)
LIMITED = [name for name, record in OPTIMIZERS.items() if record.reach is not None]


def made(longest_step, *, optimizer="inna", lr=0.05, n=3, **options):
    """A population that trains on a small table."""
    table = make_table(120, 5)
    rows = np.arange(120)
    members = [Member(rows[:100], rows[100:], i, lr=lr, alpha=0.5, beta=0.5) for i in range(n)]
    method = Method(optimizer, longest_step=longest_step, **options)
    return Population(
        TabularNet(5, (8, 6), 3),
        table,
        members,
        CrossEntropy(),
        batch_size=20,
        horizon=9,
        method=method,
        stacked=True,
    )


@given(alpha=st.floats(0.0, 20.0), beta=POSITIVE, share=st.floats(0.01, 0.9))
def test_of_a_gradient_inna_makes_no_more_than_it_is_said_to_reach(alpha, beta, share):
    """Met once, at rest, and nothing after it; at steps that the flow itself can take."""
    lr = share * min(1.0 / max(alpha, 0.05), beta)
    weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = INNA([weight], lr=lr, alpha=alpha, beta=beta)
    places = []
    for step in range(int(NEXT_STEPS)):
        weight.grad = torch.full_like(weight, -1.0 if step == 0 else 0.0)
        optimizer.step()
        places.append(weight.item())
    kept = (1.0 - alpha * lr) ** np.arange(NEXT_STEPS)
    there = lr / alpha * (1.0 - kept) if alpha > 1e-6 else lr * lr * np.arange(NEXT_STEPS)
    np.testing.assert_allclose(places, lr * beta * kept + there, rtol=1e-4)
    settings = {"lr": lr, "alpha": alpha, "beta": beta}
    settings = {name: torch.tensor([[value]], dtype=torch.float64) for name, value in settings.items()}
    reach = lr * record_of("inna").reach(settings, {}).item()
    assert max(places) <= reach * (1 + 1e-6)
    # And not much less: of a whole it is so by a third.
    assert max(places) >= 0.35 * reach


@pytest.mark.parametrize("nesterov", [False, True])
@given(momentum=st.floats(-0.9, 1.05))
def test_of_a_gradient_momentum_makes_no_more_than_it_is_said_to_reach(nesterov, momentum):
    reach = record_of("sgd").reach({"lr": torch.ones(2, 1)}, {"momentum": momentum})
    assert reach.shape == (2, 1)
    # What torch's SGD does, which refuses a momentum below zero.
    velocity, place, farthest = 1.0, 0.0, 0.0
    for _ in range(int(NEXT_STEPS)):
        place += momentum * velocity if nesterov and momentum > 0 else velocity
        farthest = max(farthest, place)
        velocity *= momentum
    grows = max(momentum, 1.0) ** NEXT_STEPS
    assert 0.0 < farthest <= grows * float(reach[0]) * (1 + 1e-6)


@given(rate=st.floats(1e-4, 10.0), scale=st.floats(1e-3, 1e30), share=st.floats(1e-3, 1.0))
def test_what_is_shortened_reaches_as_far_as_it_may(rate, scale, share):
    stream = torch.Generator().manual_seed(0)
    weights, gradients = (
        [torch.randn(3, n, generator=stream, dtype=torch.float64) for n in (7, 1, 20)] for _ in range(2)
    )
    before = [scale * gradient for gradient in gradients]
    after = [gradient.clone() for gradient in before]
    settings = {"lr": 1.0, "alpha": 0.25, "beta": 0.5, "weight_decay": 0.0}
    settings = {name: torch.full((3, 1), value, dtype=torch.float64) for name, value in settings.items()}
    StepLimit(Method(longest_step=share), settings, weights).hold(
        after, torch.full((3, 1), rate, dtype=torch.float64)
    )
    length, was, now = (torch.cat(parts, 1).norm(dim=1) for parts in (weights, before, after))
    goes = 4.0 * rate * was / length
    assume(not bool(((goes / 1000.0 - 1.0).abs() < 1e-6).any()))
    held = torch.minimum(was, share * length / (4.0 * rate))
    # A step a thousand times as long as the weights shows that it diverges.
    torch.testing.assert_close(now, torch.where(goes > 1000.0, was, held))


@pytest.mark.parametrize("optimizer", LIMITED)
def test_where_no_gradient_goes_far_nothing_changes(optimizer):
    found = []
    for longest_step in (None, 1e6):
        population = made(longest_step, optimizer=optimizer)
        population.train_epoch(population.learning_rates(0))
        found.append(population.flat)
    assert torch.equal(*found)


@pytest.mark.parametrize("optimizer", LIMITED)
@pytest.mark.parametrize("averaging", [None, 0.9])
def test_a_step_that_would_break_the_net_does_not(optimizer, averaging):
    """At twenty times the longest stable step of these rows, and as much less friction."""
    table, rows = make_table(120, 5), np.arange(120)
    net = TabularNet(5, (8, 6), 3)
    member = Member(rows[:100], rows[100:], 0)
    measured = Population(
        net, table, [member], CrossEntropy(), batch_size=20, horizon=9, method=Method(optimizer)
    ).settings
    lr, alpha, beta = (float(measured[name]) for name in ("lr", "alpha", "beta"))
    start = replace(member, lr=20 * lr, alpha=alpha / 20, beta=beta)
    found = {}
    for longest_step in (None, 0.05):
        training = Training(
            net,
            table,
            [start],
            CrossEntropy(),
            batch_size=20,
            max_epochs=40,
            method=Method(optimizer, averaging=averaging, longest_step=longest_step),
        )
        training.run()
        (found[longest_step],) = training.results
    before, after = (np.abs(r.history["train_loss"]).max() for r in (found[None], found[0.05]))
    assert not before < 1e3
    assert after < 30
    assert found[0.05].stop_reason == "max_epochs"


def test_a_gradient_that_is_no_number_stays_none():
    gradients = [torch.tensor([[1.0, float("nan")], [1.0, float("inf")], [3.0, 4.0]])]
    gradients[0] = torch.cat([gradients[0], torch.full((1, 2), 3e38)])
    settings = {name: torch.ones(4, 1) for name in ("lr", "alpha", "beta", "weight_decay")}
    StepLimit(Method(longest_step=0.5), settings, [torch.ones(4, 2)]).hold(gradients, 1.0)
    assert gradients[0].isfinite().all(1).tolist() == [False, False, True, True]
    # Its length is beyond numbers, it is not.
    assert gradients[0][3].tolist() == pytest.approx([3e38, 3e38])


def test_a_net_that_begins_as_zero_can_leave_it():
    weights = [torch.zeros(1, 4)]
    settings = {name: torch.ones(1, 1) for name in ("lr", "alpha", "beta", "weight_decay")}
    gradients = [torch.full((1, 4), 0.01)]
    StepLimit(Method(longest_step=0.1), settings, weights).hold(gradients, 1.0)
    assert torch.equal(gradients[0], torch.full((1, 4), 0.01))


@pytest.mark.parametrize("optimizer", LIMITED)
@pytest.mark.parametrize("weight_decay", [0.01, 1.0, 30.0])
def test_a_gradient_can_always_hold_against_the_decay_of_the_weights(optimizer, weight_decay):
    """However short its steps are to be: at a gradient that outweighs it the weights grow."""
    weight = torch.nn.Parameter(torch.full((1, 4), 2.0, dtype=torch.float64))
    values = {"lr": 1e-3, "alpha": 0.5, "beta": 0.5, "weight_decay": weight_decay}
    settings = {name: torch.full((1, 1), value, dtype=torch.float64) for name, value in values.items()}
    limit = StepLimit(Method(optimizer, longest_step=1e-6), settings, [weight])
    gradient = torch.full((1, 4), -1e6, dtype=torch.float64)
    limit.hold([gradient], settings["lr"])
    if optimizer == "inna":
        stepped = INNA([weight], **values)
    else:
        stepped = torch.optim.SGD([weight], lr=1e-3, momentum=0.9, weight_decay=weight_decay)
    weight.grad = gradient
    stepped.step()
    assert bool((weight > 2.0).all())
    assert bool((weight < 2.001).all())


@given(
    held=st.lists(st.integers(0, 40), min_size=1, max_size=4),
    steps=st.integers(40, 90),
    lr=st.floats(1e-4, 10.0),
)
def test_what_is_held_often_steps_shorter_from_the_next_epoch_on(held, steps, lr):
    n = len(held)
    settings = {"lr": lr, "alpha": 0.1, "beta": 0.5, "weight_decay": 0.0}
    settings = {name: torch.full((n, 1), value, dtype=torch.float64) for name, value in settings.items()}
    weights = [torch.ones(n, 4, dtype=torch.float64)]
    limit = StepLimit(Method(longest_step=0.1), settings, weights)
    settings |= {"eased": torch.ones(n, 1), "spare": torch.zeros(n, 1)}
    for _ in range(2):
        limit.measure(weights)
        limit.expect(torch.ones(steps, n, 1))
        for step in range(steps):
            size = torch.tensor([0.0 if step >= times else 3.0 for times in held], dtype=torch.float64)
            limit.hold([size[:, None] * (weights[0] / (lr * limit._reach))], settings["lr"])
        settings |= limit.eased(settings)
    for own, times in zip(settings["eased"], held, strict=True):
        # Once in twenty steps is free; each time beyond costs a fiftieth, an epoch half at most.
        kept = 1.0 - 0.02 * min(max(times - 0.05 * steps, 0.0), 25.0)
        assert own.item() == pytest.approx(kept * kept)


@given(
    epochs=st.lists(st.integers(0, 3), min_size=1, max_size=40),
    steps=st.integers(3, 19),
)
def test_short_epochs_may_have_one_in_twenty_held_as_long_ones_may(epochs, steps):
    settings = {name: torch.ones(1, 1, dtype=torch.float64) for name in ("lr", "alpha", "beta", "eased")}
    settings |= {"weight_decay": torch.zeros(1, 1), "spare": torch.zeros(1, 1, dtype=torch.float64)}
    weights = [torch.ones(1, 4, dtype=torch.float64)]
    limit = StepLimit(Method(longest_step=0.1), settings, weights)
    expected, spare = 1.0, 0.0
    for held in epochs:
        limit.expect(torch.ones(steps, 1, 1))
        for step in range(steps):
            limit.hold([weights[0] * (5.0 if step < held else 0.0)], settings["lr"])
        settings |= limit.eased(settings)
        left = steps / 20 + spare - held
        expected *= 1.0 - 0.02 * max(-left, 0.0)
        spare = max(min(left, 1.0 - steps / 20), 0.0)
        assert settings["spare"].item() == pytest.approx(spare)
        assert settings["eased"].item() == pytest.approx(expected)
    # Once in as many steps as that asks for, after a beginning of as many, costs nothing.
    every = -(-20 // steps)
    rare = {"eased": torch.ones(1, 1), "spare": torch.zeros(1, 1)}
    for epoch in range(1, 8 * every):
        limit.expect(torch.ones(steps, 1, 1))
        if epoch % every == 0:
            limit.hold([weights[0] * 5.0], settings["lr"])
        rare |= limit.eased(rare)
    assert rare["eased"].item() == 1.0


def test_the_steps_of_an_epoch_follow_those_that_were_held_before():
    population = made(1e-4, n=2)
    before = population.settings["lr"].clone()
    for epoch in range(3):
        rates = population.learning_rates(epoch)
        shorter = population.settings["lr"] * population.settings["eased"]
        torch.testing.assert_close(rates, shorter.expand_as(rates))
        population.train_epoch(rates)
    assert torch.equal(population.settings["lr"], before)
    assert bool((population.settings["eased"] < 0.9).all())
    assert population.state(0, 3).settings["eased"] == float(population.settings["eased"][0])


def test_steps_are_held_whoever_gives_them_but_for_modules():
    for given_ones in ({}, {"friction": 0.1}, {"lr": 0.1, "alpha": 0.0, "beta": 0.5}):
        assert InnaRegressor(**given_ones)._method().longest_step == 0.1
    assert InnaRegressor(longest_step=None)._method().longest_step is None
    assert InnaRegressor(longest_step=0.5)._method().longest_step == 0.5
    assert InnaRegressor(module=torch.nn.Linear)._method().longest_step is None


@pytest.mark.parametrize("task", [InnaClassifier, InnaRegressor])
def test_what_automatic_steps_come_to_trains_the_same_net_when_it_is_given(task):
    """On rows by which the curvature rises, and with little friction, so that steps are held."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1500, 4))
    y = np.sin(2 * X[:, 1]) - np.abs(X[:, 3]) + X[:, 2] * (X[:, 0] > 0)
    y = y > 0 if task is InnaClassifier else y
    settings = {"n_members": 1, "max_epochs": 3, "hidden_layer_sizes": (32, 32), "random_state": 0}
    automatic = task(**settings, friction=0.02).fit(X, y)
    free = task(**settings, friction=0.02, longest_step=None).fit(X, y)
    assert not torch.equal(automatic.weights_, free.weights_)
    used = {name: automatic.members_[0][name] for name in ("lr", "alpha", "beta")}
    assert torch.equal(automatic.weights_, task(**settings, **used).fit(X, y).weights_)


def test_a_step_that_nothing_can_be_learnt_by_diverges():
    population = made(0.1, lr=1e8)
    for epoch in range(3):
        population.train_epoch(population.learning_rates(epoch))
    assert not bool(population.flat.isfinite().all(1).any())

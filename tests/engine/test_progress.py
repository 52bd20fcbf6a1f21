"""Training broken off after any epoch and gone on with elsewhere is the training that was not broken off, bit for bit."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inna_tune.engine import CrossEntropy, Method, Population, Training
from inna_tune.nets import TabularNet
from inna_tune.optim.optimizers import OPTIMIZERS
from tests.engine.test_training import N_CLASSES, N_COLUMNS, VARIED, make_member, make_table

EPOCHS = 8
METHODS = {name: Method(name) for name in OPTIMIZERS} | {
    "Adafactor": Method(torch.optim.Adafactor),
    "inna, averaged and clipped": Method(averaging=0.9, gradient_clip=0.5),
    "inna, no step far": Method(averaging=0.9, longest_step=1e-3),
    "sgd, no step far": Method("sgd", longest_step=1e-3),
    "sgd, averaged": Method("sgd", averaging=0.95),
    "RMSprop": Method(torch.optim.RMSprop),
}


def training(members, method, progress=None, dtype=torch.float32, patience=None):
    return Training(
        TabularNet(N_COLUMNS, (8, 6), N_CLASSES),
        make_table(dtype, weighted=True),
        [replace(m, patience=patience) for m in members],
        CrossEntropy(),
        batch_size=16,
        max_epochs=EPOCHS,
        method=method,
        stacked=True,
        progress=progress,
    )


def same(ours, theirs):
    for a, b in zip(ours.results, theirs.results, strict=True):
        assert torch.equal(a.weights, b.weights)
        assert (a.best_epoch, a.epochs, a.stop_reason) == (b.best_epoch, b.epochs, b.stop_reason)
        assert (a.lr, a.alpha, a.beta) == (b.lr, b.alpha, b.beta)
        for name in ("epoch", "train_loss", "validation_loss", "lr"):
            assert a.history[name] == b.history[name]


@settings(max_examples=15, deadline=None)
@given(
    breaks=st.lists(st.integers(1, EPOCHS - 1), min_size=1, max_size=3, unique=True),
    method=st.sampled_from(sorted(METHODS)),
    places=st.lists(st.integers(0, 4), min_size=1, max_size=4, unique=True),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    patience=st.sampled_from([None, 2]),
)
def test_a_break_after_any_epochs_changes_nothing(breaks, method, places, dtype, patience):
    members = [VARIED[i] for i in places]
    if not method.startswith("inna,") and method != "inna":
        members = [replace(m, lr=0.01, alpha=0.1, beta=0.9) for m in members]
    whole = training(members, METHODS[method], dtype=dtype, patience=patience)
    whole.run()
    broken = training(members, METHODS[method], dtype=dtype, patience=patience)
    for epoch in sorted(breaks):
        broken.run(epoch)
        progress = [broken.progress(i) for i in range(len(members))]
        broken = training(members, METHODS[method], progress, dtype=dtype, patience=patience)
    broken.run()
    same(broken, whole)


def test_members_that_have_left_stay_away_and_keep_their_results():
    members = [make_member(1), make_member(2, lr=0.5), make_member(3)]
    whole = training(members, Method(), patience=1)
    whole.run()
    stops = sorted(r.epochs for r in whole.results)
    assert stops[0] < stops[-1], "the example must have members that stop at different epochs"
    broken = training(members, Method(), patience=1)
    broken.run(stops[0])
    progress = [broken.progress(i) for i in range(3)]
    assert any(p.state is None for p in progress)
    broken = training(members, Method(), progress, patience=1)
    broken.run()
    same(broken, whole)


def test_a_stop_halts_all_members_after_the_same_epoch():
    members = [make_member(1), make_member(2), make_member(3)]
    asked = []

    def stop():
        asked.append(1)
        return len(asked) > 3

    halted = training(members, Method())
    halted.run(stop=stop)
    assert {r.epochs for r in halted.results} == {3}
    whole = training(members, Method())
    whole.run()
    halted.run()
    same(halted, whole)


def test_members_at_different_epochs_are_refused():
    members = [make_member(1), make_member(2)]
    found = []
    for epoch in (1, 2):
        broken = training(members, Method())
        broken.run(epoch)
        found.append(broken.progress(0))
    with pytest.raises(ValueError, match="different epochs"):
        training(members, Method(), found)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("first", [True, False])
def test_what_was_stepped_as_in_company_goes_on_alone_and_the_other_way_round(method, first):
    """A fit of one net on a GPU, where all are stepped so, goes on on a CPU."""
    member = make_member(0, lr=0.01, alpha=0.1, beta=0.9)

    def after(layouts):
        state = None
        for epoch, stacked in enumerate(layouts):
            population = Population(
                TabularNet(N_COLUMNS, (8, 6), N_CLASSES),
                make_table(torch.float64),
                [member],
                CrossEntropy(),
                batch_size=16,
                horizon=EPOCHS,
                method=METHODS[method],
                stacked=stacked,
                states=None if state is None else [state],
            )
            population.train_epoch(population.learning_rates(epoch))
            state = population.state(0, epoch + 1)
        return population.flat

    moved, stayed = after([first, not first, first]), after([first, first, first])
    torch.testing.assert_close(moved, stayed, rtol=1e-9, atol=1e-12)

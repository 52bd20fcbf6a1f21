"""Members that are stopped together, by what they predict together."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from inna_tune.engine import CrossEntropy, Jury, Member, SquaredError, Training
from inna_tune.engine.jury import mean_loss, output_together
from inna_tune.nets import TabularNet
from tests.engine.test_training import N_CLASSES, N_COLUMNS, N_ROWS, make_member, make_table


def judged(seed, n=4, **settings):
    """Members that leave out a part of the rows each, some rows twice."""
    order, jury = np.random.default_rng(seed).permutation(N_ROWS), Jury()
    parts = [order[(15 * k) % N_ROWS :][:20] for k in range(n)]
    own = {"lr": 0.3, "alpha": 0.5, "beta": 0.2} | settings
    return [
        Member(np.setdiff1d(order, part), part, 10 * seed + k, jury=jury, **own)
        for k, part in enumerate(parts)
    ]


def train(members, *, epochs=8, until=None, table=None, **options):
    net = TabularNet(N_COLUMNS, (8, 6), N_CLASSES)
    table = make_table() if table is None else table
    training = Training(net, table, members, CrossEntropy(), batch_size=16, max_epochs=epochs, **options)
    training.run(until)
    return training


def assert_same(results, expected):
    for result, other in zip(results, expected, strict=True):
        assert torch.equal(result.weights, other.weights)
        assert (result.best_epoch, result.best_loss) == (other.best_epoch, other.best_loss)
        assert result.history["validation_loss"] == other.history["validation_loss"]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("regression", [False, True])
def test_the_loss_together_is_that_of_the_mean_of_what_a_row_has(weighted, regression):
    table = make_table(weighted=weighted, regression=regression)
    rng = np.random.default_rng(0)
    rows = [rng.choice(N_ROWS, 25, replace=False) for _ in range(3)]
    outputs = [rng.normal(size=(25, N_CLASSES)) for _ in rows]
    total, weights = 0.0, 0.0
    for row in sorted(set(np.concatenate(rows))):
        raw = torch.tensor(
            np.array([o[list(r).index(row)] for r, o in zip(rows, outputs, strict=True) if row in r])
        )
        if regression:
            loss = float((raw.mean(0) - table.target[row]).square().mean())
        else:
            loss = -float(torch.log_softmax(torch.log_softmax(raw, 1).mean(0), 0)[table.target[row]])
        weight = float(table.weight[row]) if weighted else 1.0
        total, weights = total + weight * loss, weights + weight
    loss = SquaredError() if regression else CrossEntropy()
    together = output_together(
        loss, [torch.from_numpy(r) for r in rows], [torch.from_numpy(o) for o in outputs]
    )
    found = mean_loss(loss, table, *together)
    assert found == pytest.approx(total / weights)


def test_all_keep_the_epoch_at_which_they_are_best_together():
    results = train(judged(0), epochs=20).results
    assert len({(r.best_epoch, r.best_loss) for r in results}) == 1
    own = [int(np.argmin(r.history["validation_loss"])) + 1 for r in results]
    assert len(set(own)) > 1, "each alone would keep another"


def test_patience_is_that_of_all():
    results = train(judged(0, patience=2), epochs=200).results
    assert {r.stop_reason for r in results} == {"early_stopping"}
    assert {r.epochs - r.best_epoch for r in results} == {2}


@pytest.mark.parametrize("width", [1, 3, 4, 7, None])
def test_neither_width_nor_company_changes_a_bit_and_no_jury_is_cut_apart(width):
    first, second, loner = judged(0), judged(1), make_member(5)
    training = train([*first, loner, *second], width=width, until=4)
    for stack in training._stacks:
        for members in ([0, 1, 2, 3], [5, 6, 7, 8]):
            assert set(members) <= set(stack.active) or set(members).isdisjoint(stack.active)
    training.run()
    assert_same(training.results[:4], train(first, stacked=True).results)
    assert_same(training.results[5:], train(second, stacked=True).results)


def test_a_break_changes_nothing():
    members = judged(0)
    halted = train(members, until=3)
    going_on = train(members, progress=[halted.progress(i) for i in range(4)])
    assert_same(going_on.results, train(members).results)


def test_who_diverges_leaves_and_the_others_are_judged_without():
    members = judged(0)
    members[1] = replace(members[1], lr=1e6)
    results = train(members).results
    assert results[1].stop_reason == "diverged"
    for i in (0, 2, 3):
        assert np.isfinite(results[i].best_loss)
        assert results[i].epochs == 8


def test_what_the_first_measures_is_all_of_theirs():
    open_ones = {"lr": None, "alpha": None, "beta": None}
    together = [r.curvature for r in train(judged(0, **open_ones), until=1, width=9).results]
    assert len(set(together)) == 1
    beside = [*judged(1, **open_ones), make_member(5, **open_ones), *judged(0, **open_ones)]
    found = [r.curvature for r in train(beside, until=1, width=9).results]
    assert found[5:] == together
    assert len(set(found)) == 3


def test_where_memory_runs_out_a_jury_is_not_halved(monkeypatch, caplog):
    members = [*judged(0), *judged(1)]
    expected = train(members).results
    training = train(members, until=2, width=8)
    stack, ran = training._stacks[0], []

    def run(until, **kwargs):
        ran.append(until)
        raise torch.OutOfMemoryError("no more")

    monkeypatch.setattr(stack, "run", run)
    training.run()
    assert ran == [3]
    assert "going on with half as many" in caplog.text
    assert_same(training.results, expected)
